// Package flaky wraps a presentation provider and takes away what networks take
// away: replies, after the effect, and machines, in the middle of a session.
package flaky

import (
	"context"
	"io"
	"sync/atomic"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/presentation/driver"
)

// Provider wraps another. The zero values of its fields take nothing away.
type Provider struct {
	driver.Provider
	Lose int64 // every so many replies one is lost: fault.Unavailable
	Cut  int64 // after so many bytes from its machine a session loses it

	replies atomic.Int64
}

// Unwrap returns the wrapped provider; see driver.As.
func (p *Provider) Unwrap() driver.Provider { return p.Provider }

// lost counts a reply and replaces its error when it is lost.
func (p *Provider) lost(err error, call string) error {
	if p.Lose > 0 && p.replies.Add(1)%p.Lose == 0 {
		return fault.Unavailable.Errorf("%s: reply lost", call)
	}
	return err
}

// Describe implements driver.Provider.
func (p *Provider) Describe(ctx context.Context) (estate.PresentationOffer, error) {
	o, err := p.Provider.Describe(ctx)
	if err = p.lost(err, "describe"); err != nil {
		return estate.PresentationOffer{}, err
	}
	return o, nil
}

// Serve implements driver.Provider.
func (p *Provider) Serve(ctx context.Context, s driver.Session) error {
	if p.Cut > 0 {
		c := &cut{ReadWriteCloser: s.Machine}
		c.left.Store(p.Cut)
		s.Machine = c
	}
	return p.lost(p.Provider.Serve(ctx, s), "serve")
}

// File implements driver.Provider.
func (p *Provider) File(ctx context.Context, h driver.Handoff) (driver.File, error) {
	f, err := p.Provider.File(ctx, h)
	if err = p.lost(err, "file"); err != nil {
		return driver.File{}, err
	}
	return f, nil
}

// cut ends after some bytes.
type cut struct {
	io.ReadWriteCloser
	left atomic.Int64
}

func (c *cut) Read(b []byte) (int, error) {
	left := c.left.Load()
	if left <= 0 {
		return 0, io.EOF
	}
	n, err := c.ReadWriteCloser.Read(b[:min(int64(len(b)), left)])
	c.left.Add(-int64(n))
	return n, err
}

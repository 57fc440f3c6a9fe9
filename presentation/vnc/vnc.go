// Package vnc presents the screen a hypervisor draws, by the remote framebuffer
// protocol. It ends the protocol towards the viewer and begins it anew towards
// the machine: what is not understood does not cross.
package vnc

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/presentation/driver"
)

// secretLength is what the classic challenge looks at. Eight characters of 64
// are 48 bits: enough for one try within the half minute a ticket lives.
const secretLength = 8

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// openingTime is how long both openings may take together.
const openingTime = 20 * time.Second

// Config is what the provider is given.
type Config struct {
	Random io.Reader // makes challenges
}

// Provider implements driver.Provider and driver.Secreter.
type Provider struct {
	config  Config
	buffers sync.Pool // lent to sessions while they carry an update
}

var (
	_ driver.Provider = (*Provider)(nil)
	_ driver.Secreter = (*Provider)(nil)
)

// New returns the provider.
func New(c Config) *Provider {
	return &Provider{config: c, buffers: sync.Pool{New: func() any { return bufio.NewWriterSize(nil, updateBuffer) }}}
}

// Describe implements driver.Provider.
func (p *Provider) Describe(ctx context.Context) (estate.PresentationOffer, error) {
	return estate.PresentationOffer{
		Name: "vnc", Version: "1", Protocol: "rfb", Browser: true, File: "vv", Keeps: true,
	}, ctx.Err()
}

// NewSecret implements driver.Secreter.
func (p *Provider) NewSecret(random io.Reader) (string, error) {
	b := make([]byte, secretLength)
	if _, err := io.ReadFull(random, b); err != nil {
		return "", fault.Internal.Errorf("make a secret: %w", err)
	}
	for i := range b {
		b[i] = alphabet[b[i]&63]
	}
	return string(b), nil
}

// File implements driver.Provider: a connection file of virt-viewer, which
// deletes it after reading.
func (p *Provider) File(ctx context.Context, h driver.Handoff) (driver.File, error) {
	var b strings.Builder
	b.WriteString("[virt-viewer]\ntype=vnc\n")
	fmt.Fprintf(&b, "host=%s\nport=%d\n", value(h.Host), h.Port)
	if h.Secret != "" {
		fmt.Fprintf(&b, "password=%s\n", value(h.Secret))
	}
	if h.Title != "" {
		fmt.Fprintf(&b, "title=%s\n", value(h.Title))
	}
	b.WriteString("delete-this-file=1\n")
	return driver.File{Name: "desktop.vv", Type: "application/x-virt-viewer", Content: []byte(b.String())}, ctx.Err()
}

// value writes a string as a key file's value.
func value(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	return strings.ReplaceAll(s, `\`, `\\`)
}

// Serve implements driver.Provider.
func (p *Provider) Serve(ctx context.Context, s driver.Session) error {
	r := newRelay(s, &p.buffers)
	done := make(chan error, 1)
	go func() {
		done <- r.run(ctx, rfb.Guard{Password: s.Secret, Random: p.config.Random})
		close(r.events)
	}()
	for e := range r.events {
		if s.Report != nil {
			s.Report(e)
		}
	}
	return <-done
}

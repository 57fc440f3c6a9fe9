package remote

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/splice"
	"consort.dev/consort/presentation/driver"
)

// Dial opens a connection to the process that runs Serve.
type Dial func(ctx context.Context) (net.Conn, error)

// Open returns the provider that the process at dial serves. It implements
// driver.Secreter when that one does.
func Open(ctx context.Context, dial Dial) (driver.Provider, error) {
	p := &provider{dial}
	a, err := p.call(ctx, request{Call: callDescribe})
	switch {
	case err != nil:
		return nil, err
	case a.Secreter:
		return &secretive{p}, nil
	}
	return p, nil
}

// provider implements driver.Provider.
type provider struct{ dial Dial }

// open dials and sends the first line. The connection ends with ctx.
func (p *provider) open(ctx context.Context, q request) (*line, func() bool, error) {
	c, err := p.dial(ctx)
	if err != nil {
		return nil, nil, fault.Unavailable.Errorf("reach the provider's process: %w", err)
	}
	l := newLine(c)
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	if err := l.say(q); err != nil {
		stop()
		_ = l.Close()
		return nil, nil, lostReply(ctx, err)
	}
	return l, stop, nil
}

// lostReply is what a broken connection means; the context's end is itself.
func lostReply(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fault.Unavailable.Errorf("the provider's process went away: %w", err)
}

// call asks and waits for the one reply.
func (p *provider) call(ctx context.Context, q request) (reply, error) {
	l, stop, err := p.open(ctx, q)
	if err != nil {
		return reply{}, err
	}
	defer stop()
	defer l.Close()
	var a reply
	if err := l.hear(&a); err != nil {
		return reply{}, lostReply(ctx, err)
	}
	return a, a.err()
}

// Describe implements driver.Provider.
func (p *provider) Describe(ctx context.Context) (estate.PresentationOffer, error) {
	a, err := p.call(ctx, request{Call: callDescribe})
	return a.Offer, err
}

// File implements driver.Provider.
func (p *provider) File(ctx context.Context, h driver.Handoff) (driver.File, error) {
	a, err := p.call(ctx, request{Call: callFile, Handoff: h})
	return a.File, err
}

// Serve implements driver.Provider.
func (p *provider) Serve(ctx context.Context, s driver.Session) error {
	defer s.Viewer.Close()
	defer s.Machine.Close()
	l, stop, err := p.open(ctx, request{Call: callServe, Title: s.Title, Secret: s.Secret, Policy: s.Policy, Shut: s.Shut()})
	if err != nil {
		return err
	}
	defer stop()
	defer l.Close()
	var a reply
	if err := l.hear(&a); err != nil {
		return lostReply(ctx, err)
	}
	if err := a.err(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	told := make(chan struct{}, 2) // an end has got all there was for it
	for call, end := range map[string]io.ReadWriteCloser{callViewer: s.Viewer, callMachine: s.Machine} {
		far, stop, err := p.open(ctx, request{Call: call, Session: a.Session})
		if err != nil {
			return err
		}
		defer stop()
		defer end.Close()
		wg.Go(func() {
			splice.Join(ctx, end, far)
			told <- struct{}{}
		})
	}
	over := make(chan struct{})
	defer close(over)
	if s.Own != nil {
		wg.Go(func() {
			select {
			case <-s.Own:
				_ = l.say(news{Own: true}) // a session whose process is gone ends by itself
			case <-over:
			}
		})
	}
	err = p.follow(ctx, l, s.Report)
	late := time.NewTimer(lastWords)
	defer late.Stop()
	for range 2 {
		select {
		case <-told:
		case <-late.C:
		case <-ctx.Done():
		}
	}
	return err
}

// lastWords is how long an end may take to hear what was said last.
const lastWords = 500 * time.Millisecond

// follow passes events on and returns how the session ended.
func (p *provider) follow(ctx context.Context, l *line, report func(driver.Event)) error {
	for {
		var a reply
		if err := l.hear(&a); err != nil {
			return lostReply(ctx, err)
		}
		switch {
		case a.Done && ctx.Err() != nil:
			return ctx.Err()
		case a.Done:
			return a.err()
		case a.Event != nil && report != nil:
			report(*a.Event)
		}
	}
}

// secretive is a provider whose viewers show secrets.
type secretive struct{ *provider }

// NewSecret implements driver.Secreter.
func (p *secretive) NewSecret(random io.Reader) (string, error) {
	b := make([]byte, secretBytes)
	if _, err := io.ReadFull(random, b); err != nil {
		return "", fault.Internal.Errorf("make a secret: %w", err)
	}
	a, err := p.call(context.Background(), request{Call: callSecret, Random: b})
	return a.Secret, err
}

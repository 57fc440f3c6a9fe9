// Package presentation is what callers use of the presentation layer: ways in
// which a desktop reaches the person who works on it.
package presentation

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"sync"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/presentation/driver"
)

// The values callers and drivers exchange; package driver says what they mean.
type (
	Session = driver.Session
	Policy  = driver.Policy
	Event   = driver.Event
	Handoff = driver.Handoff
	File    = driver.File
)

// Provider is one way of presenting a desktop. It checks what it is given,
// closes what it was handed whatever the driver does, and puts the provider's
// name into errors. It is safe for concurrent use.
type Provider struct {
	driver driver.Provider
	offer  estate.PresentationOffer
}

// Open asks the driver what it offers and returns it ready for use. An offer
// without a name or a protocol is fault.Internal.
func Open(ctx context.Context, d driver.Provider) (*Provider, error) {
	o, err := again(ctx, func() (estate.PresentationOffer, error) { return d.Describe(ctx) })
	if err != nil {
		return nil, wrap(err, "describe a presentation provider")
	}
	if t := estate.NameProblem(o.Name); t != "" || o.Protocol == "" {
		return nil, fault.Internal.Errorf("presentation provider offers name %q and protocol %q: both are needed %s", o.Name, o.Protocol, t)
	}
	return &Provider{d, o}, nil
}

// Offer returns what the provider needs and offers.
func (p *Provider) Offer() estate.PresentationOffer { return p.offer }

// Serve carries one session until the viewer or the machine ends it, which is
// success, or ctx ends. Both ends are closed when it returns. Events arrive one
// at a time, the once-only ones once.
func (p *Provider) Serve(ctx context.Context, s Session) error {
	if s.Viewer == nil || s.Machine == nil {
		return fault.Internal.Errorf("present by %s: an end is missing", p.offer.Name)
	}
	viewer, machine := &onceCloser{ReadWriteCloser: s.Viewer}, &onceCloser{ReadWriteCloser: s.Machine}
	defer viewer.Close()
	defer machine.Close()
	s.Viewer, s.Machine = viewer, machine
	if s.Secret != "" && !p.HasSecret() {
		return fault.Unsupported.Errorf("present by %s: its viewers show no secret", p.offer.Name)
	}
	if s.Policy.Clipboard.MaxBytes == 0 {
		s.Policy.Clipboard.MaxBytes = estate.MiB
	}
	s.Report = once(s.Report)
	return wrap(p.driver.Serve(ctx, s), "present by "+p.offer.Name)
}

// File returns what a native viewer opens. An address or port that cannot be
// one is fault.Invalid; a provider without files is fault.Unsupported.
func (p *Provider) File(ctx context.Context, h Handoff) (File, error) {
	if p.offer.File == "" {
		return File{}, fault.Unsupported.Errorf("%s has no file for native viewers; open the desktop in the portal", p.offer.Name)
	}
	if _, err := netip.ParseAddr(h.Host); err != nil && !hostname(h.Host) {
		return File{}, fault.Invalid.Errorf("file for %s: %q is not a host", p.offer.Name, h.Host)
	}
	if h.Port < 1 || h.Port > 65535 {
		return File{}, fault.Invalid.Errorf("file for %s: port %d is not between 1 and 65535", p.offer.Name, h.Port)
	}
	f, err := again(ctx, func() (File, error) { return p.driver.File(ctx, h) })
	return f, wrap(err, "file for "+p.offer.Name)
}

// again asks up to three times while the answer is that nobody answers. It is
// for what changes nothing; a session is never served twice.
func again[T any](ctx context.Context, ask func() (T, error)) (out T, err error) {
	for range 3 {
		out, err = ask()
		if fault.KindOf(err) != fault.Unavailable || err == nil || ctx.Err() != nil {
			break
		}
	}
	return out, err
}

// hostname reports whether every label of the host is a name.
func hostname(s string) bool {
	for label := range strings.SplitSeq(strings.ToLower(s), ".") {
		if estate.NameProblem(label) != "" {
			return false
		}
	}
	return true
}

// HasSecret reports whether viewers can show a secret.
func (p *Provider) HasSecret() bool {
	_, ok := driver.As[driver.Secreter](p.driver)
	return ok
}

// NewSecret returns a fresh secret for one viewer, made from random. Viewers
// that show none are fault.Unsupported.
func (p *Provider) NewSecret(random io.Reader) (string, error) {
	s, ok := driver.As[driver.Secreter](p.driver)
	if !ok {
		return "", fault.Unsupported.Errorf("viewers of %s show no secret", p.offer.Name)
	}
	secret, err := s.NewSecret(random)
	return secret, wrap(err, "secret for "+p.offer.Name)
}

// once returns a report that drops the second of an event that happens once,
// and lets one call through at a time.
func once(report func(Event)) func(Event) {
	if report == nil {
		return func(Event) {}
	}
	var mu sync.Mutex
	seen := map[driver.EventName]bool{}
	return func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		switch e.Name {
		case driver.FirstFrame, driver.FirstInput, driver.Idle, driver.ViewerAccepted, driver.ViewerGone, driver.MachineGone:
			if seen[e.Name] {
				return
			}
			seen[e.Name] = true
		}
		report(e)
	}
}

// onceCloser closes once, so that driver and caller may both do it.
type onceCloser struct {
	io.ReadWriteCloser
	once sync.Once
	err  error
}

func (c *onceCloser) Close() error {
	c.once.Do(func() { c.err = c.ReadWriteCloser.Close() })
	return c.err
}

// wrap adds what was tried and keeps the kind; the end of a context stays
// itself.
func wrap(err error, what string) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fault.KindOf(err).Errorf("%s: %w", what, err)
}

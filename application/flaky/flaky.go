// Package flaky wraps an application provider and makes it fail as real ones
// do: before the effect, or after it when only the reply is lost.
package flaky

import (
	"context"
	"math/rand/v2"
	"sync"

	"consort.dev/consort/application/driver"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// Losses says how often something goes wrong, each from 0 to 1.
type Losses struct {
	Before float64 // the call does not arrive: fault.Unavailable
	After  float64 // the call happens, its reply is lost: fault.OutcomeUnknown
}

// Provider loses calls and replies of the provider it wraps.
type Provider struct {
	inner  driver.Provider
	losses Losses

	mu     sync.Mutex
	chance *rand.Rand
	lost   int
}

// New returns p, made unreliable. The same seed gives the same losses in the
// same order of calls.
func New(p driver.Provider, losses Losses, seed uint64) *Provider {
	return &Provider{inner: p, losses: losses, chance: rand.New(rand.NewPCG(seed, seed))}
}

// Lost returns how many calls and replies were lost so far.
func (p *Provider) Lost() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// Unwrap returns the wrapped provider; see driver.As.
func (p *Provider) Unwrap() driver.Provider { return p.inner }

// Describe implements driver.Provider. It is never lost: it is asked once, when
// a provider is opened.
func (p *Provider) Describe(ctx context.Context) (estate.DeliveryOffer, error) {
	return p.inner.Describe(ctx)
}

// Attach implements driver.Provider.
func (p *Provider) Attach(ctx context.Context, m driver.Machine, l driver.Layer) error {
	return p.try("attach", func() error { return p.inner.Attach(ctx, m, l) })
}

// Attached implements driver.Provider.
func (p *Provider) Attached(ctx context.Context, m driver.Machine) (ds []estate.Digest, err error) {
	err = p.try("attached", func() error {
		ds, err = p.inner.Attached(ctx, m)
		return err
	})
	if err != nil {
		return nil, err
	}
	return ds, nil
}

// Start implements driver.Provider.
func (p *Provider) Start(ctx context.Context, m driver.Machine, l driver.Layer, app driver.Launch) error {
	return p.try("start", func() error { return p.inner.Start(ctx, m, l, app) })
}

// Detach implements driver.Provider.
func (p *Provider) Detach(ctx context.Context, m driver.Machine, layer estate.Digest) error {
	return p.try("detach", func() error { return p.inner.Detach(ctx, m, layer) })
}

// try does the effect unless the call is lost before it. Failures of the
// effect itself are passed on.
func (p *Provider) try(verb string, effect func() error) error {
	if p.lose(p.losses.Before) {
		return fault.Unavailable.Errorf("%s: the call was lost", verb)
	}
	err := effect()
	if err == nil && p.lose(p.losses.After) {
		return fault.OutcomeUnknown.Errorf("%s: the reply was lost", verb)
	}
	return err
}

func (p *Provider) lose(chance float64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	lost := chance > 0 && p.chance.Float64() < chance
	if lost {
		p.lost++
	}
	return lost
}

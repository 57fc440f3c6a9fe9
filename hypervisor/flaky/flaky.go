// Package flaky wraps a hypervisor driver and makes it fail as real ones do:
// before the effect, by delay, and by losing the reply after the effect. Who
// uses it must converge all the same.
package flaky

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// Options say how often what goes wrong, in calls of a hundred. The same seed
// and the same order of calls fail alike.
type Options struct {
	Seed  uint64
	Fails int           // calls that are fault.Unavailable; nothing was done
	Loses int           // calls that are done and answered by fault.OutcomeUnknown
	Busy  int           // calls that are fault.Busy; nothing was done
	Delay time.Duration // calls take up to this much longer
}

// New returns a driver with the abilities of h that goes wrong as opt says.
// Describe never fails: it is asked before anything begins.
func New(h driver.Host, opt Options) driver.Host {
	return driver.Limit(&host{
		inner: h,
		opt:   opt,
		rand:  rand.New(rand.NewPCG(opt.Seed, 0)),
	}, func(c estate.Capability) bool { return driver.Implements(h, c) })
}

// host implements every ability; New shows those that inner has.
type host struct {
	inner driver.Host
	opt   Options

	mu   sync.Mutex
	rand *rand.Rand
}

// do makes one call, or does not, and passes its answer on, or does not.
func (h *host) do(ctx context.Context, call func() error) error {
	h.mu.Lock()
	fate, pause := h.rand.IntN(100), time.Duration(0)
	if h.opt.Delay > 0 {
		pause = time.Duration(h.rand.Int64N(int64(h.opt.Delay)))
	}
	h.mu.Unlock()
	if pause > 0 {
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
	if fate -= h.opt.Fails; fate < 0 {
		return fault.Unavailable.Errorf("nothing was done (flaky)")
	}
	if fate -= h.opt.Busy; fate < 0 {
		return fault.Busy.Errorf("something else is being done (flaky)")
	}
	err := call()
	if fate -= h.opt.Loses; fate < 0 && err == nil {
		return fault.OutcomeUnknown.Errorf("the reply was lost (flaky)")
	}
	return err
}

// Describe implements driver.Host.
func (h *host) Describe(ctx context.Context) (driver.Description, error) {
	return h.inner.Describe(ctx)
}

// List implements driver.Host.
func (h *host) List(ctx context.Context) (all []driver.Machine, err error) {
	err = h.do(ctx, func() (err error) { all, err = h.inner.List(ctx); return err })
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Define implements driver.Host.
func (h *host) Define(ctx context.Context, def driver.Definition) error {
	return h.do(ctx, func() error { return h.inner.Define(ctx, def) })
}

// Start implements driver.Host.
func (h *host) Start(ctx context.Context, id estate.MachineID) error {
	return h.do(ctx, func() error { return h.inner.Start(ctx, id) })
}

// Stop implements driver.Host.
func (h *host) Stop(ctx context.Context, id estate.MachineID, grace time.Duration) error {
	return h.do(ctx, func() error { return h.inner.Stop(ctx, id, grace) })
}

// Delete implements driver.Host.
func (h *host) Delete(ctx context.Context, id estate.MachineID) error {
	return h.do(ctx, func() error { return h.inner.Delete(ctx, id) })
}

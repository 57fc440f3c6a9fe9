// Package hypervisor runs machines on hosts. Its Host wraps a driver and holds
// everything drivers would otherwise repeat: validation, capability checks,
// deadlines, retries and the naming of errors.
package hypervisor

import (
	"context"
	"errors"
	"slices"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// How long a driver may take before we stop waiting for it. Generous: software
// emulation on a loaded host is slow; a caller's own deadline may be shorter.
const (
	askLimit      = 20 * time.Second // questions
	actLimit      = 2 * time.Minute  // effects
	saveLimit     = 15 * time.Minute // all of a machine's memory, to a slow disk
	transferLimit = 12 * time.Hour   // whole disks
)

// Busy drivers are asked again after firstPause, then after twice as long each
// time; the pauses sum to some 6 s.
const (
	firstPause = 100 * time.Millisecond
	attempts   = 7
)

// Host is a place where machines run. It is safe for concurrent use.
type Host struct {
	name string
	drv  driver.Host
	desc driver.Description

	shown []Shown
}

// Open returns the host that drv drives, under the operator's name for it.
func Open(ctx context.Context, name string, drv driver.Host) (*Host, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	desc, err := drv.Describe(ctx)
	if err != nil {
		return nil, named(err, "open hypervisor %s: %w", name, err)
	}
	shown, err := Evidence()
	if err != nil {
		return nil, err
	}
	return &Host{name: name, drv: drv, desc: believed(desc, shown), shown: shown}, nil
}

// Name returns the operator's name for the host.
func (h *Host) Name() string { return h.name }

// Description returns what the host said of itself when it was opened.
func (h *Host) Description() driver.Description { return h.desc }

// Describe asks the host again; only its capacity may have changed.
func (h *Host) Describe(ctx context.Context) (driver.Description, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	d, err := h.drv.Describe(ctx)
	return believed(d, h.shown), h.named(err, "describe it")
}

// Can returns what the host says of a capability for its usual type of guest.
func (h *Host) Can(c estate.Capability) estate.CapabilityReport { return h.desc.Can(c) }

// CanFor returns what the host says of a capability for a type of guest.
func (h *Host) CanFor(guestType string, c estate.Capability) estate.CapabilityReport {
	return h.desc.CanFor(guestType, c)
}

// List returns every machine the host holds, in order of ID.
func (h *Host) List(ctx context.Context) ([]driver.Machine, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	ms, err := h.drv.List(ctx)
	return ms, h.named(err, "list machines")
}

// Get returns one machine. An unknown ID is fault.NotFound.
func (h *Host) Get(ctx context.Context, id estate.MachineID) (driver.Machine, error) {
	ms, err := h.List(ctx)
	if err != nil {
		return driver.Machine{}, err
	}
	i := slices.IndexFunc(ms, func(m driver.Machine) bool { return m.ID == id })
	if i < 0 {
		return driver.Machine{}, fault.NotFound.Errorf("hypervisor %s has no machine %s", h.name, id)
	}
	return ms[i], nil
}

// Define makes the machine, powered off. A definition that cannot make a
// machine is fault.Invalid; for the rest see driver.Host.
func (h *Host) Define(ctx context.Context, def driver.Definition) error {
	if err := h.check(def); err != nil {
		return h.named(err, "define machine %s", def.ID)
	}
	err := h.act(ctx, actLimit, func(ctx context.Context) error { return h.drv.Define(ctx, def) },
		func(ctx context.Context) (bool, error) {
			m, err := h.Get(ctx, def.ID)
			return err == nil && m.Def.Equal(def), err
		})
	return h.named(err, "define machine %s", def.ID)
}

// Start powers the machine on, once, even when replies get lost.
func (h *Host) Start(ctx context.Context, id estate.MachineID) error {
	before, err := h.Get(ctx, id)
	if err != nil {
		return err
	}
	err = h.act(ctx, actLimit, func(ctx context.Context) error { return h.drv.Start(ctx, id) },
		func(ctx context.Context) (bool, error) {
			m, err := h.Get(ctx, id)
			return err == nil && (m.Power == estate.On || m.Starts > before.Starts), err
		})
	return h.named(err, "start machine %s", id)
}

// Stop powers the machine off, giving the guest grace to go by itself.
func (h *Host) Stop(ctx context.Context, id estate.MachineID, grace time.Duration) error {
	err := h.act(ctx, actLimit+grace, func(ctx context.Context) error { return h.drv.Stop(ctx, id, max(0, grace)) },
		func(ctx context.Context) (bool, error) {
			m, err := h.Get(ctx, id)
			return err == nil && m.Power == estate.Off, err
		})
	return h.named(err, "stop machine %s", id)
}

// Delete stops the machine at once and removes it with the disks Define made.
func (h *Host) Delete(ctx context.Context, id estate.MachineID) error {
	err := h.act(ctx, actLimit, func(ctx context.Context) error { return h.drv.Delete(ctx, id) },
		func(ctx context.Context) (bool, error) {
			_, err := h.Get(ctx, id)
			if errors.Is(err, fault.NotFound) {
				return true, nil
			}
			return false, err
		})
	return h.named(err, "delete machine %s", id)
}

// act has the driver do something that may be repeated. Busy drivers are asked
// again. A lost reply is looked up with done, until that has an answer; where
// done is nil or says no, the act is repeated, which the driver's contract makes
// harmless.
func (h *Host) act(ctx context.Context, limit time.Duration, do func(context.Context) error, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	pause, look := firstPause, false
	var err error
	for try := 1; ; try++ {
		if !look {
			err = do(ctx)
		}
		unknown := errors.Is(err, fault.OutcomeUnknown)
		if unknown && done != nil {
			ok, ask := done(ctx)
			if ok && ask == nil {
				return nil
			}
			look = ask != nil
		}
		if !unknown && !errors.Is(err, fault.Busy) || try == attempts {
			return err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
		pause *= 2
	}
}

// named says on which host what was tried, keeping err's kind.
func (h *Host) named(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return named(err, "hypervisor %s: "+format+": %w", append(append([]any{h.name}, args...), err)...)
}

// named gives an error that nobody classified the kind its cause implies: a
// deadline means that we do not know, so that callers read again.
func named(err error, format string, args ...any) error {
	kind := fault.KindOf(err)
	if kind == fault.Internal && errors.Is(err, context.DeadlineExceeded) {
		kind = fault.OutcomeUnknown
	}
	if kind == fault.Internal && errors.Is(err, context.Canceled) {
		kind = fault.OutcomeUnknown
	}
	return kind.Errorf(format, args...)
}

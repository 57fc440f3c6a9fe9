package libvirt

import (
	"context"
	"errors"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/virtrpc"
)

// A power-on is counted once, whatever crashes. The domain is started with its
// guest halted; then the number in its definition grows; then the guest is let
// go, and the copy of the record in the running domain says Up. Until it does,
// the power-on has been counted exactly if the number in the definition is
// larger than that of the copy, which was taken before; and since the guest has
// not run an instruction, it cannot have powered off by itself meanwhile. A
// power-on that others began, with virsh for instance, is counted when it is
// first seen; one after which the machine went off again before that is not.

// active reports whether a domain in that state has its power on.
func active(s virtrpc.State) bool {
	switch s {
	case virtrpc.Running, virtrpc.Blocked, virtrpc.Paused, virtrpc.PMSuspended, virtrpc.ShutDown:
		return true
	}
	return false
}

// look returns a machine as the daemon has it. It never waits for its turn.
func (h *Host) look(ctx context.Context, id estate.MachineID) (driver.Machine, error) {
	r, err := h.record(ctx, id)
	if err != nil {
		return driver.Machine{}, err
	}
	m := driver.Machine{ID: id, Power: estate.PowerUnknown, Starts: r.Starts, Def: r.Def}
	state, _, err := h.conn.State(ctx, string(id))
	switch {
	case errors.Is(err, fault.NotFound) || ctx.Err() != nil:
		return driver.Machine{}, err
	case err != nil: // it may run or not
	case state == virtrpc.ShutOff:
		m.Power = estate.Off
	case active(state):
		m.Power = h.seenOn(ctx, &r, state)
		m.Starts = r.Starts
		if m.Power == estate.On {
			m.Started = r.Started
		}
	}
	return m, nil
}

// seenOn completes a power-on that was cut short, or that others began, unless
// somebody is at it.
func (h *Host) seenOn(ctx context.Context, r *record, state virtrpc.State) estate.Power {
	_, settled, err := h.copy(ctx, r.Def.ID)
	if err == nil && !settled {
		if give, ok := h.tryTake(r.Def.ID); ok {
			defer give()
			*r, err = h.settle(ctx, *r, false)
			settled = err == nil
		}
	}
	if err != nil || state == virtrpc.Paused && !settled {
		return estate.PowerUnknown
	}
	return estate.On
}

// copy returns the copy of the record that a running domain has, and whether
// its power-on is settled. A domain that is off is fault.NotFound.
func (h *Host) copy(ctx context.Context, id estate.MachineID) (live record, settled bool, err error) {
	if live, err = h.marked(ctx, id, virtrpc.Live); err != nil {
		return live, false, err
	}
	number, err := h.conn.Number(ctx, string(id))
	return live, live.Up == number, err
}

// settle counts the power-on of a domain that is on and lets its guest go,
// unless that has been done. Started says that the caller has just started it:
// its number is that of memory saved before the daemon began to count anew, if
// it is one that was settled. Callers hold the turn.
func (h *Host) settle(ctx context.Context, r record, started bool) (record, error) {
	id := r.Def.ID
	live, settled, err := h.copy(ctx, id)
	if errors.Is(err, fault.NotFound) || errors.Is(err, fault.Conflict) {
		return r, fault.Busy.Errorf("machine %s has just powered off", id)
	}
	if err != nil || settled && !started {
		return r, err
	}
	if r, err = h.record(ctx, id); err != nil { // again, for it was read without the turn
		return r, err
	}
	if r.Starts == live.Starts {
		r.Starts, r.Started = r.Starts+1, time.Now().UTC()
		if err := h.note(ctx, r, virtrpc.Config); err != nil {
			return r, err
		}
	}
	state, reason, err := h.conn.State(ctx, string(id))
	if err != nil {
		return r, err
	}
	if state == virtrpc.Paused && resumable(reason) {
		if err := h.conn.Resume(ctx, string(id)); err != nil {
			return r, err
		}
	}
	up := r
	if up.Up, err = h.conn.Number(ctx, string(id)); err != nil {
		return r, err
	}
	return r, h.note(ctx, up, virtrpc.Live)
}

// resumable reports whether a domain is paused for the reason that a start of
// ours leaves: it is started so, or brought back from saved memory so. One that
// is on its way to another host has a job that keeps us out.
func resumable(reason int) bool { return reason == virtrpc.ByUser || reason == virtrpc.WithState }

// Start implements driver.Host.
func (h *Host) Start(ctx context.Context, id estate.MachineID) error {
	r, give, err := h.existing(ctx, id)
	if err != nil {
		return err
	}
	defer give()
	state, _, err := h.conn.State(ctx, string(id))
	if err != nil {
		return err
	}
	started := false
	if state == virtrpc.ShutOff {
		err := h.conn.CreatePaused(ctx, string(id))
		if started = err == nil; !started {
			// An earlier call may have had it started since.
			if state, _, again := h.conn.State(ctx, string(id)); again != nil || !active(state) {
				return err
			}
		}
	}
	_, err = h.settle(ctx, r, started)
	return err
}

// Stop implements driver.Host.
func (h *Host) Stop(ctx context.Context, id estate.MachineID, grace time.Duration) error {
	_, give, err := h.existing(ctx, id)
	if err != nil {
		return err
	}
	defer give()
	return h.stop(ctx, id, grace)
}

// endLimit is how long a process may take to end once its plug is pulled: the
// daemon itself kills it after 15 s.
const endLimit = 25 * time.Second

// stop powers the machine off. Callers hold the turn.
func (h *Host) stop(ctx context.Context, id estate.MachineID, grace time.Duration) error {
	state, _, err := h.conn.State(ctx, string(id))
	if err != nil || state == virtrpc.ShutOff {
		return err
	}
	if grace > 0 && h.askToGo(ctx, id) {
		if err := h.awaitOff(ctx, id, grace); err == nil || ctx.Err() != nil {
			return err
		}
	}
	if err := h.conn.Destroy(ctx, string(id)); err != nil {
		if state, _, again := h.conn.State(ctx, string(id)); again != nil || state != virtrpc.ShutOff {
			return err
		}
	}
	return h.awaitOff(ctx, id, endLimit)
}

// askToGo asks the guest to power off, by its power button and through its
// agent: desktops without a login daemon hear no button. It reports whether
// there is anything to wait for.
func (h *Host) askToGo(ctx context.Context, id estate.MachineID) bool {
	if h.conn.Shutdown(ctx, string(id), virtrpc.ByButton) != nil {
		return false
	}
	if h.listens(ctx, id) == nil {
		short, cancel := context.WithTimeout(ctx, agentLimit)
		defer cancel()
		agent := h.agent(id)
		defer agent.Close()
		agent.Shutdown(short) // one that does not answer has the button
	}
	return true
}

// awaitOff waits until the daemon says that the machine is off.
func (h *Host) awaitOff(ctx context.Context, id estate.MachineID, limit time.Duration) error {
	late := time.NewTimer(limit)
	defer late.Stop()
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		state, _, err := h.conn.State(ctx, string(id))
		if err != nil || state == virtrpc.ShutOff {
			return err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-late.C:
			t.Stop()
			return fault.Busy.Errorf("machine %s is still powering off", id)
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

// Pauses between looks at what the daemon or a guest takes its time for.
const (
	firstLook = 10 * time.Millisecond
	lastLook  = 250 * time.Millisecond
)

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

package xen

import (
	"context"
	"errors"
	"os"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// tellDefinition gives libvirt the machine's definition, over an older one.
func (m *machine) tellDefinition(ctx context.Context) error {
	xml, err := m.definition()
	if err != nil {
		return err
	}
	return m.host.calls.Define(ctx, xml)
}

// undefineSaved is VIR_DOMAIN_UNDEFINE_MANAGED_SAVE, the one flag that libvirt's
// driver for Xen takes.
const undefineSaved = 1

// undefine takes the machine, which is off, from libvirt, with saved memory.
func (m *machine) undefine(ctx context.Context) error {
	err := m.host.calls.UndefineWith(ctx, string(m.id), undefineSaved)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// Start implements driver.Host.
func (h *host) Start(ctx context.Context, id estate.MachineID) error {
	return h.actOn(ctx, id, func(ctx, steady context.Context, m *machine) error {
		switch m.power(ctx) {
		case estate.On:
			return m.count()
		case estate.PowerUnknown:
			return m.mustBe(ctx, estate.Off)
		}
		m.hangUp() // on an agent of an earlier life
		if err := errors.Join(os.RemoveAll(m.run), os.Mkdir(m.run, 0o700)); err != nil {
			return err
		}
		if r, _ := m.record(); r.Adopted == "" {
			if err := m.tellDefinition(steady); err != nil {
				return err
			}
		}
		saved, err := h.calls.Saved(steady, string(id))
		if err != nil {
			return err
		}
		err = m.update(func(r *record) { r.Starting, r.Started, r.Resumed = r.Starts+1, time.Now().UTC(), saved })
		if err != nil {
			return err
		}
		if err := h.calls.Create(steady, string(id)); err != nil && m.power(steady) != estate.On {
			return err
		}
		return m.count()
	})
}

// Stop implements driver.Host.
func (h *host) Stop(ctx context.Context, id estate.MachineID, grace time.Duration) error {
	return h.actOn(ctx, id, func(ctx, steady context.Context, m *machine) error { return m.stop(ctx, steady, grace) })
}

// stop powers the machine off. Callers hold the turn. Where a power-on was begun
// of which we do not know the end, libvirt is told to stop the machine though it
// says that it is off: it does so after what it is busy with.
func (m *machine) stop(ctx, steady context.Context, grace time.Duration) error {
	power := m.power(ctx)
	if r, _ := m.record(); power == estate.Off && r.Starts == r.Starting {
		return nil
	}
	if power == estate.On {
		if err := m.count(); err != nil {
			return err
		}
		if grace > 0 && m.ask(ctx) && m.goes(ctx, grace) {
			return nil
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err := m.host.calls.Destroy(steady, string(m.id))
	switch power := m.power(steady); {
	case power == estate.Off:
		return m.update(func(r *record) { r.Starting = r.Starts })
	case power == estate.PowerUnknown && err == nil:
		return m.mustBe(steady, estate.Off)
	}
	return err
}

// ask asks the guest to power off. It writes Xen's own request, as libvirt would
// do, which then waits for up to a minute for the guest to take it and lets
// nobody else near the machine. It reports whether there is anything to wait for.
func (m *machine) ask(ctx context.Context) bool {
	number, err := m.number(ctx)
	return err == nil && writeStore(ctx, "/local/domain/"+number+"/control/shutdown", "poweroff") == nil
}

// goes reports whether the machine powers off within the grace.
func (m *machine) goes(ctx context.Context, grace time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if m.power(ctx) == estate.Off {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}

// Save implements driver.Saver.
func (h *host) Save(ctx context.Context, id estate.MachineID) error {
	return h.actOn(ctx, id, func(ctx, steady context.Context, m *machine) error {
		switch m.power(ctx) {
		case estate.Off:
			return nil
		case estate.PowerUnknown:
			return m.mustBe(ctx, estate.Off)
		}
		if err := m.count(); err != nil {
			return err
		}
		return m.save(ctx, steady)
	})
}

// hearing is how long a guest may take until it can be asked to stand still.
const hearing = 3 * time.Minute

// joining is how long it may then take until its channel is taken up.
const joining = 20 * time.Second

// save writes the memory of the machine, which runs, and powers it off. Callers
// hold the turn. The guest takes part in it: libxl asks, waits for a minute and
// then fails, so one that is still booting is waited for first. Linux gives up
// where its first program has not begun within 20 s; it is asked once more then.
func (m *machine) save(ctx, steady context.Context) error {
	var err error
	for range 2 {
		if err := m.hears(ctx); err != nil {
			return err
		}
		if err = m.host.calls.Save(steady, string(m.id)); err == nil {
			return nil
		}
		if power := m.power(steady); power == estate.Off {
			return nil
		} else if power != estate.On || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// hears waits until the guest says, as Linux does once in its life, that it can
// be asked to stand still, and has taken up its agent's channel: until then
// Linux can wait for the same thread that would have it stand still. A guest
// that never does either is asked all the same.
func (m *machine) hears(ctx context.Context) error {
	if r, _ := m.record(); r.Resumed {
		return nil
	}
	number, err := m.number(ctx)
	if err != nil {
		return err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(hearing)
	for able := false; time.Now().Before(end); {
		says, err := readStore(ctx, "/local/domain/"+number+"/control/feature-suspend")
		if err != nil {
			return nil
		}
		if says == "1" && !able {
			able, end = true, time.Now().Add(joining)
		}
		// 4 is XenbusStateConnected (xen/include/public/io/xenbus.h).
		joined, err := readStore(ctx, "/local/domain/"+number+"/device/console/1/state")
		if able && (err != nil || joined == "4") {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// forgetSaved removes saved memory, which fits the disks as they were only.
func (m *machine) forgetSaved(ctx context.Context) error {
	saved, err := m.host.calls.Saved(ctx, string(m.id))
	if err == nil && saved {
		err = m.host.calls.ForgetSaved(ctx, string(m.id))
	}
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// Resize implements driver.Resizer.
func (h *host) Resize(ctx context.Context, id estate.MachineID, cpus int, memory estate.Bytes) error {
	return h.rest(ctx, id, func(ctx, steady context.Context, m *machine) error {
		if err := m.forgetSaved(steady); err != nil {
			return err
		}
		r, _ := m.record()
		r.Def.CPUs, r.Def.Memory = cpus, memory
		if r.Adopted != "" {
			var err error
			if r.Adopted, err = resized(r.Adopted, cpus, memory); err != nil {
				return err
			}
		}
		if err := m.update(func(old *record) { old.Def, old.Adopted = r.Def, r.Adopted }); err != nil {
			return err
		}
		return m.tellDefinition(steady)
	})
}

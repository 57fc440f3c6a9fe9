package xen

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/guest/qga"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/atomicfile"
	"consort.dev/consort/internal/virtrpc"
)

// machine is one machine of a host. Who changes it holds its turn; mu guards
// what those see who only look.
type machine struct {
	host *host
	id   estate.MachineID
	dir  string // its record and its private disks
	run  string // its agent's socket
	turn chan struct{}

	mu    sync.Mutex
	kept  bool // it has a folder
	rec   record
	agent *qga.Client
}

func (h *host) newMachine(id estate.MachineID) *machine {
	m := &machine{
		host: h,
		id:   id,
		dir:  filepath.Join(h.cfg.Dir, string(id)),
		run:  filepath.Join(h.cfg.RunDir, string(id)),
		turn: make(chan struct{}, 1),
	}
	m.agent = qga.New(m.dialAgent)
	m.turn <- struct{}{}
	return m
}

func (m *machine) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-m.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *machine) give() { m.turn <- struct{}{} }

// record returns what is recorded now, and whether the machine is kept at all.
func (m *machine) record() (record, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rec, m.kept
}

// defined reports whether the machine is kept, not shelved, and not on its way.
func (m *machine) defined() bool {
	r, kept := m.record()
	return kept && !r.Shelved && r.Arriving == ""
}

// update changes the record, on disk first.
func (m *machine) update(change func(*record)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.rec
	r.Files, r.Snapshots = maps.Clone(r.Files), slices.Clone(r.Snapshots)
	change(&r)
	if err := r.write(m.dir); err != nil {
		return err
	}
	m.rec = r
	return nil
}

// tidy removes files that a crash left in the machine's folder.
func (m *machine) tidy() error {
	keep := m.rec.files()
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !keep[e.Name()] {
			if err := os.Remove(filepath.Join(m.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// look returns what callers may know of the machine; ok is false where it is
// not defined. It never waits for the machine's turn.
func (m *machine) look(ctx context.Context) (seen driver.Machine, ok bool) {
	if !m.defined() {
		return driver.Machine{}, false
	}
	power := m.power(ctx)
	if power == estate.On {
		m.count() // where it cannot be written now, it will be later
	}
	r, _ := m.record()
	seen = driver.Machine{ID: m.id, Power: power, Starts: r.Starts, Def: r.Def}
	if power == estate.On {
		seen.Started = r.Started
	}
	return seen, true
}

// count takes note of the power-on that was begun last.
func (m *machine) count() error {
	if r, _ := m.record(); r.Starts == r.Starting {
		return nil
	}
	return m.update(func(r *record) { r.Starts = r.Starting })
}

// power asks libvirt whether the machine runs. What it does not say clearly is
// unknown.
func (m *machine) power(ctx context.Context) estate.Power {
	state, _, err := m.host.calls.State(ctx, string(m.id))
	if errors.Is(err, fault.NotFound) {
		// A machine of ours that libvirt has no definition of does not run: its
		// definition is given to it before every power-on.
		if r, _ := m.record(); r.Adopted == "" {
			return estate.Off
		}
	}
	if err != nil {
		return estate.PowerUnknown
	}
	return powerOf(state)
}

func powerOf(s virtrpc.State) estate.Power {
	switch s {
	case virtrpc.Running, virtrpc.Blocked, virtrpc.Paused, virtrpc.ShutDown, virtrpc.PMSuspended:
		return estate.On
	case virtrpc.ShutOff:
		return estate.Off
	}
	return estate.PowerUnknown
}

// mustBe returns an error unless the machine is surely in that state.
func (m *machine) mustBe(ctx context.Context, want estate.Power) error {
	switch power := m.power(ctx); {
	case power == want:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case power == estate.PowerUnknown:
		return fault.Unavailable.Errorf("libvirt does not say whether machine %s runs", m.id)
	case want == estate.On:
		return fault.Conflict.Errorf("machine %s is off; start it first", m.id)
	}
	return fault.Conflict.Errorf("machine %s runs; stop it first", m.id)
}

// Define implements driver.Host. The machine's folder is made under another
// name, so that it is there wholly or not at all.
func (h *host) Define(ctx context.Context, def driver.Definition) error {
	if err := h.check(def); err != nil {
		return err
	}
	return h.act(ctx, def.ID, func(ctx, steady context.Context, m *machine) error {
		r, kept := m.record()
		if r.Arriving != "" { // it is made here, then, and does not come any more
			if err := m.forget(); err != nil {
				return err
			}
			kept = false
		}
		switch {
		case kept && !r.Def.Equal(def):
			return fault.Exists.Errorf("machine %s exists with another definition", def.ID)
		case kept && r.Shelved:
			if err := m.update(func(r *record) { r.Shelved = false }); err != nil {
				return err
			}
		case kept:
		default:
			if err := m.make(ctx, def, record{Def: def}); err != nil {
				return err
			}
		}
		if _, _, err := h.calls.State(steady, string(def.ID)); !errors.Is(err, fault.NotFound) {
			return err
		}
		return m.tellDefinition(steady)
	})
}

// check refuses what this provider cannot make.
func (h *host) check(def driver.Definition) error {
	if def.Firmware == estate.UEFI {
		return fault.Unsupported.Errorf("machine %s: PV and PVH guests have no UEFI firmware; leave firmware empty", def.ID)
	}
	if def.GuestType != "" && !slices.Contains(h.desc.GuestTypes, def.GuestType) {
		return fault.Unsupported.Errorf("machine %s: this host makes guests of type %v, not %s", def.ID, h.desc.GuestTypes, def.GuestType)
	}
	for _, d := range def.Disks {
		if d.File != nil && d.File.Format != estate.Raw {
			return fault.Unsupported.Errorf("machine %s: disk %s is a %s file, and disks are raw files here", def.ID, d.Name, d.File.Format)
		}
	}
	for _, n := range def.NICs {
		if n.Bridge == "" {
			return fault.Unsupported.Errorf("machine %s: a network card joins a bridge here, and none is named", def.ID)
		}
	}
	return nil
}

// make makes the machine's folder with the private disks of def, and keeps r.
func (m *machine) make(ctx context.Context, def driver.Definition, r record) error {
	tmp := filepath.Join(m.host.cfg.Dir, making+string(m.id))
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	defer os.RemoveAll(tmp) // it is gone when all went well
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	r.Files = map[string]string{}
	for _, d := range def.Disks {
		if d.File != nil {
			continue
		}
		r.Files[d.Name] = d.Name + ".raw"
		if err := m.host.private(ctx, filepath.Join(tmp, r.Files[d.Name]), d); err != nil {
			return err
		}
	}
	return m.keep(tmp, r)
}

// keep moves the folder made at tmp to its place.
func (m *machine) keep(tmp string, r record) error {
	if err := r.write(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, m.dir); err != nil {
		return err
	}
	m.mu.Lock()
	m.rec, m.kept = r, true
	m.mu.Unlock()
	return atomicfile.SyncDir(m.host.cfg.Dir)
}

// forget removes the machine's folder. It is renamed first: a machine that has
// lost some of its disks must never be taken for one.
func (m *machine) forget() error {
	gone := filepath.Join(m.host.cfg.Dir, removing+string(m.id))
	if err := os.RemoveAll(gone); err != nil {
		return err
	}
	if err := os.Rename(m.dir, gone); err != nil {
		return err
	}
	m.mu.Lock()
	m.rec, m.kept = record{}, false
	m.mu.Unlock()
	m.hangUp()
	if err := atomicfile.SyncDir(m.host.cfg.Dir); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(gone), os.RemoveAll(m.run))
}

// Delete implements driver.Host.
func (h *host) Delete(ctx context.Context, id estate.MachineID) error {
	return h.act(ctx, id, func(ctx, steady context.Context, m *machine) error {
		if _, kept := m.record(); !kept {
			// What an earlier call could not remove is removed now.
			return os.RemoveAll(filepath.Join(h.cfg.Dir, removing+string(id)))
		}
		if m.defined() {
			if err := m.stop(ctx, steady, 0); err != nil {
				return err
			}
			if err := m.undefine(steady); err != nil {
				return err
			}
		}
		return m.forget()
	})
}

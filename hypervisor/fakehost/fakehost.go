// Package fakehost is a hypervisor that keeps its machines in memory: the
// reference for what a driver does, and what other packages test against.
package fakehost

import (
	"cmp"
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// Slots is how many disks can be attached to a running machine.
const Slots = 8

// Options shape a host. The zero value is a roomy host whose guests are up at once.
type Options struct {
	// Capacity is what the host says it has; 64 CPUs and 256Gi when zero.
	Capacity estate.Capacity
	// Boot is how long a guest takes from power-on until its agent answers
	// and its desktop is drawn.
	Boot time.Duration
	// Deaf guests do not go when they are asked to.
	Deaf bool
	// Run answers commands to guests that are up. Guests have a tiny shell of
	// their own when it is nil; see Shell.
	Run func(ctx context.Context, m driver.Machine, cmd driver.Command) (driver.Output, error)
	// GuestTypes are the types of guest it makes, the usual one first.
	GuestTypes []string
	// Only says which types of guest have a capability that not all have.
	Only map[estate.Capability][]string
	// Site is where running machines move to and from; one of the host's own
	// when nil.
	Site *Site
}

// Host is an in-memory host. New makes one.
type Host struct {
	opt Options

	at string // its address on the site

	mu        sync.Mutex
	machines  map[estate.MachineID]*machine
	shelf     map[estate.MachineID]*machine
	templates map[string]*template
	awaited   map[estate.MachineID]driver.Definition // machines that may arrive
	others    map[estate.MachineID]*other
	blind     map[estate.MachineID]bool
	watchers  map[*watcher]struct{}
	ran       []Ran
}

// Ran is a command that reached a guest.
type Ran struct {
	Machine estate.MachineID
	driver.Command
}

type machine struct {
	driver.Machine
	attached  map[string]driver.Disk
	content   map[string]content // by the name of the disk
	snapshots []snapshot
	boot      string        // names the guest's boot, as Linux does in boot_id; empty when off
	up        time.Time     // from when on its agent answers
	since     time.Time     // when it was powered on or went on
	worked    time.Duration // what it had run before that, since the power-on
	built     []driver.NIC  // the network cards it has from the template
	joined    bool          // they have a link, and the others are plugged in
	from      *template     // where it goes on when it is first started; nil after that
	saved     string        // the boot whose memory was saved
	key       string        // the name of what it is sealed with
	adopted   *other        // what it was before it was ours
	off       chan struct{} // closed at power-off; nil when off
}

var (
	_ driver.Host        = (*Host)(nil)
	_ driver.Displayer   = (*Host)(nil)
	_ driver.Hotplugger  = (*Host)(nil)
	_ driver.Guest       = (*Host)(nil)
	_ driver.Transferer  = (*Host)(nil)
	_ driver.Mover       = (*Host)(nil)
	_ driver.Snapshotter = (*Host)(nil)
	_ driver.Saver       = (*Host)(nil)
	_ driver.Resizer     = (*Host)(nil)
	_ driver.Meter       = (*Host)(nil)
	_ driver.Consoler    = (*Host)(nil)
	_ driver.Watcher     = (*Host)(nil)
	_ driver.Surveyor    = (*Host)(nil)
	_ driver.Cloner      = (*Host)(nil)
	_ driver.Pauser      = (*Host)(nil)
	_ driver.Sealer      = (*Host)(nil)
)

// New returns an empty host.
func New(opt Options) *Host {
	if opt.Capacity == (estate.Capacity{}) {
		opt.Capacity = estate.Capacity{CPUs: 64, Memory: 256 * estate.GiB, Disk: estate.TiB}
	}
	if opt.Site == nil {
		opt.Site = new(Site)
	}
	h := &Host{
		opt:       opt,
		machines:  map[estate.MachineID]*machine{},
		shelf:     map[estate.MachineID]*machine{},
		templates: map[string]*template{},
		awaited:   map[estate.MachineID]driver.Definition{},
		others:    map[estate.MachineID]*other{},
		blind:     map[estate.MachineID]bool{},
		watchers:  map[*watcher]struct{}{},
	}
	h.at = opt.Site.join(h)
	return h
}

// Describe implements driver.Host.
func (h *Host) Describe(ctx context.Context) (driver.Description, error) {
	return driver.Description{
		Provider:     "fake",
		Product:      "in memory, 1",
		Accelerator:  "none",
		Because:      "nothing really runs",
		GuestTypes:   slices.Clone(h.opt.GuestTypes),
		Capacity:     h.opt.Capacity,
		Capabilities: h.capabilities(),
	}, ctx.Err()
}

// capabilities returns what the host reports: everything that has an interface,
// for the types of guest that Options allow it, and that a Host outlives those
// who use it.
func (h *Host) capabilities() []estate.CapabilityReport {
	values := map[estate.Capability]string{estate.CanDisplay: "rfb", estate.CanMoveLive: h.opt.Site.name()}
	all := []estate.CapabilityReport{{Name: estate.CanOutliveUs, Has: true, Value: "as long as the Host is kept"}}
	for _, c := range driver.Abilities() {
		has := estate.CapabilityReport{Name: c, Has: true, Value: values[c]}
		types, some := h.opt.Only[c]
		if !some {
			all = append(all, has)
			continue
		}
		for _, t := range h.opt.GuestTypes {
			has.GuestType = t
			if slices.Contains(types, t) {
				all = append(all, has)
			} else {
				all = append(all, estate.CapabilityReport{Name: c, GuestType: t, Reason: "a guest of type " + t + " has none"})
			}
		}
	}
	return all
}

// List implements driver.Host.
func (h *Host) List(ctx context.Context) ([]driver.Machine, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]driver.Machine, 0, len(h.machines))
	for _, m := range h.machines {
		seen := m.copy()
		if h.blind[m.ID] {
			seen.Power = estate.PowerUnknown
		}
		all = append(all, seen)
	}
	slices.SortFunc(all, func(a, b driver.Machine) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return all, ctx.Err()
}

// copy returns the machine as callers may keep it.
func (m *machine) copy() driver.Machine {
	c := m.Machine
	c.Def.Disks = slices.Clone(c.Def.Disks)
	c.Def.NICs = slices.Clone(c.Def.NICs)
	return c
}

// Define implements driver.Host.
func (h *Host) Define(ctx context.Context, def driver.Definition) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	m, on := h.machines[def.ID]
	if !on {
		m = h.shelf[def.ID]
	}
	switch {
	case m != nil && !m.Def.Equal(def):
		return fault.Exists.Errorf("machine %s exists with another definition", def.ID)
	case on:
		return nil
	case m == nil:
		m = newMachine(def)
		m.seal()
		if def.Template != "" {
			if err := h.clone(m); err != nil {
				return err
			}
		}
	}
	delete(h.shelf, def.ID)
	h.machines[def.ID] = m
	h.tell(def.ID)
	return nil
}

// newMachine returns a machine that is off, with its disks as they begin.
func newMachine(def driver.Definition) *machine {
	m := &machine{Machine: driver.Machine{ID: def.ID, Power: estate.Off, Def: def}, content: map[string]content{}}
	m.Machine = m.copy()
	for _, d := range m.Def.Disks {
		m.content[d.Name] = content{from: cmp.Or(d.File, d.Base)}
	}
	return m
}

// Start implements driver.Host.
func (h *Host) Start(ctx context.Context, id estate.MachineID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.machine(id)
	if err != nil || m.Power == estate.On {
		return err
	}
	if m.Power == estate.Paused {
		m.Power, m.since = estate.On, time.Now()
		h.tell(id)
		return nil
	}
	if err := m.spent(); err != nil {
		return err
	}
	m.Starts++
	if t := m.from; t != nil {
		m.powerOn(t.boot)
		m.attached, m.up, m.joined, m.from = maps.Clone(t.attached), m.Started, false, nil
		m.built = t.Def.NICs
	} else {
		m.powerOn(cmp.Or(m.saved, rand.Text()))
		m.up = m.Started.Add(h.opt.Boot)
	}
	h.tell(id)
	return nil
}

// powerOn has the machine run the guest's boot of that name.
func (m *machine) powerOn(boot string) {
	m.Power, m.Started, m.off = estate.On, time.Now(), make(chan struct{})
	m.attached, m.boot, m.saved = map[string]driver.Disk{}, boot, ""
	m.since, m.worked, m.built, m.joined = m.Started, 0, nil, true
}

// Stop implements driver.Host.
func (h *Host) Stop(ctx context.Context, id estate.MachineID, grace time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	m, err := h.machine(id)
	var off chan struct{}
	if err == nil {
		off = m.off
	}
	h.mu.Unlock()
	if err != nil || off == nil {
		return err
	}
	if h.opt.Deaf && grace > 0 {
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-t.C:
		case <-off:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.off == off { // it was not started anew meanwhile
		m.powerOff()
		h.tell(id)
	}
	return nil
}

// Delete implements driver.Host.
func (h *Host) Delete(ctx context.Context, id estate.MachineID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if m, ok := h.machines[id]; ok {
		m.powerOff()
		delete(h.machines, id)
		h.tell(id)
	}
	delete(h.shelf, id)
	delete(h.awaited, id)
	return nil
}

// PowerOff switches the machine off as its guest would, or as a crash does.
func (h *Host) PowerOff(id estate.MachineID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m, ok := h.machines[id]; ok {
		m.powerOff()
		h.tell(id)
	}
}

// Blind has the host no longer learn the machine's power state until see is called.
func (h *Host) Blind(_ context.Context, id estate.MachineID) (see func(), err error) {
	set := func(blind bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.blind[id] = blind
	}
	set(true)
	return func() { set(false) }, nil
}

func (m *machine) powerOff() {
	if m.off != nil {
		close(m.off)
	}
	m.Power, m.Started, m.off, m.attached, m.boot = estate.Off, time.Time{}, nil, nil, ""
}

// machine returns the machine, or fault.NotFound. Callers hold mu.
func (h *Host) machine(id estate.MachineID) (*machine, error) {
	m, ok := h.machines[id]
	if !ok {
		return nil, fault.NotFound.Errorf("no machine %s", id)
	}
	return m, nil
}

// running returns the machine when it is on, else fault.NotFound or
// fault.Conflict. Callers hold mu.
func (h *Host) running(id estate.MachineID) (*machine, error) {
	m, err := h.machine(id)
	if err == nil && m.Power == estate.Off {
		err = fault.Conflict.Errorf("machine %s is off; start it first", id)
	}
	return m, err
}

// resting returns the machine when it is off, else fault.NotFound or
// fault.Conflict. Callers hold mu.
func (h *Host) resting(id estate.MachineID) (*machine, error) {
	m, err := h.machine(id)
	if err == nil && m.Power != estate.Off {
		err = fault.Conflict.Errorf("machine %s runs; stop it first", id)
	}
	return m, err
}

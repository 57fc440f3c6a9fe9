package drivertest

import (
	"context"
	"maps"
	"slices"
	"sync"

	"consort.dev/consort/application/driver"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// Machine is a model of a running machine: it has disks, it can be cut off, and
// what runs in it is up to Answer.
type Machine struct {
	// Answer is what a command in the guest does. Nil answers every command
	// with success. It is called without a lock.
	Answer func(args []string, stdin []byte) driver.Output

	id estate.MachineID

	mu    sync.Mutex
	disks map[string]driver.Disk
	away  bool
	calls map[string]int
}

// NewMachine returns a machine without disks.
func NewMachine(id estate.MachineID) *Machine {
	return &Machine{id: id, disks: map[string]driver.Disk{}, calls: map[string]int{}}
}

// Machines is a set of machines by their name.
type Machines struct {
	answer func(id estate.MachineID, args []string, stdin []byte) driver.Output

	mu  sync.Mutex
	all map[estate.MachineID]*Machine
}

// NewMachines returns a set whose guests answer as told; nil answers every
// command with success.
func NewMachines(answer func(id estate.MachineID, args []string, stdin []byte) driver.Output) *Machines {
	return &Machines{answer: answer, all: map[estate.MachineID]*Machine{}}
}

// Get returns the machine with the name, which is made when it is asked for
// first.
func (s *Machines) Get(id estate.MachineID) *Machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.all[id]
	if m == nil {
		m = NewMachine(id)
		if s.answer != nil {
			m.Answer = func(args []string, stdin []byte) driver.Output { return s.answer(id, args, stdin) }
		}
		s.all[id] = m
	}
	return m
}

// CutOff makes the guest answer no command until it is undone. Disks still come
// and go: that is the host's doing.
func (m *Machine) CutOff(away bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = away
}

// Restart takes out every disk that was added, as a new start does.
func (m *Machine) Restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.disks)
}

// Calls returns how often the named method was called.
func (m *Machine) Calls(method string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls[method]
}

// Disk returns the disk with the name.
func (m *Machine) Disk(name string) (driver.Disk, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.disks[name]
	return d, ok
}

// ID implements driver.Machine.
func (m *Machine) ID() estate.MachineID { return m.id }

// AttachDisk implements driver.Machine.
func (m *Machine) AttachDisk(ctx context.Context, d driver.Disk) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls["AttachDisk"]++
	switch old, has := m.disks[d.Name]; {
	case ctx.Err() != nil:
		return ctx.Err()
	case d.Name == "" || len(d.Name) > 20:
		return fault.Invalid.Errorf("%q is no serial number of a disk", d.Name)
	case has && old != d:
		return fault.Exists.Errorf("disk %s is another", d.Name)
	}
	m.disks[d.Name] = d
	return nil
}

// DetachDisk implements driver.Machine.
func (m *Machine) DetachDisk(ctx context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls["DetachDisk"]++
	if ctx.Err() == nil {
		delete(m.disks, name)
	}
	return ctx.Err()
}

// Disks implements driver.Machine.
func (m *Machine) Disks(ctx context.Context) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.disks)), ctx.Err()
}

// Run implements driver.Machine.
func (m *Machine) Run(ctx context.Context, args []string, stdin []byte) (driver.Output, error) {
	m.mu.Lock()
	m.calls["Run"]++
	away := m.away
	m.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return driver.Output{}, ctx.Err()
	case away:
		return driver.Output{}, fault.Unavailable.Errorf("the guest of machine %s does not answer", m.id)
	case m.Answer == nil:
		return driver.Output{}, nil
	}
	return m.Answer(args, stdin), nil
}

// Package fakehost is a hypervisor that keeps its machines in memory: the
// reference for what a driver does, and what other packages test against.
package fakehost

import (
	"context"
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
}

// Host is an in-memory host. New makes one.
type Host struct {
	opt Options

	mu       sync.Mutex
	machines map[estate.MachineID]*machine
	ran      []Ran
}

// Ran is a command that reached a guest.
type Ran struct {
	Machine estate.MachineID
	driver.Command
}

type machine struct {
	driver.Machine
	attached map[string]driver.Disk
	content  map[string][]byte // disks whose content was imported
	off      chan struct{}     // closed at power-off; nil when off
}

var (
	_ driver.Host       = (*Host)(nil)
	_ driver.Displayer  = (*Host)(nil)
	_ driver.Hotplugger = (*Host)(nil)
	_ driver.Guest      = (*Host)(nil)
	_ driver.Transferer = (*Host)(nil)
)

// New returns an empty host.
func New(opt Options) *Host {
	if opt.Capacity == (estate.Capacity{}) {
		opt.Capacity = estate.Capacity{CPUs: 64, Memory: 256 * estate.GiB, Disk: estate.TiB}
	}
	return &Host{opt: opt, machines: map[estate.MachineID]*machine{}}
}

// Describe implements driver.Host.
func (h *Host) Describe(ctx context.Context) (driver.Description, error) {
	has := func(c estate.Capability, value string) estate.CapabilityReport {
		return estate.CapabilityReport{Name: c, Has: true, Value: value, Evidence: estate.Simulated}
	}
	return driver.Description{
		Provider:    "fake",
		Product:     "in memory, 1",
		Accelerator: "none",
		Because:     "nothing really runs",
		Capacity:    h.opt.Capacity,
		Capabilities: []estate.CapabilityReport{
			has(estate.CanDisplay, "rfb"),
			has(estate.CanHotplug, ""),
			has(estate.CanGuest, ""),
			has(estate.CanTransfer, ""),
		},
	}, ctx.Err()
}

// List implements driver.Host.
func (h *Host) List(ctx context.Context) ([]driver.Machine, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]driver.Machine, 0, len(h.machines))
	for _, m := range h.machines {
		all = append(all, m.copy())
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
	if m, ok := h.machines[def.ID]; ok {
		if !m.Def.Equal(def) {
			return fault.Exists.Errorf("machine %s exists with another definition", def.ID)
		}
		return nil
	}
	m := &machine{Machine: driver.Machine{ID: def.ID, Power: estate.Off, Def: def}, content: map[string][]byte{}}
	m.Machine = m.copy()
	h.machines[def.ID] = m
	return nil
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
	m.Power, m.Started, m.off = estate.On, time.Now(), make(chan struct{})
	m.Starts++
	m.attached = map[string]driver.Disk{}
	return nil
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
	}
	return nil
}

// PowerOff switches the machine off as its guest would, or as a crash does.
func (h *Host) PowerOff(id estate.MachineID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m, ok := h.machines[id]; ok {
		m.powerOff()
	}
}

func (m *machine) powerOff() {
	if m.off != nil {
		close(m.off)
	}
	m.Power, m.Started, m.off, m.attached = estate.Off, time.Time{}, nil, nil
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
	if err == nil && m.Power != estate.On {
		err = fault.Conflict.Errorf("machine %s is off; start it first", id)
	}
	return m, err
}

package fakehost

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// other is a machine that is not ours.
type other struct {
	found estate.Found
	disks []driver.Disk
}

// Plant puts a machine on the host that is not ours, as someone else would. Its
// disks are Files, as adoption makes them; they become part of what is found.
func (h *Host) Plant(found estate.Found, disks ...driver.Disk) {
	for _, d := range disks {
		found.Disks = append(found.Disks, estate.FoundDisk{Name: d.Name, Size: estate.Bytes(diskSize(d))})
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.others[found.ID] = &other{found, disks}
	h.tell(found.ID)
}

// Strangers returns how to plant one machine after the other. Each has a disk
// in dir; every second one runs, every third one has an obstacle to adoption.
func (h *Host) Strangers(dir string) func(context.Context) (estate.MachineID, error) {
	n := 0
	return func(context.Context) (estate.MachineID, error) {
		n++
		// Their order is not that of their making.
		id := estate.MachineID(fmt.Sprintf("%02x000000-aaaa-4aaa-8aaa-%012x", (251*n)%256, n))
		found := estate.Found{ID: id, Name: fmt.Sprint("theirs ", n), Power: estate.Off, CPUs: 1, Memory: 64 * estate.MiB}
		if n%2 == 1 {
			found.Power = estate.On
		}
		if n%3 == 0 {
			found.Obstacle = "it has a floppy"
		}
		file := driver.Content{Path: filepath.Join(dir, string(id)), Format: estate.Raw, Size: 512}
		h.Plant(found, driver.Disk{Name: "theirs", File: &file})
		return id, os.WriteFile(file.Path, make([]byte, file.Size), 0o600)
	}
}

// Survey implements driver.Surveyor.
func (h *Host) Survey(ctx context.Context) ([]estate.Found, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []estate.Found
	for _, o := range h.others {
		all = append(all, o.found)
	}
	slices.SortFunc(all, func(a, b estate.Found) int { return cmp.Compare(a.ID, b.ID) })
	return all, ctx.Err()
}

// Adopt implements driver.Surveyor.
func (h *Host) Adopt(ctx context.Context, id estate.MachineID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.machines[id] != nil {
		return nil
	}
	o := h.others[id]
	if o == nil {
		return fault.NotFound.Errorf("no machine %s", id)
	}
	if o.found.Obstacle != "" {
		return fault.Unsupported.Errorf("machine %s cannot be adopted: %s", id, o.found.Obstacle)
	}
	f := o.found
	m := newMachine(driver.Definition{ID: id, Name: f.Name, GuestType: f.GuestType, CPUs: f.CPUs, Memory: f.Memory, Disks: o.disks})
	for _, mac := range f.MACs {
		m.Def.NICs = append(m.Def.NICs, driver.NIC{MAC: mac, Name: "theirs"})
	}
	if m.adopted = o; f.Power == estate.On {
		m.powerOn(string(id))
	}
	delete(h.others, id)
	h.machines[id] = m
	h.tell(id)
	return nil
}

// Release implements driver.Surveyor.
func (h *Host) Release(ctx context.Context, id estate.MachineID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.machines[id]
	if m == nil {
		return nil
	}
	if m.adopted == nil {
		return fault.Conflict.Errorf("machine %s was defined by us; delete it instead", id)
	}
	o := *m.adopted
	o.found.Power, o.found.CPUs, o.found.Memory = m.Power, m.Def.CPUs, m.Def.Memory
	delete(h.machines, id)
	h.others[id] = &o
	h.tell(id)
	return nil
}

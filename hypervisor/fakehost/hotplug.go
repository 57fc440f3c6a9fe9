package fakehost

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// Attach implements driver.Hotplugger.
func (h *Host) Attach(ctx context.Context, id estate.MachineID, disk driver.Disk) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.running(id)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(m.Def.Disks, func(d driver.Disk) bool { return d.Name == disk.Name }) {
		return fault.Exists.Errorf("machine %s is defined with another disk %s", id, disk.Name)
	}
	if old, ok := m.attached[disk.Name]; ok {
		if !old.Equal(disk) {
			return fault.Exists.Errorf("machine %s has another disk %s attached", id, disk.Name)
		}
		return nil
	}
	if len(m.attached) == Slots {
		return fault.NoCapacity.Errorf("machine %s has no free slot for disk %s: all %d are taken", id, disk.Name, Slots)
	}
	m.attached[disk.Name] = disk
	return nil
}

// Detach implements driver.Hotplugger.
func (h *Host) Detach(ctx context.Context, id estate.MachineID, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.machine(id)
	if err == nil {
		delete(m.attached, name)
	}
	return err
}

// Attached implements driver.Hotplugger.
func (h *Host) Attached(ctx context.Context, id estate.MachineID) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.machine(id)
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(m.attached)), ctx.Err()
}

// disks is what a guest tells of those attached: whether each is only read, and
// how many x are among its first 16 bytes.
func (m *machine) disks() string {
	var all strings.Builder
	for _, d := range m.attached {
		head := make([]byte, 16)
		if f, err := os.Open(d.File.Path); err == nil {
			_, _ = io.ReadFull(f, head)
			f.Close()
		}
		only := map[bool]int{true: 1}[d.ReadOnly]
		fmt.Fprintln(&all, only, bytes.Count(head, []byte("x")))
	}
	return all.String()
}

package fakehost

import (
	"context"
	"maps"
	"slices"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// snapshot is what the private disks of a machine held.
type snapshot struct {
	name  string
	disks map[string]content
}

// Snapshot implements driver.Snapshotter.
func (h *Host) Snapshot(ctx context.Context, id estate.MachineID, name string) error {
	return h.rest(ctx, id, func(m *machine) error {
		if m.snapshot(name) >= 0 {
			return fault.Exists.Errorf("machine %s has a snapshot %s", id, name)
		}
		private := maps.Clone(m.content)
		for _, d := range m.Def.Disks {
			if d.File != nil {
				delete(private, d.Name)
			}
		}
		m.snapshots = append(m.snapshots, snapshot{name, private})
		return nil
	})
}

// Revert implements driver.Snapshotter.
func (h *Host) Revert(ctx context.Context, id estate.MachineID, name string) error {
	return h.rest(ctx, id, func(m *machine) error {
		i := m.snapshot(name)
		if i < 0 {
			return fault.NotFound.Errorf("machine %s has no snapshot %s", id, name)
		}
		maps.Copy(m.content, m.snapshots[i].disks)
		m.forget()
		return nil
	})
}

// DropSnapshot implements driver.Snapshotter.
func (h *Host) DropSnapshot(ctx context.Context, id estate.MachineID, name string) error {
	return h.rest(ctx, id, func(m *machine) error {
		if i := m.snapshot(name); i >= 0 {
			m.snapshots = slices.Delete(m.snapshots, i, i+1)
		}
		return nil
	})
}

// Snapshots implements driver.Snapshotter.
func (h *Host) Snapshots(ctx context.Context, id estate.MachineID) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.machine(id)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range m.snapshots {
		names = append(names, s.name)
	}
	return names, ctx.Err()
}

func (m *machine) snapshot(name string) int {
	return slices.IndexFunc(m.snapshots, func(s snapshot) bool { return s.name == name })
}

// rest does something to a machine that is off.
func (h *Host) rest(ctx context.Context, id estate.MachineID, do func(*machine) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.resting(id)
	if err == nil {
		err = do(m)
	}
	return err
}

// Save implements driver.Saver. A guest's memory is the name of its boot.
func (h *Host) Save(ctx context.Context, id estate.MachineID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.machine(id)
	if err != nil || m.Power == estate.Off {
		return err
	}
	boot := m.boot
	m.powerOff()
	m.saved = boot
	h.tell(id)
	return nil
}

// Resize implements driver.Resizer.
func (h *Host) Resize(ctx context.Context, id estate.MachineID, cpus int, memory estate.Bytes) error {
	return h.rest(ctx, id, func(m *machine) error {
		m.Def.CPUs, m.Def.Memory = cpus, memory
		m.forget()
		h.tell(id)
		return nil
	})
}

// Measure implements driver.Meter. A guest keeps a tenth of a CPU busy and all
// its memory.
func (h *Host) Measure(ctx context.Context, id estate.MachineID) (driver.Usage, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.running(id)
	if err != nil {
		return driver.Usage{}, err
	}
	worked := m.worked
	if m.Power == estate.On {
		worked += time.Since(m.since)
	}
	return driver.Usage{CPU: worked / 10, Memory: m.Def.Memory,
		DiskRead: -1, DiskWritten: -1, Received: -1, Sent: -1}, ctx.Err()
}

package xen

import (
	"context"
	"errors"
	"maps"
	"slices"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/virtrpc"
)

// slots is how many disks may be attached to a running machine: with those that
// it is defined with, as many as have a name of one letter.
const slots = 16

// Attach implements driver.Hotplugger. A block device of Xen tells the guest no
// name: it knows the disk by what that holds.
func (h *host) Attach(ctx context.Context, id estate.MachineID, disk driver.Disk) error {
	if disk.File == nil || disk.File.Format != estate.Raw {
		return fault.Unsupported.Errorf("attach disk %s to machine %s: disks are raw files here", disk.Name, id)
	}
	return h.actOn(ctx, id, func(ctx, steady context.Context, m *machine) error {
		if err := m.mustBe(ctx, estate.On); err != nil {
			return err
		}
		r, _ := m.record()
		if slices.ContainsFunc(r.Def.Disks, func(d driver.Disk) bool { return d.Name == disk.Name }) {
			return fault.Exists.Errorf("machine %s is defined with another disk %s", id, disk.Name)
		}
		return h.calls.Plug(steady, string(id), disk.Name, h.domainDisk(0, disk, ""), virtrpc.Socket{Slots: slots, Place: place})
	})
}

// Detach implements driver.Hotplugger.
func (h *host) Detach(ctx context.Context, id estate.MachineID, name string) error {
	return h.actOn(ctx, id, func(ctx, _ context.Context, m *machine) error {
		if err := m.mustBe(ctx, estate.On); errors.Is(err, fault.Conflict) {
			return nil // a machine that is off has nothing attached
		} else if err != nil {
			return err
		}
		return h.calls.Unplug(ctx, string(id), name)
	})
}

// Attached implements driver.Hotplugger.
func (h *host) Attached(ctx context.Context, id estate.MachineID) ([]string, error) {
	m, err := h.running(ctx, id)
	if errors.Is(err, fault.Conflict) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	plugs, err := h.calls.Plugged(ctx, string(m.id))
	return slices.Sorted(maps.Keys(plugs)), err
}

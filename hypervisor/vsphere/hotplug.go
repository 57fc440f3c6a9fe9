package vsphere

import (
	"context"
	"slices"

	"github.com/vmware/govmomi/vim25/types"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// attached are the disks that Attach added, and to which power-on.
type attached struct {
	Start int64
	Disks []plugged
}

type plugged struct {
	Disk driver.Disk
	File string
}

// attachedNow returns the disks that are attached now: those of an earlier power-on
// count no more, and are taken out before the next.
func (v *vm) attachedNow() []plugged {
	if v.power() == estate.Off || v.attached.Start != v.starts.Begun {
		return nil
	}
	return v.attached.Disks
}

// Attach implements driver.Hotplugger.
func (h *Host) Attach(ctx context.Context, id estate.MachineID, disk driver.Disk) error {
	t, v, err := h.hold(ctx, id, h.running)
	if err != nil {
		return err
	}
	defer t.give()
	if slices.ContainsFunc(v.rec.Def.Disks, func(d driver.Disk) bool { return d.Name == disk.Name }) {
		return fault.Exists.Errorf("machine %s is defined with another disk %s", id, disk.Name)
	}
	now := v.attachedNow()
	if i := slices.IndexFunc(now, func(p plugged) bool { return p.Disk.Name == disk.Name }); i >= 0 {
		if now[i].Disk.Equal(disk) {
			return nil
		}
		return fault.Exists.Errorf("machine %s has another disk %s attached", id, disk.Name)
	}
	controller, unit, ok := v.freeSlot()
	if !ok {
		return fault.NoCapacity.Errorf("machine %s has no free slot for disk %s", id, disk.Name)
	}
	file, err := h.fileFor(ctx, t, disk)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(now, func(p plugged) bool { return p.File == file }) {
		return fault.Conflict.Errorf("machine %s has the file of disk %s attached under another name", id, disk.Name)
	}
	note := attached{Start: v.starts.Begun, Disks: append(slices.Clone(now), plugged{disk, file})}
	return h.reconfigure(ctx, t, v, types.VirtualMachineConfigSpec{
		DeviceChange: []types.BaseVirtualDeviceConfigSpec{add(newDisk(disk, file, controller, unit, -1))},
		ExtraConfig:  []types.BaseOptionValue{option(attachedKey, note)},
	})
}

// fileFor returns the disk on the datastore that a file of this host is.
func (h *Host) fileFor(ctx context.Context, t *turn, d driver.Disk) (string, error) {
	if d.ReadOnly {
		return h.base(ctx, *d.File, true)
	}
	return h.volume(ctx, t, *d.File)
}

// freeSlot returns a controller and a free unit on it.
func (v *vm) freeSlot() (controller, unit int32, ok bool) {
	type slot struct{ controller, unit int32 }
	taken := map[slot]bool{}
	for _, d := range v.devices {
		if b := d.GetVirtualDevice(); b.UnitNumber != nil {
			taken[slot{b.ControllerKey, *b.UnitNumber}] = true
		}
	}
	for _, c := range v.devices.SelectByType((*types.VirtualSCSIController)(nil)) {
		for i := range slots {
			s := slot{c.GetVirtualDevice().Key, unitOf(i)}
			if !taken[s] {
				return s.controller, s.unit, true
			}
		}
	}
	return 0, 0, false
}

// Detach implements driver.Hotplugger.
func (h *Host) Detach(ctx context.Context, id estate.MachineID, name string) error {
	t, v, err := h.hold(ctx, id, h.existing)
	if err != nil {
		return err
	}
	defer t.give()
	i := slices.IndexFunc(v.attached.Disks, func(p plugged) bool { return p.Disk.Name == name })
	if i < 0 {
		return nil
	}
	return h.unplug(ctx, t, v, v.attached.Disks[i:i+1])
}

// dropAttached takes out all that was attached to a machine that is off.
func (h *Host) dropAttached(ctx context.Context, t *turn, v *vm) error {
	if len(v.attached.Disks) == 0 {
		return nil
	}
	return h.unplug(ctx, t, v, v.attached.Disks)
}

// unplug takes attached disks out of the machine and out of our note, at once.
func (h *Host) unplug(ctx context.Context, t *turn, v *vm, out []plugged) error {
	has := func(file string) bool {
		return slices.ContainsFunc(out, func(p plugged) bool { return p.File == file })
	}
	var spec types.VirtualMachineConfigSpec
	for _, d := range v.devices.SelectByType((*types.VirtualDisk)(nil)) {
		if has(fileOf(d.(*types.VirtualDisk))) {
			spec.DeviceChange = append(spec.DeviceChange, &types.VirtualDeviceConfigSpec{
				Operation: types.VirtualDeviceConfigSpecOperationRemove, Device: d,
			})
		}
	}
	left := attached{Start: v.attached.Start}
	for _, p := range v.attached.Disks {
		if !has(p.File) {
			left.Disks = append(left.Disks, p)
		}
	}
	spec.ExtraConfig = []types.BaseOptionValue{option(attachedKey, left)}
	return h.reconfigure(ctx, t, v, spec)
}

// Attached implements driver.Hotplugger.
func (h *Host) Attached(ctx context.Context, id estate.MachineID) ([]string, error) {
	v, err := h.existing(ctx, id)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range v.attachedNow() {
		names = append(names, p.Disk.Name)
	}
	slices.Sort(names)
	return names, nil
}

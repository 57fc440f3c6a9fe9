package vsphere

import (
	"context"
	"slices"

	"github.com/vmware/govmomi/vim25/types"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// Snapshots are whole copies of the private disks. vSphere's own are chains: a
// disk's bytes are then in several files, which may not be replaced, moved or
// extended one by one, and every such chain slows the guest down.

// snapshot is one, as the machine's configuration lists it, oldest first.
type snapshot struct {
	Name  string
	Files map[string]string // copies by the disk's name
}

func (v *vm) snapshot(name string) int {
	return slices.IndexFunc(v.snapshots, func(s snapshot) bool { return s.Name == name })
}

// noteSnapshots writes the list of snapshots: with it a snapshot comes and goes.
func (h *Host) noteSnapshots(ctx context.Context, t *turn, v *vm, all []snapshot) error {
	var value any
	if len(all) > 0 {
		value = all
	}
	return h.reconfigure(ctx, t, v, types.VirtualMachineConfigSpec{ExtraConfig: []types.BaseOptionValue{option(snapshotsKey, value)}})
}

// Snapshot implements driver.Snapshotter.
func (h *Host) Snapshot(ctx context.Context, id estate.MachineID, name string) error {
	t, v, err := h.hold(ctx, id, h.resting)
	if err != nil {
		return err
	}
	defer t.give()
	if v.snapshot(name) >= 0 {
		return fault.Exists.Errorf("machine %s has a snapshot %s", id, name)
	}
	s := snapshot{Name: name, Files: map[string]string{}}
	for _, d := range v.rec.Def.Disks {
		if d.File != nil {
			continue
		}
		_, device, err := v.disk(d.Name)
		if err != nil {
			return err
		}
		s.Files[d.Name] = inFolder(fileOf(device), d.Name+"_at_"+name+".vmdk")
		if err := h.copyDisk(ctx, t, fileOf(device), s.Files[d.Name]); err != nil {
			return err
		}
	}
	return h.noteSnapshots(ctx, t, v, append(v.snapshots, s))
}

// Revert implements driver.Snapshotter.
func (h *Host) Revert(ctx context.Context, id estate.MachineID, name string) error {
	t, v, err := h.hold(ctx, id, h.resting)
	if err != nil {
		return err
	}
	defer t.give()
	i := v.snapshot(name)
	if i < 0 {
		return fault.NotFound.Errorf("machine %s has no snapshot %s", id, name)
	}
	if err := h.unchained(ctx, t, v); err != nil {
		return err
	}
	files := map[*types.VirtualDisk]string{}
	for disk, file := range v.snapshots[i].Files {
		_, device, err := v.disk(disk)
		if err != nil {
			return err
		}
		files[device] = other(fileOf(device), disk)
		if err := h.copyDisk(ctx, t, file, files[device]); err != nil {
			return err
		}
	}
	return h.swap(ctx, t, v, files)
}

// DropSnapshot implements driver.Snapshotter.
func (h *Host) DropSnapshot(ctx context.Context, id estate.MachineID, name string) error {
	t, v, err := h.hold(ctx, id, h.resting)
	if err != nil {
		return err
	}
	defer t.give()
	i := v.snapshot(name)
	if i < 0 {
		return nil
	}
	files := v.snapshots[i].Files
	if err := h.noteSnapshots(ctx, t, v, slices.Delete(slices.Clone(v.snapshots), i, i+1)); err != nil {
		return err
	}
	for _, file := range files {
		if err := h.removeDisk(ctx, t, file); err != nil {
			return err
		}
	}
	return nil
}

// Snapshots implements driver.Snapshotter.
func (h *Host) Snapshots(ctx context.Context, id estate.MachineID) ([]string, error) {
	v, err := h.existing(ctx, id)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range v.snapshots {
		names = append(names, s.Name)
	}
	return names, nil
}

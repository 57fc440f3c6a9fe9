package libvirt

import (
	"context"
	"maps"
	"path/filepath"
	"slices"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/diskfile"
)

// A snapshot is a copy of the files of the private disks, and so is what Revert
// makes of it: saved memory names the files of its machine and their order, and
// copies leave both as they are.

// Snapshot implements driver.Snapshotter.
func (h *Host) Snapshot(ctx context.Context, id estate.MachineID, name string) error {
	r, give, err := h.resting(ctx, id)
	if err != nil {
		return err
	}
	defer give()
	if r.snapshot(name) >= 0 {
		return fault.Exists.Errorf("machine %s has a snapshot %s", id, name)
	}
	if r.Adopted {
		return fault.Unsupported.Errorf("machine %s was adopted and has no private disks to keep", id)
	}
	copies, err := h.duplicate(ctx, r, r.Copies)
	if err != nil {
		return err
	}
	r.Snapshots = append(slices.Clone(r.Snapshots), snapshot{name, copies})
	return h.define(ctx, r)
}

// Revert implements driver.Snapshotter.
func (h *Host) Revert(ctx context.Context, id estate.MachineID, name string) error {
	r, give, err := h.resting(ctx, id)
	if err != nil {
		return err
	}
	defer give()
	i := r.snapshot(name)
	if i < 0 {
		return fault.NotFound.Errorf("machine %s has no snapshot %s", id, name)
	}
	if err := h.forgetSaved(ctx, id); err != nil {
		return err
	}
	if r.Copies, err = h.duplicate(ctx, r, r.Snapshots[i].Copies); err != nil {
		return err
	}
	if err := h.define(ctx, r); err != nil {
		return err
	}
	return h.sweep(r)
}

// DropSnapshot implements driver.Snapshotter.
func (h *Host) DropSnapshot(ctx context.Context, id estate.MachineID, name string) error {
	r, give, err := h.resting(ctx, id)
	if err != nil {
		return err
	}
	defer give()
	if i := r.snapshot(name); i >= 0 {
		r.Snapshots = slices.Delete(slices.Clone(r.Snapshots), i, i+1)
		if err := h.define(ctx, r); err != nil {
			return err
		}
	}
	return h.sweep(r) // also what an earlier call was cut short in
}

// Snapshots implements driver.Snapshotter.
func (h *Host) Snapshots(ctx context.Context, id estate.MachineID) ([]string, error) {
	r, err := h.record(ctx, id)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range r.Snapshots {
		names = append(names, s.Name)
	}
	return names, nil
}

func (r record) snapshot(name string) int {
	return slices.IndexFunc(r.Snapshots, func(s snapshot) bool { return s.Name == name })
}

// duplicate copies the files of private disks to new names.
func (h *Host) duplicate(ctx context.Context, r record, disks map[string]copied) (map[string]copied, error) {
	fresh := maps.Clone(disks)
	for name, c := range disks {
		from := filepath.Join(h.dir(r.Def.ID), c.File)
		c.File = r.freeName(name, filepath.Ext(c.File))
		if err := diskfile.Copy(ctx, filepath.Join(h.dir(r.Def.ID), c.File), from); err != nil {
			return nil, err
		}
		fresh[name] = c
	}
	return fresh, nil
}

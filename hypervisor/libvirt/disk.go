package libvirt

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/atomicfile"
	"consort.dev/consort/internal/diskfile"
)

// private makes a private disk in the folder: empty, or holding what differs
// from its base. The base is not opened: its format and size are those of our
// record.
func (h *Host) private(ctx context.Context, dir string, d driver.Disk) (copied, error) {
	c := copied{File: d.Name + ".qcow2", Format: estate.QCOW2, OnBase: d.Base != nil}
	var under *diskfile.File
	if d.Base != nil {
		under = &diskfile.File{Path: d.Base.Path, Format: string(d.Base.Format)}
	}
	return c, h.image.Create(ctx, filepath.Join(dir, c.File), under, diskSize(d))
}

func diskSize(d driver.Disk) int64 {
	if d.File != nil {
		return int64(d.File.Size)
	}
	if d.Base != nil {
		return int64(max(d.Size, d.Base.Size))
	}
	return int64(d.Size)
}

// stack returns the files that a disk consists of, topmost first.
func (h *Host) stack(r record, d driver.Disk) []diskfile.File {
	if d.File != nil {
		return []diskfile.File{{Path: d.File.Path, Format: string(d.File.Format)}}
	}
	c := r.Copies[d.Name]
	all := []diskfile.File{{Path: filepath.Join(h.dir(r.Def.ID), c.File), Format: string(c.Format)}}
	if c.OnBase {
		all = append(all, diskfile.File{Path: d.Base.Path, Format: string(d.Base.Format)})
	}
	return all
}

// scratch is where a disk is laid out for a moment. Adopted machines have no
// folder of their own.
func (h *Host) scratch(id estate.MachineID) string {
	return filepath.Join(h.cfg.Dir, atomicfile.Prefix+"scratch-"+string(id))
}

// restingDisk takes the turn of a machine that is off, and finds its disk.
func (h *Host) restingDisk(ctx context.Context, id estate.MachineID, name string) (record, driver.Disk, func(), error) {
	r, give, err := h.resting(ctx, id)
	if err != nil {
		return record{}, driver.Disk{}, nil, err
	}
	i := slices.IndexFunc(r.Def.Disks, func(d driver.Disk) bool { return d.Name == name })
	if i < 0 {
		give()
		return record{}, driver.Disk{}, nil, fault.NotFound.Errorf("machine %s has no disk %s", id, name)
	}
	return r, r.Def.Disks[i], give, nil
}

// Export implements driver.Transferer.
func (h *Host) Export(ctx context.Context, id estate.MachineID, name string, w io.Writer) error {
	r, d, give, err := h.restingDisk(ctx, id, name)
	if err != nil {
		return err
	}
	defer give()
	return h.image.Export(ctx, w, h.stack(r, d), diskSize(d), h.scratch(id))
}

// Import implements driver.Transferer. The new content of a private disk is a
// raw file of its own, which the definition takes up once it is complete.
func (h *Host) Import(ctx context.Context, id estate.MachineID, name string, content io.Reader) error {
	r, d, give, err := h.restingDisk(ctx, id, name)
	if err != nil {
		return err
	}
	defer give()
	// The memory goes first: it must never meet a disk that it does not know.
	if err := h.forgetSaved(ctx, id); err != nil {
		return err
	}
	if d.File != nil {
		if d.ReadOnly {
			return fault.Denied.Errorf("disk %s is read-only", name)
		}
		return h.image.Import(ctx, h.stack(r, d)[0], content, diskSize(d), h.scratch(id))
	}
	next := copied{File: r.freeName(name, ".raw"), Format: estate.Raw}
	to := diskfile.File{Path: filepath.Join(h.dir(id), next.File), Format: string(next.Format)}
	if err := h.image.Import(ctx, to, content, diskSize(d), h.scratch(id)); err != nil {
		return err
	}
	r.Copies = maps.Clone(r.Copies)
	r.Copies[name] = next
	if err := h.define(ctx, r); err != nil {
		return err
	}
	return h.sweep(r)
}

// freeName returns a name for another file of the disk.
func (r record) freeName(disk, ending string) string {
	taken := map[string]bool{}
	for _, c := range r.Copies {
		taken[c.File] = true
	}
	for _, s := range r.Snapshots {
		for _, c := range s.Copies {
			taken[c.File] = true
		}
	}
	for i := 1; ; i++ {
		if name := fmt.Sprintf("%s-%d%s", disk, i, ending); !taken[name] {
			return name
		}
	}
}

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// most is how many disks a kernel takes: ubd0 to ubd7.
const most = 8

// refuse says what of a definition cannot be made here.
func refuse(def driver.Definition) error {
	switch {
	case def.CPUs > 1:
		return fault.Unsupported.Errorf("User-Mode Linux has one CPU, not %d", def.CPUs)
	case def.Firmware == estate.UEFI:
		return fault.Unsupported.Errorf("User-Mode Linux has no firmware")
	case len(def.NICs) > 0:
		return fault.Unsupported.Errorf("this example joins no networks")
	case len(def.Disks) > most:
		return fault.NoCapacity.Errorf("User-Mode Linux takes %d disks, not %d", most, len(def.Disks))
	}
	for _, d := range def.Disks {
		if d.File != nil && d.File.Format != estate.Raw {
			return fault.Unsupported.Errorf("disk %s: User-Mode Linux reads raw files only, not %s", d.Name, d.File.Format)
		}
		if d.File != nil && strings.ContainsAny(d.File.Path, ",: ") {
			return fault.Unsupported.Errorf("disk %s: User-Mode Linux takes no path with a comma, a colon or a space", d.Name)
		}
	}
	return nil
}

// make makes the machine and its private disks.
func (m machine) make(ctx context.Context, def driver.Definition) error {
	if err := refuse(def); err != nil {
		return err
	}
	tmp := filepath.Join(filepath.Dir(m.dir), ".tmp-new-"+string(m.id))
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	defer os.RemoveAll(tmp) // it is gone when all went well
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	for _, d := range def.Disks {
		if d.File != nil {
			continue
		}
		if err := create(ctx, filepath.Join(tmp, d.Name+".img"), d); err != nil {
			return err
		}
	}
	if err := (record{Def: def}).write(tmp); err != nil {
		return err
	}
	return os.Rename(tmp, m.dir)
}

// create makes a private disk: a raw copy of its base, with holes, or empty.
func create(ctx context.Context, path string, d driver.Disk) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if d.Base != nil {
		out, err := exec.CommandContext(ctx, "qemu-img", "convert", "-f", string(d.Base.Format), "-O", "raw", d.Base.Path, path).CombinedOutput()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fault.Internal.Errorf("copy the base of disk %s: %w: %s", d.Name, err, out)
		}
	}
	return f.Truncate(size(d))
}

func size(d driver.Disk) int64 {
	switch {
	case d.File != nil:
		return int64(d.File.Size)
	case d.Base != nil:
		return int64(max(d.Size, d.Base.Size))
	}
	return int64(d.Size)
}

// resting returns the machine, which is off, and the file of one of its disks.
func (h *Host) resting(ctx context.Context, id estate.MachineID, disk string) (d driver.Disk, path string, give func(), err error) {
	m, give, err := h.take(ctx, id)
	if err != nil {
		return d, "", nil, err
	}
	r, err := m.read()
	i := slices.IndexFunc(r.Def.Disks, func(d driver.Disk) bool { return d.Name == disk })
	switch {
	case err != nil:
	case i < 0:
		err = fault.NotFound.Errorf("machine %s has no disk %s", id, disk)
	case m.power() != estate.Off:
		err = fault.Conflict.Errorf("machine %s runs; stop it first", id)
	}
	if err != nil {
		give()
		return d, "", nil, err
	}
	d = r.Def.Disks[i]
	if d.File != nil {
		return d, d.File.Path, give, nil
	}
	return d, m.path(disk + ".img"), give, nil
}

// Export implements driver.Transferer.
func (h *Host) Export(ctx context.Context, id estate.MachineID, disk string, w io.Writer) error {
	d, path, give, err := h.resting(ctx, id, disk)
	if err != nil {
		return err
	}
	defer give()
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(w, cut{ctx, f}, size(d))
	return err
}

// Import implements driver.Transferer. A whole new file replaces the old one.
func (h *Host) Import(ctx context.Context, id estate.MachineID, disk string, r io.Reader) error {
	d, path, give, err := h.resting(ctx, id, disk)
	if err != nil {
		return err
	}
	defer give()
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // it is gone when all went well
	defer f.Close()
	n, err := io.Copy(f, io.LimitReader(cut{ctx, r}, size(d)+1))
	if err != nil {
		return fault.Unavailable.Errorf("the source broke off after %d bytes: %w", n, err)
	}
	if n != size(d) {
		return fault.Invalid.Errorf("the source does not yield exactly the disk's %d bytes", size(d))
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Shelve implements driver.Transferer: the folder gets another name, under which
// only Define and Delete look for it.
func (h *Host) Shelve(ctx context.Context, id estate.MachineID) error {
	m, give, err := h.take(ctx, id)
	if err != nil {
		return err
	}
	defer give()
	if _, err := m.read(); errors.Is(err, fault.NotFound) {
		return nil
	}
	if m.power() != estate.Off {
		return fault.Conflict.Errorf("machine %s runs; stop it first", id)
	}
	return os.Rename(m.dir, m.shelf())
}

// cut is a reader that ends when its context does.
type cut struct {
	ctx context.Context
	r   io.Reader
}

func (c cut) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}

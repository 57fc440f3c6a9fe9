package qemu

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/atomicfile"
	"consort.dev/consort/internal/diskfile"
)

// private makes a private disk: empty, or holding what differs from its base.
// The base is not opened: its format and size are those of our record.
func (h *Host) private(ctx context.Context, dir string, d driver.Disk) (copied, error) {
	c := copied{File: d.Name + ".qcow2", Format: estate.QCOW2, OnBase: d.Base != nil}
	var under *layer
	if d.Base != nil {
		under = &layer{File: d.Base.Path, Format: d.Base.Format}
	}
	return c, h.overlay(ctx, filepath.Join(dir, c.File), under, diskSize(d))
}

// overlay makes the file at path, which holds what differs from the layer under
// it, or from nothing.
func (h *Host) overlay(ctx context.Context, path string, under *layer, size int64) error {
	args := []string{"create", "-q", "-f", "qcow2"}
	if under != nil {
		args = append(args, "-u", "-F", string(under.Format), "-b", under.File)
	}
	return h.image(ctx, append(args, path, strconv.FormatInt(size, 10))...)
}

// image runs the image tool.
func (h *Host) image(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, h.cfg.ImageTool, args...)
	var text bytes.Buffer
	cmd.Stderr = &text
	err := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		return nil
	}
	kind := fault.Internal
	if strings.Contains(text.String(), "No space left") {
		kind = fault.NoCapacity
	}
	return kind.Errorf("%s %s: %w: %s", h.cfg.ImageTool, args[0], err, strings.TrimSpace(text.String()))
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

// resting returns a disk of a machine that is off. Callers hold the turn.
func (m *machine) resting(name string) (driver.Disk, error) {
	r := m.record()
	i := slices.IndexFunc(r.Def.Disks, func(d driver.Disk) bool { return d.Name == name })
	if i < 0 {
		return driver.Disk{}, fault.NotFound.Errorf("machine %s has no disk %s", m.id, name)
	}
	return r.Def.Disks[i], m.mustBeOff()
}

// Export implements driver.Transferer. A disk that is not raw is laid out in a
// sparse file first, since the image tool writes raw disks to files only.
func (h *Host) Export(ctx context.Context, id estate.MachineID, name string, w io.Writer) error {
	m, err := h.existing(ctx, id)
	if err != nil {
		return err
	}
	defer h.done(m)
	d, err := m.resting(name)
	if err != nil {
		return err
	}
	stack := m.stack(d)
	path := stack[0].File
	if len(stack) > 1 || stack[0].Format != estate.Raw {
		path = filepath.Join(m.dir, atomicfile.Prefix+"export")
		defer os.Remove(path)
		if err := h.flatten(ctx, path, stack); err != nil {
			return err
		}
	}
	return diskfile.Drain(ctx, w, path, diskSize(d))
}

// stack returns the files a disk consists of, topmost first, by their paths.
func (m *machine) stack(d driver.Disk) []layer {
	if d.File != nil {
		return []layer{{File: d.File.Path, Format: d.File.Format}}
	}
	return m.paths(d, m.record().Copies[d.Name])
}

// paths returns the files of a stack of the disk's layers.
func (m *machine) paths(d driver.Disk, c copied) []layer {
	var all []layer
	for _, l := range c.layers() {
		all = append(all, layer{File: filepath.Join(m.dir, l.File), Format: l.Format})
	}
	if c.OnBase {
		all = append(all, layer{File: d.Base.Path, Format: d.Base.Format})
	}
	return all
}

// flatten writes the disk that the stack makes to a raw file.
func (h *Host) flatten(ctx context.Context, to string, stack []layer) error {
	n, err := imageNode(stack)
	if err != nil {
		return err
	}
	return h.image(ctx, "convert", "-q", "-O", "raw", "json:"+marshal(n), to)
}

// imageNode says how the files of a stack are to be read. Nothing is taken from
// a file's own header that names another file.
func imageNode(stack []layer) (n node, err error) {
	for i := len(stack) - 1; i >= 0; i-- {
		l, under := stack[i], n
		n = node{"driver": string(l.Format), "file": node{"driver": "file", "filename": l.File}}
		if l.Format != estate.QCOW2 {
			continue
		}
		if err := inert(l.File); err != nil {
			return nil, err
		}
		n["backing"] = nil
		if under != nil {
			n["backing"] = under
		}
	}
	return n, nil
}

// inert refuses a qcow2 file that keeps its data in another file, whose name it
// carries (CVE-2024-32498): a process that a guest has taken over could write
// such a header for us to follow.
func inert(path string) error {
	head, err := diskfile.Head(path)
	if err == nil && head.External {
		err = fault.Denied.Errorf("disk %s keeps its data in another file", path)
	}
	return err
}

// Import implements driver.Transferer. The new content is a raw file of its
// own, which the record takes up once it is complete.
func (h *Host) Import(ctx context.Context, id estate.MachineID, name string, r io.Reader) error {
	m, err := h.existing(ctx, id)
	if err != nil {
		return err
	}
	defer h.done(m)
	d, err := m.resting(name)
	if err != nil {
		return err
	}
	if d.File != nil {
		return h.importFile(ctx, m, d, r)
	}
	rec := m.record()
	next := copied{File: rec.freeName(name, ".raw"), Format: estate.Raw}
	err = atomicfile.WriteFrom(filepath.Join(m.dir, next.File), 0o600, func(w io.Writer) error {
		return diskfile.Fill(ctx, w.(*os.File), r, diskSize(d))
	})
	if err != nil {
		return err
	}
	rec.Copies = maps.Clone(rec.Copies)
	rec.Copies[name], rec.Saved = next, nil
	if err := m.save(rec); err != nil {
		return err
	}
	return m.sweep()
}

// importFile replaces a file that outlives the machine.
func (h *Host) importFile(ctx context.Context, m *machine, d driver.Disk, r io.Reader) error {
	if d.ReadOnly {
		return fault.Denied.Errorf("disk %s is read-only", d.Name)
	}
	info, err := os.Stat(d.File.Path)
	if err != nil {
		return err
	}
	// The memory goes first: it must never meet a disk that it does not know.
	if rec := m.record(); rec.Saved != nil {
		rec.Saved = nil
		if err := m.save(rec); err != nil {
			return err
		}
	}
	fill := func(w io.Writer) error { return diskfile.Fill(ctx, w.(*os.File), r, diskSize(d)) }
	if d.File.Format == estate.Raw {
		return atomicfile.WriteFrom(d.File.Path, info.Mode().Perm(), fill)
	}
	raw := filepath.Join(m.dir, atomicfile.Prefix+"import")
	defer os.Remove(raw)
	if err := atomicfile.WriteFrom(raw, 0o600, fill); err != nil {
		return err
	}
	return atomicfile.WriteFrom(d.File.Path, info.Mode().Perm(), func(w io.Writer) error {
		// The tool writes into the file that is already open here.
		return h.image(ctx, "convert", "-q", "-f", "raw", "-O", string(d.File.Format), raw, w.(*os.File).Name())
	})
}

// openDisk opens a disk's file. It never follows a link at the end of the path,
// and takes regular files only.
func openDisk(path string, readOnly bool) (*os.File, error) {
	flags := os.O_RDWR
	if readOnly {
		flags = os.O_RDONLY
	}
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.NotFound.Errorf("open disk: %w", err)
	}
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(fault.Invalid.Errorf("disk %s is not a regular file", path), err)
	}
	return f, nil
}

package qemu

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/atomicfile"
)

// overlay makes a private disk that holds what differs from its base. The base
// is not opened: its format and size are those of our record.
func (h *Host) overlay(ctx context.Context, dir string, d driver.Disk) (copied, error) {
	c := copied{File: d.Name + ".qcow2", Format: estate.QCOW2, OnBase: true}
	err := h.image(ctx, "create", "-q", "-u", "-f", "qcow2", "-F", string(d.Base.Format), "-b", d.Base.Path,
		filepath.Join(dir, c.File), strconv.FormatInt(diskSize(d), 10))
	if err != nil {
		return copied{}, err
	}
	return c, nil
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
	return int64(max(d.Size, d.Base.Size))
}

// resting returns a disk of a machine that is off. Callers hold the turn.
func (m *machine) resting(name string) (driver.Disk, error) {
	r := m.record()
	i := slices.IndexFunc(r.Def.Disks, func(d driver.Disk) bool { return d.Name == name })
	if i < 0 {
		return driver.Disk{}, fault.NotFound.Errorf("machine %s has no disk %s", m.id, name)
	}
	lives, err := alive(m.dir)
	if err == nil && lives {
		err = fault.Conflict.Errorf("machine %s runs; stop it first", m.id)
	}
	return r.Def.Disks[i], err
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
	c := m.record().Copies[name]
	path := filepath.Join(m.dir, c.File)
	if d.File != nil {
		path, c.Format = d.File.Path, d.File.Format
	}
	if c.Format != estate.Raw {
		tmp := filepath.Join(m.dir, atomicfile.Prefix+"export")
		defer os.Remove(tmp)
		if err := h.flatten(ctx, tmp, path, c, d.Base); err != nil {
			return err
		}
		path = tmp
	}
	f, err := openDisk(path, true)
	if err != nil {
		return err
	}
	defer f.Close()
	// A raw base may be shorter than the disk; what is past its end reads as zeros.
	size := diskSize(d)
	n, err := io.Copy(w, reader(ctx, io.LimitReader(f, size)))
	if err == nil && n < size {
		_, err = io.CopyN(w, reader(ctx, zeros{}), size-n)
	}
	return err
}

// flatten writes the disk at path, read together with its base, to a raw file.
func (h *Host) flatten(ctx context.Context, to, path string, c copied, base *driver.Content) error {
	if c.Format == estate.QCOW2 {
		if err := inert(path); err != nil {
			return err
		}
	}
	node := imageNode(path, c.Format)
	if c.OnBase {
		if base.Format == estate.QCOW2 {
			if err := inert(base.Path); err != nil {
				return err
			}
		}
		node["backing"] = imageNode(base.Path, base.Format)
	}
	return h.image(ctx, "convert", "-q", "-O", "raw", "json:"+marshal(node), to)
}

// imageNode says how a file is to be read. Nothing is taken from the file's own
// header that names another file.
func imageNode(path string, format estate.DiskFormat) node {
	n := node{"driver": string(format), "file": node{"driver": "file", "filename": path}}
	if format == estate.QCOW2 {
		n["backing"] = nil
	}
	return n
}

// inert refuses a qcow2 file that keeps its data in another file, whose name it
// carries (CVE-2024-32498). A process that a guest has taken over could write
// such a header for us to follow. The bit is in docs/interop/qcow2.txt of QEMU.
func inert(path string) error {
	f, err := openDisk(path, true)
	if err != nil {
		return err
	}
	defer f.Close()
	var head [80]byte
	if _, err := io.ReadFull(f, head[:]); err != nil {
		return fault.Invalid.Errorf("disk %s has no qcow2 header: %w", path, err)
	}
	be := binary.BigEndian
	if string(head[:4]) != "QFI\xfb" {
		return fault.Invalid.Errorf("disk %s is not qcow2, as its record says", path)
	}
	const externalData = 1 << 2
	if be.Uint32(head[4:]) >= 3 && be.Uint64(head[72:])&externalData != 0 {
		return fault.Denied.Errorf("disk %s keeps its data in another file", path)
	}
	return nil
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
	size := diskSize(d)
	if d.File != nil {
		return h.importFile(ctx, m, d, reader(ctx, r))
	}
	rec := m.record()
	old := rec.Copies[name]
	next := copied{File: name + ".raw", Format: estate.Raw}
	if old.File == next.File {
		next.File = name + "-1.raw"
	}
	err = atomicfile.WriteFrom(filepath.Join(m.dir, next.File), 0o600, func(w io.Writer) error {
		return copyExactly(w.(*os.File), reader(ctx, r), size)
	})
	if err != nil {
		return err
	}
	copies := map[string]copied{}
	for k, v := range rec.Copies {
		copies[k] = v
	}
	copies[name] = next
	rec.Copies = copies
	if err := m.save(rec); err != nil {
		return err
	}
	return os.Remove(filepath.Join(m.dir, old.File))
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
	fill := func(w io.Writer) error { return copyExactly(w.(*os.File), r, diskSize(d)) }
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

// copyExactly fills f with the size bytes that r must yield, leaving holes
// where it yields zeros.
func copyExactly(f *os.File, r io.Reader, size int64) error {
	buf := make([]byte, 256<<10)
	var at int64
	for {
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), size-at+1)])
		if at+int64(n) > size {
			return fault.Invalid.Errorf("the source yields more than the disk's %d bytes", size)
		}
		if !zero(buf[:n]) {
			if _, err := f.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		switch {
		case err == nil:
			continue
		case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return fault.Unavailable.Errorf("the source broke off after %d of %d bytes: %w", at, size, err)
		case at != size:
			return fault.Invalid.Errorf("the source yields %d bytes, the disk has %d", at, size)
		}
		return f.Truncate(size)
	}
}

func zero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// reader returns r, which ends when ctx does.
func reader(ctx context.Context, r io.Reader) io.Reader { return cut{ctx, r} }

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

// Shelve implements driver.Transferer.
func (h *Host) Shelve(ctx context.Context, id estate.MachineID) error {
	return fault.Unsupported.Errorf("shelve machine %s: not built yet", id)
}

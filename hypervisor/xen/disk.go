package xen

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/atomicfile"
)

// private makes a private disk: empty, or a copy of its base with holes where
// that is zero. Where the file system can, the copy shares the base's blocks.
func (h *host) private(ctx context.Context, path string, d driver.Disk) error {
	switch {
	case d.Base == nil:
		return blank(path, diskSize(d))
	case d.Base.Format == estate.Raw:
		if err := copySparsely(ctx, d.Base.Path, path); err != nil {
			return err
		}
		return os.Truncate(path, diskSize(d))
	}
	source, err := json.Marshal(map[string]any{"driver": string(d.Base.Format), "backing": nil,
		"file": map[string]string{"driver": "file", "filename": d.Base.Path}})
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, h.cfg.ImageTool, "convert", "-q", "-O", "raw", "json:"+string(source), path)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return full(out).Errorf("copy %s: %w: %s", d.Base.Path, err, bytes.TrimSpace(out))
	}
	return os.Truncate(path, diskSize(d))
}

// full returns the kind of a failure from what a tool said of it.
func full(text []byte) fault.Kind {
	if bytes.Contains(text, []byte("No space left")) {
		return fault.NoCapacity
	}
	return fault.Internal
}

func blank(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// copySparsely copies a file by sharing its blocks, or else by reading it.
func copySparsely(ctx context.Context, from, to string) error {
	src, err := openDisk(from)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	return atomicfile.WriteFrom(to, 0o600, func(w io.Writer) error {
		dst := w.(*os.File)
		if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
			return nil
		}
		return copyExactly(dst, cut{ctx, src}, info.Size())
	})
}

// openDisk opens a disk's file for reading. It never follows a link at the end
// of the path, and takes regular files only.
func openDisk(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
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

func diskSize(d driver.Disk) int64 {
	switch {
	case d.File != nil:
		return int64(d.File.Size)
	case d.Base != nil:
		return int64(max(d.Size, d.Base.Size))
	}
	return int64(d.Size)
}

// disk returns a disk of the machine and where its file is.
func (m *machine) disk(name string) (driver.Disk, string, error) {
	r, _ := m.record()
	i := slices.IndexFunc(r.Def.Disks, func(d driver.Disk) bool { return d.Name == name })
	if i < 0 {
		return driver.Disk{}, "", fault.NotFound.Errorf("machine %s has no disk %s", m.id, name)
	}
	d := r.Def.Disks[i]
	if d.File != nil {
		return d, d.File.Path, nil
	}
	return d, filepath.Join(m.dir, r.Files[name]), nil
}

// Export implements driver.Transferer.
func (h *host) Export(ctx context.Context, id estate.MachineID, name string, w io.Writer) error {
	return h.lend(ctx, id, func(m *machine) error {
		d, path, err := m.disk(name)
		if err != nil {
			return err
		}
		f, err := openDisk(path)
		if err != nil {
			return err
		}
		defer f.Close()
		n, err := io.Copy(w, cut{ctx, io.LimitReader(f, diskSize(d))})
		if err == nil {
			_, err = io.CopyN(w, cut{ctx, zeros{}}, diskSize(d)-n)
		}
		return err
	})
}

// Import implements driver.Transferer. The new content is a file of its own,
// which the record takes up once it is complete.
func (h *host) Import(ctx context.Context, id estate.MachineID, name string, r io.Reader) error {
	return h.lend(ctx, id, func(m *machine) error {
		d, path, err := m.disk(name)
		if err != nil {
			return err
		}
		if d.ReadOnly {
			return fault.Denied.Errorf("disk %s is read-only", name)
		}
		mode := fs.FileMode(0o600)
		if info, err := os.Stat(path); d.File != nil && err == nil {
			mode = info.Mode().Perm()
		}
		return atomicfile.WriteFrom(path, mode, func(w io.Writer) error {
			if err := copyExactly(w.(*os.File), cut{ctx, r}, diskSize(d)); err != nil {
				return err
			}
			return m.forgetSaved(ctx)
		})
	})
}

// Shelve implements driver.Transferer.
func (h *host) Shelve(ctx context.Context, id estate.MachineID) error {
	return h.act(ctx, id, func(ctx, steady context.Context, m *machine) error {
		if !m.defined() {
			return nil
		}
		if err := m.mustBe(ctx, estate.Off); err != nil {
			return err
		}
		if err := m.undefine(steady); err != nil {
			return err
		}
		m.hangUp()
		return m.update(func(r *record) { r.Shelved = true })
	})
}

// Snapshot implements driver.Snapshotter.
func (h *host) Snapshot(ctx context.Context, id estate.MachineID, name string) error {
	return h.rest(ctx, id, func(ctx, _ context.Context, m *machine) error {
		r, _ := m.record()
		if r.snapshot(name) >= 0 {
			return fault.Exists.Errorf("machine %s has a snapshot %s", id, name)
		}
		s := snapshot{Name: name, Files: map[string]string{}}
		for disk, file := range r.Files {
			s.Files[disk] = r.free(disk)
			if err := copySparsely(ctx, filepath.Join(m.dir, file), filepath.Join(m.dir, s.Files[disk])); err != nil {
				return errors.Join(err, m.tidy())
			}
		}
		return m.update(func(r *record) { r.Snapshots = append(r.Snapshots, s) })
	})
}

func (r record) snapshot(name string) int {
	return slices.IndexFunc(r.Snapshots, func(s snapshot) bool { return s.Name == name })
}

// free returns a name for a file of the disk that no other file has.
func (r record) free(disk string) string {
	taken := r.files()
	for n := 1; ; n++ {
		if name := fmt.Sprintf("%s-%d.raw", disk, n); !taken[name] {
			return name
		}
	}
}

// Revert implements driver.Snapshotter. Copies of the snapshot's files become
// the disks all at once, when the record is written.
func (h *host) Revert(ctx context.Context, id estate.MachineID, name string) error {
	return h.rest(ctx, id, func(ctx, steady context.Context, m *machine) error {
		r, _ := m.record()
		i := r.snapshot(name)
		if i < 0 {
			return fault.NotFound.Errorf("machine %s has no snapshot %s", id, name)
		}
		files := map[string]string{}
		for disk, file := range r.Snapshots[i].Files {
			files[disk] = r.free(disk)
			if err := copySparsely(ctx, filepath.Join(m.dir, file), filepath.Join(m.dir, files[disk])); err != nil {
				return errors.Join(err, m.tidy())
			}
		}
		if err := m.forgetSaved(steady); err != nil {
			return errors.Join(err, m.tidy())
		}
		if err := m.update(func(r *record) { r.Files = files }); err != nil {
			return err
		}
		return errors.Join(m.tidy(), m.tellDefinition(steady))
	})
}

// DropSnapshot implements driver.Snapshotter.
func (h *host) DropSnapshot(ctx context.Context, id estate.MachineID, name string) error {
	return h.rest(ctx, id, func(_, _ context.Context, m *machine) error {
		r, _ := m.record()
		i := r.snapshot(name)
		if i < 0 {
			return nil
		}
		if err := m.update(func(r *record) { r.Snapshots = slices.Delete(r.Snapshots, i, i+1) }); err != nil {
			return err
		}
		return m.tidy()
	})
}

// Snapshots implements driver.Snapshotter.
func (h *host) Snapshots(ctx context.Context, id estate.MachineID) ([]string, error) {
	m, err := h.existing(id)
	if err != nil {
		return nil, err
	}
	r, _ := m.record()
	var names []string
	for _, s := range r.Snapshots {
		names = append(names, s.Name)
	}
	return names, ctx.Err()
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
		if n > 0 && (buf[0] != 0 || !bytes.Equal(buf[1:n], buf[:n-1])) {
			if _, err := f.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		switch {
		case err == nil:
			continue
		case err != io.EOF && err != io.ErrUnexpectedEOF: // one that wraps them tells of a source that broke off
			return fault.Unavailable.Errorf("the source broke off after %d of %d bytes: %w", at, size, err)
		case at != size:
			return fault.Invalid.Errorf("the source yields %d bytes, the disk has %d", at, size)
		}
		return f.Truncate(size)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
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

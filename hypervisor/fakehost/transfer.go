package fakehost

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// content is what a disk holds. It is a value: what was read from it stays as it is.
type content struct {
	from *driver.Content // what it began with, or is; nothing where nil
	data []byte          // what was imported since; nil where nothing was
}

// Export implements driver.Transferer. What began as anything but a raw file
// that can be read counts as zeros.
func (h *Host) Export(ctx context.Context, id estate.MachineID, name string, w io.Writer) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	d, c, err := h.disk(id, name)
	h.mu.Unlock()
	if err != nil {
		return err
	}
	r, err := c.open()
	if err != nil {
		return err
	}
	defer r.Close()
	size := diskSize(d)
	n, err := io.Copy(w, io.LimitReader(r, size))
	if err == nil {
		_, err = io.CopyN(w, zeros{}, size-n)
	}
	return err
}

func (c content) open() (io.ReadCloser, error) {
	if c.data == nil && c.from != nil && c.from.Format == estate.Raw {
		f, err := os.Open(c.from.Path)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return io.NopCloser(bytes.NewReader(c.data)), nil
}

// Import implements driver.Transferer. The content is kept in memory, but for a
// raw file that is there.
func (h *Host) Import(ctx context.Context, id estate.MachineID, name string, r io.Reader) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	d, _, err := h.disk(id, name)
	h.mu.Unlock()
	if err != nil {
		return err
	}
	size := diskSize(d)
	data, err := io.ReadAll(io.LimitReader(r, size+1))
	if err != nil {
		return fault.Unavailable.Errorf("import disk %s of machine %s: %w", name, id, err)
	}
	if int64(len(data)) != size {
		return fault.Invalid.Errorf("import disk %s of machine %s: the source does not yield exactly the disk's %d bytes", name, id, size)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, _, err := h.disk(id, name); err != nil {
		return err
	}
	m := h.machines[id]
	m.forget()
	if d.File != nil && d.File.Format == estate.Raw {
		if _, err := os.Stat(d.File.Path); err == nil {
			return os.WriteFile(d.File.Path, data, 0o600)
		}
	}
	m.content[name] = content{from: m.content[name].from, data: data}
	return nil
}

// disk returns a disk of a machine that is off, and what it holds. Callers hold mu.
func (h *Host) disk(id estate.MachineID, name string) (driver.Disk, content, error) {
	m, err := h.resting(id)
	if err != nil {
		return driver.Disk{}, content{}, err
	}
	i := slices.IndexFunc(m.Def.Disks, func(d driver.Disk) bool { return d.Name == name })
	if i < 0 {
		return driver.Disk{}, content{}, fault.NotFound.Errorf("machine %s has no disk %s", id, name)
	}
	return m.Def.Disks[i], m.content[name], nil
}

// Shelve implements driver.Transferer.
func (h *Host) Shelve(ctx context.Context, id estate.MachineID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.machines[id] == nil {
		return nil
	}
	m, err := h.resting(id)
	if err == nil {
		h.shelve(m)
	}
	return err
}

// shelve takes the machine from those the host lists. Callers hold mu.
func (h *Host) shelve(m *machine) {
	h.shelf[m.ID] = m
	delete(h.machines, m.ID)
	h.tell(m.ID)
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

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

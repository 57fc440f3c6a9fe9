package qemu

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/atomicfile"
)

// templated begins the name of a template's folder: that of the machine it was,
// renamed. Its record says where its memory is; its disks never change.
const templated = ".template-"

// blankEnding ends the name of an empty layer for a disk of that size. Clones
// copy it, which takes a fraction of making one.
const blankEnding = ".blank"

// templates are those of a host. mu is held while their folders are read,
// renamed or removed.
type templates struct {
	mu  sync.Mutex
	all map[string]*template
}

type template struct {
	name string
	dir  string
	rec  record

	mu     sync.Mutex
	memory *os.File // sealed; nil until it is needed
}

func (h *Host) templateDir(name string) string { return filepath.Join(h.cfg.Dir, templated+name) }

// takeUpTemplate reads a template that an earlier process made.
func (h *Host) takeUpTemplate(folder string) error {
	dir := filepath.Join(h.cfg.Dir, folder)
	rec, err := readRecord(dir)
	if err != nil || rec.Saved == nil {
		return fault.Stuck.Errorf("read the record of template %s: %w; restore %s or remove its folder", folder, errors.Join(err), recordFile)
	}
	name := strings.TrimPrefix(folder, templated)
	h.templates.all[name] = &template{name: name, dir: dir, rec: rec}
	return nil
}

// Templates implements driver.Cloner.
func (h *Host) Templates(ctx context.Context) ([]driver.Template, error) {
	h.templates.mu.Lock()
	defer h.templates.mu.Unlock()
	var all []driver.Template
	for _, name := range slices.Sorted(maps.Keys(h.templates.all)) {
		t := h.templates.all[name]
		all = append(all, driver.Template{Name: name, Def: t.rec.Def, Size: sizeOf(t.dir), Stale: t.stale(h)})
	}
	return all, ctx.Err()
}

// stale says why nothing can go on from the template.
func (t *template) stale(h *Host) string {
	if made := t.rec.Saved.Product; made != h.maker() {
		return fmt.Sprintf("it was made by %s, and this is %s", made, h.maker())
	}
	return ""
}

// maker is what a machine's memory and state were written by: nothing else is
// known to read them.
func (h *Host) maker() string { return h.desc.Product + ", " + machineType + " of shape 2" }

// sizeOf returns what a folder's files take.
func sizeOf(dir string) (size int64) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(dir, e.Name()), &st) == nil {
			size += st.Blocks * 512
		}
	}
	return size
}

// DropTemplate implements driver.Cloner. Clones have links of their own to what
// they stand on.
func (h *Host) DropTemplate(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.templates.mu.Lock()
	defer h.templates.mu.Unlock()
	t := h.templates.all[name]
	if t == nil {
		return nil
	}
	gone := filepath.Join(h.cfg.Dir, removing+templated+name)
	if err := os.RemoveAll(gone); err != nil {
		return err
	}
	if err := os.Rename(t.dir, gone); err != nil {
		return err
	}
	delete(h.templates.all, name)
	t.release()
	return errors.Join(atomicfile.SyncDir(h.cfg.Dir), os.RemoveAll(gone))
}

// release lets go of the memory; those who map it keep it.
func (t *template) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.memory != nil {
		t.memory.Close()
		t.memory = nil
	}
}

// share returns the template's memory for one more process.
func (t *template) share(ctx context.Context) (*os.File, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.memory == nil {
		f, err := loadMemory(ctx, filepath.Join(t.dir, t.rec.Saved.RAM), int64(t.rec.Def.Memory))
		if err != nil {
			return nil, err
		}
		t.memory = f
	}
	return duplicate(t.memory)
}

func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("F_DUPFD_CLOEXEC", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// memory returns what a machine's saved memory file holds: the template's, which
// all its clones share, or once that was dropped a copy of the machine's own.
func (m *machine) memory(ctx context.Context, r record) (*os.File, error) {
	h := m.host
	h.templates.mu.Lock()
	t := h.templates.all[r.Def.Template]
	if t != nil && (t.rec.Saved.RAM != r.Saved.RAM || !sameFile(filepath.Join(t.dir, r.Saved.RAM), filepath.Join(m.dir, r.Saved.RAM))) {
		t = nil // another one by that name
	}
	h.templates.mu.Unlock()
	if t != nil {
		if f, err := t.share(ctx); err == nil {
			return f, nil
		} // it is being dropped
	}
	return loadMemory(ctx, filepath.Join(m.dir, r.Saved.RAM), int64(r.Def.Memory))
}

func sameFile(a, b string) bool {
	one, err1 := os.Stat(a)
	two, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(one, two)
}

// begin has the machine that is made in dir begin as its template: with links to
// the template's memory and disks, and layers of its own on top. It returns the
// machine's record so far.
func (h *Host) begin(def driver.Definition, dir string) (record, error) {
	h.templates.mu.Lock()
	defer h.templates.mu.Unlock()
	t := h.templates.all[def.Template]
	switch {
	case t == nil:
		return record{}, fault.NotFound.Errorf("no template %s", def.Template)
	case t.stale(h) != "":
		return record{}, fault.Unsupported.Errorf("template %s: %s; drop it and make it anew", t.name, t.stale(h))
	case !def.Clones(t.rec.Def):
		return record{}, fault.Invalid.Errorf("template %s is of other hardware than machine %s", t.name, def.ID)
	}
	s := *t.rec.Saved
	r := record{Def: def, Copies: map[string]copied{}, Saved: &s, Plugged: t.rec.Plugged, Apart: true, Built: len(t.rec.Def.NICs)}
	links := []string{s.File, s.RAM}
	for disk, c := range t.rec.Copies {
		for _, l := range c.layers() {
			links = append(links, l.File)
		}
		own := layer{File: disk + "-own.qcow2", Format: estate.QCOW2}
		if err := copyFile(filepath.Join(t.dir, disk+blankEnding), filepath.Join(dir, own.File)); err != nil {
			return record{}, err
		}
		r.Copies[disk] = stack(append([]layer{own}, shared(c.layers())...), c.OnBase)
	}
	for _, name := range links {
		if err := os.Link(filepath.Join(t.dir, name), filepath.Join(dir, name)); err != nil {
			return record{}, err
		}
	}
	if def.Firmware == estate.UEFI {
		return r, copyFile(filepath.Join(t.dir, varsFile), filepath.Join(dir, varsFile))
	}
	return r, nil
}

// shared returns the layers as others have them too.
func shared(layers []layer) []layer {
	all := slices.Clone(layers)
	for i := range all {
		all[i].Shared = true
	}
	return all
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

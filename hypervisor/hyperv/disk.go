package hyperv

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/atomicfile"
	"consort.dev/consort/internal/vdisk"
)

// Hyper-V makes no VHDX below 3 MiB, and wants whole MiB. A disk that is
// smaller lies in one that is larger, and is cut to its size when exported.
const (
	leastRoom = 4 << 20
	roomUnit  = 1 << 20
)

// room returns the size of the VHDX that holds a disk of this size.
func room(size estate.Bytes) int64 {
	return max(leastRoom, (int64(size)+roomUnit-1)/roomUnit*roomUnit)
}

func sizeOf(d driver.Disk) estate.Bytes {
	switch {
	case d.File != nil:
		return d.File.Size
	case d.Base != nil:
		return max(d.Size, d.Base.Size)
	}
	return d.Size
}

// volume reports whether the disk is a file that a guest writes and that comes
// home when the machine goes. One that is only read is as good as a base.
func volume(d driver.Disk) bool { return d.File != nil && !d.ReadOnly }

// prepare brings what the machine's disks begin with to the host, and returns
// the record of the machine. Disks of a machine that was shelved are there.
func (h *Host) prepare(ctx context.Context, def driver.Definition, shelved record, starts int64) (record, error) {
	rec := record{Def: def, Disks: map[string]kept{}, Synced: starts}
	for _, d := range def.Disks {
		k, there := shelved.Disks[d.Name]
		rec.Disks[d.Name] = k
		source := d.Base
		if d.File != nil {
			source = d.File
		}
		switch {
		case there && !volume(d):
		case source == nil:
			rec.Disks[d.Name] = kept{Make: "empty"}
		case volume(d):
			spec := rec.disks()[slices.IndexFunc(def.Disks, func(o driver.Disk) bool { return o.Name == d.Name })]
			if err := h.carry(ctx, *source, spec.File, false); err != nil {
				return rec, err
			}
		default:
			base, err := h.base(ctx, *source)
			if err != nil {
				return rec, err
			}
			rec.Disks[d.Name] = kept{Make: base}
		}
	}
	return rec, nil
}

// base returns the stored file that private copies of the content differ from.
// It is carried over once: content that never changes is known by where it is.
func (h *Host) base(ctx context.Context, c driver.Content) (string, error) {
	key, err := identity(c)
	if err != nil {
		return "", err
	}
	give, err := h.turns.take(ctx, key)
	if err != nil {
		return "", err
	}
	defer give()
	file := `bases\` + key + `.vhdx`
	var there had
	if err := h.remote.ask(ctx, "has", hasRequest{File: file}, &there); err != nil || there.Has {
		return file, err
	}
	return file, h.carry(ctx, c, file, true)
}

// identity tells one version of a disk file from every other.
func identity(c driver.Content) (string, error) {
	info, err := os.Stat(c.Path)
	if err != nil {
		return "", fault.NotFound.Errorf("read disk: %w", err)
	}
	s := sha256.Sum256(fmt.Appendf(nil, "%q %s %d %d %d", c.Path, c.Format, c.Size, info.Size(), info.ModTime().UnixNano()))
	return fmt.Sprintf("%x", s[:16]), nil
}

// carry converts content to a VHDX and uploads that. The converted file stays
// until it has arrived: another conversion would have another hash, and what
// had arrived so far would be worth nothing.
func (h *Host) carry(ctx context.Context, c driver.Content, file string, readOnly bool) error {
	key, err := identity(c)
	if err != nil {
		return err
	}
	ready := h.local("ready-" + key + ".vhdx")
	if _, err := os.Stat(ready); err != nil {
		raw, remove, err := h.flat(ctx, c)
		if err != nil {
			return err
		}
		defer remove()
		if err := h.pack(ctx, raw, ready); err != nil {
			return err
		}
	}
	if err := h.upload(ctx, ready, file, readOnly); err != nil {
		return err
	}
	return gone(ready)
}

// flat lays content out in a raw file with the room that its VHDX has.
func (h *Host) flat(ctx context.Context, c driver.Content) (path string, remove func(), err error) {
	if err := inspect(c); err != nil {
		return "", nil, err
	}
	if path, remove, err = h.pass(); err != nil {
		return "", nil, err
	}
	if err = h.image(ctx, "convert", "-q", "-f", string(c.Format), "-O", "raw", c.Path, path); err == nil {
		err = os.Truncate(path, room(c.Size))
	}
	if err != nil {
		remove()
	}
	return path, remove, err
}

// inspect refuses content that is not of its recorded format, or that names
// other files.
func inspect(c driver.Content) error {
	f, err := os.Open(c.Path)
	if err != nil {
		return fault.NotFound.Errorf("open disk: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	switch c.Format {
	case estate.QCOW2:
		_, err = vdisk.CheckQCOW2(f, info.Size())
	case estate.VMDK:
		_, err = vdisk.CheckVMDK(f, info.Size())
	}
	if err != nil {
		return fault.Invalid.Errorf("disk %s: %w", c.Path, err)
	}
	return nil
}

// pack converts a raw file to a VHDX. Blocks of 1 MiB keep holes out of it.
func (h *Host) pack(ctx context.Context, raw, to string) error {
	return atomicfile.WriteFrom(to, 0o600, func(w io.Writer) error {
		// The tool writes into the file that is already open here.
		return h.image(ctx, "convert", "-q", "-f", "raw", "-O", "vhdx", "-o", "subformat=dynamic,block_size=1M", raw, w.(*os.File).Name())
	})
}

// image runs the image tool.
func (h *Host) image(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, h.cfg.ImageTool, args...)
	cmd.WaitDelay = time.Second
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

// slot returns a disk of the machine and its place.
func (r record) slot(name string) (driver.Disk, int, error) {
	i := slices.IndexFunc(r.Def.Disks, func(d driver.Disk) bool { return d.Name == name })
	if i < 0 {
		return driver.Disk{}, 0, fault.NotFound.Errorf("machine %s has no disk %s", r.Def.ID, name)
	}
	return r.Def.Disks[i], i, nil
}

// Export implements driver.Transferer.
func (h *Host) Export(ctx context.Context, id estate.MachineID, name string, w io.Writer) error {
	give, err := h.turns.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer give()
	_, rec, err := h.resting(ctx, id)
	if err != nil {
		return err
	}
	d, slot, err := rec.slot(name)
	if err != nil {
		return err
	}
	packed, remove, err := h.pass()
	if err != nil {
		return err
	}
	defer remove()
	a := &arrival{path: packed}
	if err := h.layOut(ctx, rec, slot, a); err != nil {
		return err
	}
	if err := h.download(ctx, a); err != nil {
		return err
	}
	if err := h.remote.act(ctx, "drop", dropRequest{File: a.file}); err != nil {
		return err
	}
	return h.unpack(ctx, packed, sizeOf(d), func(raw *os.File) error {
		_, err := io.Copy(w, cut{ctx, raw})
		return err
	})
}

// layOut has the host lay a disk out in one file.
func (h *Host) layOut(ctx context.Context, rec record, slot int, a *arrival) error {
	a.file = fmt.Sprintf(`machines\%s\export.%d.vhdx`, rec.Def.ID, slot)
	return h.remote.ask(ctx, "get-begin", getBeginRequest{ID: rec.Def.ID, Adopted: rec.Adopted, Slot: slot, File: a.file}, &a.begun)
}

// unpack has use read a VHDX as the raw disk of this size.
func (h *Host) unpack(ctx context.Context, packed string, size estate.Bytes, use func(raw *os.File) error) error {
	path, remove, err := h.pass()
	if err != nil {
		return err
	}
	defer remove()
	if err := h.image(ctx, "convert", "-q", "-f", "vhdx", "-O", "raw", packed, path); err != nil {
		return err
	}
	if err := os.Truncate(path, int64(size)); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return use(f)
}

// Import implements driver.Transferer. The new content is a file of its own,
// which the machine takes up once it has arrived. A volume's file here gets it
// when the volume comes home.
func (h *Host) Import(ctx context.Context, id estate.MachineID, name string, r io.Reader) error {
	give, err := h.turns.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer give()
	_, rec, err := h.resting(ctx, id)
	if err != nil {
		return err
	}
	d, slot, err := rec.slot(name)
	switch {
	case err != nil:
		return err
	case rec.Adopted:
		return fault.Unsupported.Errorf("machine %s was adopted: its disks stay as they are", id)
	case d.ReadOnly:
		return fault.Denied.Errorf("disk %s is read-only", name)
	}
	raw, remove, err := h.pass()
	if err != nil {
		return err
	}
	defer remove()
	if err := fill(raw, cut{ctx, r}, int64(sizeOf(d)), room(sizeOf(d))); err != nil {
		return err
	}
	packed, removePacked, err := h.pass()
	if err != nil {
		return err
	}
	defer removePacked()
	if err := h.pack(ctx, raw, packed); err != nil {
		return err
	}
	next := rec.clone()
	next.Disks[name] = kept{N: rec.Disks[name].N + 1}
	if volume(d) {
		h.forget(id)
		next.Synced = -1
	}
	specs := next.disks()
	if err := h.upload(ctx, packed, specs[slot].File, false); err != nil {
		return err
	}
	return h.remote.act(ctx, "swap", swapRequest{ID: id, Slot: slot, Record: next.text(), Disks: specs})
}

// fill writes the size bytes that r must yield to a file with this much room.
func fill(path string, r io.Reader, size, space int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(f, io.LimitReader(r, size+1))
	switch {
	case err != nil:
		return fault.Unavailable.Errorf("the source broke off after %d of %d bytes: %w", n, size, err)
	case n != size:
		return fault.Invalid.Errorf("the source does not yield exactly the disk's %d bytes", size)
	}
	return f.Truncate(space)
}

// writeBack brings the volumes home that a guest may have written since they
// were carried over. It goes on where a call that was cut left off.
func (h *Host) writeBack(ctx context.Context, m listedMachine) error {
	rec, err := m.record()
	if err != nil || rec.Adopted || max(m.Starts, m.Starting) <= rec.Synced {
		return err
	}
	for slot, d := range rec.Def.Disks {
		if volume(d) {
			if err := h.home(ctx, m, rec, slot, d); err != nil {
				return err
			}
		}
	}
	h.forget(m.ID)
	return nil
}

// home writes a volume to the file that it came from.
func (h *Host) home(ctx context.Context, m listedMachine, rec record, slot int, d driver.Disk) error {
	key := fmt.Sprintf("%s %s %d", m.ID, d.Name, max(m.Starts, m.Starting))
	h.mu.Lock()
	a := h.coming[key]
	h.mu.Unlock()
	if a == nil {
		a = &arrival{path: h.local(fmt.Sprintf("%s%s.%s.vhdx", passing, m.ID, d.Name))}
		if err := errors.Join(gone(a.path), h.layOut(ctx, rec, slot, a)); err != nil {
			return err
		}
		h.mu.Lock()
		h.coming[key] = a
		h.mu.Unlock()
	}
	if err := h.download(ctx, a); err != nil {
		return err
	}
	info, err := os.Stat(d.File.Path)
	if err != nil {
		return fault.NotFound.Errorf("the file of volume %s is gone: %w; put one there for its content to come home to", d.Name, err)
	}
	return h.unpack(ctx, a.path, d.File.Size, func(raw *os.File) error {
		return atomicfile.WriteFrom(d.File.Path, info.Mode().Perm(), func(w io.Writer) error {
			if d.File.Format == estate.Raw {
				_, err := io.Copy(w, cut{ctx, raw})
				return err
			}
			return h.image(ctx, "convert", "-q", "-f", "raw", "-O", string(d.File.Format), raw.Name(), w.(*os.File).Name())
		})
	})
}

// forget drops what was on its way home from the machine.
func (h *Host) forget(id estate.MachineID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, a := range h.coming {
		if strings.HasPrefix(key, string(id)) {
			gone(a.path) // what stays is removed when the host is opened again
			delete(h.coming, key)
		}
	}
}

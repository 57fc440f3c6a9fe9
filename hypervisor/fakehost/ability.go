package fakehost

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// Attach implements driver.Hotplugger.
func (h *Host) Attach(ctx context.Context, id estate.MachineID, disk driver.Disk) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.running(id)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(m.Def.Disks, func(d driver.Disk) bool { return d.Name == disk.Name }) {
		return fault.Exists.Errorf("machine %s is defined with another disk %s", id, disk.Name)
	}
	if old, ok := m.attached[disk.Name]; ok {
		if !old.Equal(disk) {
			return fault.Exists.Errorf("machine %s has another disk %s attached", id, disk.Name)
		}
		return nil
	}
	if len(m.attached) == Slots {
		return fault.NoCapacity.Errorf("machine %s has no free slot for disk %s: all %d are taken", id, disk.Name, Slots)
	}
	m.attached[disk.Name] = disk
	return nil
}

// Detach implements driver.Hotplugger.
func (h *Host) Detach(ctx context.Context, id estate.MachineID, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.machine(id)
	if err == nil {
		delete(m.attached, name)
	}
	return err
}

// Attached implements driver.Hotplugger.
func (h *Host) Attached(ctx context.Context, id estate.MachineID) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.machine(id)
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(m.attached)), ctx.Err()
}

// Run implements driver.Guest.
func (h *Host) Run(ctx context.Context, id estate.MachineID, cmd driver.Command) (driver.Output, error) {
	if err := ctx.Err(); err != nil {
		return driver.Output{}, err
	}
	h.mu.Lock()
	m, err := h.machine(id)
	if err == nil && (m.Power != estate.On || time.Since(m.Started) < h.opt.Boot) {
		err = fault.Unavailable.Errorf("the guest agent of machine %s does not answer", id)
	}
	if err != nil {
		h.mu.Unlock()
		return driver.Output{}, err
	}
	h.ran = append(h.ran, Ran{id, cmd})
	seen, run := m.copy(), h.opt.Run
	h.mu.Unlock()
	if run == nil {
		run = Shell
	}
	out, err := run(ctx, seen, cmd)
	out.Stdout, out.Stderr = bound(out.Stdout), bound(out.Stderr)
	return out, err
}

func bound(b []byte) []byte { return b[:min(len(b), 1<<20)] }

// Ran returns the commands that reached guests so far, in order.
func (h *Host) Ran() []Ran {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ran)
}

// Shell is the shell that guests have when Options say nothing else. It knows
// true, false, echo, cat, head -c N /dev/zero and test -e of the file that
// tells that a desktop is drawn; anything else exits with 127.
func Shell(_ context.Context, _ driver.Machine, cmd driver.Command) (driver.Output, error) {
	switch line := strings.Join(cmd.Args, " "); {
	case line == "true", line == "test -e /run/consort/desktop":
		return driver.Output{}, nil
	case line == "false":
		return driver.Output{Exit: 1}, nil
	case line == "cat":
		return driver.Output{Stdout: bytes.Clone(cmd.Stdin)}, nil
	case line == "head -c 2000000 /dev/zero":
		return driver.Output{Stdout: make([]byte, 2000000)}, nil
	case cmd.Args[0] == "echo":
		return driver.Output{Stdout: []byte(strings.Join(cmd.Args[1:], " ") + "\n")}, nil
	}
	return driver.Output{Exit: 127, Stderr: []byte(cmd.Args[0] + ": not found\n")}, nil
}

// Export implements driver.Transferer. A private copy of anything but a raw
// file that can be read counts as zeros.
func (h *Host) Export(ctx context.Context, id estate.MachineID, name string, w io.Writer) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	d, content, err := h.resting(id, name)
	h.mu.Unlock()
	if err != nil {
		return err
	}
	size := diskSize(d)
	if content != nil {
		_, err := w.Write(content)
		return err
	}
	from := d.File
	if from == nil {
		from = d.Base
	}
	var n int64
	if from.Format == estate.Raw {
		f, err := os.Open(from.Path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil {
			defer f.Close()
			if n, err = io.Copy(w, io.LimitReader(f, size)); err != nil {
				return err
			}
		}
	}
	_, err = io.CopyN(w, zeros{}, size-n)
	return err
}

// Import implements driver.Transferer. The content is kept in memory.
func (h *Host) Import(ctx context.Context, id estate.MachineID, name string, r io.Reader) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	d, _, err := h.resting(id, name)
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
	if _, _, err := h.resting(id, name); err != nil {
		return err
	}
	h.machines[id].content[name] = data
	return nil
}

// resting returns a disk of a machine that is off, and what was imported into
// it. Callers hold mu.
func (h *Host) resting(id estate.MachineID, name string) (driver.Disk, []byte, error) {
	m, err := h.machine(id)
	if err != nil {
		return driver.Disk{}, nil, err
	}
	i := slices.IndexFunc(m.Def.Disks, func(d driver.Disk) bool { return d.Name == name })
	if i < 0 {
		return driver.Disk{}, nil, fault.NotFound.Errorf("machine %s has no disk %s", id, name)
	}
	if m.Power != estate.Off {
		return driver.Disk{}, nil, fault.Conflict.Errorf("machine %s runs; stop it first", id)
	}
	return m.Def.Disks[i], m.content[name], nil
}

func diskSize(d driver.Disk) int64 {
	if d.File != nil {
		return int64(d.File.Size)
	}
	return int64(max(d.Size, d.Base.Size))
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// Lacking returns h without some abilities, and saying so.
func Lacking(h driver.Host, lacks ...estate.Capability) driver.Host {
	return driver.Limit(lacking{h, lacks}, func(c estate.Capability) bool { return !slices.Contains(lacks, c) })
}

type lacking struct {
	driver.Host
	lacks []estate.Capability
}

func (l lacking) Unwrap() driver.Host { return l.Host }

func (l lacking) Describe(ctx context.Context) (driver.Description, error) {
	d, err := l.Host.Describe(ctx)
	d.Capabilities = slices.Clone(d.Capabilities)
	for i, c := range d.Capabilities {
		if slices.Contains(l.lacks, c.Name) {
			d.Capabilities[i] = estate.CapabilityReport{Name: c.Name, Reason: "taken away by a test"}
		}
	}
	return d, err
}

// Shelve implements driver.Transferer.
func (h *Host) Shelve(ctx context.Context, id estate.MachineID) error {
	return fault.Unsupported.Errorf("shelve machine %s: not built yet", id)
}

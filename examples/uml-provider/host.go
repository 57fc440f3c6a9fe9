package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/guest/qga"
	"consort.dev/consort/hypervisor/driver"
)

// program is the kernel that machines are.
const program = "linux.uml"

// Host is the machines in one folder. Each has a folder named for its ID.
type Host struct {
	dir  string
	desc driver.Description
	lock *os.File // held while this process has the folder

	mu     sync.Mutex
	turns  map[estate.MachineID]chan struct{}
	agents map[estate.MachineID]*qga.Client
}

// A host declares what it can do in Describe and implements the interface that
// goes with it; the conformance suite checks that both agree.
var (
	_ driver.Host       = (*Host)(nil)
	_ driver.Transferer = (*Host)(nil)
	_ driver.Consoler   = (*Host)(nil)
	_ driver.Guest      = (*Host)(nil)
	_ driver.Meter      = (*Host)(nil)
)

// Open makes or finds the machines in dir and removes what a crash left half done.
func Open(ctx context.Context, dir string) (*Host, error) {
	if !filepath.IsAbs(dir) || len(dir) > 40 || strings.ContainsAny(dir, ",: ") {
		return nil, fault.Invalid.Errorf("keep machines in %q: it must be an absolute path of at most 40 bytes, for sockets, without comma, colon and space, for command lines", dir)
	}
	if err := os.MkdirAll(filepath.Join(dir, "run"), 0o700); err != nil {
		return nil, err
	}
	h := &Host{dir: dir, turns: map[estate.MachineID]chan struct{}{}, agents: map[estate.MachineID]*qga.Client{}}
	var err error
	if h.lock, err = lock(filepath.Join(dir, "lock")); err != nil {
		return nil, err
	}
	if h.lock == nil {
		return nil, fault.Busy.Errorf("machines in %s are in another process's hands", dir)
	}
	if err := h.describe(ctx); err != nil {
		return nil, err
	}
	rubbish, err := filepath.Glob(filepath.Join(dir, ".tmp-*"))
	for _, path := range rubbish {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return h, err
}

// describe finds out once what Describe says.
func (h *Host) describe(ctx context.Context) error {
	version, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return fault.Unavailable.Errorf("ask %s for its version: %w; install Debian's user-mode-linux", program, err)
	}
	var mem unix.Sysinfo_t
	var disk unix.Statfs_t
	if err := errors.Join(unix.Sysinfo(&mem), unix.Statfs(h.dir, &disk)); err != nil {
		return err
	}
	has := func(c estate.Capability) estate.CapabilityReport {
		return estate.CapabilityReport{Name: c, Has: true}
	}
	lacks := func(c estate.Capability, reason string) estate.CapabilityReport {
		return estate.CapabilityReport{Name: c, Reason: reason}
	}
	h.desc = driver.Description{
		Provider:    "uml",
		Product:     "User-Mode Linux " + strings.TrimSpace(string(version)),
		Accelerator: "ptrace",
		Because:     "A User-Mode Linux kernel is a process; it traces those of its guest.",
		Capacity: estate.Capacity{
			CPUs:   runtime.NumCPU(),
			Memory: estate.Bytes(uint64(mem.Totalram) * uint64(mem.Unit)),
			Disk:   estate.Bytes(disk.Blocks * uint64(disk.Bsize)),
		},
		Capabilities: []estate.CapabilityReport{
			has(estate.CanTransfer),
			has(estate.CanConsole),
			has(estate.CanGuest),
			has(estate.CanMeasure),
			has(estate.CanOutliveUs),
			lacks(estate.CanDisplay, "User-Mode Linux has no framebuffer"),
			lacks(estate.CanNetwork, "this example joins no networks"),
			lacks(estate.CanHotplug, "this example adds no disks to running machines"),
			lacks(estate.CanSnapshot, "this example keeps no snapshots"),
			lacks(estate.CanSave, "User-Mode Linux cannot write its memory down"),
			lacks(estate.CanMoveLive, "User-Mode Linux cannot write its memory down"),
			lacks(estate.CanResize, "this example does not change machines"),
			lacks(estate.CanWatch, "this example tells of no changes"),
			lacks(estate.CanSurvey, "kernels of others are in no registry"),
		},
	}
	return nil
}

// Describe implements driver.Host.
func (h *Host) Describe(ctx context.Context) (driver.Description, error) { return h.desc, ctx.Err() }

// List implements driver.Host. It reads what is on disk and waits for nobody.
func (h *Host) List(ctx context.Context) ([]driver.Machine, error) {
	entries, err := os.ReadDir(h.dir) // in order of name, which is the ID
	if err != nil {
		return nil, err
	}
	var all []driver.Machine
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue // shelved, or half made
		}
		m := h.machine(estate.MachineID(e.Name()))
		r, err := m.read()
		if errors.Is(err, fault.NotFound) {
			continue // not a machine, or deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, driver.Machine{ID: m.id, Power: m.power(), Starts: r.Starts, Started: r.Started, Def: r.Def})
	}
	return all, ctx.Err()
}

// take waits for the machine's turn: one call at a time changes it. The wait
// ends with ctx, as every wait in a provider must.
func (h *Host) take(ctx context.Context, id estate.MachineID) (m machine, give func(), err error) {
	h.mu.Lock()
	turn := h.turns[id]
	if turn == nil {
		turn = make(chan struct{}, 1)
		h.turns[id] = turn
	}
	h.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return machine{}, nil, err
	}
	select {
	case turn <- struct{}{}:
		return h.machine(id), func() { <-turn }, nil
	case <-ctx.Done():
		return machine{}, nil, ctx.Err()
	}
}

// Define implements driver.Host. The machine is made in a folder of another name
// and renamed, so that it is there wholly or not at all.
func (h *Host) Define(ctx context.Context, def driver.Definition) error {
	m, give, err := h.take(ctx, def.ID)
	if err != nil {
		return err
	}
	defer give()
	r, err := m.read()
	if errors.Is(err, fault.NotFound) {
		r, err = machine{id: def.ID, dir: m.shelf()}.read()
		if errors.Is(err, fault.NotFound) {
			return m.make(ctx, def)
		}
		if err == nil && r.Def.Equal(def) {
			return os.Rename(m.shelf(), m.dir)
		}
	}
	if err == nil && !r.Def.Equal(def) {
		err = fault.Exists.Errorf("machine %s exists with another definition", def.ID)
	}
	return err
}

// Start implements driver.Host. Whether a start was counted must survive our
// death at any moment: the record says that one was begun, and the kernel's own
// words that it came to be.
func (h *Host) Start(ctx context.Context, id estate.MachineID) error {
	m, give, err := h.take(ctx, id)
	if err != nil {
		return err
	}
	defer give()
	r, err := m.read()
	if err != nil {
		return err
	}
	life, err := lock(m.path(lifeFile))
	if err != nil {
		return err
	}
	if life == nil { // it runs: of an earlier call that may have been cut short
		return m.await(ctx)
	}
	defer life.Close()
	h.forget(id)
	if err := m.clear(); err != nil {
		return err
	}
	r.Starting, r.Started = r.Starts+1, time.Now().UTC()
	if err := r.write(m.dir); err != nil {
		return err
	}
	if err := m.spawn(ctx, r.Def, life); err != nil {
		return err
	}
	life.Close() // the kernel has it now
	return m.await(ctx)
}

// Stop implements driver.Host.
func (h *Host) Stop(ctx context.Context, id estate.MachineID, grace time.Duration) error {
	m, give, err := h.take(ctx, id)
	if err != nil {
		return err
	}
	defer give()
	if _, err := m.read(); err != nil || m.power() == estate.Off {
		return err
	}
	if grace > 0 {
		asking, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		// A guest without an agent cannot be asked: it is waited for all the same.
		h.agent(id).Shutdown(asking)
		if m.awaitEnd(asking) == nil {
			return nil
		}
	}
	return m.pull(ctx)
}

// Delete implements driver.Host. The folder is renamed first: half a machine
// must never be taken for one.
func (h *Host) Delete(ctx context.Context, id estate.MachineID) error {
	m, give, err := h.take(ctx, id)
	if err != nil {
		return err
	}
	defer give()
	if err := m.pull(ctx); err != nil {
		return err
	}
	h.forget(id)
	for _, dir := range []string{m.dir, m.shelf()} {
		gone := filepath.Join(h.dir, ".tmp-gone-"+string(id))
		err := os.Rename(dir, gone)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := errors.Join(err, os.RemoveAll(gone)); err != nil {
			return err
		}
	}
	return nil
}

// Package xen runs machines on Xen through the libvirt of its first domain, in
// which this process runs too: machines are of type PVH or PV, their disks are
// raw files, and GRUB for Xen boots them from there.
package xen

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/flock"
	"consort.dev/consort/internal/virtrpc"
)

// Config says where machines are kept and how Xen is reached.
type Config struct {
	Dir    string // keeps machines
	RunDir string // holds sockets of guests' agents; its path has at most 60 bytes

	Endpoint  string // of libvirt; that of the system when empty
	Loaders   string // folder of GRUB for Xen; Debian's when empty
	Model     string // Xen's own QEMU, which serves disks and the agent's channel; Debian's when empty
	ImageTool string // qemu-img when empty

	// Listen is where running machines come in from other hosts, which reach it
	// at Peer: both host:port. Moves are not offered when they are empty. Memory
	// and disks cross in the clear: give addresses of a network you trust.
	Listen, Peer string
	SaveDir      string // where libvirt keeps saved memory; Debian's when empty
}

// maxRunDir leaves room for a machine's ID and a name in the 108 bytes that a
// socket's path may have (unix(7)).
const maxRunDir = 60

// Host is this host's Xen, with the abilities that it has here. Open makes one.
type Host struct {
	driver.Host
	inner *host
}

// Unwrap leads to the abilities.
func (h *Host) Unwrap() driver.Host { return h.Host }

// Close gives the host up. Its machines run on.
func (h *Host) Close() error { return h.inner.close() }

// host has every method; its description says which of them work here.
type host struct {
	cfg   Config
	desc  driver.Description
	lock  *os.File // held while the host is open
	calls *virtrpc.Client
	door  net.Listener // where machines come in; nil where none do

	mu       sync.Mutex
	machines map[estate.MachineID]*machine
}

var (
	_ driver.Host        = (*host)(nil)
	_ driver.Hotplugger  = (*host)(nil)
	_ driver.Guest       = (*host)(nil)
	_ driver.Transferer  = (*host)(nil)
	_ driver.Mover       = (*host)(nil)
	_ driver.Snapshotter = (*host)(nil)
	_ driver.Saver       = (*host)(nil)
	_ driver.Resizer     = (*host)(nil)
	_ driver.Meter       = (*host)(nil)
	_ driver.Consoler    = (*host)(nil)
	_ driver.Watcher     = (*host)(nil)
	_ driver.Surveyor    = (*host)(nil)
)

// Open makes or finds the host whose machines are kept in cfg.Dir, and removes
// what a crash left half done there. A folder that another process has open is
// fault.Busy.
func Open(ctx context.Context, cfg Config) (*Host, error) {
	cfg.Endpoint = cmp.Or(cfg.Endpoint, "unix:///run/libvirt/libvirt-sock")
	cfg.Loaders = cmp.Or(cfg.Loaders, "/usr/lib/grub-xen")
	cfg.Model = cmp.Or(cfg.Model, "/usr/libexec/xen-qemu-system-i386")
	cfg.SaveDir = cmp.Or(cfg.SaveDir, "/var/lib/libvirt/libxl/save")
	cfg.ImageTool = cmp.Or(cfg.ImageTool, "qemu-img")
	if !filepath.IsAbs(cfg.Dir) || !filepath.IsAbs(cfg.RunDir) || len(cfg.RunDir) > maxRunDir {
		return nil, fault.Invalid.Errorf("keep machines in %q with sockets in %q: both are absolute paths, the second of at most %d bytes", cfg.Dir, cfg.RunDir, maxRunDir)
	}
	dial, err := virtrpc.Endpoint(cfg.Endpoint)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{cfg.Dir, cfg.RunDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	h := &host{cfg: cfg, calls: virtrpc.New(dial, "xen:///system"), machines: map[estate.MachineID]*machine{}}
	h.lock, err = flock.Take(ctx, filepath.Join(cfg.Dir, "lock"))
	if errors.Is(err, flock.ErrHeld) {
		return nil, fault.Busy.Errorf("machines in %s are in another process's hands: stop it, or keep machines elsewhere", cfg.Dir)
	}
	if err != nil {
		return nil, err
	}
	if err := errors.Join(h.describe(ctx), h.load()); err != nil {
		h.close()
		return nil, err
	}
	shown := &Host{driver.Limit(h, h.desc.Has), h}
	if cfg.Listen == "" || cfg.Peer == "" {
		return shown, nil
	}
	if h.door, err = net.Listen("tcp", cfg.Listen); err != nil {
		h.close()
		return nil, fault.Unavailable.Errorf("listen for machines that come in: %w", err)
	}
	go h.receive(h.door)
	return shown, nil
}

func (h *host) close() error {
	h.mu.Lock()
	for _, m := range h.machines {
		m.hangUp()
	}
	h.mu.Unlock()
	if h.door != nil {
		h.door.Close()
	}
	return errors.Join(h.calls.Close(), h.lock.Close())
}

// Types of guest, each with the loader that boots it.
const (
	pvh = "pvh"
	pv  = "pv"
)

var loaders = map[string]string{pvh: "grub-i386-xen_pvh.bin", pv: "grub-x86_64-xen.bin"}

// describe finds out once what the host is and can do.
func (h *host) describe(ctx context.Context) error {
	daemon, hypervisor, err := h.calls.Version(ctx)
	if err != nil {
		return fmt.Errorf("ask libvirt at %s about Xen: %w", h.cfg.Endpoint, err)
	}
	able, err := h.calls.Capabilities(ctx)
	if err != nil {
		return err
	}
	node, err := h.calls.Node(ctx)
	if err != nil {
		return err
	}
	d := driver.Description{Provider: "xen", Accelerator: "xen", Because: "Xen runs under all its guests.",
		Product: fmt.Sprintf("Xen %d.%d, libvirt %d.%d.%d", hypervisor/1e6, hypervisor/1e3%1e3, daemon/1e6, daemon/1e3%1e3, daemon%1e3)}
	for _, t := range []string{pvh, pv} {
		if !strings.Contains(able, "<os_type>"+map[string]string{pvh: "xenpvh", pv: "xen"}[t]+"</os_type>") {
			continue
		}
		if _, err := os.Stat(filepath.Join(h.cfg.Loaders, loaders[t])); err != nil {
			return fault.Unavailable.Errorf("GRUB for Xen: %w; install Debian's grub-xen-host", err)
		}
		d.GuestTypes = append(d.GuestTypes, t)
	}
	if d.GuestTypes == nil {
		return fault.Unsupported.Errorf("libvirt at %s offers neither PVH nor PV guests", h.cfg.Endpoint)
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(h.cfg.Dir, &disk); err != nil {
		return err
	}
	d.Capacity = estate.Capacity{CPUs: node.CPUs, Memory: estate.Bytes(node.Memory), Disk: estate.Bytes(disk.Blocks * uint64(disk.Bsize))}
	d.Capabilities = h.capabilities()
	h.desc = d
	return nil
}

func (h *host) capabilities() []estate.CapabilityReport {
	has := func(c estate.Capability, value string) estate.CapabilityReport {
		return estate.CapabilityReport{Name: c, Has: true, Value: value}
	}
	lacks := func(c estate.Capability, reason string) estate.CapabilityReport {
		return estate.CapabilityReport{Name: c, Reason: reason}
	}
	commands := has(estate.CanGuest, "")
	if !h.channels() {
		commands = lacks(estate.CanGuest, "the channel to a guest's agent needs Xen's own QEMU; install Debian's qemu-system-xen")
	}
	network := has(estate.CanNetwork, "bridge")
	if os.Geteuid() != 0 {
		network = lacks(estate.CanNetwork, "networks are made by root only")
	}
	move := has(estate.CanMoveLive, moveKind)
	if h.cfg.Listen == "" || h.cfg.Peer == "" {
		move = lacks(estate.CanMoveLive, "no address was given at which running machines come in")
	}
	return []estate.CapabilityReport{
		lacks(estate.CanDisplay, "a PV or PVH guest has no graphics card"),
		has(estate.CanHotplug, ""),
		commands,
		has(estate.CanTransfer, ""),
		network,
		has(estate.CanOutliveUs, ""),
		has(estate.NeedsDrivers, "xenbus"),
		{Name: estate.NeedsDrivers, GuestType: pv, Has: true, Value: "xenbus xenpv"},
		has(estate.CanSnapshot, ""),
		has(estate.CanSave, ""),
		has(estate.CanResize, ""),
		has(estate.CanMeasure, ""),
		has(estate.CanConsole, ""),
		has(estate.CanWatch, ""),
		has(estate.CanSurvey, ""),
		lacks(estate.CanFilter, "packets are filtered by the network a machine joins"),
		move,
		lacks(estate.CanInstant, "not built yet"),
		lacks(estate.CanEncryptDisk, "not built yet"),
	}
}

// channels reports whether guests can have a channel for their agent.
func (h *host) channels() bool {
	_, err := os.Stat(h.cfg.Model)
	return err == nil
}

// Describe implements driver.Host.
func (h *host) Describe(ctx context.Context) (driver.Description, error) {
	d := h.desc
	d.Capabilities, d.GuestTypes = slices.Clone(d.Capabilities), slices.Clone(d.GuestTypes)
	return d, ctx.Err()
}

// List implements driver.Host.
func (h *host) List(ctx context.Context) ([]driver.Machine, error) {
	var all []driver.Machine
	for _, m := range h.all() {
		if seen, ok := m.look(ctx); ok {
			all = append(all, seen)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return all, ctx.Err()
}

// all returns the machines that are kept, in order of ID.
func (h *host) all() []*machine {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.SortedFunc(maps.Values(h.machines), func(a, b *machine) int { return cmp.Compare(a.id, b.id) })
}

// load reads every machine's record and removes what a crash left half done.
func (h *host) load() error {
	entries, err := os.ReadDir(h.cfg.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := filepath.Join(h.cfg.Dir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), making), strings.HasPrefix(e.Name(), removing):
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		case e.IsDir():
			r, err := readRecord(dir)
			if err != nil {
				return fault.Stuck.Errorf("read the record of machine %s: %w; restore %s or remove its folder once nothing of it runs", e.Name(), err, recordFile)
			}
			m := h.newMachine(r.Def.ID)
			m.rec, m.kept = r, true
			h.machines[m.id] = m
			if err := m.tidy(); err != nil {
				return err
			}
		}
	}
	return nil
}

// machine returns the machine of that ID, which may not be kept here, with its
// turn taken: the caller gives it back by done.
func (h *host) machine(ctx context.Context, id estate.MachineID) (*machine, error) {
	for {
		h.mu.Lock()
		m := h.machines[id]
		if m == nil {
			m = h.newMachine(id)
			h.machines[id] = m
		}
		h.mu.Unlock()
		if err := m.take(ctx); err != nil {
			return nil, err
		}
		h.mu.Lock()
		current := h.machines[id] == m
		h.mu.Unlock()
		if current {
			return m, nil
		}
		m.give() // it was forgotten while we waited
	}
}

// done gives the machine's turn back, and forgets one that is not kept.
func (h *host) done(m *machine) {
	h.mu.Lock()
	if _, kept := m.record(); !kept {
		delete(h.machines, m.id)
	}
	h.mu.Unlock()
	m.give()
}

// longest is how long one act may take in the end. A start takes 3 s on a host
// that is itself emulated; copying a disk, minutes.
const longest = 30 * time.Minute

// act does something in the machine's turn. When ctx ends first, it returns
// then; what libvirt was asked goes on to its end, and the turn with it, so that
// the next call for the machine finds it done. do is told both contexts: that of
// the caller, for waiting, and one that outlives it.
func (h *host) act(ctx context.Context, id estate.MachineID, do func(ctx, steady context.Context, m *machine) error) error {
	m, err := h.machine(ctx, id)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		defer h.done(m)
		steady, cancel := context.WithTimeout(context.WithoutCancel(ctx), longest)
		defer cancel()
		ended <- do(ctx, steady, m)
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// actOn is act for machines that must be defined.
func (h *host) actOn(ctx context.Context, id estate.MachineID, do func(ctx, steady context.Context, m *machine) error) error {
	return h.act(ctx, id, func(ctx, steady context.Context, m *machine) error {
		if !m.defined() {
			return unknown(id)
		}
		return do(ctx, steady, m)
	})
}

// rest is actOn for machines that must be off.
func (h *host) rest(ctx context.Context, id estate.MachineID, do func(ctx, steady context.Context, m *machine) error) error {
	return h.actOn(ctx, id, func(ctx, steady context.Context, m *machine) error {
		if err := m.mustBe(ctx, estate.Off); err != nil {
			return err
		}
		return do(ctx, steady, m)
	})
}

// lend is rest for what reads from, or writes to, something of the caller's: it
// does not go on once the caller has gone.
func (h *host) lend(ctx context.Context, id estate.MachineID, do func(m *machine) error) error {
	m, err := h.machine(ctx, id)
	if err != nil {
		return err
	}
	defer h.done(m)
	if !m.defined() {
		return unknown(id)
	}
	if err := m.mustBe(ctx, estate.Off); err != nil {
		return err
	}
	return do(m)
}

func unknown(id estate.MachineID) error { return fault.NotFound.Errorf("no machine %s", id) }

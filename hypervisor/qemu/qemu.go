// Package qemu runs machines as QEMU processes on this host. A machine's
// process is not ours: it lives on when we die, and Open finds it again.
package qemu

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/flock"
	"consort.dev/consort/internal/kvmprobe"
)

// Config says where machines are kept and how they run.
type Config struct {
	Dir    string // keeps machines; everybody may search it and its parents
	RunDir string // holds sockets; its path has at most 60 bytes

	Program   string // qemu-system-x86_64 when empty
	ImageTool string // qemu-img when empty
	Firmware  string // folder of OVMF; Debian's when empty

	// FirstUID and the UIDs after it belong to machines, one each; 1<<20 of
	// them from 2^30 on when zero. Only root can give machines users of their
	// own; without root they run as we do.
	FirstUID int

	// Accelerator is kvm or tcg, chosen by an operator; when empty, KVM is used
	// where Probe, a command that calls kvmprobe.Child, shows that it runs.
	Accelerator string
	Probe       []string
	// CPU is the model guests see; chosen by accelerator when empty.
	CPU string

	// Confiner confines machines' processes. Without one they have what their
	// users may, but for what QEMU's own sandbox denies.
	Confiner Confiner
}

// Confiner starts processes that reach nothing of the host but what they
// inherit, the folder they start in, the files they are made of, and devices.
type Confiner interface {
	Start(cmd *exec.Cmd, devices ...string) error
	// Report says what holds them in, and what the host lacks for more.
	Report() (by, lacks string)
}

// uids is how many users machines may have at most.
const uids = 1 << 20

// maxRunDir leaves room for a machine's ID and a name in the 108 bytes that a
// socket's path may have (unix(7)).
const maxRunDir = 60

// Host is this host's QEMU. Open makes one.
type Host struct {
	cfg  Config
	desc driver.Description
	gid  []uint32 // groups of machines, so that they reach the accelerator
	lock *os.File // held while the host is open
	news news

	closed chan struct{}
	close  func() // closes it, once

	templates templates
	small     sync.Mutex // held while we have no huge pages: startSmall

	mu       sync.Mutex
	machines map[estate.MachineID]*machine
}

var (
	_ driver.Host        = (*Host)(nil)
	_ driver.Displayer   = (*Host)(nil)
	_ driver.Hotplugger  = (*Host)(nil)
	_ driver.Guest       = (*Host)(nil)
	_ driver.Transferer  = (*Host)(nil)
	_ driver.Snapshotter = (*Host)(nil)
	_ driver.Saver       = (*Host)(nil)
	_ driver.Resizer     = (*Host)(nil)
	_ driver.Meter       = (*Host)(nil)
	_ driver.Consoler    = (*Host)(nil)
	_ driver.Watcher     = (*Host)(nil)
	_ driver.Cloner      = (*Host)(nil)
	_ driver.Pauser      = (*Host)(nil)
	_ driver.Sealer      = (*Host)(nil)
)

// Open makes or finds the host kept in cfg.Dir, finishes or removes what a
// crash left half done, and takes up every machine that runs. A folder that
// another process has open is fault.Busy.
func Open(ctx context.Context, cfg Config) (*Host, error) {
	cfg.Program = cmp.Or(cfg.Program, "qemu-system-x86_64")
	cfg.ImageTool = cmp.Or(cfg.ImageTool, "qemu-img")
	cfg.Firmware = cmp.Or(cfg.Firmware, "/usr/share/OVMF")
	cfg.FirstUID = cmp.Or(cfg.FirstUID, 1<<30)
	if !filepath.IsAbs(cfg.Dir) || !filepath.IsAbs(cfg.RunDir) || len(cfg.RunDir) > maxRunDir {
		return nil, fault.Invalid.Errorf("keep machines in %q with sockets in %q: both are absolute paths, the second of at most %d bytes", cfg.Dir, cfg.RunDir, maxRunDir)
	}
	for _, dir := range []string{cfg.Dir, cfg.RunDir} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, err
		}
	}
	h := &Host{cfg: cfg, machines: map[estate.MachineID]*machine{}, closed: make(chan struct{})}
	h.templates.all = map[string]*template{}
	h.close = sync.OnceFunc(func() { close(h.closed) })
	if err := h.claim(ctx); err != nil {
		return nil, err
	}
	if err := h.describe(ctx); err != nil {
		h.Close()
		return nil, err
	}
	if err := h.load(); err != nil {
		h.Close()
		return nil, err
	}
	h.adopt(ctx)
	return h, nil
}

// claim makes sure that no other process has the folder open. The kernel gives
// the claim up when we die, and no machine's process inherits it.
func (h *Host) claim(ctx context.Context) error {
	f, err := flock.Take(ctx, filepath.Join(h.cfg.Dir, "lock"))
	if errors.Is(err, flock.ErrHeld) {
		return fault.Busy.Errorf("machines in %s are in another process's hands: stop it, or keep machines elsewhere", h.cfg.Dir)
	}
	if err != nil {
		return err
	}
	h.lock = f
	if os.Geteuid() != 0 {
		return nil
	}
	if dir := closedDir(h.cfg.RunDir); dir != "" {
		return fault.Invalid.Errorf("machines cannot reach their sockets in %s: let everybody search %s (chmod o+x)", h.cfg.RunDir, dir)
	}
	return nil
}

// closedDir returns the first folder on the way to dir that not everybody may search.
func closedDir(dir string) string {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&1 == 0 {
			return dir
		}
		if dir == "/" {
			return ""
		}
	}
}

// Close gives the host up. Its machines run on, but for those that are sealed.
func (h *Host) Close() error {
	h.close()
	h.mu.Lock()
	ms := slices.Collect(maps.Values(h.machines))
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	for _, m := range ms {
		m.endSealed(ctx) // the kernel ends what is left with our process
		m.disconnect()
	}
	for _, t := range h.templates.all {
		t.release()
	}
	return h.lock.Close()
}

// describe finds out once what the host is and can do.
func (h *Host) describe(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, h.cfg.Program, "--version").Output()
	if err != nil {
		return fault.Unavailable.Errorf("ask %s for its version: %w; install Debian's qemu-system-x86 or name another program", h.cfg.Program, err)
	}
	product, _, _ := strings.Cut(string(out), "\n")
	h.desc = driver.Description{Provider: "qemu", Product: product, Capabilities: append(capabilities(), confinement(h.cfg.Confiner))}
	h.chooseAccelerator(ctx)
	var mem unix.Sysinfo_t
	if err := unix.Sysinfo(&mem); err != nil {
		return err
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(h.cfg.Dir, &disk); err != nil {
		return err
	}
	h.desc.Capacity = estate.Capacity{
		CPUs:   runtime.NumCPU(),
		Memory: estate.Bytes(uint64(mem.Totalram) * uint64(mem.Unit)),
		Disk:   estate.Bytes(disk.Blocks * uint64(disk.Bsize)),
	}
	return nil
}

func (h *Host) chooseAccelerator(ctx context.Context) {
	d := &h.desc
	var v kvmprobe.Verdict
	switch {
	case h.cfg.Accelerator != "":
		d.Accelerator, d.Because = h.cfg.Accelerator, "An operator chose it."
	case len(h.cfg.Probe) == 0:
		d.Accelerator, d.Because = "tcg", "KVM was not probed."
	default:
		v = kvmprobe.Remembered(ctx, h.cfg.Probe, filepath.Join(h.cfg.Dir, "kvm.json"))
		d.Accelerator, d.Because = "tcg", v.Because
		if v.Usable {
			d.Accelerator = "kvm"
		}
	}
	if d.Accelerator != "kvm" {
		return
	}
	var st unix.Stat_t
	if err := unix.Stat("/dev/kvm", &st); err == nil && st.Mode&0o060 == 0o060 {
		h.gid = []uint32{st.Gid}
	} else if v.Usable && os.Geteuid() == 0 && (err != nil || st.Mode&0o006 != 0o006) {
		d.Accelerator, d.Because = "tcg", "KVM runs, but machines' users may not open /dev/kvm; give it to a group (Debian: kvm, 0660)."
	}
}

func capabilities() []estate.CapabilityReport {
	has := func(c estate.Capability, value string) estate.CapabilityReport {
		return estate.CapabilityReport{Name: c, Has: true, Value: value}
	}
	lacks := func(c estate.Capability, reason string) estate.CapabilityReport {
		return estate.CapabilityReport{Name: c, Reason: reason}
	}
	return []estate.CapabilityReport{
		has(estate.CanDisplay, "rfb"),
		has(estate.CanHotplug, ""),
		has(estate.CanGuest, ""),
		has(estate.CanTransfer, ""),
		has(estate.CanNetwork, "tap"),
		has(estate.CanOutliveUs, ""),
		has(estate.NeedsDrivers, "virtio"),
		lacks(estate.CanFilter, "packets are filtered by the network a machine joins"),
		has(estate.CanSnapshot, ""),
		has(estate.CanInstant, ""),
		has(estate.CanPause, ""),
		lacks(estate.CanMoveLive, "live moves between two of these hosts are not built"),
		has(estate.CanSave, ""),
		has(estate.CanResize, ""),
		has(estate.CanMeasure, ""),
		has(estate.CanConsole, ""),
		has(estate.CanWatch, ""),
		lacks(estate.CanSurvey, "there is no registry of other people's QEMU processes"),
		has(estate.CanEncryptDisk, ""),
	}
}

// confinement says how machines' processes are confined.
func confinement(c Confiner) estate.CapabilityReport {
	r := estate.CapabilityReport{Name: estate.CanConfine, Reason: "machines' processes are held by their users' rights and QEMU's own sandbox alone"}
	if c != nil {
		r.Value, r.Reason = c.Report()
		r.Has = r.Value != ""
	}
	return r
}

// Describe implements driver.Host.
func (h *Host) Describe(ctx context.Context) (driver.Description, error) {
	d := h.desc
	d.Capabilities = slices.Clone(d.Capabilities)
	return d, ctx.Err()
}

// List implements driver.Host.
func (h *Host) List(ctx context.Context) ([]driver.Machine, error) {
	h.mu.Lock()
	ms := slices.Collect(maps.Values(h.machines))
	h.mu.Unlock()
	var all []driver.Machine
	for _, m := range ms {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if seen, ok := m.look(ctx); ok {
			all = append(all, seen)
		}
	}
	slices.SortFunc(all, func(a, b driver.Machine) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return all, ctx.Err()
}

// load reads every machine's record and removes what a crash left half done.
func (h *Host) load() error {
	entries, err := os.ReadDir(h.cfg.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := filepath.Join(h.cfg.Dir, e.Name())
		if strings.HasPrefix(e.Name(), making) || strings.HasPrefix(e.Name(), removing) {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			continue
		}
		if strings.HasPrefix(e.Name(), templated) {
			if err := h.takeUpTemplate(e.Name()); err != nil {
				return err
			}
			continue
		}
		if !e.IsDir() || strings.HasPrefix(e.Name(), shelved) {
			continue
		}
		rec, err := readRecord(dir)
		if err != nil {
			return fault.Stuck.Errorf("read the record of machine %s: %w; restore %s or remove its folder once nothing of it runs", e.Name(), err, recordFile)
		}
		m := h.newMachine(rec.Def.ID)
		m.rec, m.defined = rec, true
		h.machines[rec.Def.ID] = m
		if err := m.tidy(); err != nil {
			return err
		}
	}
	return h.tidyRunDir()
}

// tidyRunDir removes run folders of machines that are no more.
func (h *Host) tidyRunDir() error {
	entries, err := os.ReadDir(h.cfg.RunDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if h.machines[estate.MachineID(e.Name())] == nil {
			if err := os.RemoveAll(filepath.Join(h.cfg.RunDir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// adoptLimit is how long Open waits for the machines it finds running.
const adoptLimit = 5 * time.Second

// adopt connects to every machine that runs. One that does not answer in time
// is left as it is, in a state unknown to us; it is asked again later. A sealed
// one has lost its key with whoever had us open before, and is ended.
func (h *Host) adopt(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, adoptLimit)
	defer cancel()
	var wg sync.WaitGroup
	for _, m := range h.machines {
		wg.Go(func() {
			if m.take(ctx) == nil {
				defer m.give()
				if m.record().Def.Sealed {
					m.endSealed(ctx)
					return
				}
				m.connect(ctx) // what went wrong shows when the machine is used
			}
		})
	}
	wg.Wait()
}

// machine returns the machine of that ID, which may not be defined, with its
// turn taken: the caller gives it back.
func (h *Host) machine(ctx context.Context, id estate.MachineID) (*machine, error) {
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

// done gives the machine's turn back, and forgets one that is not defined.
func (h *Host) done(m *machine) {
	h.mu.Lock()
	if !m.isDefined() {
		delete(h.machines, m.id)
	}
	h.mu.Unlock()
	m.give()
}

// existing is machine for those that must be defined.
func (h *Host) existing(ctx context.Context, id estate.MachineID) (*machine, error) {
	m, err := h.machine(ctx, id)
	if err == nil && !m.isDefined() {
		h.done(m)
		return nil, fault.NotFound.Errorf("no machine %s", id)
	}
	return m, err
}

// reserveUID gives a machine that is about to be defined the lowest user that
// no other has.
func (h *Host) reserveUID(m *machine) (int, error) {
	if os.Geteuid() != 0 {
		return os.Geteuid(), nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	taken := map[int]bool{}
	for _, o := range h.machines {
		if o != m {
			taken[o.uid()] = true
		}
	}
	for uid := h.cfg.FirstUID; uid < h.cfg.FirstUID+uids; uid++ {
		if !taken[uid] {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.rec = record{UID: uid}
			return uid, nil
		}
	}
	return 0, fault.NoCapacity.Errorf("all %d users for machines are taken", uids)
}

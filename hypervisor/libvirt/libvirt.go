// Package libvirt runs machines as QEMU processes that a libvirt daemon on this
// host manages. What is ours is marked in the daemon's own definitions, so
// that its other users see what we do, and we what they do.
package libvirt

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/diskfile"
	"consort.dev/consort/internal/flock"
	"consort.dev/consort/internal/kvmprobe"
	"consort.dev/consort/internal/virtrpc"
)

// Config says which daemon runs machines and where their disks are kept.
type Config struct {
	Dir string // keeps disks; everybody may search it and its parents

	// Endpoint is the daemon in libvirt's own words: qemu:///system when empty,
	// qemu:///session, or qemu+unix:///system?socket=PATH. It is on this host.
	Endpoint string

	// Peer is how the daemons of other hosts reach this one, as in
	// qemu+tls://HOST/system, for moves of running machines; when empty it is
	// what the endpoint gives as its peer (...?peer=URI). Without either, such
	// moves are not offered.
	Peer string

	ImageTool string // qemu-img when empty
	Firmware  string // folder of OVMF; Debian's when empty

	// Accelerator is kvm or tcg, chosen by an operator; when empty, KVM is used
	// where Probe, a command that calls kvmprobe.Child, shows that it runs. The
	// daemon offers KVM wherever it finds the device.
	Accelerator string
	Probe       []string
}

// Host is a daemon's host. Open makes one.
type Host struct {
	cfg   Config
	conn  *virtrpc.Client
	image diskfile.Tool
	owner string // tells our machines from those of another installation
	desc  driver.Description
	lock  *os.File // held while the host is open
	root  bool     // the daemon is the system's

	mu    sync.Mutex
	turns map[estate.MachineID]chan struct{} // whoever changes a machine holds its turn
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
	_ driver.Surveyor    = (*Host)(nil)
	_ driver.Mover       = movable{}
)

// Open opens the host whose disks are kept in cfg.Dir, and removes what a crash
// left half made or half removed there. A folder that another process has open
// is fault.Busy.
func Open(ctx context.Context, cfg Config) (driver.Host, error) {
	cfg.Endpoint = cmp.Or(cfg.Endpoint, "qemu:///system")
	cfg.ImageTool = cmp.Or(cfg.ImageTool, "qemu-img")
	cfg.Firmware = cmp.Or(cfg.Firmware, "/usr/share/OVMF")
	socket, uri, peer, err := endpoint(cfg.Endpoint)
	if err != nil {
		return nil, err
	}
	cfg.Peer = cmp.Or(cfg.Peer, peer)
	if !filepath.IsAbs(cfg.Dir) {
		return nil, fault.Invalid.Errorf("keep disks in %q: give an absolute path", cfg.Dir)
	}
	if err := os.MkdirAll(cfg.Dir, 0o711); err != nil {
		return nil, err
	}
	dial, err := virtrpc.Endpoint("unix://" + socket)
	if err != nil {
		return nil, err
	}
	h := &Host{cfg: cfg, conn: virtrpc.New(dial, uri), image: diskfile.Tool(cfg.ImageTool), root: strings.HasSuffix(uri, "/system"), turns: map[estate.MachineID]chan struct{}{}}
	if err := h.claim(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(h.describe(ctx), h.tidy()); err != nil {
		h.Close()
		return nil, err
	}
	if cfg.Peer != "" {
		return movable{h}, nil
	}
	return h, nil
}

// endpoint returns the socket of a daemon on this host, the name of its driver,
// and how others reach it.
func endpoint(text string) (socket, uri, peer string, err error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "qemu" && u.Scheme != "qemu+unix" || u.Host != "" || u.Path != "/system" && u.Path != "/session" {
		return "", "", "", fault.Invalid.Errorf("%q is no daemon on this host; give qemu:///system, qemu:///session or qemu+unix:///system?socket=PATH", text)
	}
	socket = u.Query().Get("socket")
	if socket == "" {
		socket = "/run/libvirt/libvirt-sock"
		if u.Path == "/session" {
			socket = filepath.Join(cmp.Or(os.Getenv("XDG_RUNTIME_DIR"), fmt.Sprintf("/run/user/%d", os.Getuid())), "libvirt/libvirt-sock")
		}
	}
	return socket, "qemu://" + u.Path, u.Query().Get("peer"), nil
}

// claim makes sure that no other process has the folder open, and reads whose it is.
func (h *Host) claim(ctx context.Context) error {
	f, err := flock.Take(ctx, filepath.Join(h.cfg.Dir, "lock"))
	if errors.Is(err, flock.ErrHeld) {
		return fault.Busy.Errorf("disks in %s are in another process's hands: stop it, or keep disks elsewhere", h.cfg.Dir)
	}
	if err != nil {
		return err
	}
	h.lock = f
	if h.owner, err = owner(h.cfg.Dir); err != nil {
		f.Close()
	}
	return err
}

// Close gives the host up. Its machines run on.
func (h *Host) Close() error { return errors.Join(h.conn.Close(), h.lock.Close()) }

// describe finds out once what the host is and can do.
func (h *Host) describe(ctx context.Context) error {
	daemon, emulator, err := h.conn.Version(ctx)
	if err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, h.cfg.ImageTool, "--version").Output(); err != nil || len(out) == 0 {
		return fault.Unavailable.Errorf("ask %s for its version: %w; install Debian's qemu-utils", h.cfg.ImageTool, err)
	}
	node, err := h.conn.Node(ctx)
	if err != nil {
		return err
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(h.cfg.Dir, &disk); err != nil {
		return err
	}
	h.desc = driver.Description{
		Provider: "libvirt",
		Product:  fmt.Sprintf("libvirt %s with QEMU %s", version(daemon), version(emulator)),
		Capacity: estate.Capacity{CPUs: node.CPUs, Memory: estate.Bytes(node.Memory), Disk: estate.Bytes(disk.Blocks * uint64(disk.Bsize))},
	}
	h.chooseAccelerator(ctx)
	cpu, err := h.cpuModel(ctx)
	if err != nil {
		return err
	}
	h.desc.Capabilities = h.capabilities(cpu)
	return nil
}

func version(n uint64) string { return fmt.Sprintf("%d.%d.%d", n/1_000_000, n/1000%1000, n%1000) }

func (h *Host) chooseAccelerator(ctx context.Context) {
	d := &h.desc
	switch {
	case h.cfg.Accelerator != "":
		d.Accelerator, d.Because = h.cfg.Accelerator, "An operator chose it."
	case len(h.cfg.Probe) == 0:
		d.Accelerator, d.Because = "tcg", "KVM was not probed."
	default:
		v := kvmprobe.Remembered(ctx, h.cfg.Probe, filepath.Join(h.cfg.Dir, "kvm.json"))
		d.Accelerator, d.Because = "tcg", v.Because
		if v.Usable {
			d.Accelerator = "kvm"
		}
	}
}

// cpuModel returns the model of the host's processors as the daemon names it.
func (h *Host) cpuModel(ctx context.Context) (string, error) {
	text, err := h.conn.Capabilities(ctx)
	if err != nil {
		return "", err
	}
	var caps struct {
		Model string `xml:"host>cpu>model"`
	}
	if err := xml.Unmarshal([]byte(text), &caps); err != nil {
		return "", fault.Unavailable.Errorf("read the daemon's capabilities: %w", err)
	}
	return caps.Model, nil
}

func (h *Host) capabilities(cpu string) []estate.CapabilityReport {
	has := func(c estate.Capability, value string) estate.CapabilityReport {
		return estate.CapabilityReport{Name: c, Has: true, Value: value}
	}
	lacks := func(c estate.Capability, reason string) estate.CapabilityReport {
		return estate.CapabilityReport{Name: c, Reason: reason}
	}
	network := lacks(estate.CanNetwork, "a daemon of a session may not join machines to bridges")
	if h.root {
		network = has(estate.CanNetwork, "bridge")
	}
	move := lacks(estate.CanMoveLive, "it is not configured how other daemons reach this one")
	if h.cfg.Peer != "" {
		move = has(estate.CanMoveLive, strings.TrimSpace(machineType+" "+h.desc.Accelerator+" "+cpu))
	}
	return []estate.CapabilityReport{
		has(estate.CanDisplay, "rfb"), has(estate.CanHotplug, ""), has(estate.CanGuest, ""), has(estate.CanTransfer, ""),
		network, has(estate.CanOutliveUs, ""), has(estate.NeedsDrivers, "virtio"), has(estate.CanSnapshot, ""), has(estate.CanSave, ""), has(estate.CanResize, ""),
		move, has(estate.CanMeasure, ""), has(estate.CanConsole, ""), has(estate.CanWatch, ""), has(estate.CanSurvey, ""),
		lacks(estate.CanFilter, "packets are filtered by the network a machine joins"),
		lacks(estate.CanInstant, "not built yet"),
		lacks(estate.CanEncryptDisk, "not built yet"),
	}
}

// Describe implements driver.Host.
func (h *Host) Describe(ctx context.Context) (driver.Description, error) {
	d := h.desc
	d.Capabilities = slices.Clone(d.Capabilities)
	return d, ctx.Err()
}

// List implements driver.Host.
func (h *Host) List(ctx context.Context) ([]driver.Machine, error) {
	domains, err := h.conn.Domains(ctx)
	if err != nil {
		return nil, err
	}
	var all []driver.Machine
	for _, d := range domains {
		m, err := h.look(ctx, estate.MachineID(d.UUID))
		if errors.Is(err, fault.NotFound) {
			continue // not ours, or gone since
		}
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b driver.Machine) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return all, ctx.Err()
}

// Watch implements driver.Watcher.
func (h *Host) Watch(ctx context.Context, changed func(estate.MachineID)) error {
	return h.conn.Watch(ctx, func(uuid string) { changed(estate.MachineID(uuid)) })
}

// take takes the machine's turn; the caller gives it back.
func (h *Host) take(ctx context.Context, id estate.MachineID) (give func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	turn := h.turn(id)
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// tryTake is take for those who would not wait.
func (h *Host) tryTake(id estate.MachineID) (give func(), ok bool) {
	turn := h.turn(id)
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, true
	default:
		return nil, false
	}
}

func (h *Host) turn(id estate.MachineID) chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.turns[id] == nil {
		h.turns[id] = make(chan struct{}, 1)
	}
	return h.turns[id]
}

// existing takes the turn of a machine that is ours and returns its record.
func (h *Host) existing(ctx context.Context, id estate.MachineID) (record, func(), error) {
	give, err := h.take(ctx, id)
	if err != nil {
		return record{}, nil, err
	}
	r, err := h.record(ctx, id)
	if err != nil {
		give()
		return record{}, nil, err
	}
	return r, give, nil
}

// running is existing for a machine that runs.
func (h *Host) running(ctx context.Context, id estate.MachineID) (record, func(), error) {
	return h.existingIn(ctx, id, true)
}

// resting is existing for a machine that is off.
func (h *Host) resting(ctx context.Context, id estate.MachineID) (record, func(), error) {
	return h.existingIn(ctx, id, false)
}

func (h *Host) existingIn(ctx context.Context, id estate.MachineID, running bool) (record, func(), error) {
	r, give, err := h.existing(ctx, id)
	if err != nil {
		return record{}, nil, err
	}
	state, _, err := h.conn.State(ctx, string(id))
	switch {
	case err != nil:
	case running && !active(state):
		err = fault.Conflict.Errorf("machine %s is off; start it first", id)
	case !running && state != virtrpc.ShutOff:
		err = fault.Conflict.Errorf("machine %s runs; stop it first", id)
	}
	if err != nil {
		give()
		return record{}, nil, err
	}
	return r, give, nil
}

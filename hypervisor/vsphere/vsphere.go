// Package vsphere runs machines on a vCenter or a single ESXi host. What we
// know of a machine lies in its own configuration there, so any process that
// reaches the endpoint finds it again. Driven against vcsim only.
package vsphere

import (
	"cmp"
	"context"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"github.com/vmware/govmomi/vim25"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// Config says where the API is and who we are there.
type Config struct {
	// Endpoint is https://HOST, with any of these in its query: ca (a file) or
	// thumbprint (SHA-256) say how the server is known; datacenter, cluster,
	// host, datastore and folder say where machines go, by name, where there is
	// more than one.
	Endpoint string
	// Credentials is a file with a user and a password, a line each.
	Credentials string
	// ImageTool is qemu-img when empty; it lays out disks that are not raw.
	ImageTool string
	// Dir is where disks are laid out before they are sent; the system's when empty.
	Dir string
}

// Host is a place in a vCenter, or a host of ESXi.
type Host struct {
	cfg    Config
	client *vim25.Client
	login  *login
	place  place
	desc   driver.Description

	mu    sync.Mutex
	turns map[string]*turn  // of machines and bases
	sums  map[string]string // of bases, by what their files looked like
}

var (
	_ driver.Host        = (*Host)(nil)
	_ driver.Transferer  = (*Host)(nil)
	_ driver.Snapshotter = (*Host)(nil)
	_ driver.Saver       = (*Host)(nil)
	_ driver.Resizer     = (*Host)(nil)
	_ driver.Meter       = (*Host)(nil)
	_ driver.Watcher     = (*Host)(nil)
	_ driver.Surveyor    = (*Host)(nil)
	_ driver.Mover       = (*Host)(nil)
	_ driver.Hotplugger  = (*Host)(nil)
)

// Open logs in and finds the place for machines. The server must be vouched for
// by an authority or a thumbprint; there is no way around that.
func Open(ctx context.Context, cfg Config) (driver.Host, error) {
	h, err := open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return driver.Limit(h, func(c estate.Capability) bool { return h.desc.Has(c) }), nil
}

func open(ctx context.Context, cfg Config) (*Host, error) {
	cfg.ImageTool = cmp.Or(cfg.ImageTool, "qemu-img")
	e, err := parseEndpoint(cfg.Endpoint)
	if err != nil {
		return nil, err
	}
	if _, err := readCredentials(cfg.Credentials); err != nil {
		return nil, err
	}
	h := &Host{cfg: cfg, turns: map[string]*turn{}, sums: map[string]string{}}
	if h.client, h.login, err = connect(ctx, e, cfg.Credentials); err != nil {
		return nil, err
	}
	if err := h.findPlace(ctx, e); err != nil {
		h.login.close(context.WithoutCancel(ctx))
		return nil, err
	}
	about := h.client.ServiceContent.About
	h.desc = driver.Description{
		Provider:     "vsphere",
		Product:      about.FullName,
		Accelerator:  "esxi",
		Because:      "Machines run on " + h.place.what + ".",
		Capacity:     h.place.capacity,
		Capabilities: h.capabilities(),
	}
	return h, nil
}

// Close ends the session. Machines run on.
func (h *Host) Close() error { return h.login.close(context.Background()) }

// capabilities are what was shown on vcsim, which has no guests, no consoles
// and no way to migrate but RelocateVM_Task.
func (h *Host) capabilities() []estate.CapabilityReport {
	has := func(c estate.Capability, value, reason string) estate.CapabilityReport {
		return estate.CapabilityReport{Name: c, Has: true, Value: value, Reason: reason}
	}
	lacks := func(c estate.Capability, reason string) estate.CapabilityReport {
		return estate.CapabilityReport{Name: c, Reason: reason}
	}
	move := has(estate.CanMoveLive, h.place.vcenter, "by relocation within one vCenter; never shown with a guest that runs")
	if h.place.vcenter == "" {
		move = lacks(estate.CanMoveLive, "a single ESXi host has nowhere to move a machine; join its vCenter instead")
	}
	return []estate.CapabilityReport{
		has(estate.CanTransfer, "", ""),
		has(estate.CanSnapshot, "", "a snapshot is a whole copy on the datastore"),
		has(estate.CanSave, "", ""),
		has(estate.CanResize, "", ""),
		has(estate.CanHotplug, "", ""),
		has(estate.CanMeasure, "", "memory only: vSphere tells rates of the rest, not sums"),
		has(estate.CanWatch, "", ""),
		has(estate.CanSurvey, "", ""),
		has(estate.CanNetwork, "name", ""),
		has(estate.CanOutliveUs, "", ""),
		has(estate.NeedsDrivers, "pvscsi", ""),
		move,
		lacks(estate.CanDisplay, "vSphere shows screens by WebMKS tickets, which no endpoint was here to issue"),
		lacks(estate.CanConsole, "a serial port of vSphere dials out to a concentrator, which we are not"),
		lacks(estate.CanGuest, "VMware Tools runs commands only for accounts inside the guest, which we do not hold"),
		lacks(estate.CanFilter, "packets are filtered by the port group a machine joins"),
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
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	vms, err := h.everyVM(ctx, briefly)
	if err != nil {
		return nil, err
	}
	all := []driver.Machine{}
	for _, v := range vms {
		if !h.owns(v) {
			continue
		}
		m, err := h.look(ctx, v)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b driver.Machine) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return all, ctx.Err()
}

// look returns what callers may know of a machine of ours: the record, and
// where others changed the hardware or the name since, what is.
func (h *Host) look(ctx context.Context, v *vm) (driver.Machine, error) {
	m := driver.Machine{ID: v.rec.ID, Power: v.power(), Def: v.rec.Def}
	if v.name != vmName(m.Def) && !v.rec.Adopted {
		m.Def.Name = v.name
	}
	m.Def.CPUs = cmp.Or(v.cpus, m.Def.CPUs)
	m.Def.Memory = cmp.Or(v.memory, m.Def.Memory)
	var err error
	if m.Starts, err = h.counted(ctx, v); err == nil && m.Power == estate.On {
		m.Started = v.boot
	}
	return m, err
}

// notFound says that the machine is not here.
func notFound(id estate.MachineID) error { return fault.NotFound.Errorf("no machine %s", id) }

// haveTool says what to install where disks cannot be laid out.
func (h *Host) haveTool() error {
	if _, err := exec.LookPath(h.cfg.ImageTool); err != nil {
		return fault.Unavailable.Errorf("lay out a disk: %w; install Debian's qemu-utils", err)
	}
	return nil
}

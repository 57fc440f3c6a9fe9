package virtrpc

import (
	"context"
	"encoding/hex"
	"strings"

	lv "github.com/digitalocean/go-libvirt"

	"consort.dev/consort/fault"
)

// Domain is a machine as the daemon lists it.
type Domain struct {
	UUID string
	Name string
}

// State is virDomainState.
type State int

// The states. A blocked domain runs; a crashed one keeps its resources.
const (
	NoState     State = 0
	Running     State = 1
	Blocked     State = 2
	Paused      State = 3
	ShutDown    State = 4 // on its way off
	ShutOff     State = 5
	Crashed     State = 6
	PMSuspended State = 7
)

// Reasons why a domain is paused (virDomainPausedReason): somebody paused it or
// started it so; or it came with its memory, from a file or another host.
const (
	ByUser    = 1
	WithState = 2 // VIR_DOMAIN_PAUSED_MIGRATION
)

// What a call works on.
const (
	Config = uint32(2) // the definition
	Live   = uint32(1) // the running domain
)

// Node is the daemon's host.
type Node struct {
	CPUs   int
	Memory int64 // bytes
}

// Info is how the daemon sees a domain.
type Info struct {
	State  State
	Memory int64 // bytes it may use now
	CPUs   int
	Time   int64 // nanoseconds on CPUs since its start
}

// Version returns that of the daemon and that of its driver's hypervisor, each
// a million times the major number plus a thousand times the minor plus the
// release.
func (c *Client) Version(ctx context.Context) (daemon, hypervisor uint64, err error) {
	daemon, err = ask(ctx, c, "ask for the daemon's version", func(l *lv.Libvirt) (uint64, error) { return l.ConnectGetLibVersion() })
	if err != nil {
		return 0, 0, err
	}
	hypervisor, err = ask(ctx, c, "ask for the hypervisor's version", func(l *lv.Libvirt) (uint64, error) { return l.ConnectGetVersion() })
	return daemon, hypervisor, err
}

// Node returns what the host has.
func (c *Client) Node(ctx context.Context) (Node, error) {
	return ask(ctx, c, "ask for the host's size", func(l *lv.Libvirt) (Node, error) {
		_, memory, cpus, _, _, _, _, _, err := l.NodeGetInfo()
		return Node{CPUs: int(cpus), Memory: int64(memory) << 10}, err
	})
}

// Capabilities returns the XML of what the host and its driver can do.
func (c *Client) Capabilities(ctx context.Context) (string, error) {
	return ask(ctx, c, "ask for the capabilities", func(l *lv.Libvirt) (string, error) { return l.ConnectGetCapabilities() })
}

// Domains returns all domains, running or not.
func (c *Client) Domains(ctx context.Context) ([]Domain, error) {
	return ask(ctx, c, "list domains", func(l *lv.Libvirt) ([]Domain, error) {
		raw, _, err := l.ConnectListAllDomains(1, lv.ConnectListDomainsActive|lv.ConnectListDomainsInactive)
		var all []Domain
		for _, d := range raw {
			all = append(all, Domain{UUID: formatUUID(d.UUID), Name: d.Name})
		}
		return all, err
	})
}

// Number returns the daemon's number for the power-on of a running domain: the
// next one has another. One that is off is fault.Conflict.
func (c *Client) Number(ctx context.Context, uuid string) (int, error) {
	n, err := of(ctx, c, uuid, "ask for the domain's number", func(l *lv.Libvirt, d lv.Domain) (int, error) {
		d, err := l.DomainLookupByUUID(d.UUID)
		return int(d.ID), err
	})
	if err == nil && n < 0 {
		err = fault.Conflict.Errorf("domain %s is off", uuid)
	}
	return n, err
}

// XML returns the running domain's XML where live says so, else its definition.
func (c *Client) XML(ctx context.Context, uuid string, live bool) (string, error) {
	flags := lv.DomainXMLSecure
	if !live {
		flags |= lv.DomainXMLInactive
	}
	return of(ctx, c, uuid, "read the domain", func(l *lv.Libvirt, d lv.Domain) (string, error) { return l.DomainGetXMLDesc(d, flags) })
}

// Define makes or replaces a definition.
func (c *Client) Define(ctx context.Context, xml string) error {
	return act(ctx, c, "define the domain", func(l *lv.Libvirt) error {
		_, err := l.DomainDefineXMLFlags(xml, 0)
		return err
	})
}

// Undefine removes a definition with its saved memory, and with its firmware's
// variables unless they are to be kept. A domain that runs goes on, transient.
func (c *Client) Undefine(ctx context.Context, uuid string, keepVariables bool) error {
	flags := lv.DomainUndefineManagedSave | lv.DomainUndefineSnapshotsMetadata
	if keepVariables {
		flags |= lv.DomainUndefineKeepNvram
	} else {
		flags |= lv.DomainUndefineNvram
	}
	return on(ctx, c, uuid, "undefine the domain", func(l *lv.Libvirt, d lv.Domain) error { return l.DomainUndefineFlags(d, flags) })
}

// UndefineWith is Undefine with the vendor's own flags, for drivers that refuse
// those that are usual.
func (c *Client) UndefineWith(ctx context.Context, uuid string, flags uint32) error {
	return on(ctx, c, uuid, "undefine the domain", func(l *lv.Libvirt, d lv.Domain) error {
		return l.DomainUndefineFlags(d, lv.DomainUndefineFlagsValues(flags))
	})
}

// Create starts the domain, from its saved memory where there is some.
func (c *Client) Create(ctx context.Context, uuid string) error {
	return on(ctx, c, uuid, "start the domain", func(l *lv.Libvirt, d lv.Domain) error {
		_, err := l.DomainCreateWithFlags(d, 0)
		return err
	})
}

// CreatePaused is Create, with the guest halted before its first instruction.
func (c *Client) CreatePaused(ctx context.Context, uuid string) error {
	return on(ctx, c, uuid, "start the domain", func(l *lv.Libvirt, d lv.Domain) error {
		_, err := l.DomainCreateWithFlags(d, uint32(lv.DomainStartPaused))
		return err
	})
}

// Resume lets a halted guest go on.
func (c *Client) Resume(ctx context.Context, uuid string) error {
	return on(ctx, c, uuid, "resume the domain", func(l *lv.Libvirt, d lv.Domain) error { return l.DomainResume(d) })
}

// Destroy pulls the plug.
func (c *Client) Destroy(ctx context.Context, uuid string) error {
	return on(ctx, c, uuid, "stop the domain", func(l *lv.Libvirt, d lv.Domain) error { return l.DomainDestroyFlags(d, 0) })
}

// How Shutdown asks.
const (
	ByButton = uint32(1)
	ByAgent  = uint32(2)
	ByVendor = uint32(16) // through the paravirtual bus
	ByAny    = uint32(0)
)

// Shutdown asks the guest to power off, and does not wait.
func (c *Client) Shutdown(ctx context.Context, uuid string, how uint32) error {
	return on(ctx, c, uuid, "ask the guest to power off", func(l *lv.Libvirt, d lv.Domain) error {
		return l.DomainShutdownFlags(d, lv.DomainShutdownFlagValues(how))
	})
}

// State returns the domain's state and the number of the reason for it.
func (c *Client) State(ctx context.Context, uuid string) (s State, reason int, err error) {
	type pair struct{ state, reason int32 }
	p, err := of(ctx, c, uuid, "ask for the domain's state", func(l *lv.Libvirt, d lv.Domain) (pair, error) {
		s, r, err := l.DomainGetState(d, 0)
		return pair{s, r}, err
	})
	return State(p.state), int(p.reason), err
}

// Info returns the domain's size and the time it used.
func (c *Client) Info(ctx context.Context, uuid string) (Info, error) {
	return of(ctx, c, uuid, "measure the domain", func(l *lv.Libvirt, d lv.Domain) (Info, error) {
		state, _, memory, cpus, used, err := l.DomainGetInfo(d)
		return Info{State: State(state), Memory: int64(memory) << 10, CPUs: int(cpus), Time: int64(used)}, err
	})
}

// Stats returns what the daemon counts about the domain, by the vendor's names
// (virConnectGetAllDomainStats). Numbers are int64, booleans and others left out.
func (c *Client) Stats(ctx context.Context, uuid string) (map[string]int64, error) {
	return of(ctx, c, uuid, "measure the domain", func(l *lv.Libvirt, d lv.Domain) (map[string]int64, error) {
		raw, err := l.ConnectGetAllDomainStats([]lv.Domain{d}, 0, 0)
		stats := map[string]int64{}
		for _, r := range raw {
			for _, p := range r.Params {
				switch v := p.Value.I.(type) {
				case int32:
					stats[p.Field] = int64(v)
				case uint32:
					stats[p.Field] = int64(v)
				case int64:
					stats[p.Field] = v
				case uint64:
					stats[p.Field] = int64(v)
				}
			}
		}
		return stats, err
	})
}

// metadataElement is VIR_DOMAIN_METADATA_ELEMENT.
const metadataElement = 2

// Metadata returns the element of a namespace that is kept with the definition
// or with the running domain. One that is not there is fault.NotFound, as is an
// unknown domain.
func (c *Client) Metadata(ctx context.Context, uuid, namespace string, where uint32) (string, error) {
	return of(ctx, c, uuid, "read the domain's metadata", func(l *lv.Libvirt, d lv.Domain) (string, error) {
		return l.DomainGetMetadata(d, metadataElement, optional(namespace), lv.DomainModificationImpact(where))
	})
}

// SetMetadata replaces that element, which gets the prefix given; an empty
// element removes it.
func (c *Client) SetMetadata(ctx context.Context, uuid, element, prefix, namespace string, where uint32) error {
	return on(ctx, c, uuid, "write the domain's metadata", func(l *lv.Libvirt, d lv.Domain) error {
		return l.DomainSetMetadata(d, metadataElement, optional(element), optional(prefix), optional(namespace), lv.DomainModificationImpact(where))
	})
}

// Save writes the domain's memory to the host's disk and stops it.
func (c *Client) Save(ctx context.Context, uuid string) error {
	return on(ctx, c, uuid, "save the domain", func(l *lv.Libvirt, d lv.Domain) error { return l.DomainManagedSave(d, 0) })
}

// Saved reports whether the next start goes on from saved memory.
func (c *Client) Saved(ctx context.Context, uuid string) (bool, error) {
	n, err := of(ctx, c, uuid, "look for saved memory", func(l *lv.Libvirt, d lv.Domain) (int32, error) { return l.DomainHasManagedSaveImage(d, 0) })
	return n != 0, err
}

// ForgetSaved removes saved memory.
func (c *Client) ForgetSaved(ctx context.Context, uuid string) error {
	return on(ctx, c, uuid, "forget the saved memory", func(l *lv.Libvirt, d lv.Domain) error { return l.DomainManagedSaveRemove(d, 0) })
}

// Attach adds a device.
func (c *Client) Attach(ctx context.Context, uuid, xml string, where uint32) error {
	return on(ctx, c, uuid, "attach the device", func(l *lv.Libvirt, d lv.Domain) error { return l.DomainAttachDeviceFlags(d, xml, where) })
}

// Detach asks for a device to go. A running guest may let go of it later, or
// not at all.
func (c *Client) Detach(ctx context.Context, uuid, xml string, where uint32) error {
	return on(ctx, c, uuid, "detach the device", func(l *lv.Libvirt, d lv.Domain) error { return l.DomainDetachDeviceFlags(d, xml, where) })
}

// Agent sends the guest's agent a command in JSON through the daemon, and
// returns its reply. The wait is at most the seconds given.
func (c *Client) Agent(ctx context.Context, uuid, command string, seconds int) (string, error) {
	d, err := domain(uuid)
	if err != nil {
		return "", err
	}
	return call(ctx, c, "ask the guest's agent", false, func(l *lv.Libvirt) (string, error) {
		out, err := l.QEMUDomainAgentCommand(d, command, int32(seconds), 0)
		return strings.Join(out, ""), err
	})
}

// Flags of a migration (virDomainMigrateFlags).
const (
	MigrateLive           = uint32(1 << 0)
	MigratePeerToPeer     = uint32(1 << 1)
	MigratePersistDest    = uint32(1 << 3)
	MigrateUndefineSource = uint32(1 << 4)
	MigrateCopyDisks      = uint32(1 << 6) // whole
	MigrateCopyOverlays   = uint32(1 << 7) // what differs from their base
)

// Migration is how a domain moves.
type Migration struct {
	To       string // the other daemon, as this one reaches it
	At       string // where memory is sent; chosen by the other daemon when empty
	DisksAt  string // where disks are sent
	Disks    []string
	XML      string // the running domain there, where it differs
	Defined  string // its definition there
	Flags    uint32
	MaxSpeed uint64 // MiB/s; unbounded when zero
}

// Migrate moves a running domain to another daemon and returns once it is there.
func (c *Client) Migrate(ctx context.Context, uuid string, m Migration) error {
	var params []lv.TypedParam
	add := func(name, value string) {
		if value != "" {
			params = append(params, lv.TypedParam{Field: name, Value: *lv.NewTypedParamValueString(value)})
		}
	}
	add("migrate_uri", m.At)
	add("disks_uri", m.DisksAt)
	add("destination_xml", m.XML)
	add("persistent_xml", m.Defined)
	for _, d := range m.Disks {
		add("migrate_disks", d)
	}
	if m.MaxSpeed != 0 {
		params = append(params, lv.TypedParam{Field: "bandwidth", Value: *lv.NewTypedParamValueUllong(m.MaxSpeed)})
	}
	return on(ctx, c, uuid, "move the domain", func(l *lv.Libvirt, d lv.Domain) error {
		_, err := l.DomainMigratePerform3Params(d, optional(m.To), params, nil, lv.DomainMigrateFlags(m.Flags))
		return err
	})
}

// AbortJob ends what the daemon is doing with the domain: a save or a migration.
func (c *Client) AbortJob(ctx context.Context, uuid string) error {
	return on(ctx, c, uuid, "abort the domain's job", func(l *lv.Libvirt, d lv.Domain) error { return l.DomainAbortJob(d) })
}

// of asks about one domain.
func of[T any](ctx context.Context, c *Client, uuid, what string, f func(*lv.Libvirt, lv.Domain) (T, error)) (T, error) {
	d, err := domain(uuid)
	if err != nil {
		var none T
		return none, err
	}
	return ask(ctx, c, what, func(l *lv.Libvirt) (T, error) { return f(l, d) })
}

// on acts on one domain.
func on(ctx context.Context, c *Client, uuid, what string, f func(*lv.Libvirt, lv.Domain) error) error {
	d, err := domain(uuid)
	if err != nil {
		return err
	}
	return act(ctx, c, what, func(l *lv.Libvirt) error { return f(l, d) })
}

// domain names a domain to the daemon, which looks at its UUID alone: the name
// shows in errors.
func domain(uuid string) (lv.Domain, error) {
	d := lv.Domain{Name: uuid, ID: -1}
	b, err := hex.DecodeString(strings.ReplaceAll(uuid, "-", ""))
	if err != nil || len(b) != len(d.UUID) {
		return d, fault.Invalid.Errorf("%q is no UUID", uuid)
	}
	copy(d.UUID[:], b)
	return d, nil
}

func optional(s string) lv.OptString {
	if s == "" {
		return nil
	}
	return lv.OptString{s}
}

package estate

import (
	"time"
)

// Hypervisor is a place where machines run: a QEMU host, a vCenter cluster.
type Hypervisor struct {
	Head
	Spec   HypervisorSpec   `json:"spec"`
	Status HypervisorStatus `json:"status,omitzero"`
}

// HypervisorSpec is how a hypervisor is reached and used.
type HypervisorSpec struct {
	Provider string `json:"provider" doc:"Which provider drives it, as listed by 'consort hypervisor providers'."`
	Endpoint string `json:"endpoint,omitempty" doc:"Where a remote API is reached; empty for the agent's own host."`
	Drain    bool   `json:"drain,omitempty" doc:"Place nothing new here."`
}

// HypervisorState is how far a hypervisor can be relied on.
type HypervisorState string

// The states of a hypervisor.
const (
	HypervisorReady    HypervisorState = "ready"
	HypervisorDraining HypervisorState = "draining"
	HypervisorLost     HypervisorState = "lost" // its agent's lease has run out; its machines may still run
)

// HypervisorStatus is what a hypervisor's agent reports.
type HypervisorStatus struct {
	Progress
	State        HypervisorState    `json:"state,omitempty"`
	Product      string             `json:"product,omitempty" doc:"The vendor's name and version."`
	Accelerator  string             `json:"accelerator,omitempty" doc:"What runs guest instructions, as kvm or tcg."`
	Because      string             `json:"because,omitempty" doc:"Why that accelerator."`
	Capacity     Capacity           `json:"capacity,omitzero" doc:"What the host has."`
	Free         Capacity           `json:"free,omitzero" doc:"What is left for new machines."`
	GuestTypes   []string           `json:"guestTypes,omitempty" doc:"The types of guest it makes, the usual one first."`
	Capabilities []CapabilityReport `json:"capabilities,omitempty"`
	Found        []Found            `json:"found,omitempty" doc:"Machines on it that are not ours."`
	Fetching     []Fetching         `json:"fetching,omitempty" doc:"Content on its way here from other hosts."`
	Seen         time.Time          `json:"seen,omitzero" doc:"When the agent last joined."`
}

// Fetching is content on its way from one host to another.
type Fetching struct {
	What    string `json:"what" doc:"As image default/office."`
	Content Digest `json:"content"`
	Got     Bytes  `json:"got"`
	Of      Bytes  `json:"of"`
}

// Capacity is room for machines.
type Capacity struct {
	CPUs   int   `json:"cpus,omitempty"`
	Memory Bytes `json:"memory,omitempty"`
	Disk   Bytes `json:"disk,omitempty"`
}

// Capability names an ability of a hypervisor beyond the basic verbs. Names
// live here because placement and the console reason about them without
// holding a driver; what each promises stands in hypervisor/driver.
type Capability string

// The capabilities.
const (
	CanDisplay     Capability = "display"        // the screen of a machine as a stream; value: its protocol
	CanHotplug     Capability = "disk-hotplug"   // disks come and go while the machine runs
	CanGuest       Capability = "guest-commands" // commands run in the guest through its agent
	CanTransfer    Capability = "disk-transfer"  // disks are exported and imported
	CanFilter      Capability = "packet-filter"  // a NIC is held to its own addresses
	CanKeepApart   Capability = "keep-apart"     // machines on a Network reach what their context lets them, and nothing else
	CanNetwork     Capability = "network"        // machines join a Network and can be reached on it; value: how, tap, bridge or name
	CanOutliveUs   Capability = "outlive-agent"  // machines go on when the agent dies
	CanSnapshot    Capability = "snapshot"       // disks are given back what they held
	CanSave        Capability = "save-state"     // memory is kept while the machine is off
	CanResize      Capability = "resize"         // other CPUs and memory for the same machine
	CanMoveLive    Capability = "live-move"      // running machines move; value: between which hosts
	CanMeasure     Capability = "metrics"        // what a machine uses
	CanConsole     Capability = "console"        // a serial console as a stream
	CanWatch       Capability = "events"         // changes are told
	CanSurvey      Capability = "survey"         // machines of others are seen, and adopted
	CanInstant     Capability = "instant-clone"  // machines go on where a template stands
	CanPause       Capability = "pause"          // a guest stands still and costs no CPU
	CanEncryptDisk Capability = "encrypted-disk" // what a machine writes is lost with a key that is in memory only
	CanConfine     Capability = "confinement"    // who takes over a machine's process reaches nothing else of the host; value: what holds them in
	NeedsDrivers   Capability = "guest-drivers"  // value: what a guest must have drivers for to boot here, one or more of GuestFacts.Drivers
)

// Values of CanNetwork: how a machine's NIC is joined to its Network.
const (
	NetworkByTap    = "tap"    // a tap device in the network's namespace
	NetworkByBridge = "bridge" // a bridge on the host that leads there
	NetworkByName   = "name"   // the vendor's network of the same name
)

// Evidence says how a claim came to be believed.
type Evidence string

// The kinds of evidence.
const (
	Verified  Evidence = "verified"  // shown on a real part of the named version
	Declared  Evidence = "declared"  // the provider says so
	Simulated Evidence = "simulated" // shown on a simulator only
)

// CapabilityReport is one capability as a hypervisor declares it.
type CapabilityReport struct {
	Name      Capability `json:"name"`
	GuestType string     `json:"guestType,omitempty" doc:"For which type of guest; every type when empty."`
	Has       bool       `json:"has"`
	Value     string     `json:"value,omitempty" doc:"A detail, as the display's protocol."`
	Reason    string     `json:"reason,omitempty" doc:"Why it is absent, or weaker than elsewhere."`
	Evidence  Evidence   `json:"evidence,omitempty" enum:"verified,declared,simulated"`
}

// Capable returns the report of a capability for a type of guest: its own, or
// that of every type. One never reported is absent.
func Capable(reports []CapabilityReport, guestType string, name Capability) CapabilityReport {
	found := CapabilityReport{Name: name, GuestType: guestType, Reason: "not reported"}
	for _, c := range reports {
		if c.Name == name && c.GuestType == guestType {
			return c
		}
		if c.Name == name && c.GuestType == "" {
			found = c
		}
	}
	return found
}

// Can returns the report of a capability for the usual type of guest; one never
// reported is absent.
func (s *HypervisorStatus) Can(name Capability) CapabilityReport { return s.CanFor("", name) }

// CanFor returns the report of a capability for a type of guest, the usual one
// when empty.
func (s *HypervisorStatus) CanFor(guestType string, name Capability) CapabilityReport {
	if guestType == "" && len(s.GuestTypes) > 0 {
		guestType = s.GuestTypes[0]
	}
	return Capable(s.Capabilities, guestType, name)
}

// Found is a machine on a hypervisor that is not ours: seen and shown, never
// touched until it is adopted.
type Found struct {
	ID        MachineID   `json:"id" doc:"The vendor's UUID, which adoption keeps."`
	Name      string      `json:"name"`
	Power     Power       `json:"power"`
	GuestType string      `json:"guestType,omitempty"`
	CPUs      int         `json:"cpus,omitempty"`
	Memory    Bytes       `json:"memory,omitempty"`
	Disks     []FoundDisk `json:"disks,omitempty" doc:"In boot order."`
	MACs      []string    `json:"macs,omitempty"`
	Obstacle  string      `json:"obstacle,omitempty" doc:"Why it cannot be adopted."`
}

// FoundDisk is a disk of a machine that is not ours.
type FoundDisk struct {
	Name string `json:"name"`
	Size Bytes  `json:"size,omitempty"`
}

// Check implements Resource.
func (h *Hypervisor) Check() []Problem {
	var c checks
	c.name("spec.provider", h.Spec.Provider, true)
	return c
}

// Links implements Resource.
func (h *Hypervisor) Links() []Link { return nil }

// Progress implements Resource.
func (h *Hypervisor) Progress() *Progress { return &h.Status.Progress }

// Package driver is the contract for hypervisor providers. A provider author
// reads this package and runs package drivertest; nothing else is needed.
//
// Every method is safe for concurrent use, may be called twice with the effect
// of once, and returns promptly when its context ends; what it began then is
// finished or undone by the next call for the same machine. Errors carry a
// fault.Kind. Drivers do only what nobody else can do: validation, retries,
// fencing and the naming of errors belong to the callers.
package driver

import (
	"context"
	"time"

	"consort.dev/consort/estate"
)

// Host is one place where machines run: a QEMU host, a vCenter, a Hyper-V server.
type Host interface {
	// Describe says what the host is and can do. It is cheap, and its
	// capabilities do not change while the driver is open.
	Describe(ctx context.Context) (Description, error)

	// List returns every machine the host holds for us, defined by this or an
	// earlier process, in order of ID. A state that cannot be learned is
	// estate.PowerUnknown, never a guess.
	List(ctx context.Context) ([]Machine, error)

	// Define makes the machine with its disks, powered off. An equal machine
	// that exists is success; an unequal one with the same ID is fault.Exists
	// and stays as it was. A template it names that is not there is fault.NotFound,
	// one of other hardware fault.Invalid, a stale one fault.Unsupported.
	Define(ctx context.Context, def Definition) error

	// Start powers the machine on. One that runs is success, and is not started
	// again. An unknown ID is fault.NotFound.
	Start(ctx context.Context, id estate.MachineID) error

	// Stop powers the machine off: it asks the guest and gives it grace to go,
	// then pulls the plug. Zero grace pulls at once. One that is off is success.
	// An unknown ID is fault.NotFound.
	Stop(ctx context.Context, id estate.MachineID, grace time.Duration) error

	// Delete stops the machine at once and removes it with the disks that
	// Define made. Volumes stay. An unknown ID is success.
	Delete(ctx context.Context, id estate.MachineID) error
}

// Description is what a host says about itself.
type Description struct {
	Provider     string   // the provider's name
	Product      string   // the vendor's name and version
	Accelerator  string   // what runs guest instructions
	Because      string   // why that accelerator, one sentence
	GuestTypes   []string // the types of guest it can make, the usual one first; empty where there is one only
	Capacity     estate.Capacity
	Capabilities []estate.CapabilityReport // each once, or once for each type of guest; without evidence, which is not the host's to claim
}

// Machine is a machine as its host has it.
type Machine struct {
	ID      estate.MachineID
	Power   estate.Power
	Starts  int64     // times it was powered on under its definition
	Started time.Time // of the last power-on; zero when unknown
	Def     Definition
}

// Definition is the machine to make. It is a value: two equal definitions make
// equal machines.
type Definition struct {
	ID        estate.MachineID
	Name      string // for people
	GuestType string // one of the host's; its usual one when empty
	CPUs      int
	Memory    estate.Bytes
	Firmware  estate.Firmware // BIOS when empty
	Screen    estate.Screen
	Disks     []Disk // in boot order
	NICs      []NIC

	// Template names the template from which the machine goes on when it is first
	// started: with its memory, what was attached to it, and private disks that begin
	// with what the template's held, but without network cards until Join. Later starts
	// boot from its own disks, as does one after Import, Revert or Resize. For hosts that declare estate.CanInstant.
	Template string `json:",omitempty"`

	// Sealed has it write to its private disks, and to nothing else, with a key of
	// its own that is in the memory of its process and of ours and nowhere else. No
	// File of it may be written to. For hosts that declare estate.CanEncryptDisk; see Sealer.
	Sealed bool `json:",omitempty"`
}

// Disk is a disk to attach. It has at most one of Base and File; with neither
// it is private and begins empty.
type Disk struct {
	Name     string       // unique in the machine; the serial number the guest sees; at most 20 bytes
	Base     *Content     // the disk begins as a private copy of this, which never changes
	File     *Content     // the disk is this file, read and written in place, and never deleted by us
	Size     estate.Bytes // of a private copy: at least this, the base's own size when 0; of an empty disk: this
	ReadOnly bool
}

// Content is a disk file on the agent's host. Its format comes from our record
// and is never probed.
type Content struct {
	Path   string
	Format estate.DiskFormat
	Size   estate.Bytes // as a guest sees it
}

// NIC is a network card joined to what the agent prepared, in the form that the
// value of estate.CanNetwork names. One of Tap, Bridge, Name, Socket and Unplugged
// is set.
type NIC struct {
	MAC       string
	Netns     string // path of the namespace that holds Tap
	Tap       string // "tap": name of the tap device
	Bridge    string // "bridge": name of a bridge in the host's own namespace
	Name      string // "name": the vendor's own name of a network
	Socket    string // unix socket that speaks QEMU's stream framing
	Unplugged bool   `json:",omitempty"` // nothing is at the other end, and its link is down: a card of what is to become a template
}

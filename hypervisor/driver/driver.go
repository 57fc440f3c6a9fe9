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
	"io"
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
	// and stays as it was.
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
	Provider     string // the provider's name
	Product      string // the vendor's name and version
	Accelerator  string // what runs guest instructions
	Because      string // why that accelerator, one sentence
	Capacity     estate.Capacity
	Capabilities []estate.CapabilityReport
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
	ID       estate.MachineID
	Name     string // for people
	CPUs     int
	Memory   estate.Bytes
	Firmware estate.Firmware // BIOS when empty
	Screen   estate.Screen
	Disks    []Disk // in boot order
	NICs     []NIC
}

// Disk is a disk to attach. It has exactly one of Base and File.
type Disk struct {
	Name     string       // unique in the machine; the serial number the guest sees; at most 20 bytes
	Base     *Content     // the disk begins as a private copy of this, which never changes
	File     *Content     // the disk is this file, read and written in place, and never deleted by us
	Size     estate.Bytes // of a private copy: at least this; the base's own size when 0
	ReadOnly bool
}

// Content is a disk file on the agent's host. Its format comes from our record
// and is never probed.
type Content struct {
	Path   string
	Format estate.DiskFormat
	Size   estate.Bytes // as a guest sees it
}

// NIC is a network card joined to what the agent prepared: a tap device in a
// network namespace, or the socket of a user-mode network. One of the two is set.
type NIC struct {
	MAC    string
	Netns  string // path of the namespace that holds Tap
	Tap    string // name of the tap device
	Socket string // unix socket that speaks QEMU's stream framing
}

// Displayer is implemented by hosts that declare estate.CanDisplay.
type Displayer interface {
	// Display opens the screen of a running machine as a stream of the protocol
	// that the capability's value names. Each call is a connection of its own.
	// A machine that is off is fault.Conflict; an unknown ID is fault.NotFound.
	Display(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error)
}

// Hotplugger is implemented by hosts that declare estate.CanHotplug.
type Hotplugger interface {
	// Attach adds the disk, which is a File, to a running machine until it is
	// detached or the machine powered off. The same disk attached already is
	// success; another under its name is fault.Exists. A machine that is off is
	// fault.Conflict. No free slot is fault.NoCapacity.
	Attach(ctx context.Context, id estate.MachineID, disk Disk) error

	// Detach takes the disk out and returns once the guest has let go of it. An
	// absent disk is success.
	Detach(ctx context.Context, id estate.MachineID, name string) error

	// Attached returns the names of the disks that Attach added, sorted.
	Attached(ctx context.Context, id estate.MachineID) ([]string, error)
}

// Guest is implemented by hosts that declare estate.CanGuest.
type Guest interface {
	// Run runs a command in the guest as its administrator and waits for it.
	// A guest whose agent does not answer, as that of a machine that is off, is
	// fault.Unavailable. A command that exits unequal to zero is no error. An
	// unknown ID is fault.NotFound. Alone among all methods it acts every time
	// it is called; fault.OutcomeUnknown says that the command may have run.
	Run(ctx context.Context, id estate.MachineID, cmd Command) (Output, error)
}

// Command is a command for the guest. Secrets travel on its input, never among
// its arguments.
type Command struct {
	Args  []string // program and arguments; no shell
	Stdin []byte
}

// Output is what a command in the guest left behind, each stream at most 1 MiB.
type Output struct {
	Exit   int
	Stdout []byte
	Stderr []byte
}

// Transferer is implemented by hosts that declare estate.CanTransfer.
type Transferer interface {
	// Export writes the named disk of a machine that is off, as raw bytes from
	// the first to the last. A running machine is fault.Conflict.
	Export(ctx context.Context, id estate.MachineID, disk string, w io.Writer) error

	// Import replaces the content of the named disk of a machine that is off by
	// what r yields, which must be exactly the disk's size: anything else is
	// fault.Invalid. A broken import leaves the old content. A running machine is
	// fault.Conflict, an unknown disk fault.NotFound, here as with Export.
	Import(ctx context.Context, id estate.MachineID, disk string, r io.Reader) error
}

// As returns h, or the nearest driver inside h, as a T. Wrappers that do not
// implement an ability themselves offer the inner driver through Unwrap.
func As[T any](h Host) (t T, ok bool) {
	for h != nil {
		if t, ok = h.(T); ok {
			return t, true
		}
		w, wraps := h.(interface{ Unwrap() Host })
		if !wraps {
			break
		}
		h = w.Unwrap()
	}
	return t, false
}

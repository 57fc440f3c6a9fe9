package driver

import (
	"context"
	"io"
	"time"

	"consort.dev/consort/estate"
)

// What only some hosts can do. A host that declares the capability implements
// the interface, and the other way about.

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

// Transferer is implemented by hosts that declare estate.CanTransfer: their
// machines can be carried to another host, whoever made that.
type Transferer interface {
	// Export writes the named disk of a machine that is off, as raw bytes from
	// the first to the last. A running machine is fault.Conflict.
	Export(ctx context.Context, id estate.MachineID, disk string, w io.Writer) error

	// Import replaces the content of the named disk of a machine that is off by
	// what r yields, which must be exactly the disk's size: anything else is
	// fault.Invalid. A broken import leaves the old content. A running machine is
	// fault.Conflict, an unknown disk fault.NotFound, here as with Export.
	Import(ctx context.Context, id estate.MachineID, disk string, r io.Reader) error

	// Shelve undefines a machine that is off and keeps its disks: List no longer
	// has it, Start of it is fault.NotFound. Defining it again, with an equal
	// definition, brings it back with what its disks held; an unequal one is
	// fault.Exists, as ever. Delete removes it for good. A running machine is fault.Conflict; an ID that is unknown, or
	// shelved already, is success.
	Shelve(ctx context.Context, id estate.MachineID) error
}

// Mover is implemented by hosts that declare estate.CanMoveLive. A running
// machine moves between two hosts whose capability has the same value.
type Mover interface {
	// Arrive makes the host ready for a machine that it does not have, and says
	// where Depart is to send it. Called again it is ready again. Delete of a
	// machine that never came makes the host forget it.
	Arrive(ctx context.Context, def Definition) (at string, err error)

	// Depart moves a running machine with its memory and private disks to where
	// Arrive said. When it returns without error the machine runs there and is
	// shelved here; with fault.OutcomeUnknown it runs here or there; with any
	// other error it runs here. A machine that is off is fault.Conflict.
	Depart(ctx context.Context, id estate.MachineID, at string) error
}

// Snapshotter is implemented by hosts that declare estate.CanSnapshot.
type Snapshotter interface {
	// Snapshot keeps what the private disks of a machine that is off hold now,
	// under a name. A name that is taken is fault.Exists. A running machine is
	// fault.Conflict and an unknown ID fault.NotFound, here as below.
	Snapshot(ctx context.Context, id estate.MachineID, name string) error

	// Revert gives the disks what they held then. The snapshot stays. An unknown
	// name is fault.NotFound.
	Revert(ctx context.Context, id estate.MachineID, name string) error

	// DropSnapshot forgets it. The disks, and other snapshots, stay as they are.
	// An unknown name is success.
	DropSnapshot(ctx context.Context, id estate.MachineID, name string) error

	// Snapshots returns their names, oldest first. It also works while the
	// machine runs.
	Snapshots(ctx context.Context, id estate.MachineID) ([]string, error)
}

// Saver is implemented by hosts that declare estate.CanSave.
type Saver interface {
	// Save writes the memory of a running machine to the host's disk and powers
	// it off. The next Start goes on where it was, once, and counts as any start;
	// Import, Revert and Resize forget what was saved. A machine that is off is
	// success, an unknown ID fault.NotFound.
	Save(ctx context.Context, id estate.MachineID) error
}

// Resizer is implemented by hosts that declare estate.CanResize.
type Resizer interface {
	// Resize gives a machine that is off other CPUs and memory; all else stays.
	// A running machine is fault.Conflict, an unknown ID fault.NotFound.
	Resize(ctx context.Context, id estate.MachineID, cpus int, memory estate.Bytes) error
}

// Meter is implemented by hosts that declare estate.CanMeasure.
type Meter interface {
	// Measure returns what the machine has used since its last power-on: each
	// number only grows while it runs. A machine that is off is fault.Conflict,
	// an unknown ID fault.NotFound.
	Measure(ctx context.Context, id estate.MachineID) (Usage, error)
}

// Usage is what a machine has used. What the host does not tell is -1.
type Usage struct {
	CPU         time.Duration // of guest and emulation together
	Memory      estate.Bytes  // resident now; the one number that may shrink
	DiskRead    estate.Bytes
	DiskWritten estate.Bytes
	Received    estate.Bytes // through its network cards
	Sent        estate.Bytes
}

// Consoler is implemented by hosts that declare estate.CanConsole.
type Consoler interface {
	// Console opens the serial console of a running machine. A later connection
	// may end an earlier one. A machine that is off is fault.Conflict, an unknown
	// ID fault.NotFound.
	Console(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error)
}

// Watcher is implemented by hosts that declare estate.CanWatch.
type Watcher interface {
	// Watch calls changed with the ID of a machine, ours or not, soon after it
	// changed, until ctx ends, and then returns nil. It is a hint: changes may be
	// told twice, late, or for nothing. A connection that breaks is an error;
	// whoever watches then lists.
	Watch(ctx context.Context, changed func(estate.MachineID)) error
}

// Surveyor is implemented by hosts that declare estate.CanSurvey.
type Surveyor interface {
	// Survey returns the machines on the host that are not ours, in order of ID.
	// It changes nothing.
	Survey(ctx context.Context) ([]estate.Found, error)

	// Adopt makes a machine of others ours without touching what its guest sees:
	// List has it from now on and Survey no longer. Its disks become Files, which
	// Delete keeps. One that is ours already is success; one that cannot be
	// adopted, for the reason Survey gives, is fault.Unsupported; an unknown ID is
	// fault.NotFound.
	Adopt(ctx context.Context, id estate.MachineID) error

	// Release gives an adopted machine back, as it is: Survey has it again. One
	// that is not ours is success, one that we defined fault.Conflict.
	Release(ctx context.Context, id estate.MachineID) error
}

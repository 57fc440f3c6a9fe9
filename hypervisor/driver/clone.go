package driver

import (
	"context"
	"slices"

	"consort.dev/consort/estate"
)

// Cloner is implemented by hosts that declare estate.CanInstant. A clone is a
// machine like any other but for how it begins: see Definition.Template.
type Cloner interface {
	// Freeze makes a running machine the template of that name and takes it from
	// the machines. It has no File among its disks and no network card but unplugged
	// ones, else it is fault.Invalid. A machine that is off is fault.Conflict. A name that is taken
	// is fault.Exists, and of a machine that has become that template success. An
	// unknown ID is fault.NotFound. What failed leaves the machine running, or saved.
	Freeze(ctx context.Context, id estate.MachineID, name string) error

	// Templates returns the templates, in order of name. They outlive us as
	// machines do.
	Templates(ctx context.Context) ([]Template, error)

	// DropTemplate forgets a template. Machines defined from it stay as they are
	// and do what they would. An unknown name is success.
	DropTemplate(ctx context.Context, name string) error

	// Join gives a running machine that goes on from a template the network cards of
	// its definition. Those that the template had, its first ones, are there from the
	// start, with their link down; they get their link, and have the address of the
	// template's until the guest sets their own, or boots. The others are plugged in.
	// A machine that has joined is success, one that is off fault.Conflict, an unknown
	// ID fault.NotFound.
	Join(ctx context.Context, id estate.MachineID) error
}

// Template is a machine that stands still for good, for others to go on from.
type Template struct {
	Name  string
	Def   Definition // of the machine it was
	Size  int64      // bytes of its memory and disks on the host
	Stale string     // why nothing new can go on from it, as after an upgrade of the host; empty while it can
}

// Pauser is implemented by hosts that declare estate.CanPause.
type Pauser interface {
	// Pause has the guest of a running machine stand still: its power is
	// estate.Paused, it uses no CPU, and only its agent does not answer; all else
	// is as while it runs. Start has it go on, which is not counted. One that is
	// paused is success, one that is off fault.Conflict, an unknown ID
	// fault.NotFound.
	Pause(ctx context.Context, id estate.MachineID) error
}

// Clones reports whether a machine defined so has the hardware of o: what it
// takes to go on where o stands, which includes as many network cards. Who it is,
// what these are joined to, more of them, and whether it is sealed do not count.
func (d Definition) Clones(o Definition) bool {
	if len(d.NICs) < len(o.NICs) {
		return false
	}
	o.ID, o.Name, o.NICs, o.Template, o.Sealed = d.ID, d.Name, d.NICs, d.Template, d.Sealed
	return d.Equal(o)
}

// Freezable says why a machine defined so cannot become a template; it is empty
// where it can.
func (d Definition) Freezable() string {
	switch {
	case d.Sealed:
		return "it is sealed, and a template is kept"
	case slices.ContainsFunc(d.NICs, func(n NIC) bool { return !n.Unplugged }):
		return "one of its network cards is plugged in, and its clones would be where it is"
	case slices.ContainsFunc(d.Disks, func(d Disk) bool { return d.File != nil }):
		return "one of its disks is a file that belongs to nobody else"
	}
	return ""
}

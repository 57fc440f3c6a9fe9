package hypervisor

import (
	"context"
	"errors"
	"io"
	"slices"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// Display opens the screen of a running machine.
func (h *Host) Display(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
	conn, err := ask(ctx, h, id, estate.CanDisplay, func(ctx context.Context, d driver.Displayer) (io.ReadWriteCloser, error) { return d.Display(ctx, id) })
	return conn, h.named(err, "open the display of machine %s", id)
}

// Attach adds the disk to a running machine.
func (h *Host) Attach(ctx context.Context, id estate.MachineID, disk driver.Disk) error {
	text := diskProblem(disk)
	if text == "" && disk.File == nil {
		text = "only a file can be attached to a running machine"
	}
	err := effect(ctx, h, id, estate.CanHotplug, func(ctx context.Context, p driver.Hotplugger) error {
		if text != "" {
			return fault.Invalid.Errorf("%s", text)
		}
		return p.Attach(ctx, id, disk)
	}, nil)
	return h.named(err, "attach disk %s to machine %s", disk.Name, id)
}

// Detach takes the disk out once the guest has let go of it.
func (h *Host) Detach(ctx context.Context, id estate.MachineID, name string) error {
	err := effect(ctx, h, id, estate.CanHotplug, func(ctx context.Context, p driver.Hotplugger) error { return p.Detach(ctx, id, name) }, nil)
	return h.named(err, "detach disk %s from machine %s", name, id)
}

// Attached returns the names of the disks that Attach added, sorted.
func (h *Host) Attached(ctx context.Context, id estate.MachineID) ([]string, error) {
	names, err := ask(ctx, h, id, estate.CanHotplug, func(ctx context.Context, p driver.Hotplugger) ([]string, error) { return p.Attached(ctx, id) })
	return names, h.named(err, "list the disks attached to machine %s", id)
}

// Run runs a command in the guest as its administrator. It is never repeated:
// fault.OutcomeUnknown means the command may have run.
func (h *Host) Run(ctx context.Context, id estate.MachineID, cmd driver.Command) (driver.Output, error) {
	if len(cmd.Args) == 0 || cmd.Args[0] == "" {
		return driver.Output{}, h.named(fault.Invalid.Errorf("no command given"), "run in machine %s", id)
	}
	g, err := ability[driver.Guest](ctx, h, id, estate.CanGuest)
	if err != nil {
		return driver.Output{}, h.named(err, "run %s in machine %s", cmd.Args[0], id)
	}
	out, err := g.Run(ctx, id, cmd)
	return out, h.named(err, "run %s in machine %s", cmd.Args[0], id)
}

// Export writes the named disk of a machine that is off to w as raw bytes. It
// is not repeated, since w has had some of them.
func (h *Host) Export(ctx context.Context, id estate.MachineID, disk string, w io.Writer) error {
	t, err := keeping[driver.Transferer](ctx, h, id, estate.CanTransfer)
	if err != nil {
		return h.named(err, "export disk %s of machine %s", disk, id)
	}
	ctx, cancel := context.WithTimeout(ctx, transferLimit)
	defer cancel()
	return h.named(t.Export(ctx, id, disk, w), "export disk %s of machine %s", disk, id)
}

// Import replaces the content of the named disk of a machine that is off. It
// is not repeated, since r has yielded some of its bytes.
func (h *Host) Import(ctx context.Context, id estate.MachineID, disk string, r io.Reader) error {
	t, err := keeping[driver.Transferer](ctx, h, id, estate.CanTransfer)
	if err != nil {
		return h.named(err, "import disk %s of machine %s", disk, id)
	}
	ctx, cancel := context.WithTimeout(ctx, transferLimit)
	defer cancel()
	return h.named(t.Import(ctx, id, disk, r), "import disk %s of machine %s", disk, id)
}

// Shelve undefines a machine that is off and keeps its disks.
func (h *Host) Shelve(ctx context.Context, id estate.MachineID) error {
	err := effect(ctx, h, id, estate.CanTransfer, opened(h, id, func(ctx context.Context, t driver.Transferer) error { return t.Shelve(ctx, id) }),
		func(ctx context.Context) (bool, error) {
			_, err := h.Get(ctx, id)
			if errors.Is(err, fault.NotFound) {
				return true, nil
			}
			return false, err
		})
	return h.named(err, "shelve machine %s", id)
}

// Arrive makes the host ready for a machine that moves here while it runs, and
// says where Depart is to send it.
func (h *Host) Arrive(ctx context.Context, def driver.Definition) (at string, err error) {
	err = h.check(def)
	if can := h.CanFor(def.GuestType, estate.CanMoveLive); err == nil && !can.Has {
		err = fault.Unsupported.Errorf("it cannot do %s: %s", can.Name, can.Reason)
	}
	if err != nil {
		return "", h.named(err, "await machine %s", def.ID)
	}
	err = effect(ctx, h, "", estate.CanMoveLive, func(ctx context.Context, m driver.Mover) (err error) {
		at, err = m.Arrive(ctx, def)
		return err
	}, nil)
	return at, h.named(err, "await machine %s", def.ID)
}

// Depart moves a running machine to where Arrive said. It is never repeated:
// fault.OutcomeUnknown means that it runs here or there.
func (h *Host) Depart(ctx context.Context, id estate.MachineID, at string) error {
	m, err := keeping[driver.Mover](ctx, h, id, estate.CanMoveLive)
	if err != nil {
		return h.named(err, "move machine %s", id)
	}
	ctx, cancel := context.WithTimeout(ctx, transferLimit)
	defer cancel()
	return h.named(m.Depart(ctx, id, at), "move machine %s", id)
}

// Snapshot keeps what the private disks of a machine that is off hold now.
func (h *Host) Snapshot(ctx context.Context, id estate.MachineID, name string) error {
	if !diskRule.MatchString(name) {
		return h.named(fault.Invalid.Errorf("%q does not name a snapshot: lower-case letters, digits and dashes", name), "snapshot machine %s", id)
	}
	err := effect(ctx, h, id, estate.CanSnapshot, opened(h, id, func(ctx context.Context, s driver.Snapshotter) error { return s.Snapshot(ctx, id, name) }),
		func(ctx context.Context) (bool, error) {
			names, err := h.Snapshots(ctx, id)
			return slices.Contains(names, name), err
		})
	return h.named(err, "snapshot %s of machine %s", name, id)
}

// Revert gives the disks what they held at the snapshot.
func (h *Host) Revert(ctx context.Context, id estate.MachineID, name string) error {
	err := effect(ctx, h, id, estate.CanSnapshot, opened(h, id, func(ctx context.Context, s driver.Snapshotter) error { return s.Revert(ctx, id, name) }), nil)
	return h.named(err, "revert machine %s to snapshot %s", id, name)
}

// DropSnapshot forgets a snapshot.
func (h *Host) DropSnapshot(ctx context.Context, id estate.MachineID, name string) error {
	err := effect(ctx, h, id, estate.CanSnapshot, func(ctx context.Context, s driver.Snapshotter) error { return s.DropSnapshot(ctx, id, name) }, nil)
	return h.named(err, "drop snapshot %s of machine %s", name, id)
}

// Snapshots returns the names of a machine's snapshots, oldest first.
func (h *Host) Snapshots(ctx context.Context, id estate.MachineID) ([]string, error) {
	names, err := ask(ctx, h, id, estate.CanSnapshot, func(ctx context.Context, s driver.Snapshotter) ([]string, error) { return s.Snapshots(ctx, id) })
	return names, h.named(err, "list the snapshots of machine %s", id)
}

// Save writes the memory of a running machine to disk and powers it off.
func (h *Host) Save(ctx context.Context, id estate.MachineID) error {
	s, err := keeping[driver.Saver](ctx, h, id, estate.CanSave)
	if err != nil {
		return h.named(err, "save machine %s", id)
	}
	err = h.act(ctx, saveLimit, func(ctx context.Context) error { return s.Save(ctx, id) }, nil)
	return h.named(err, "save machine %s", id)
}

// Resize gives a machine that is off other CPUs and memory.
func (h *Host) Resize(ctx context.Context, id estate.MachineID, cpus int, memory estate.Bytes) error {
	err := effect(ctx, h, id, estate.CanResize, opened(h, id, func(ctx context.Context, r driver.Resizer) error { return r.Resize(ctx, id, cpus, memory) }), nil)
	return h.named(err, "resize machine %s", id)
}

// Measure returns what a running machine has used since it was powered on.
func (h *Host) Measure(ctx context.Context, id estate.MachineID) (driver.Usage, error) {
	u, err := ask(ctx, h, id, estate.CanMeasure, func(ctx context.Context, m driver.Meter) (driver.Usage, error) { return m.Measure(ctx, id) })
	return u, h.named(err, "measure machine %s", id)
}

// Console opens the serial console of a running machine.
func (h *Host) Console(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
	conn, err := ask(ctx, h, id, estate.CanConsole, func(ctx context.Context, c driver.Consoler) (io.ReadWriteCloser, error) { return c.Console(ctx, id) })
	return conn, h.named(err, "open the console of machine %s", id)
}

// Watch calls changed, as a hint, when a machine may have changed, until ctx ends.
func (h *Host) Watch(ctx context.Context, changed func(estate.MachineID)) error {
	w, err := ability[driver.Watcher](ctx, h, "", estate.CanWatch)
	if err != nil {
		return h.named(err, "watch its machines")
	}
	return h.named(w.Watch(ctx, changed), "watch its machines")
}

// Survey returns the machines on the host that are not ours.
func (h *Host) Survey(ctx context.Context) ([]estate.Found, error) {
	all, err := ask(ctx, h, "", estate.CanSurvey, func(ctx context.Context, s driver.Surveyor) ([]estate.Found, error) { return s.Survey(ctx) })
	return all, h.named(err, "look for machines of others")
}

// Adopt makes a machine of others ours.
func (h *Host) Adopt(ctx context.Context, id estate.MachineID) error {
	err := effect(ctx, h, "", estate.CanSurvey, func(ctx context.Context, s driver.Surveyor) error { return s.Adopt(ctx, id) }, nil)
	return h.named(err, "adopt machine %s", id)
}

// Release gives an adopted machine back.
func (h *Host) Release(ctx context.Context, id estate.MachineID) error {
	err := effect(ctx, h, "", estate.CanSurvey, func(ctx context.Context, s driver.Surveyor) error { return s.Release(ctx, id) }, nil)
	return h.named(err, "release machine %s", id)
}

// ability returns the driver as a T where it declares the capability for the
// machine's type of guest; for any type where id is empty.
func ability[T any](ctx context.Context, h *Host, id estate.MachineID, c estate.Capability) (T, error) {
	var none T
	t, ok := driver.As[T](h.drv)
	can := h.Can(c)
	if ok && h.desc.Has(c) {
		var err error
		if can, err = h.canOf(ctx, id, c); err != nil {
			return none, err
		}
	}
	if !ok || !can.Has {
		return none, fault.Unsupported.Errorf("it cannot do %s: %s", c, can.Reason)
	}
	return t, nil
}

// canOf returns what the host says of a capability for the machine. It looks
// for the machine only where that depends on its type of guest.
func (h *Host) canOf(ctx context.Context, id estate.MachineID, c estate.Capability) (estate.CapabilityReport, error) {
	depends := slices.ContainsFunc(h.desc.Capabilities, func(r estate.CapabilityReport) bool { return r.Name == c && !r.Has })
	if id == "" || !depends {
		return estate.CapabilityReport{Name: c, Has: true}, nil
	}
	m, err := h.Get(ctx, id)
	return h.CanFor(m.Def.GuestType, c), err
}

// ask has one of the driver's abilities answer a question about a machine, or
// about none where id is empty.
func ask[T, A any](ctx context.Context, h *Host, id estate.MachineID, c estate.Capability, question func(context.Context, T) (A, error)) (A, error) {
	var none A
	t, err := ability[T](ctx, h, id, c)
	if err != nil {
		return none, err
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	return question(ctx, t)
}

// effect has one of the driver's abilities act, which it may do twice.
func effect[T any](ctx context.Context, h *Host, id estate.MachineID, c estate.Capability, do func(context.Context, T) error, done func(context.Context) (bool, error)) error {
	t, err := ability[T](ctx, h, id, c)
	if err != nil {
		return err
	}
	return h.act(ctx, actLimit, func(ctx context.Context) error { return do(ctx, t) }, done)
}

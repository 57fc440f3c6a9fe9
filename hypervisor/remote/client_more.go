package remote

import (
	"context"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

// Attach implements driver.Hotplugger.
func (h *host) Attach(ctx context.Context, id estate.MachineID, disk driver.Disk) error {
	return h.c.ask(ctx, "attach", call{ID: id, Disk: &disk}, new(any))
}

// Detach implements driver.Hotplugger.
func (h *host) Detach(ctx context.Context, id estate.MachineID, name string) error {
	return h.c.ask(ctx, "detach", call{ID: id, Name: name}, new(any))
}

// Attached implements driver.Hotplugger.
func (h *host) Attached(ctx context.Context, id estate.MachineID) (names []string, err error) {
	err = h.c.ask(ctx, "attached", call{ID: id}, &names)
	return names, err
}

// Run implements driver.Guest.
func (h *host) Run(ctx context.Context, id estate.MachineID, cmd driver.Command) (out driver.Output, err error) {
	err = h.c.ask(ctx, "run", call{ID: id, Cmd: &cmd}, &out)
	return out, err
}

// Shelve implements driver.Transferer.
func (h *host) Shelve(ctx context.Context, id estate.MachineID) error {
	return h.c.ask(ctx, "shelve", call{ID: id}, new(any))
}

// Arrive implements driver.Mover.
func (h *host) Arrive(ctx context.Context, def driver.Definition) (at string, err error) {
	err = h.c.ask(ctx, "arrive", call{Def: &def}, &at)
	return at, err
}

// Depart implements driver.Mover.
func (h *host) Depart(ctx context.Context, id estate.MachineID, at string) error {
	return h.c.ask(ctx, "depart", call{ID: id, At: at}, new(any))
}

// Snapshot implements driver.Snapshotter.
func (h *host) Snapshot(ctx context.Context, id estate.MachineID, name string) error {
	return h.c.ask(ctx, "snapshot", call{ID: id, Name: name}, new(any))
}

// Revert implements driver.Snapshotter.
func (h *host) Revert(ctx context.Context, id estate.MachineID, name string) error {
	return h.c.ask(ctx, "revert", call{ID: id, Name: name}, new(any))
}

// DropSnapshot implements driver.Snapshotter.
func (h *host) DropSnapshot(ctx context.Context, id estate.MachineID, name string) error {
	return h.c.ask(ctx, "drop-snapshot", call{ID: id, Name: name}, new(any))
}

// Snapshots implements driver.Snapshotter.
func (h *host) Snapshots(ctx context.Context, id estate.MachineID) (names []string, err error) {
	err = h.c.ask(ctx, "snapshots", call{ID: id}, &names)
	return names, err
}

// Save implements driver.Saver.
func (h *host) Save(ctx context.Context, id estate.MachineID) error {
	return h.c.ask(ctx, "save", call{ID: id}, new(any))
}

// Resize implements driver.Resizer.
func (h *host) Resize(ctx context.Context, id estate.MachineID, cpus int, memory estate.Bytes) error {
	return h.c.ask(ctx, "resize", call{ID: id, CPUs: cpus, Memory: memory}, new(any))
}

// Measure implements driver.Meter.
func (h *host) Measure(ctx context.Context, id estate.MachineID) (driver.Usage, error) {
	var u usage
	if err := h.c.ask(ctx, "measure", call{ID: id}, &u); err != nil {
		return driver.Usage{}, err
	}
	return driver.Usage{
		CPU: time.Duration(u.CPU), Memory: estate.Bytes(u.Memory),
		DiskRead: estate.Bytes(u.DiskRead), DiskWritten: estate.Bytes(u.DiskWritten),
		Received: estate.Bytes(u.Received), Sent: estate.Bytes(u.Sent),
	}, nil
}

// Survey implements driver.Surveyor.
func (h *host) Survey(ctx context.Context) (all []estate.Found, err error) {
	err = h.c.ask(ctx, "survey", call{}, &all)
	return all, err
}

// Adopt implements driver.Surveyor.
func (h *host) Adopt(ctx context.Context, id estate.MachineID) error {
	return h.c.ask(ctx, "adopt", call{ID: id}, new(any))
}

// Release implements driver.Surveyor.
func (h *host) Release(ctx context.Context, id estate.MachineID) error {
	return h.c.ask(ctx, "release", call{ID: id}, new(any))
}

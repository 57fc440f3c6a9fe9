package flaky

import (
	"context"
	"io"
	"reflect"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// ability has the wrapped driver do what only some can.
func ability[T any](ctx context.Context, h *host, call func(T) error) error {
	t, ok := driver.As[T](h.inner)
	if !ok {
		return fault.Unsupported.Errorf("the driver inside is no %v", reflect.TypeFor[T]())
	}
	return h.do(ctx, func() error { return call(t) })
}

// Display implements driver.Displayer.
func (h *host) Display(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
	return connect(ctx, h, func(d driver.Displayer) (io.ReadWriteCloser, error) { return d.Display(ctx, id) })
}

// Console implements driver.Consoler.
func (h *host) Console(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
	return connect(ctx, h, func(c driver.Consoler) (io.ReadWriteCloser, error) { return c.Console(ctx, id) })
}

// connect makes a connection, which is closed when the reply is lost.
func connect[T any](ctx context.Context, h *host, call func(T) (io.ReadWriteCloser, error)) (conn io.ReadWriteCloser, err error) {
	err = ability(ctx, h, func(t T) (err error) { conn, err = call(t); return err })
	if err != nil && conn != nil {
		conn.Close()
		conn = nil
	}
	return conn, err
}

// Attach implements driver.Hotplugger.
func (h *host) Attach(ctx context.Context, id estate.MachineID, disk driver.Disk) error {
	return ability(ctx, h, func(p driver.Hotplugger) error { return p.Attach(ctx, id, disk) })
}

// Detach implements driver.Hotplugger.
func (h *host) Detach(ctx context.Context, id estate.MachineID, name string) error {
	return ability(ctx, h, func(p driver.Hotplugger) error { return p.Detach(ctx, id, name) })
}

// Attached implements driver.Hotplugger.
func (h *host) Attached(ctx context.Context, id estate.MachineID) (names []string, err error) {
	err = ability(ctx, h, func(p driver.Hotplugger) (err error) { names, err = p.Attached(ctx, id); return err })
	return names, err
}

// Run implements driver.Guest.
func (h *host) Run(ctx context.Context, id estate.MachineID, cmd driver.Command) (out driver.Output, err error) {
	err = ability(ctx, h, func(g driver.Guest) (err error) { out, err = g.Run(ctx, id, cmd); return err })
	return out, err
}

// Export implements driver.Transferer.
func (h *host) Export(ctx context.Context, id estate.MachineID, disk string, w io.Writer) error {
	return ability(ctx, h, func(t driver.Transferer) error { return t.Export(ctx, id, disk, w) })
}

// Import implements driver.Transferer.
func (h *host) Import(ctx context.Context, id estate.MachineID, disk string, r io.Reader) error {
	return ability(ctx, h, func(t driver.Transferer) error { return t.Import(ctx, id, disk, r) })
}

// Shelve implements driver.Transferer.
func (h *host) Shelve(ctx context.Context, id estate.MachineID) error {
	return ability(ctx, h, func(t driver.Transferer) error { return t.Shelve(ctx, id) })
}

// Arrive implements driver.Mover.
func (h *host) Arrive(ctx context.Context, def driver.Definition) (at string, err error) {
	err = ability(ctx, h, func(m driver.Mover) (err error) { at, err = m.Arrive(ctx, def); return err })
	return at, err
}

// Depart implements driver.Mover.
func (h *host) Depart(ctx context.Context, id estate.MachineID, at string) error {
	return ability(ctx, h, func(m driver.Mover) error { return m.Depart(ctx, id, at) })
}

// Snapshot implements driver.Snapshotter.
func (h *host) Snapshot(ctx context.Context, id estate.MachineID, name string) error {
	return ability(ctx, h, func(s driver.Snapshotter) error { return s.Snapshot(ctx, id, name) })
}

// Revert implements driver.Snapshotter.
func (h *host) Revert(ctx context.Context, id estate.MachineID, name string) error {
	return ability(ctx, h, func(s driver.Snapshotter) error { return s.Revert(ctx, id, name) })
}

// DropSnapshot implements driver.Snapshotter.
func (h *host) DropSnapshot(ctx context.Context, id estate.MachineID, name string) error {
	return ability(ctx, h, func(s driver.Snapshotter) error { return s.DropSnapshot(ctx, id, name) })
}

// Snapshots implements driver.Snapshotter.
func (h *host) Snapshots(ctx context.Context, id estate.MachineID) (names []string, err error) {
	err = ability(ctx, h, func(s driver.Snapshotter) (err error) { names, err = s.Snapshots(ctx, id); return err })
	return names, err
}

// Save implements driver.Saver.
func (h *host) Save(ctx context.Context, id estate.MachineID) error {
	return ability(ctx, h, func(s driver.Saver) error { return s.Save(ctx, id) })
}

// Resize implements driver.Resizer.
func (h *host) Resize(ctx context.Context, id estate.MachineID, cpus int, memory estate.Bytes) error {
	return ability(ctx, h, func(r driver.Resizer) error { return r.Resize(ctx, id, cpus, memory) })
}

// Measure implements driver.Meter.
func (h *host) Measure(ctx context.Context, id estate.MachineID) (u driver.Usage, err error) {
	err = ability(ctx, h, func(m driver.Meter) (err error) { u, err = m.Measure(ctx, id); return err })
	return u, err
}

// Watch implements driver.Watcher. What goes wrong, goes wrong at its beginning
// or its end.
func (h *host) Watch(ctx context.Context, changed func(estate.MachineID)) error {
	return ability(ctx, h, func(w driver.Watcher) error { return w.Watch(ctx, changed) })
}

// Survey implements driver.Surveyor.
func (h *host) Survey(ctx context.Context) (all []estate.Found, err error) {
	err = ability(ctx, h, func(s driver.Surveyor) (err error) { all, err = s.Survey(ctx); return err })
	return all, err
}

// Adopt implements driver.Surveyor.
func (h *host) Adopt(ctx context.Context, id estate.MachineID) error {
	return ability(ctx, h, func(s driver.Surveyor) error { return s.Adopt(ctx, id) })
}

// Release implements driver.Surveyor.
func (h *host) Release(ctx context.Context, id estate.MachineID) error {
	return ability(ctx, h, func(s driver.Surveyor) error { return s.Release(ctx, id) })
}

package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/qmp"
)

// running returns the machine and the connection to it, with its turn taken.
// One that is off is fault.Conflict.
func (h *Host) running(ctx context.Context, id estate.MachineID) (*machine, *qmp.Client, error) {
	m, err := h.existing(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	if err := m.connect(ctx); err != nil {
		h.done(m)
		if errors.Is(err, errOff) {
			return nil, nil, fault.Conflict.Errorf("machine %s is off; start it first", id)
		}
		return nil, nil, fault.Unavailable.Errorf("machine %s does not answer: %w", id, err)
	}
	c := m.controller()
	if c == nil {
		h.done(m)
		return nil, nil, fault.Conflict.Errorf("machine %s is powering off", id)
	}
	return m, c, nil
}

// Display implements driver.Displayer. The protocol is RFB without a password:
// the socket is in a folder of the machine's own user.
func (h *Host) Display(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
	m, _, err := h.running(ctx, id)
	if err != nil {
		return nil, err
	}
	defer h.done(m)
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", filepath.Join(m.run, displaySocket))
	if err != nil {
		return nil, fault.Unavailable.Errorf("reach the screen of machine %s: %w", id, err)
	}
	return conn, nil
}

// Run implements driver.Guest. It does not keep the machine's turn, so that a
// long command keeps nobody waiting.
func (h *Host) Run(ctx context.Context, id estate.MachineID, cmd driver.Command) (driver.Output, error) {
	m, c, err := h.running(ctx, id)
	if errors.Is(err, fault.Conflict) {
		err = fault.Unavailable.Errorf("no guest agent answers: %w", err)
	}
	if err != nil {
		return driver.Output{}, err
	}
	m.mu.Lock()
	agent, still := m.agent, m.rec.Paused
	m.mu.Unlock()
	h.done(m)
	if still {
		return driver.Output{}, fault.Unavailable.Errorf("the guest of machine %s stands still; start it first", id)
	}
	if err := listens(ctx, c); err != nil {
		return driver.Output{}, err
	}
	out, err := agent.Run(ctx, cmd.Args, cmd.Stdin)
	return driver.Output(out), err
}

// listens reports whether the guest has the agent's port open. Words sent
// before would wait in the port and be carried out later.
func listens(ctx context.Context, c *qmp.Client) error {
	var ports []struct {
		Label string `json:"label"`
		Open  bool   `json:"frontend-open"`
	}
	if err := c.Execute(ctx, "query-chardev", nil, &ports); err != nil {
		return fault.Unavailable.Errorf("look for the guest agent: %w", err)
	}
	for _, p := range ports {
		if p.Label == "agent" && p.Open {
			return nil
		}
	}
	return fault.Unavailable.Errorf("no guest agent is up yet, or none is installed")
}

func (m *machine) dialAgent(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", filepath.Join(m.run, agentSocket))
}

// Attach implements driver.Hotplugger. The record says which slot a disk is to
// have before the machine is told, so that a repeated call finds what an
// earlier one began.
func (h *Host) Attach(ctx context.Context, id estate.MachineID, disk driver.Disk) error {
	m, c, err := h.running(ctx, id)
	if err != nil {
		return err
	}
	defer h.done(m)
	r := m.record()
	if slices.ContainsFunc(r.Def.Disks, func(d driver.Disk) bool { return d.Name == disk.Name }) {
		return fault.Exists.Errorf("machine %s is defined with another disk %s", id, disk.Name)
	}
	plugs := r.plugs()
	p, known := plugs[disk.Name]
	switch {
	case known && !p.Disk.Equal(disk):
		return fault.Exists.Errorf("machine %s has another disk %s attached", id, disk.Name)
	case !known:
		slot := r.freeSlot()
		if slot < 0 {
			return fault.NoCapacity.Errorf("machine %s has no free slot for disk %s: all %d are taken", id, disk.Name, slots)
		}
		p = plugged{Disk: disk, Slot: slot}
		plugs[disk.Name] = p
		r.Plugged = plugs
		if err := m.save(r); err != nil {
			return err
		}
	}
	var refused *qmp.Error
	if err := m.plug(ctx, c, p); errors.As(err, &refused) || errors.Is(err, fault.NotFound) || errors.Is(err, fault.Invalid) {
		return errors.Join(err, m.forget(ctx, c, disk.Name))
	} else if err != nil {
		return err
	}
	return nil
}

// freeSlot returns a slot that neither a disk nor a network card has, or -1.
func (r record) freeSlot() int {
	taken := map[int]bool{}
	for _, p := range r.Plugged {
		taken[p.Slot] = true
	}
	for _, slot := range r.Joined {
		taken[slot] = true
	}
	for i := range slots {
		if !taken[i] {
			return i
		}
	}
	return -1
}

// plug takes the steps that are still to be taken: file, nodes, device.
func (m *machine) plug(ctx context.Context, c *qmp.Client, p plugged) error {
	name := plugName(p.Disk.Name)
	if has, err := hasDevice(ctx, c, name); err != nil || has {
		return err
	}
	nodes, err := nodeNames(ctx, c)
	if err != nil {
		return err
	}
	if !nodes[name] {
		if nodes[fileName(name)] {
			if err := c.Execute(ctx, "blockdev-del", node{"node-name": fileName(name)}, nil); err != nil {
				return err
			}
		}
		f, err := openDisk(p.Disk.File.Path, p.Disk.ReadOnly)
		if err != nil {
			return err
		}
		defer f.Close()
		var set struct {
			ID int `json:"fdset-id"`
		}
		if err := c.ExecuteWith(ctx, f, "add-fd", node{"opaque": name}, &set); err != nil {
			return err
		}
		// The nodes have descriptors of their own: the passed one goes.
		defer c.Execute(context.WithoutCancel(ctx), "remove-fd", node{"fdset-id": set.ID}, nil)
		if err := c.Execute(ctx, "blockdev-add", fileNode(fileName(name), set.ID, p.Disk.ReadOnly), nil); err != nil {
			return err
		}
		if err := c.Execute(ctx, "blockdev-add", formatNode(name, p.Disk.File.Format, p.Disk.ReadOnly), nil); err != nil {
			return err
		}
	}
	return c.Execute(ctx, "device_add", node{"driver": "virtio-blk-pci", "id": name, "drive": name,
		"serial": p.Disk.Name, "bus": fmt.Sprintf("slot%d", p.Slot)}, nil)
}

func plugName(disk string) string { return "plug-" + disk }

// Detach implements driver.Hotplugger.
func (h *Host) Detach(ctx context.Context, id estate.MachineID, name string) error {
	m, c, err := h.running(ctx, id)
	if errors.Is(err, fault.Conflict) {
		return nil // a machine that is off has nothing attached
	}
	if err != nil {
		return err
	}
	defer h.done(m)
	if _, known := m.record().Plugged[name]; !known {
		return nil
	}
	return m.forget(ctx, c, name)
}

// Pauses between looks at whether a guest has let go of a disk: Linux takes 60
// to 170 ms.
const (
	firstLook = 10 * time.Millisecond
	lastLook  = 250 * time.Millisecond
)

// forget takes out what there is of an attached disk: device, nodes, record.
func (m *machine) forget(ctx context.Context, c *qmp.Client, disk string) error {
	name := plugName(disk)
	if err := m.recount(ctx, c, disk); err != nil {
		return err
	}
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		has, err := hasDevice(ctx, c, name)
		if err != nil {
			return err
		}
		if !has {
			break
		}
		// Asked again while it is under way, QEMU refuses; that is no news.
		var refused *qmp.Error
		if err := c.Execute(ctx, "device_del", node{"id": name}, nil); err != nil && !errors.As(err, &refused) {
			return err
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
	for _, n := range []string{name, fileName(name)} {
		if err := removeNode(ctx, c, n); err != nil {
			return err
		}
	}
	r := m.record()
	last := r.Plugged[disk].Last
	r.Gone = flow{r.Gone.In + last.In, r.Gone.Out + last.Out}
	r.Plugged = r.plugs()
	delete(r.Plugged, disk)
	return m.save(r)
}

// recount records what has gone through an attached disk, before it goes.
func (m *machine) recount(ctx context.Context, c *qmp.Client, disk string) error {
	counts, err := diskCounts(ctx, c)
	if err != nil {
		return err
	}
	r := m.record()
	p, known := r.Plugged[disk]
	now, there := counts[plugName(disk)]
	if !known || !there {
		return nil
	}
	p.Last = now
	r.Plugged = r.plugs()
	r.Plugged[disk] = p
	return m.save(r)
}

// removeNode takes out a block node. QEMU lets go of the node of a device that
// has gone only a moment after it.
func removeNode(ctx context.Context, c *qmp.Client, name string) error {
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		nodes, err := nodeNames(ctx, c)
		if err != nil || !nodes[name] {
			return err
		}
		var refused *qmp.Error
		if err := c.Execute(ctx, "blockdev-del", node{"node-name": name}, nil); err != nil && !errors.As(err, &refused) {
			return err
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Attached implements driver.Hotplugger.
func (h *Host) Attached(ctx context.Context, id estate.MachineID) ([]string, error) {
	m, c, err := h.running(ctx, id)
	if errors.Is(err, fault.Conflict) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer h.done(m)
	var names []string
	for _, name := range slices.Sorted(maps.Keys(m.record().Plugged)) {
		has, err := hasDevice(ctx, c, plugName(name))
		if err != nil {
			return nil, err
		}
		if has {
			names = append(names, name)
		}
	}
	return names, nil
}

// hasDevice reports whether the guest has the device; one that it has been
// asked to let go of is there until it has.
func hasDevice(ctx context.Context, c *qmp.Client, id string) (bool, error) {
	var all []struct {
		Name string `json:"name"`
	}
	if err := c.Execute(ctx, "qom-list", node{"path": "/machine/peripheral"}, &all); err != nil {
		return false, err
	}
	for _, d := range all {
		if d.Name == id {
			return true, nil
		}
	}
	return false, nil
}

func nodeNames(ctx context.Context, c *qmp.Client) (map[string]bool, error) {
	var all []struct {
		Name string `json:"node-name"`
	}
	if err := c.Execute(ctx, "query-named-block-nodes", node{"flat": true}, &all); err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, n := range all {
		names[n.Name] = true
	}
	return names, nil
}

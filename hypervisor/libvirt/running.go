package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"libvirt.org/go/libvirtxml"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/virtrpc"
)

// live reads a running domain as it is now.
func (h *Host) live(ctx context.Context, id estate.MachineID) (libvirtxml.Domain, error) {
	text, err := h.conn.XML(ctx, string(id), true)
	if err != nil {
		return libvirtxml.Domain{}, err
	}
	return parse(text)
}

// Display implements driver.Displayer. The protocol is RFB; the daemon makes the
// connection and vouches for us.
func (h *Host) Display(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
	_, give, err := h.running(ctx, id)
	if err != nil {
		return nil, err
	}
	defer give()
	return h.conn.Graphics(ctx, string(id), 0)
}

// Console implements driver.Consoler.
func (h *Host) Console(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
	_, give, err := h.running(ctx, id)
	if err != nil {
		return nil, err
	}
	defer give()
	return h.conn.Console(ctx, string(id), "")
}

// Measure implements driver.Meter. Disks that were attached are not counted,
// since what went through them is forgotten when they go.
func (h *Host) Measure(ctx context.Context, id estate.MachineID) (driver.Usage, error) {
	r, give, err := h.running(ctx, id)
	if err != nil {
		return driver.Usage{}, err
	}
	defer give()
	s, err := h.conn.Stats(ctx, string(id))
	if err != nil {
		return driver.Usage{}, err
	}
	u := driver.Usage{CPU: -1, Memory: -1, DiskRead: -1, DiskWritten: -1, Received: -1, Sent: -1}
	if t, told := s["cpu.time"]; told {
		u.CPU = time.Duration(t)
	}
	if rss, told := s["balloon.rss"]; told {
		u.Memory = estate.Bytes(rss) * estate.KiB
	}
	if _, told := s["block.count"]; told {
		u.DiskRead, u.DiskWritten = 0, 0
	}
	for i := range r.Def.Disks {
		u.DiskRead += estate.Bytes(s[fmt.Sprintf("block.%d.rd.bytes", i)])
		u.DiskWritten += estate.Bytes(s[fmt.Sprintf("block.%d.wr.bytes", i)])
	}
	if len(r.Def.NICs) == 0 || s["net.count"] > 0 {
		u.Received, u.Sent = 0, 0
	}
	for i := range r.Def.NICs {
		u.Received += estate.Bytes(s[fmt.Sprintf("net.%d.rx.bytes", i)])
		u.Sent += estate.Bytes(s[fmt.Sprintf("net.%d.tx.bytes", i)])
	}
	return u, nil
}

// Attach implements driver.Hotplugger.
func (h *Host) Attach(ctx context.Context, id estate.MachineID, disk driver.Disk) error {
	r, give, err := h.running(ctx, id)
	if err != nil {
		return err
	}
	defer give()
	if slices.ContainsFunc(r.Def.Disks, func(d driver.Disk) bool { return d.Name == disk.Name }) {
		return fault.Exists.Errorf("machine %s is defined with another disk %s", id, disk.Name)
	}
	d := h.disk(r, disk)
	d.Target = &libvirtxml.DomainDiskTarget{Bus: "virtio"}
	return h.conn.Plug(ctx, string(id), disk.Name, d, virtrpc.Socket{Slots: slots, Place: target})
}

// Detach implements driver.Hotplugger.
func (h *Host) Detach(ctx context.Context, id estate.MachineID, name string) error {
	_, give, err := h.running(ctx, id)
	if errors.Is(err, fault.Conflict) {
		return nil // a machine that is off has nothing attached
	}
	if err != nil {
		return err
	}
	defer give()
	return h.conn.Unplug(ctx, string(id), name)
}

// Attached implements driver.Hotplugger.
func (h *Host) Attached(ctx context.Context, id estate.MachineID) ([]string, error) {
	_, give, err := h.running(ctx, id)
	if errors.Is(err, fault.Conflict) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer give()
	plugs, err := h.conn.Plugged(ctx, string(id))
	return slices.Sorted(maps.Keys(plugs)), err
}

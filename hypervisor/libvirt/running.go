package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// Attach implements driver.Hotplugger. Whether a disk is attached is read from
// the running domain, which has it or not.
func (h *Host) Attach(ctx context.Context, id estate.MachineID, disk driver.Disk) error {
	r, give, err := h.running(ctx, id)
	if err != nil {
		return err
	}
	defer give()
	if slices.ContainsFunc(r.Def.Disks, func(d driver.Disk) bool { return d.Name == disk.Name }) {
		return fault.Exists.Errorf("machine %s is defined with another disk %s", id, disk.Name)
	}
	x, err := h.live(ctx, id)
	if err != nil {
		return err
	}
	plugs := plugged(x)
	if p, is := plugs[disk.Name]; is {
		if !samePlug(p, disk) {
			return fault.Exists.Errorf("machine %s has another disk %s attached", id, disk.Name)
		}
		return nil
	}
	if len(plugs) >= slots {
		return fault.NoCapacity.Errorf("machine %s has no free slot for disk %s: all %d are taken", id, disk.Name, slots)
	}
	d := h.disk(r, disk)
	d.Alias.Name = plugAlias + disk.Name
	d.Target = &libvirtxml.DomainDiskTarget{Dev: freeTarget(x), Bus: "virtio"}
	text, err := d.Marshal()
	if err != nil {
		return err
	}
	err = h.conn.Attach(ctx, string(id), text, virtrpc.Live)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if x, again := h.live(ctx, id); again == nil {
		if _, is := plugged(x)[disk.Name]; is {
			return nil
		}
	}
	return err
}

// samePlug reports whether an attached disk is the one that is wanted. Its size
// is that of its file.
func samePlug(p libvirtxml.DomainDisk, d driver.Disk) bool {
	return p.Source != nil && p.Source.File != nil && p.Source.File.File == d.File.Path &&
		p.Driver != nil && p.Driver.Type == string(d.File.Format) && (p.ReadOnly != nil) == d.ReadOnly
}

// freeTarget returns a place that no disk has.
func freeTarget(x libvirtxml.Domain) string {
	for i := 0; ; i++ {
		name := target(i)
		if !slices.ContainsFunc(x.Devices.Disks, func(d libvirtxml.DomainDisk) bool { return d.Target != nil && d.Target.Dev == name }) {
			return name
		}
	}
}

// Detach implements driver.Hotplugger. A guest that did not hear is asked again.
func (h *Host) Detach(ctx context.Context, id estate.MachineID, name string) error {
	_, give, err := h.running(ctx, id)
	if errors.Is(err, fault.Conflict) {
		return nil // a machine that is off has nothing attached
	}
	if err != nil {
		return err
	}
	defer give()
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		x, err := h.live(ctx, id)
		if err != nil {
			return err
		}
		d, is := plugged(x)[name]
		if !is {
			return nil
		}
		text, err := d.Marshal()
		if err != nil {
			return err
		}
		// Asked again while it is under way, the daemon refuses; that is no news.
		var refused *virtrpc.Error
		if err := h.conn.Detach(ctx, string(id), text, virtrpc.Live); err != nil && !errors.As(err, &refused) {
			return err
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
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
	x, err := h.live(ctx, id)
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range plugged(x) {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

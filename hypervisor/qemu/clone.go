package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/qmp"
)

// receive has a process that was started with a memory file read the rest of
// its state. What an earlier call began goes on.
func (m *machine) receive(ctx context.Context, c *qmp.Client, s saved) error {
	f, err := os.Open(filepath.Join(m.dir, s.File))
	if err != nil {
		return err
	}
	defer f.Close()
	var refused *qmp.Error // where it has begun
	if err := ignoreShared(ctx, c, true); err != nil && !errors.As(err, &refused) {
		return err
	}
	if err := c.ExecuteWith(ctx, f, "getfd", node{"fdname": "state"}, nil); err != nil {
		return err
	}
	if err := c.Execute(ctx, "migrate-incoming", node{"uri": "fd:state"}, nil); err != nil && !errors.As(err, &refused) {
		return err
	}
	return nil
}

// Join implements driver.Cloner. The record says which slot a card is to have
// before the machine is told.
func (h *Host) Join(ctx context.Context, id estate.MachineID) error {
	m, c, err := h.running(ctx, id)
	if err != nil {
		return err
	}
	defer h.done(m)
	r := m.record()
	if !r.Apart {
		return nil // it was started with its cards
	}
	for i := range r.Built {
		if err := setLink(ctx, c, i, true); err != nil {
			return err
		}
	}
	for i, nic := range r.Def.NICs[r.Built:] {
		if i == len(r.Joined) {
			slot := r.freeSlot()
			if slot < 0 {
				return fault.NoCapacity.Errorf("machine %s has no free slot for network card %s: all %d are taken", id, nic.MAC, slots)
			}
			r.Joined = append(r.Joined[:i:i], slot)
			if err := m.save(r); err != nil {
				return err
			}
		}
		if err := plugCard(ctx, c, r.Built+i, nic, r.Joined[i]); err != nil {
			return err
		}
	}
	return nil
}

// setLink plugs a card's cable in or pulls it out, as the guest sees it. A link
// that is down is saved as such: a clone's are its template's.
func setLink(ctx context.Context, c *qmp.Client, i int, up bool) error {
	return c.Execute(ctx, "set_link", node{"name": netName(i), "up": up}, nil)
}

// unplug pulls the cables that the definition says are not there, long before a
// guest that boots looks for a card.
func (m *machine) unplug(ctx context.Context, c *qmp.Client) error {
	for i, nic := range m.record().Def.NICs {
		if !nic.Unplugged {
			continue
		}
		if err := setLink(ctx, c, i, false); err != nil {
			return err
		}
	}
	return nil
}

// plugCard takes the steps that are still to be taken.
func plugCard(ctx context.Context, c *qmp.Client, i int, nic driver.NIC, slot int) error {
	has, err := hasDevice(ctx, c, cardName(i))
	if err != nil || has {
		return err
	}
	f, err := openNIC(ctx, nic)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := c.ExecuteWith(ctx, f, "getfd", node{"fdname": cardName(i)}, nil); err != nil {
		return err
	}
	net := node{"type": "tap", "id": netName(i), "fd": cardName(i), "vhost": false}
	if nic.Socket != "" {
		net = node{"type": "stream", "id": netName(i), "server": false, "addr": node{"type": "fd", "str": cardName(i)}}
	}
	var refused *qmp.Error // there is none from an earlier call
	if err := c.Execute(ctx, "netdev_del", node{"id": netName(i)}, nil); err != nil && !errors.As(err, &refused) {
		return err
	}
	if err := c.Execute(ctx, "netdev_add", net, nil); err != nil {
		return err
	}
	return c.Execute(ctx, "device_add", node{"driver": "virtio-net-pci", "id": cardName(i), "netdev": netName(i),
		"mac": nic.MAC, "romfile": "", "bus": slotName(slot)}, nil)
}

func cardName(i int) string    { return fmt.Sprintf("card%d", i) }
func netName(i int) string     { return fmt.Sprintf("nic%d", i) }
func slotName(slot int) string { return fmt.Sprintf("slot%d", slot) }

// Pause implements driver.Pauser. It is recorded first, so that whoever takes the
// machine up after a crash has it stand still.
func (h *Host) Pause(ctx context.Context, id estate.MachineID) error {
	m, c, err := h.running(ctx, id)
	if err != nil {
		return err
	}
	defer h.done(m)
	r := m.record()
	if !r.Paused {
		r.Paused = true
		if err := m.save(r); err != nil {
			return err
		}
	}
	return c.Execute(ctx, "stop", nil, nil)
}

// goOn has a guest that was paused go on. Callers hold the turn.
func (m *machine) goOn(ctx context.Context, c *qmp.Client) error {
	r := m.record()
	if !r.Paused {
		return nil
	}
	r.Paused = false
	if err := m.save(r); err != nil {
		return err
	}
	return c.Execute(ctx, "cont", nil, nil)
}

package xen

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"libvirt.org/go/libvirtxml"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/virtrpc"
)

// firstDomain is the machine that we run in, which libvirt lists too.
const firstDomain = "00000000-0000-0000-0000-000000000000"

// Survey implements driver.Surveyor.
func (h *host) Survey(ctx context.Context) ([]estate.Found, error) {
	domains, err := h.calls.Domains(ctx)
	if err != nil {
		return nil, err
	}
	var all []estate.Found
	for _, d := range domains {
		if d.UUID == firstDomain || h.has(estate.MachineID(d.UUID)) {
			continue
		}
		f, _, err := h.inspect(ctx, d.UUID)
		if errors.Is(err, fault.NotFound) {
			continue // it has just gone
		}
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b estate.Found) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return all, nil
}

// has reports whether we keep the machine, shelved or not.
func (h *host) has(id estate.MachineID) bool {
	h.mu.Lock()
	m := h.machines[id]
	h.mu.Unlock()
	if m == nil {
		return false
	}
	_, kept := m.record()
	return kept
}

// inspect returns a machine of others, and its definition.
func (h *host) inspect(ctx context.Context, uuid string) (estate.Found, string, error) {
	text, err := h.calls.XML(ctx, uuid, false)
	if err != nil {
		return estate.Found{}, "", err
	}
	d, err := parse(text)
	if err != nil {
		return estate.Found{}, "", err
	}
	state, _, err := h.calls.State(ctx, uuid)
	if err != nil {
		return estate.Found{}, "", err
	}
	def, obstacle := read(d)
	f := estate.Found{ID: def.ID, Name: def.Name, Power: powerOf(state), GuestType: def.GuestType,
		CPUs: def.CPUs, Memory: def.Memory, Obstacle: obstacle}
	if obstacle == "" && state == virtrpc.NoState {
		f.Obstacle = "libvirt does not know its state"
	}
	for _, disk := range def.Disks {
		f.Disks = append(f.Disks, estate.FoundDisk{Name: disk.Name, Size: disk.File.Size})
	}
	for _, n := range def.NICs {
		f.MACs = append(f.MACs, n.MAC)
	}
	return f, text, nil
}

// read returns what a definition of others says in our words, and why it cannot
// be ours where that is so.
func read(d *libvirtxml.Domain) (def driver.Definition, obstacle string) {
	def = driver.Definition{ID: estate.MachineID(d.UUID), Name: d.Name, CPUs: 1}
	if d.VCPU != nil {
		def.CPUs = int(d.VCPU.Value)
	}
	if d.Memory != nil {
		def.Memory = estate.Bytes(d.Memory.Value) * units[d.Memory.Unit]
	}
	if d.OS != nil && d.OS.Type != nil {
		def.GuestType = map[string]string{"linux": pv, "xen": pv, "xenpvh": pvh}[d.OS.Type.Type]
	}
	if def.GuestType == "" {
		obstacle = "it is neither a PV nor a PVH guest"
	}
	if d.Devices == nil {
		return def, obstacle
	}
	for _, disk := range d.Devices.Disks {
		found := driver.Disk{ReadOnly: disk.ReadOnly != nil, File: &driver.Content{Format: estate.Raw}}
		if disk.Target != nil {
			found.Name = disk.Target.Dev
		}
		if disk.Source != nil && disk.Source.File != nil {
			found.File.Path = disk.Source.File.File
		}
		info, err := os.Stat(found.File.Path)
		switch {
		case disk.Driver == nil || disk.Driver.Type != "raw":
			obstacle = "disk " + found.Name + " is not declared to be raw"
		case err != nil || !info.Mode().IsRegular() || !filepath.IsAbs(found.File.Path):
			obstacle = "disk " + found.Name + " is no file of this host"
		default:
			found.File.Size = estate.Bytes(info.Size())
		}
		def.Disks = append(def.Disks, found)
	}
	for _, n := range d.Devices.Interfaces {
		var card driver.NIC
		if n.MAC != nil {
			card.MAC = n.MAC.Address
		}
		if n.Source != nil && n.Source.Bridge != nil {
			card.Bridge = n.Source.Bridge.Bridge
		}
		def.NICs = append(def.NICs, card)
	}
	return def, obstacle
}

// units are those in which libvirt writes amounts of memory.
var units = map[string]estate.Bytes{"b": 1, "bytes": 1, "": estate.KiB, "KiB": estate.KiB, "MiB": estate.MiB, "GiB": estate.GiB}

// Adopt implements driver.Surveyor.
func (h *host) Adopt(ctx context.Context, id estate.MachineID) error {
	if id == firstDomain {
		return unknown(id)
	}
	return h.act(ctx, id, func(ctx, steady context.Context, m *machine) error {
		if _, kept := m.record(); !kept {
			if err := m.adopt(ctx); err != nil {
				return err
			}
		}
		if r, _ := m.record(); r.Adopted == "" {
			return nil
		}
		return h.calls.SetMetadata(steady, string(id), bareMark, prefix, namespace, virtrpc.Config)
	})
}

// adopt makes a record of a machine of others.
func (m *machine) adopt(ctx context.Context) error {
	f, text, err := m.host.inspect(ctx, string(m.id))
	if errors.Is(err, fault.NotFound) {
		return unknown(m.id)
	}
	if err != nil {
		return err
	}
	if f.Obstacle != "" {
		return fault.Unsupported.Errorf("machine %s cannot be adopted: %s", m.id, f.Obstacle)
	}
	d, err := parse(text)
	if err != nil {
		return err
	}
	r := record{Adopted: text}
	r.Def, _ = read(d)
	tmp := filepath.Join(m.host.cfg.Dir, making+string(m.id))
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	return m.keep(tmp, r)
}

// Release implements driver.Surveyor.
func (h *host) Release(ctx context.Context, id estate.MachineID) error {
	return h.act(ctx, id, func(ctx, steady context.Context, m *machine) error {
		r, kept := m.record()
		switch {
		case !kept:
			return nil
		case r.Adopted == "":
			return fault.Conflict.Errorf("machine %s was defined by us; delete it instead", id)
		case r.Shelved:
			return fault.Conflict.Errorf("machine %s is shelved; define it again first", id)
		}
		err := h.calls.SetMetadata(steady, string(id), "", prefix, namespace, virtrpc.Config)
		if err != nil && !errors.Is(err, fault.NotFound) {
			return err
		}
		return m.forget()
	})
}

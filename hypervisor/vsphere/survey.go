package vsphere

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// strange reports whether a machine is one of others, here.
func (h *Host) strange(v *vm) bool {
	return !v.ours && v.uuid != "" && slices.Contains(h.place.hosts, v.host)
}

// Survey implements driver.Surveyor.
func (h *Host) Survey(ctx context.Context) ([]estate.Found, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	vms, err := h.everyVM(ctx, fully)
	if err != nil {
		return nil, err
	}
	guard := h.unguarded(ctx, nil)
	if guard != nil && fault.KindOf(guard) != fault.Conflict {
		return nil, guard
	}
	seen := map[estate.MachineID]int{}
	for _, v := range vms {
		seen[v.uuid]++
	}
	all := []estate.Found{}
	for _, v := range vms {
		if !h.strange(v) {
			continue
		}
		f := estate.Found{ID: v.uuid, Name: v.name, Power: v.power(), CPUs: v.cpus, Memory: v.memory, Obstacle: v.obstacle()}
		if seen[v.uuid] > 1 && f.Obstacle == "" {
			f.Obstacle = "another machine has the same UUID"
		}
		if guard != nil && f.Obstacle == "" {
			f.Obstacle = guard.Error()
		}
		for _, d := range v.adoptedDisks() {
			f.Disks = append(f.Disks, estate.FoundDisk{Name: d.Name, Size: d.File.Size})
		}
		for _, n := range v.nics() {
			f.MACs = append(f.MACs, n.MAC)
		}
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b estate.Found) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return all, nil
}

// obstacle says why a machine of others cannot become ours.
func (v *vm) obstacle() string {
	switch {
	case v.template:
		return "it is a template, which never runs"
	case v.managedBy != "":
		return "it is managed by " + v.managedBy
	case v.power() == estate.PowerUnknown:
		return "vSphere cannot tell its state: it is " + string(v.connection)
	case len(v.disks()) == 0:
		return "it has no disk"
	}
	for _, d := range v.disks() {
		if _, flat := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo); !flat {
			return "one of its disks is not a file of its own"
		}
	}
	return ""
}

// adoptedDisks are the disks of a machine of others, as a definition has them.
func (v *vm) adoptedDisks() (all []driver.Disk) {
	for i, d := range v.disks() {
		size := estate.Bytes(d.CapacityInBytes)
		if size == 0 {
			size = estate.Bytes(d.CapacityInKB) * estate.KiB
		}
		var p object.DatastorePath
		p.FromString(fileOf(d))
		all = append(all, driver.Disk{Name: fmt.Sprintf("disk-%d", i+1), File: &driver.Content{
			Path: path.Join("/vmfs/volumes", p.Datastore, p.Path), Format: estate.VMDK, Size: size,
		}})
	}
	return all
}

// nics are a machine's network cards. One on a distributed switch has the key
// of its port group for a name.
func (v *vm) nics() (all []driver.NIC) {
	for _, d := range v.devices.SelectByType((*types.VirtualEthernetCard)(nil)) {
		card := d.(types.BaseVirtualEthernetCard).GetVirtualEthernetCard()
		n := driver.NIC{MAC: strings.ToLower(card.MacAddress)}
		switch b := card.Backing.(type) {
		case *types.VirtualEthernetCardNetworkBackingInfo:
			n.Name = b.DeviceName
		case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
			n.Name = b.Port.PortgroupKey
		}
		all = append(all, n)
	}
	return all
}

// Adopt implements driver.Surveyor. All it does is to write our note into the
// machine's configuration.
func (h *Host) Adopt(ctx context.Context, id estate.MachineID) error {
	t, err := h.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer t.give()
	all, err := h.withUUID(ctx, id)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, h.owns) {
		return nil
	}
	strangers := slices.DeleteFunc(slices.Clone(all), func(v *vm) bool { return !h.strange(v) })
	switch {
	case len(strangers) == 0:
		return notFound(id)
	case len(all) > 1:
		return fault.Unsupported.Errorf("adopt machine %s: another machine has the same UUID", id)
	}
	v := strangers[0]
	if text := v.obstacle(); text != "" {
		return fault.Unsupported.Errorf("adopt machine %s: %s", id, text)
	}
	if err := h.unguarded(ctx, v); err != nil {
		return fault.Unsupported.Errorf("adopt machine %s: %w", id, err)
	}
	rec := record{ID: id, Scope: h.place.scope, Adopted: true, Def: driver.Definition{
		ID: id, Name: v.name, CPUs: v.cpus, Memory: v.memory, Disks: v.adoptedDisks(), NICs: v.nics(),
	}}
	if v.firmware == string(types.GuestOsDescriptorFirmwareTypeEfi) {
		rec.Def.Firmware = estate.UEFI
	}
	s := starts{Boot: v.boot}
	if v.power() == estate.On {
		s.Done, s.Begun = 1, 1
	}
	return h.reconfigure(ctx, t, v, types.VirtualMachineConfigSpec{
		ExtraConfig: []types.BaseOptionValue{option(recordKey, rec), option(startsKey, s)},
	})
}

// Release implements driver.Surveyor.
func (h *Host) Release(ctx context.Context, id estate.MachineID) error {
	t, err := h.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer t.give()
	v, err := h.find(ctx, id)
	if err != nil || v == nil {
		return err
	}
	if !v.rec.Adopted {
		return fault.Conflict.Errorf("machine %s was defined by us: delete it instead", id)
	}
	var notes []types.BaseOptionValue
	for _, key := range []string{snapshotsKey, attachedKey, startsKey, recordKey} {
		notes = append(notes, option(key, nil))
	}
	return h.reconfigure(ctx, t, v, types.VirtualMachineConfigSpec{ExtraConfig: notes})
}

package hyperv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// Survey implements driver.Surveyor.
func (h *Host) Survey(ctx context.Context) ([]estate.Found, error) {
	var all surveyed
	if err := h.remote.ask(ctx, "survey", surveyRequest{}, &all); err != nil {
		return nil, err
	}
	var found []estate.Found
	for _, f := range all.Found {
		found = append(found, f.found())
	}
	slices.SortFunc(found, func(a, b estate.Found) int { return cmp.Compare(a.ID, b.ID) })
	return found, nil
}

func (f foundMachine) found() estate.Found {
	out := estate.Found{
		ID: f.ID, Name: f.Name, Power: power(f.State), CPUs: f.CPUs, Memory: estate.Bytes(f.Memory), Obstacle: f.obstacle(),
	}
	for i, d := range f.Disks {
		out.Disks = append(out.Disks, estate.FoundDisk{Name: diskName(i), Size: estate.Bytes(d.Size)})
	}
	for _, n := range f.NICs {
		out.MACs = append(out.MACs, colons(n.MAC))
	}
	return out
}

// obstacle says why the machine cannot be adopted.
func (f foundMachine) obstacle() string {
	switch {
	case f.Clustered:
		return "a failover cluster keeps it, and would move and start it beside us"
	case f.Replicated:
		return "Hyper-V Replica copies it to or from another host"
	case power(f.State) == estate.PowerUnknown:
		return "it is in state " + f.State
	case len(f.Disks) == 0:
		return "it has no disk"
	}
	for i, d := range f.Disks {
		if d.Size == 0 {
			return fmt.Sprintf("its %s is no virtual disk that can be read", diskName(i))
		}
	}
	return ""
}

// diskName names the disk at a place. Hyper-V's disks have no names.
func diskName(slot int) string { return fmt.Sprintf("disk-%d", slot) }

// colons writes a MAC address as we do: Hyper-V writes 00155D012A00. One that
// the host has yet to choose is all zeros.
func colons(mac string) string {
	if len(mac) != 12 {
		return strings.ToLower(mac)
	}
	var parts []string
	for i := 0; i < 12; i += 2 {
		parts = append(parts, strings.ToLower(mac[i:i+2]))
	}
	return strings.Join(parts, ":")
}

// Adopt implements driver.Surveyor. The only thing that changes is a line in
// the machine's notes.
func (h *Host) Adopt(ctx context.Context, id estate.MachineID) error {
	give, err := h.turns.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer give()
	m, err := h.look(ctx, id)
	if err != nil || m.State != "" {
		return err
	}
	var all surveyed
	if err := h.remote.ask(ctx, "survey", surveyRequest{ID: id}, &all); err != nil {
		return err
	}
	i := slices.IndexFunc(all.Found, func(f foundMachine) bool { return f.ID == id })
	if i < 0 {
		return fault.NotFound.Errorf("no machine %s", id)
	}
	f := all.Found[i]
	if text := f.obstacle(); text != "" {
		return fault.Unsupported.Errorf("machine %s cannot be adopted: %s", id, text)
	}
	return h.remote.act(ctx, "adopt", adoptRequest{ID: id, Record: record{Def: f.definition(), Adopted: true}.text()})
}

// definition returns the machine as if we had defined it. The paths of its disks
// are those of the host.
func (f foundMachine) definition() driver.Definition {
	def := driver.Definition{ID: f.ID, Name: f.Name, CPUs: f.CPUs, Memory: estate.Bytes(f.Memory), Firmware: estate.BIOS}
	if f.Generation == 2 {
		def.Firmware = estate.UEFI
	}
	for i, d := range f.Disks {
		def.Disks = append(def.Disks, driver.Disk{Name: diskName(i),
			File: &driver.Content{Path: d.Path, Format: "vhdx", Size: estate.Bytes(d.Size)}})
	}
	for _, n := range f.NICs {
		def.NICs = append(def.NICs, driver.NIC{MAC: colons(n.MAC), Name: n.Switch})
	}
	return def
}

// Release implements driver.Surveyor.
func (h *Host) Release(ctx context.Context, id estate.MachineID) error {
	give, err := h.turns.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer give()
	m, rec, err := h.defined(ctx, id)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if !rec.Adopted {
		return fault.Conflict.Errorf("machine %s was defined by us; delete it instead", m.ID)
	}
	return h.remote.act(ctx, "release", releaseRequest{ID: id})
}

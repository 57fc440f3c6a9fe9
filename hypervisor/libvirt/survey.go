package libvirt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"libvirt.org/go/libvirtxml"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/diskfile"
	"consort.dev/consort/internal/virtrpc"
)

// Survey implements driver.Surveyor.
func (h *Host) Survey(ctx context.Context) ([]estate.Found, error) {
	domains, err := h.conn.Domains(ctx)
	if err != nil {
		return nil, err
	}
	var all []estate.Found
	for _, d := range domains {
		id := estate.MachineID(d.UUID)
		if _, err := h.record(ctx, id); err == nil {
			continue
		} else if !errors.Is(err, fault.NotFound) {
			return nil, err
		}
		f, _, err := h.stranger(ctx, id)
		if errors.Is(err, fault.NotFound) {
			continue // gone since
		}
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b estate.Found) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return all, nil
}

// stranger looks at a domain of others: what it is, what it would be as a
// machine of ours, and why it cannot be one.
func (h *Host) stranger(ctx context.Context, id estate.MachineID) (estate.Found, driver.Definition, error) {
	state, _, err := h.conn.State(ctx, string(id))
	if err != nil {
		return estate.Found{}, driver.Definition{}, err
	}
	text, err := h.conn.XML(ctx, string(id), false)
	if err != nil {
		return estate.Found{}, driver.Definition{}, err
	}
	x, err := parse(text)
	if err != nil {
		return estate.Found{}, driver.Definition{}, err
	}
	def, obstacle := definition(id, x)
	if _, err := h.marked(ctx, id, virtrpc.Config); err == nil {
		obstacle = "another installation of Consort manages it"
	}
	// A domain without a definition ends with its power, and its metadata too.
	var refused *virtrpc.Error
	if _, err := h.conn.Metadata(ctx, string(id), namespace, virtrpc.Config); errors.As(err, &refused) && errors.Is(err, fault.Conflict) {
		obstacle = "it is transient: it has no definition that outlives its power"
	}
	f := estate.Found{ID: id, Name: def.Name, Power: estate.PowerUnknown, CPUs: def.CPUs, Memory: def.Memory, Obstacle: obstacle}
	if state == virtrpc.ShutOff {
		f.Power = estate.Off
	} else if active(state) {
		f.Power = estate.On
	}
	for _, d := range def.Disks {
		f.Disks = append(f.Disks, estate.FoundDisk{Name: d.Name, Size: d.File.Size})
	}
	for _, n := range def.NICs {
		f.MACs = append(f.MACs, n.MAC)
	}
	return f, def, nil
}

// definition reads a definition of others as one of ours, whose disks are files.
func definition(id estate.MachineID, x libvirtxml.Domain) (def driver.Definition, obstacle string) {
	def = driver.Definition{ID: id, Name: x.Title, CPUs: 1, Memory: memory(x.Memory)}
	if def.Name == "" {
		def.Name = x.Name
	}
	if x.VCPU != nil {
		def.CPUs = int(x.VCPU.Value)
	}
	if x.OS != nil && (x.OS.Firmware == "efi" || x.OS.Loader != nil && x.OS.Loader.Type == "pflash") {
		def.Firmware = estate.UEFI
	}
	for _, d := range x.Devices.Disks {
		if d.Device != "" && d.Device != "disk" {
			continue // a drive for removable media comes and goes as it likes
		}
		disk, why := foundDisk(d)
		if why != "" {
			obstacle = why
		}
		def.Disks = append(def.Disks, disk)
	}
	if len(def.Disks) == 0 {
		obstacle = "it has no disk"
	}
	for _, i := range x.Devices.Interfaces {
		n := driver.NIC{}
		if i.MAC != nil {
			n.MAC = i.MAC.Address
		}
		switch s := i.Source; {
		case s != nil && s.Bridge != nil:
			n.Bridge = s.Bridge.Bridge
		case s != nil && s.Network != nil:
			n.Name = s.Network.Network
		}
		def.NICs = append(def.NICs, n)
	}
	return def, obstacle
}

// foundDisk reads a disk of others. Its format must be in its definition, and it
// must be one file.
func foundDisk(d libvirtxml.DomainDisk) (driver.Disk, string) {
	disk := driver.Disk{File: &driver.Content{Format: estate.Raw}, ReadOnly: d.ReadOnly != nil}
	if d.Target != nil {
		disk.Name = d.Target.Dev
	}
	if d.Serial != "" {
		disk.Name = d.Serial
	}
	if d.Driver != nil && d.Driver.Type != "" {
		disk.File.Format = estate.DiskFormat(d.Driver.Type)
	}
	if d.Source == nil || d.Source.File == nil {
		return disk, fmt.Sprintf("disk %s is no file", disk.Name)
	}
	disk.File.Path = d.Source.File.File
	switch disk.File.Format {
	case estate.Raw:
		info, err := os.Stat(disk.File.Path)
		if err != nil || !info.Mode().IsRegular() {
			return disk, fmt.Sprintf("disk %s is no file that can be read", disk.Name)
		}
		disk.File.Size = estate.Bytes(info.Size())
	case estate.QCOW2:
		head, err := diskfile.Head(disk.File.Path)
		switch {
		case err != nil:
			return disk, fmt.Sprintf("disk %s is no file that can be read", disk.Name)
		case head.Backed || head.External:
			return disk, fmt.Sprintf("disk %s consists of several files", disk.Name)
		}
		disk.File.Size = estate.Bytes(head.Size)
	default:
		return disk, fmt.Sprintf("disk %s has the format %s", disk.Name, disk.File.Format)
	}
	return disk, ""
}

// memory returns an amount in whatever unit it is written.
func memory(m *libvirtxml.DomainMemory) estate.Bytes {
	if m == nil {
		return 0
	}
	units := map[string]estate.Bytes{"": estate.KiB, "b": 1, "bytes": 1, "KB": 1000, "k": estate.KiB, "KiB": estate.KiB,
		"MB": 1e6, "M": estate.MiB, "MiB": estate.MiB, "GB": 1e9, "G": estate.GiB, "GiB": estate.GiB, "TB": 1e12, "T": 1024 * estate.GiB, "TiB": 1024 * estate.GiB}
	return estate.Bytes(m.Value) * units[m.Unit]
}

// Adopt implements driver.Surveyor. All that changes is the domain's metadata.
func (h *Host) Adopt(ctx context.Context, id estate.MachineID) error {
	give, err := h.take(ctx, id)
	if err != nil {
		return err
	}
	defer give()
	r, err := h.record(ctx, id)
	if errors.Is(err, fault.NotFound) {
		var f estate.Found
		var def driver.Definition
		f, def, err = h.stranger(ctx, id)
		if err == nil && f.Obstacle != "" {
			err = fault.Unsupported.Errorf("machine %s cannot be adopted: %s", id, f.Obstacle)
		}
		if err != nil {
			return err
		}
		r = record{Owner: h.owner, Def: def, Adopted: true}
		if err := h.note(ctx, r, virtrpc.Config); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	// One that runs is not a power-on of ours.
	if state, _, err := h.conn.State(ctx, string(id)); err != nil || !active(state) {
		return err
	}
	if _, err := h.marked(ctx, id, virtrpc.Live); !errors.Is(err, fault.NotFound) {
		return err
	}
	if r.Up, err = h.conn.Number(ctx, string(id)); err != nil {
		return err
	}
	return h.note(ctx, r, virtrpc.Live)
}

// Release implements driver.Surveyor.
func (h *Host) Release(ctx context.Context, id estate.MachineID) error {
	r, give, err := h.existing(ctx, id)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer give()
	if !r.Adopted {
		return fault.Conflict.Errorf("machine %s was defined by us; delete it instead", id)
	}
	for _, where := range []uint32{virtrpc.Live, virtrpc.Config} { // what makes it ours goes last
		err := h.conn.SetMetadata(ctx, string(id), "", prefix, namespace, where)
		if err != nil && !errors.Is(err, fault.NotFound) && !errors.Is(err, fault.Conflict) {
			return err
		}
	}
	return nil
}

// resizeAdopted changes the definition of others in the two places that a size
// has, and leaves the rest as it is written.
func (h *Host) resizeAdopted(ctx context.Context, r record) error {
	text, err := h.conn.XML(ctx, string(r.Def.ID), false)
	if err != nil {
		return err
	}
	x, err := parse(text)
	if err != nil {
		return err
	}
	x.Memory = &libvirtxml.DomainMemory{Value: uint(r.Def.Memory / estate.KiB), Unit: "KiB"}
	x.CurrentMemory = nil
	x.VCPU = &libvirtxml.DomainVCPU{Value: uint(r.Def.CPUs)}
	if text, err = x.Marshal(); err != nil {
		return err
	}
	if err := h.conn.Define(ctx, text); err != nil {
		return err
	}
	return h.note(ctx, r, virtrpc.Config)
}

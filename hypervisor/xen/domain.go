package xen

import (
	"encoding/xml"
	"path/filepath"
	"strings"

	"libvirt.org/go/libvirtxml"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// namespace is that of the mark on machines that are ours.
const namespace = "https://consort.dev/xml/machine/1"

// prefix is how the mark's namespace is abbreviated.
const prefix = "consort"

// mark is what libvirt keeps with a machine of ours, for whoever looks there.
const mark = `<consort:machine xmlns:consort="` + namespace + `"/>`

// bareMark is the mark as it is given to a machine that libvirt has already:
// libvirt adds the prefix, and refuses one that is there.
const bareMark = "<machine/>"

// agentChannel is the name under which the guest finds its agent's channel, as
// with every other hypervisor.
const agentChannel = "org.qemu.guest_agent.0"

// definition returns the machine in libvirt's XML.
func (m *machine) definition() (string, error) {
	r, _ := m.record()
	if r.Adopted != "" {
		return r.Adopted, nil
	}
	return m.host.domain(r, m.dir, m.run).Marshal()
}

// domain returns libvirt's words for a record whose private disks are in dir.
func (h *host) domain(r record, dir, run string) *libvirtxml.Domain {
	def := r.Def
	d := &libvirtxml.Domain{
		Type: "xen", Name: string(def.ID), UUID: string(def.ID), Title: title(def.Name),
		Metadata:   &libvirtxml.DomainMetadata{XML: mark},
		Memory:     &libvirtxml.DomainMemory{Value: uint(def.Memory / estate.KiB), Unit: "KiB"},
		VCPU:       &libvirtxml.DomainVCPU{Value: uint(def.CPUs)},
		OnPoweroff: "destroy", OnReboot: "restart", OnCrash: "destroy",
		Devices: &libvirtxml.DomainDeviceList{
			Consoles: []libvirtxml.DomainConsole{{
				Source: &libvirtxml.DomainChardevSource{Pty: &libvirtxml.DomainChardevSourcePty{}},
				Target: &libvirtxml.DomainConsoleTarget{Type: "xen", Port: new(uint)},
			}},
		},
	}
	kind := def.GuestType
	if kind == "" {
		kind = h.desc.GuestTypes[0]
	}
	d.OS = &libvirtxml.DomainOS{
		Type:   &libvirtxml.DomainOSType{Arch: "x86_64", Machine: "xenpv", Type: "linux"},
		Kernel: filepath.Join(h.cfg.Loaders, loaders[kind]),
	}
	if kind == pvh {
		d.OS.Type.Machine, d.OS.Type.Type = "xenpvh", "xenpvh"
	}
	for i, disk := range def.Disks {
		d.Devices.Disks = append(d.Devices.Disks, h.domainDisk(i, disk, filepath.Join(dir, r.Files[disk.Name])))
	}
	for _, n := range def.NICs {
		d.Devices.Interfaces = append(d.Devices.Interfaces, libvirtxml.DomainInterface{
			MAC:    &libvirtxml.DomainInterfaceMAC{Address: n.MAC},
			Source: &libvirtxml.DomainInterfaceSource{Bridge: &libvirtxml.DomainInterfaceSourceBridge{Bridge: n.Bridge}},
		})
	}
	if h.channels() {
		d.Devices.Channels = []libvirtxml.DomainChannel{{
			Source: &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{Mode: "bind", Path: filepath.Join(run, agentSocket)}},
			Target: &libvirtxml.DomainChannelTarget{Xen: &libvirtxml.DomainChannelTargetXen{Name: agentChannel}},
		}}
	}
	return d
}

// title is a name for people; libvirt takes one line.
func title(name string) string { return strings.Join(strings.Fields(name), " ") }

// domainDisk is a raw file that Xen's QEMU serves, which runs for the machine's
// channel anyway. Without it a loop device does; that takes a script for each
// disk, which libxl kills on a busy host and which then leaves its device behind.
// A disk that is only read has a loop device all the same: QEMU 7.2 wants to
// write to each, and makes none for the guest then (xen-qdisk, "Block node is
// read-only"), while libvirt says that it is attached.
func (h *host) domainDisk(i int, d driver.Disk, private string) libvirtxml.DomainDisk {
	server := "phy"
	if h.channels() && !d.ReadOnly {
		server = "qemu"
	}
	path := private
	if d.File != nil {
		path = d.File.Path
	}
	disk := libvirtxml.DomainDisk{
		Device: "disk",
		Driver: &libvirtxml.DomainDiskDriver{Name: server, Type: "raw"},
		Source: &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: path}},
		Target: &libvirtxml.DomainDiskTarget{Dev: place(i), Bus: "xen"},
	}
	if d.ReadOnly {
		disk.ReadOnly = &libvirtxml.DomainDiskReadOnly{}
	}
	return disk
}

// place is the name of a disk's place in a machine.
func place(i int) string { return "xvd" + letters(i) }

// letters is the end of a disk's name: a to z, then aa and so on.
func letters(i int) string {
	if i < 26 {
		return string(rune('a' + i))
	}
	return letters(i/26-1) + letters(i%26)
}

// parse reads libvirt's XML.
func parse(text string) (*libvirtxml.Domain, error) {
	d := &libvirtxml.Domain{}
	if err := xml.Unmarshal([]byte(text), d); err != nil {
		return nil, fault.Internal.Errorf("libvirt's definition of a machine: %w", err)
	}
	return d, nil
}

// resized returns a definition of others with other CPUs and memory.
func resized(text string, cpus int, memory estate.Bytes) (string, error) {
	d, err := parse(text)
	if err != nil {
		return "", err
	}
	kib := uint(memory / estate.KiB)
	d.VCPU = &libvirtxml.DomainVCPU{Value: uint(cpus)}
	d.VCPUs = nil
	d.Memory = &libvirtxml.DomainMemory{Value: kib, Unit: "KiB"}
	d.CurrentMemory = nil
	d.MaximumMemory = nil
	return d.Marshal()
}

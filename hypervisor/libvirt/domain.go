package libvirt

import (
	"cmp"
	"fmt"
	"path/filepath"

	"libvirt.org/go/libvirtxml"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

// slots is how many disks can be attached to a running machine. Each is a root
// port of its own, which costs a guest some milliseconds at boot.
const slots = 8

// machineType pins what a guest sees, whatever QEMU comes next.
const machineType = "pc-q35-7.2"

// agentPort is where the guest's agent listens.
const agentPort = "org.qemu.guest_agent.0"

// domain returns the definition of a machine of ours.
func (h *Host) domain(r record) (string, error) {
	d := r.Def
	x := libvirtxml.Domain{
		Type:     "qemu",
		Name:     "consort-" + string(d.ID),
		UUID:     string(d.ID),
		Title:    d.Name,
		Metadata: &libvirtxml.DomainMetadata{XML: r.mark()},
		Memory:   &libvirtxml.DomainMemory{Value: uint(d.Memory / estate.MiB), Unit: "MiB"},
		VCPU:     &libvirtxml.DomainVCPU{Value: uint(d.CPUs)},
		OS:       h.os(d),
		Features: &libvirtxml.DomainFeatureList{ACPI: &libvirtxml.DomainFeature{}, APIC: &libvirtxml.DomainFeatureAPIC{}, VMPort: &libvirtxml.DomainFeatureState{State: "off"}},
		// Under emulation it is all that QEMU knows but SMAP, which it gets wrong
		// before 9.1 (upstream commit 0bd385e7e3c3).
		CPU:        &libvirtxml.DomainCPU{Mode: "maximum", Check: "none", Features: []libvirtxml.DomainCPUFeature{{Policy: "disable", Name: "smap"}}},
		Clock:      &libvirtxml.DomainClock{Offset: "utc", Timer: []libvirtxml.DomainTimer{{Name: "hpet", Present: "no"}}},
		OnPoweroff: "destroy",
		OnReboot:   "restart",
		OnCrash:    "destroy",
		Devices:    h.devices(r),
	}
	if h.desc.Accelerator == "kvm" {
		x.Type = "kvm"
		x.CPU = &libvirtxml.DomainCPU{Mode: "host-passthrough", Check: "none", Migratable: "on"}
	}
	return x.Marshal()
}

func (h *Host) os(d driver.Definition) *libvirtxml.DomainOS {
	os := &libvirtxml.DomainOS{Type: &libvirtxml.DomainOSType{Arch: "x86_64", Machine: machineType, Type: "hvm"}}
	if d.Firmware == estate.UEFI {
		os.Loader = &libvirtxml.DomainLoader{Readonly: "yes", Type: "pflash", Path: filepath.Join(h.cfg.Firmware, "OVMF_CODE_4M.fd")}
		os.NVRam = &libvirtxml.DomainNVRam{Template: filepath.Join(h.cfg.Firmware, "OVMF_VARS_4M.fd"), NVRam: filepath.Join(h.dir(d.ID), varsFile)}
	}
	return os
}

func (h *Host) devices(r record) *libvirtxml.DomainDeviceList {
	d := r.Def
	list := &libvirtxml.DomainDeviceList{
		Controllers: []libvirtxml.DomainController{{Type: "usb", Model: "none"}, {Type: "virtio-serial"}},
		Serials:     []libvirtxml.DomainSerial{{Source: &libvirtxml.DomainChardevSource{Pty: &libvirtxml.DomainChardevSourcePty{}}}},
		Channels: []libvirtxml.DomainChannel{{
			Source: &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{}},
			Target: &libvirtxml.DomainChannelTarget{VirtIO: &libvirtxml.DomainChannelTargetVirtIO{Name: agentPort}},
		}},
		Inputs: []libvirtxml.DomainInput{{Type: "keyboard", Bus: "virtio"}, {Type: "tablet", Bus: "virtio"}},
		// The daemon chooses the socket, in a folder that it lets the machine
		// reach. One viewer never throws out another: who may look is decided
		// above us.
		Graphics: []libvirtxml.DomainGraphic{{VNC: &libvirtxml.DomainGraphicVNC{SharePolicy: "force-shared",
			Listeners: []libvirtxml.DomainGraphicListener{{Socket: &libvirtxml.DomainGraphicListenerSocket{}}}}}},
		Videos:     []libvirtxml.DomainVideo{{Model: screen(d.Screen)}},
		MemBalloon: &libvirtxml.DomainMemBalloon{Model: "none"},
		RNGs:       []libvirtxml.DomainRNG{{Model: "virtio", Backend: &libvirtxml.DomainRNGBackend{BuiltIn: &libvirtxml.DomainRNGBackendBuiltIn{}}}},
	}
	for i, disk := range d.Disks {
		x := h.disk(r, disk)
		x.Target = &libvirtxml.DomainDiskTarget{Dev: target(i), Bus: "virtio"}
		x.Boot = &libvirtxml.DomainDeviceBoot{Order: uint(i + 1)}
		list.Disks = append(list.Disks, x)
	}
	for _, nic := range d.NICs {
		list.Interfaces = append(list.Interfaces, card(nic))
	}
	// Every device that is there from the start takes a root port too.
	const fixed = 4 // serial ports, keyboard, tablet, entropy
	for i := range uint(fixed + len(d.Disks) + len(d.NICs) + slots) {
		index := i + 1 // 0 is the root's
		list.Controllers = append(list.Controllers, libvirtxml.DomainController{Type: "pci", Index: &index, Model: "pcie-root-port"})
	}
	return list
}

// disk returns a disk: its files, its formats as recorded, and the serial number
// a guest sees. The chain is spelled out, so that the daemon looks into no file.
func (h *Host) disk(r record, d driver.Disk) libvirtxml.DomainDisk {
	top := driver.Content{}
	x := libvirtxml.DomainDisk{Device: "disk", BackingStore: &libvirtxml.DomainDiskBackingStore{}, Serial: d.Name, Alias: &libvirtxml.DomainAlias{Name: alias(d.Name)}}
	if d.File != nil {
		top = *d.File
	} else {
		c := r.Copies[d.Name]
		top = driver.Content{Path: filepath.Join(h.dir(r.Def.ID), c.File), Format: c.Format}
		if c.OnBase {
			x.BackingStore = &libvirtxml.DomainDiskBackingStore{
				Format: &libvirtxml.DomainDiskFormat{Type: string(d.Base.Format)}, Source: file(d.Base.Path),
				BackingStore: &libvirtxml.DomainDiskBackingStore{},
			}
		}
	}
	x.Source = file(top.Path)
	x.Driver = &libvirtxml.DomainDiskDriver{Name: "qemu", Type: string(top.Format), Discard: "unmap"}
	if d.ReadOnly {
		x.ReadOnly = &libvirtxml.DomainDiskReadOnly{}
	}
	return x
}

func file(path string) *libvirtxml.DomainDiskSource {
	return &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: path}}
}

// aliases of our own begin with ua- (libvirt's formatdomain).
func alias(disk string) string { return "ua-disk-" + disk }

// target returns the name of the i-th disk's place: vda to vdz, vdaa ...
func target(i int) string {
	name := ""
	for ; i >= 0; i = i/26 - 1 {
		name = string(rune('a'+i%26)) + name
	}
	return "vd" + name
}

func card(n driver.NIC) libvirtxml.DomainInterface {
	return libvirtxml.DomainInterface{
		MAC:    &libvirtxml.DomainInterfaceMAC{Address: n.MAC},
		Source: &libvirtxml.DomainInterfaceSource{Bridge: &libvirtxml.DomainInterfaceSourceBridge{Bridge: n.Bridge}},
		Model:  &libvirtxml.DomainInterfaceModel{Type: "virtio"},
		// Without a ROM: nothing boots from the network.
		ROM: &libvirtxml.DomainROM{Enabled: "no"},
	}
}

// screen is standard VGA: drawn by every guest, and no code of a GPU emulation
// within a guest's reach.
func screen(s estate.Screen) libvirtxml.DomainVideoModel {
	w, height := cmp.Or(s.Width, 1280), cmp.Or(s.Height, 800)
	mem := 16 // MiB, a power of two
	for w*height*4 > mem<<20 {
		mem *= 2
	}
	return libvirtxml.DomainVideoModel{Type: "vga", VRam: uint(mem << 10), Heads: 1, Primary: "yes",
		Resolution: &libvirtxml.DomainVideoResolution{X: uint(w), Y: uint(height)}}
}

// parse reads a definition of the daemon's.
func parse(text string) (libvirtxml.Domain, error) {
	var x libvirtxml.Domain
	if err := x.Unmarshal(text); err != nil {
		return x, fmt.Errorf("read the daemon's definition: %w", err)
	}
	if x.Devices == nil {
		x.Devices = &libvirtxml.DomainDeviceList{}
	}
	return x, nil
}

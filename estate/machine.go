package estate

import (
	"fmt"
	"net/netip"
	"time"
)

// MachineID names a machine for its whole life, on whichever hypervisor it
// runs: the UID of its Machine, and the vendor's machine UUID too.
type MachineID string

// Power is the power state a machine is in, or should be in.
type Power string

// The power states. PowerUnknown never triggers an act.
const (
	PowerUnknown Power = "unknown"
	Off          Power = "off"
	On           Power = "on"
	Paused       Power = "paused" // on, and its guest stands still
)

// Machine is one virtual machine.
type Machine struct {
	Head
	Spec   MachineSpec   `json:"spec"`
	Status MachineStatus `json:"status,omitzero"`
}

// MachineSpec is the machine that is wanted. Loops write it; people compose
// desktops and services instead.
type MachineSpec struct {
	Hypervisor string   `json:"hypervisor,omitempty" doc:"Where it runs; written by placement."`
	Only       string   `json:"only,omitempty" doc:"The one hypervisor on which it may be placed; any when empty."`
	Because    string   `json:"because,omitempty" doc:"Why it runs there, where its blueprint prefers something; written by placement."`
	Epoch      int64    `json:"epoch,omitempty" doc:"Fencing epoch: grows with every placement. An agent refuses an older one."`
	Power      Power    `json:"power" enum:"off,on,paused" doc:"The power state wanted. One that is to be paused is made ready first."`
	Hardware   Hardware `json:"hardware"`
	Template   string   `json:"template,omitempty" doc:"It goes on where the template of this name stands, which its host makes when there is none; it boots cold when empty."`
	Layers     []Layer  `json:"layers,omitempty" doc:"The application layers granted to it; the agent attaches these and no others."`
	Moving     *Moving  `json:"moving,omitempty" doc:"Set while it moves to another hypervisor; only the mover changes it then."`
	Context    string   `json:"context,omitempty" doc:"The compartment it is in; none when empty. Written by the plane."`
	Trust      int      `json:"trust,omitempty" minimum:"0" maximum:"3" doc:"Of its context, which decides what it shares a host with."`
	Sealed     bool     `json:"sealed,omitempty" doc:"What it writes is lost when it goes off, with its key. It is started once, and moves nowhere."`
	Adopted    bool     `json:"adopted,omitempty" doc:"It was there before us: it is never defined, and its disks are never deleted."`
}

// Moving is a machine on its way. While it is set, the agent of From keeps the
// disks of a machine that was placed elsewhere, and that of To keeps one that
// is not placed there yet.
type Moving struct {
	Operation string `json:"operation" doc:"The journal of the move."`
	From      string `json:"from" doc:"Who gives it up: once it is placed elsewhere, its agent shelves it and keeps its disks."`
	To        string `json:"to" doc:"Who gets it. On the way back the two have changed places."`
	GuestType string `json:"guestType,omitempty" doc:"The type of guest that To makes of it; its usual one when empty."`
	Live      bool   `json:"live,omitempty" doc:"It runs on the way: until it is placed, no agent turns it on or off."`
}

// Hardware is what a machine is made of. Changing it means another machine.
type Hardware struct {
	CPUs      int      `json:"cpus" minimum:"1" maximum:"256"`
	Memory    Bytes    `json:"memory"`
	GuestType string   `json:"guestType,omitempty" doc:"One that its hypervisor makes, as pv or pvh; the usual one there when empty."`
	Firmware  Firmware `json:"firmware,omitempty" enum:"bios,uefi" doc:"bios when empty."`
	Disks     []Disk   `json:"disks" doc:"In boot order."`
	NICs      []NIC    `json:"nics,omitempty"`
	Screen    Screen   `json:"screen,omitzero"`
}

// Firmware is what starts the boot loader.
type Firmware string

// The firmwares.
const (
	BIOS Firmware = "bios"
	UEFI Firmware = "uefi"
)

// Disk is one disk. It holds a private copy of an image, or it is a volume.
type Disk struct {
	Name   string `json:"name" doc:"Also the disk's serial number in the guest."`
	Image  Digest `json:"image,omitempty" doc:"Begins as a private copy of this content."`
	Volume string `json:"volume,omitempty" doc:"Is this volume."`
	Size   Bytes  `json:"size,omitempty" doc:"At least this large; the image's own size when empty."`
	Grow   Bytes  `json:"grow,omitempty" doc:"What placement keeps free for it on its host, where that is less than all of it: what a seat writes goes with the seat."`
}

// NIC is one network card.
type NIC struct {
	Network string `json:"network"`
	MAC     string `json:"mac,omitempty" doc:"Six octets; derived from the machine's UID when empty."`
}

// Screen is the size of a machine's display in pixels.
type Screen struct {
	Width  int `json:"width,omitempty"`
	Height int `json:"height,omitempty"`
}

// Layer is one version of an application cut for one image, granted to a machine.
type Layer struct {
	Application string `json:"application"`
	Version     string `json:"version"`
	Digest      Digest `json:"digest" doc:"The layer's content."`
	Delivery    string `json:"delivery" doc:"The provider that attaches it."`
}

// MachineStatus is the machine that its agent has.
type MachineStatus struct {
	Progress
	Power      Power        `json:"power,omitempty"`
	Epoch      int64        `json:"epoch,omitempty" doc:"The epoch the agent acts under."`
	Hypervisor string       `json:"hypervisor,omitempty" doc:"Who reported this."`
	Starts     int64        `json:"starts,omitempty" doc:"How often it was powered on."`
	Started    time.Time    `json:"started,omitzero"`
	Display    string       `json:"display,omitempty" doc:"Protocol of its screen; empty until it can be reached."`
	Guest      GuestStatus  `json:"guest,omitzero"`
	Layers     []LayerState `json:"layers,omitempty"`
	Launches   []Launch     `json:"launches,omitempty" doc:"Of late, the oldest first: the first start of each application after each start of the machine. A later one may have found it running."`
	Key        string       `json:"key,omitempty" doc:"Of a sealed machine: names the key that it writes with."`
	Lost       time.Time    `json:"lost,omitzero" doc:"Of a sealed machine: when its agent found the key gone, or destroyed it."`
}

// GuestStatus is what the guest says of itself.
type GuestStatus struct {
	Agent     bool         `json:"agent,omitempty" doc:"Its agent answers."`
	Desktop   bool         `json:"desktop,omitempty" doc:"Its desktop is drawn."`
	Own       bool         `json:"own,omitempty" doc:"It has an identity of its own. Until then nobody may type into it or reach it."`
	Hostname  string       `json:"hostname,omitempty"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
}

// Own reports whether one may type into the machine or reach it: it booted from
// disks of its own, or it goes on from a template and has an identity since.
func (m *Machine) Own() bool { return m.Spec.Template == "" || m.Status.Guest.Own }

// Launch is one start of an application, as the agent measured it.
type Launch struct {
	Application string    `json:"application"`
	Hypervisor  string    `json:"hypervisor" doc:"Where that was."`
	At          time.Time `json:"at,omitzero" doc:"When it was asked for."`
	Took        Duration  `json:"took" doc:"Until its process ran, or until nobody waited any longer."`
}

// LayerState is how far a layer has come on a machine.
type LayerState struct {
	Application string `json:"application"`
	Digest      Digest `json:"digest"`
	Attached    bool   `json:"attached" doc:"Mounted in the guest, ready to start."`
	Text        string `json:"text,omitempty" doc:"What is wrong, when it is not."`
}

// Check implements Resource.
func (m *Machine) Check() []Problem {
	var c checks
	s := &m.Spec
	c.name("spec.hypervisor", s.Hypervisor, false)
	c.name("spec.only", s.Only, false)
	oneOf(&c, "spec.power", s.Power, true, Off, On, Paused)
	c.name("spec.template", s.Template, false)
	c.name("spec.context", s.Context, false)
	if s.Trust < 0 || s.Trust > 3 {
		c.add("spec.trust", "%d is not between 0 and 3", s.Trust)
	}
	s.Hardware.check(&c, "spec.hardware", s.Adopted)
	for i, l := range s.Layers {
		p := fmt.Sprintf("spec.layers[%d]", i)
		c.name(p+".application", l.Application, true)
		c.name(p+".delivery", l.Delivery, true)
		if t := l.Digest.Problem(); t != "" {
			c.add(p+".digest", "%s", t)
		}
	}
	return c
}

// check adds what is wrong with the hardware. The disks of an adopted machine
// are whatever its hypervisor had.
func (h *Hardware) check(c *checks, path string, adopted bool) {
	if h.CPUs < 1 || h.CPUs > 256 {
		c.add(path+".cpus", "%d is not between 1 and 256", h.CPUs)
	}
	if h.Memory < 16*MiB {
		c.add(path+".memory", "%s is too little; at least 16Mi", h.Memory)
	}
	oneOf(c, path+".firmware", h.Firmware, false, BIOS, UEFI)
	if len(h.Disks) == 0 && !adopted {
		c.add(path+".disks", "a machine needs a disk to boot from")
	}
	seen := map[string]bool{}
	for i, d := range h.Disks {
		p := fmt.Sprintf("%s.disks[%d]", path, i)
		// A virtio serial number has at most 20 bytes (virtio 1.2, 5.2.6.1).
		if c.name(p+".name", d.Name, true); len(d.Name) > 20 {
			c.add(p+".name", "%q is the disk's serial number and has at most 20 characters", d.Name)
		}
		if seen[d.Name] {
			c.add(p+".name", "%q names two disks", d.Name)
		}
		seen[d.Name] = true
		switch {
		case adopted && d.Image == "" && d.Volume == "":
		case (d.Image == "") == (d.Volume == ""):
			c.add(p, "a disk is a copy of an image or a volume: set exactly one")
		case d.Image != "" && d.Image.Problem() != "":
			c.add(p+".image", "%s", d.Image.Problem())
		}
	}
	for i, n := range h.NICs {
		c.name(fmt.Sprintf("%s.nics[%d].network", path, i), n.Network, true)
	}
}

// Links implements Resource.
func (m *Machine) Links() []Link {
	var ls []Link
	p := m.Metadata.Project
	if m.Spec.Hypervisor != "" {
		ls = append(ls, Link{"spec.hypervisor", Ref{"Hypervisor", "", m.Spec.Hypervisor}})
	}
	for i, d := range m.Spec.Hardware.Disks {
		if d.Volume != "" {
			ls = append(ls, Link{fmt.Sprintf("spec.hardware.disks[%d].volume", i), Ref{"Volume", p, d.Volume}})
		}
	}
	for i, n := range m.Spec.Hardware.NICs {
		ls = append(ls, Link{fmt.Sprintf("spec.hardware.nics[%d].network", i), Ref{"Network", p, n.Network}})
	}
	return ls
}

// Progress implements Resource.
func (m *Machine) Progress() *Progress { return &m.Status.Progress }

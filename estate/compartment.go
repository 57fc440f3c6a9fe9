package estate

import (
	"fmt"
	"net/netip"
	"regexp"
)

// Context is a security compartment.
type Context struct {
	Head
	Spec   ContextSpec `json:"spec"`
	Status Bare        `json:"status,omitzero"`
}

// ContextSpec is what may cross a compartment's border. What is not allowed is
// denied.
type ContextSpec struct {
	Title     string    `json:"title,omitempty"`
	Colour    string    `json:"colour" doc:"Six hexadecimal digits after #; drawn around its desktops."`
	Trust     int       `json:"trust" minimum:"0" maximum:"3" doc:"0 trusts nothing, 3 guards what matters most."`
	Lifetime  Lifetime  `json:"lifetime,omitempty" doc:"How long the system disk lives. Only persistent for now, also when empty."`
	Network   string    `json:"network,omitempty" doc:"What its machines join; none when empty."`
	Clipboard Clipboard `json:"clipboard,omitzero"`
}

// Lifetime is how long a desktop's system disk lives.
type Lifetime string

// Persistent keeps the system disk until a reset or a new image. Lifetimes that
// promise more are refused until something keeps the promise.
const Persistent Lifetime = "persistent"

// Clipboard is what the clipboard may carry.
type Clipboard struct {
	In       bool  `json:"in,omitempty" doc:"From the person's device to the desktop."`
	Out      bool  `json:"out,omitempty" doc:"From the desktop to the person's device."`
	MaxBytes Bytes `json:"maxBytes,omitempty" doc:"Longest text that crosses; 1Mi when empty."`
}

var colourRule = regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)

// Check implements Resource.
func (x *Context) Check() []Problem {
	var c checks
	s := &x.Spec
	if !colourRule.MatchString(s.Colour) {
		c.add("spec.colour", "%q is not a colour; write # and six hexadecimal digits, as #2e6f8e", s.Colour)
	}
	if s.Trust < 0 || s.Trust > 3 {
		c.add("spec.trust", "%d is not between 0 and 3", s.Trust)
	}
	switch s.Lifetime {
	case "", Persistent:
	case "session", "disposable":
		c.add("spec.lifetime", "not built yet: only persistent is kept; reset the desktop for a fresh system disk")
	default:
		c.add("spec.lifetime", "%q is not a lifetime; write persistent", string(s.Lifetime))
	}
	c.name("spec.network", s.Network, false)
	return c
}

// Links implements Resource.
func (x *Context) Links() []Link {
	if x.Spec.Network == "" {
		return nil
	}
	return []Link{{"spec.network", Ref{"Network", x.Metadata.Project, x.Spec.Network}}}
}

// Progress implements Resource.
func (x *Context) Progress() *Progress { return &x.Status.Progress }

// Network is what a NIC joins.
type Network struct {
	Head
	Spec   NetworkSpec `json:"spec"`
	Status Bare        `json:"status,omitzero"`
}

// NetworkSpec is how addresses and the way out are given.
type NetworkSpec struct {
	Subnet string `json:"subnet" doc:"IPv4 prefix, as 10.77.1.0/24. The host has the first address."`
	Egress bool   `json:"egress,omitempty" doc:"Machines reach other networks through the host."`
}

// Check implements Resource.
func (n *Network) Check() []Problem {
	var c checks
	p, err := netip.ParsePrefix(n.Spec.Subnet)
	switch {
	case err != nil || !p.Addr().Is4():
		c.add("spec.subnet", "%q is not an IPv4 prefix; write 10.77.1.0/24", n.Spec.Subnet)
	case p.Masked() != p:
		c.add("spec.subnet", "%s has host bits set; write %s", p, p.Masked())
	case p.Bits() < 16 || p.Bits() > 28:
		c.add("spec.subnet", "%s: use a prefix between /16 and /28", p)
	}
	return c
}

// Links implements Resource.
func (n *Network) Links() []Link { return nil }

// Progress implements Resource.
func (n *Network) Progress() *Progress { return &n.Status.Progress }

// Volume is data that outlives a desktop: a disk of its own.
type Volume struct {
	Head
	Spec   VolumeSpec   `json:"spec"`
	Status VolumeStatus `json:"status,omitzero"`
}

// VolumeSpec is whose data it is and how much.
type VolumeSpec struct {
	Person string `json:"person,omitempty" doc:"Whose home it is."`
	Size   Bytes  `json:"size"`
	// Holder is written in the transaction that gives the volume to a machine,
	// so two machines never have it at once.
	Holder MachineID `json:"holder,omitempty" doc:"The only machine that may attach it; written by the plane."`
}

// VolumeStatus is where the data lies.
type VolumeStatus struct {
	Progress
	Hypervisor string `json:"hypervisor,omitempty" doc:"The host that has it."`
}

// Check implements Resource.
func (v *Volume) Check() []Problem {
	var c checks
	c.name("spec.person", v.Spec.Person, false)
	if v.Spec.Size < 16*MiB {
		c.add("spec.size", "%s is too little; at least 16Mi", v.Spec.Size)
	}
	return c
}

// Links implements Resource.
func (v *Volume) Links() []Link {
	if v.Spec.Person == "" {
		return nil
	}
	return []Link{{"spec.person", Ref{"Person", "", v.Spec.Person}}}
}

// Progress implements Resource.
func (v *Volume) Progress() *Progress { return &v.Status.Progress }

// MACFor returns the address of a machine's i-th NIC: locally administered,
// unicast, taken from its UID, so that it never changes.
func MACFor(id MachineID, i int) string {
	h := uint64(14695981039346656037) // FNV-1a, 64 bits
	for _, b := range []byte(fmt.Sprintf("%s/%d", id, i)) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x", byte(h>>32), byte(h>>24), byte(h>>16), byte(h>>8), byte(h))
}

package estate

import (
	"fmt"
	"net/netip"
)

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

// MACFor returns the address of a machine's i-th NIC: locally administered,
// unicast, taken from its UID, so that it never changes.
func MACFor(id MachineID, i int) string {
	h := uint64(14695981039346656037) // FNV-1a, 64 bits
	for _, b := range []byte(fmt.Sprintf("%s/%d", id, i)) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x", byte(h>>32), byte(h>>24), byte(h>>16), byte(h>>8), byte(h))
}

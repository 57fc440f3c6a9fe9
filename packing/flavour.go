package packing

import (
	"fmt"
	"slices"
	"strings"
)

// Flavour is a demand that a cluster keeps account of: for every host, whether
// it may fit there. It is of the cluster that made it.
type Flavour struct {
	Demand
	key string
	may set // the host is of the right kind, whatever is on it
	fit set // and had room when last looked at; never clear where it has
	low int // no word of fit before this one has a bit
}

// Flavour returns the flavour of the demand: the same one for the same demand.
// Looking it up costs more than a placement; keep it where many are alike.
func (c *Cluster) Flavour(d Demand) *Flavour {
	d.Trust = min(max(d.Trust, 0), Levels-1)
	key := d.key()
	if f := c.flavours[key]; f != nil {
		return f
	}
	f := &Flavour{Demand: d, key: key}
	f.grow(len(c.hosts))
	c.flavours[key] = f
	c.list = append(c.list, f)
	for _, h := range c.hosts {
		c.judgeFor(h, f)
	}
	return f
}

// key is the demand in one way of writing.
func (d *Demand) key() string {
	can := slices.Clone(d.Can)
	slices.Sort(can)
	labels := make([]string, len(d.Labels))
	for i, l := range d.Labels {
		any := slices.Clone(l.Any)
		slices.Sort(any)
		labels[i] = fmt.Sprintf("%q", append([]string{l.Key}, any...))
	}
	slices.Sort(labels)
	return fmt.Sprint(d.Need, d.Devices, d.Share, d.Trust, fmt.Sprintf("%q", can), strings.Join(labels, ""))
}

// judge looks at a host anew for every flavour.
func (c *Cluster) judge(h *host) {
	h.stale = true
	for _, f := range c.list {
		c.judgeFor(h, f)
	}
}

func (c *Cluster) judgeFor(h *host, f *Flavour) {
	f.may.clear(h.slot)
	f.fit.clear(h.slot)
	if !f.kind(h) {
		return
	}
	f.may.set(h.slot)
	if c.fits(h, f) {
		f.set(h.slot)
	}
}

func (f *Flavour) set(slot int) {
	f.fit.set(slot)
	f.low = min(f.low, slot/64)
}

func (f *Flavour) grow(n int) {
	for len(f.fit)*64 < n {
		f.fit, f.may = append(f.fit, 0), append(f.may, 0)
	}
}

// kind reports whether the host is one that the demand could have at all.
func (f *Flavour) kind(h *host) bool {
	for _, name := range f.Can {
		if !slices.Contains(h.Can, name) {
			return false
		}
	}
	for _, l := range f.Labels {
		if !l.on(h) {
			return false
		}
	}
	return len(h.Trusts) == 0 || slices.Contains(h.Trusts, f.Trust)
}

func (l Label) on(h *host) bool {
	v, ok := h.Labels[l.Key]
	return ok && slices.Contains(l.Any, v)
}

// fits reports whether a host of the right kind has room now.
func (c *Cluster) fits(h *host, f *Flavour) bool {
	if !f.Need.within(&h.free) || h.Closed != "" {
		return false
	}
	return h.hasDevices(f) && (c.opts.Mixed || h.trusts(f.Trust, c.opts.Gap))
}

// within reports whether that much is free. Who needs nothing of a dimension
// may go where more of it was given than there is.
func (a *Amounts) within(free *Amounts) bool {
	return (a[CPU] <= free[CPU] || a[CPU] == 0) && (a[Memory] <= free[Memory] || a[Memory] == 0) && (a[Disk] <= free[Disk] || a[Disk] == 0)
}

func (h *host) hasDevices(f *Flavour) bool {
	switch {
	case f.Share > 0:
		for _, left := range h.devices[:h.Devices] {
			if int(left) >= f.Share {
				return true
			}
		}
		return false
	case f.Devices > 0:
		return h.whole() >= f.Devices
	}
	return true
}

// whole returns how many devices nobody has a part of.
func (h *host) whole() (n int) {
	for _, left := range h.devices[:h.Devices] {
		if left == Whole {
			n++
		}
	}
	return n
}

// trusts reports whether nobody on the host is of a trust further away than gap.
func (h *host) trusts(level, gap int) bool {
	for l, n := range h.trust {
		if n > 0 && (l > level+gap || l < level-gap) {
			return false
		}
	}
	return true
}

// set is a set of slots.
type set []uint64

func (s set) has(i int) bool { return s[i>>6]>>(i&63)&1 != 0 }
func (s set) set(i int)      { s[i>>6] |= 1 << (i & 63) }
func (s set) clear(i int)    { s[i>>6] &^= 1 << (i & 63) }

func (s set) swap(i, j int) {
	a, b := s.has(i), s.has(j)
	if a != b {
		s[i>>6] ^= 1 << (i & 63)
		s[j>>6] ^= 1 << (j & 63)
	}
}

// group is where the members of a group are.
type group struct {
	hosts   map[*host]int
	domains map[string]int
	members int
}

// join counts an item in, or out with -1, where its group is.
func (c *Cluster) join(p *placed, by int) {
	if p.item.Group == "" {
		return
	}
	g := c.groups[p.item.Group]
	if g == nil {
		g = &group{map[*host]int{}, map[string]int{}, 0}
		c.groups[p.item.Group] = g
	}
	g.members += by
	if g.hosts[p.on] += by; g.hosts[p.on] == 0 {
		delete(g.hosts, p.on)
	}
	if p.on.Domain != "" {
		if g.domains[p.on.Domain] += by; g.domains[p.on.Domain] == 0 {
			delete(g.domains, p.on.Domain)
		}
	}
	if g.members == 0 {
		delete(c.groups, p.item.Group)
	}
}

// moveDomain takes a host with all that is on it to another failure domain.
func (c *Cluster) moveDomain(h *host, to string) {
	for _, g := range c.groups {
		n := g.hosts[h]
		if n == 0 {
			continue
		}
		if g.domains[h.Domain] -= n; h.Domain == "" || g.domains[h.Domain] == 0 {
			delete(g.domains, h.Domain)
		}
		if to != "" {
			g.domains[to] += n
		}
	}
}

// allows reports whether the rules of the item's group let it on the host. The
// rules of its fellows are taken to be the same.
func (c *Cluster) allows(h *host, it Item) bool {
	if it.Group == "" || it.Apart == Nowhere && it.Together == Nowhere {
		return true
	}
	g := c.groups[it.Group]
	if g == nil {
		return true
	}
	return (it.Apart == Nowhere || !g.at(h, it.Apart)) && (it.Together == Nowhere || g.at(h, it.Together))
}

// at reports whether one of the group is on the host, or in its failure domain.
func (g *group) at(h *host, s Scope) bool {
	if s == InDomain && h.Domain != "" {
		return g.domains[h.Domain] > 0
	}
	return g.hosts[h] > 0
}

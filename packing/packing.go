// Package packing decides in memory on which of many hosts a machine fits best.
//
// Hosts stand in one random order that stays. Every flavour of demand keeps one
// bit a host, which says whether it may fit there; a machine goes to the best of
// the first hosts that do. Looking at a few, and not at all, is what keeps it
// quick, and keeps machines that fit anywhere off the hosts that few others can
// use: scoring every host drains the scarce ones first.
package packing

import (
	"cmp"
	"maps"
	"math/bits"
	"math/rand/v2"
	"slices"

	"consort.dev/consort/fault"
)

// The dimensions that are counted, of hosts and of demands. Their units are the
// caller's; the same for both.
const (
	CPU = iota
	Memory
	Disk
	dims
)

// Amounts is how much of each dimension.
type Amounts [dims]int64

// Unbounded is the amount of a dimension that a host does not run out of, or
// whose end nobody knows.
const Unbounded int64 = 1 << 60

// MaxDevices is the most devices a host has.
const MaxDevices = 8

// Whole is all of one device, such as a GPU: shares are thousandths.
const Whole = 1000

// Levels is how many levels of trust there are.
const Levels = 4

// Host is a place for machines.
type Host struct {
	Name    string
	Has     Amounts
	Devices int               // at most MaxDevices, all alike
	Domain  string            // what fails with it, as a rack
	Labels  map[string]string // what it is
	Can     []string          // what it is able to do
	Trusts  []int             // the levels of trust it takes; every one when empty
	Closed  string            // why it takes nothing new; "" when it does
}

// Demand is what a machine needs of its host. Machines of one demand are of one
// Flavour.
type Demand struct {
	Need    Amounts
	Devices int // whole devices
	Share   int // thousandths of one device; with Devices 0
	Can     []string
	Labels  []Label // all of them
	Trust   int     // the level of its context, 0 to 3
}

// Label is one that a host must have, with any of the values.
type Label struct {
	Key string
	Any []string
}

// Scope is how far a rule between machines of one group reaches.
type Scope uint8

// The scopes.
const (
	Nowhere  Scope = iota // no rule
	OnHost                // the host
	InDomain              // the failure domain; a host without one is its own
)

// Item is one machine, or room kept for one.
type Item struct {
	Name     string
	Group    string // whom the rules are about
	Apart    Scope  // never with another of the group
	Together Scope  // only where the group is, once one of it is placed
	Takes    string // the item whose room was kept for it, which goes when it is placed
}

// Options are how a cluster packs.
type Options struct {
	Seed   uint64  // of the order of hosts
	Window int     // how many hosts that fit are compared; 16 when 0, all when negative
	Tight  float64 // weight of the tightest fit against fragments; DefaultTight when 0
	// Gap is by how much the trust of machines on one host may differ, if
	// Mixed is not set.
	Gap   int
	Mixed bool // machines of every level of trust share hosts
}

// Defaults of Options. They are a published sweep's: see bench/place.
const (
	DefaultWindow = 16
	DefaultTight  = 50
)

// Cluster is hosts and what is on them. It is for one goroutine at a time.
type Cluster struct {
	opts     Options
	rand     *rand.Rand
	hosts    []*host // in the order in which they are looked at
	byName   map[string]*host
	items    map[string]*placed
	flavours map[string]*Flavour
	list     []*Flavour // the same, in the order they came
	groups   map[string]*group
	largest  Amounts // of any host, where bounded
	expected []expectation
}

// host is a Host with what is left of it.
type host struct {
	Host
	slot    int // where in hosts
	free    Amounts
	devices [MaxDevices]int16 // what is left of each
	trust   [Levels]int32     // how many items of each level
	items   int
	frag    float64 // its fragments now
	stale   bool    // frag is of another time
}

// placed is an item and what it took.
type placed struct {
	item    Item
	on      *host
	flavour *Flavour
	devices uint8 // bit set of those it has, or has a share of
}

// New returns a cluster without hosts.
func New(o Options) *Cluster {
	if o.Window == 0 {
		o.Window = DefaultWindow
	}
	if o.Tight == 0 {
		o.Tight = DefaultTight
	}
	return &Cluster{
		opts: o, rand: rand.New(rand.NewPCG(o.Seed, 0x9e3779b97f4a7c15)),
		byName: map[string]*host{}, items: map[string]*placed{}, flavours: map[string]*Flavour{}, groups: map[string]*group{},
	}
}

// Len returns how many hosts there are.
func (c *Cluster) Len() int { return len(c.hosts) }

// SetHost adds the host, or changes what is known of it. What is on it stays,
// even where that is more than it has.
func (c *Cluster) SetHost(h Host) error {
	if h.Devices < 0 || h.Devices > MaxDevices {
		return fault.Invalid.Errorf("host %s has %d devices; at most %d are counted", h.Name, h.Devices, MaxDevices)
	}
	old := c.byName[h.Name]
	if old == nil {
		c.insert(&host{Host: h, free: h.Has})
		return nil
	}
	if old.Devices != h.Devices && old.items > 0 {
		return fault.Conflict.Errorf("host %s had %d devices and now %d, with machines on it; take them off first", h.Name, old.Devices, h.Devices)
	}
	if old.Domain != h.Domain {
		c.moveDomain(old, h.Domain)
	}
	for d := range dims {
		old.free[d] += h.Has[d] - old.Has[d]
	}
	same := old.Devices == h.Devices
	old.Host = h
	if !same {
		old.fillDevices()
	}
	c.enlarge(h.Has)
	c.judge(old)
	return nil
}

// insert puts a new host in a random slot; the one that was there goes to the
// end, so that every order stays as likely as any other.
func (c *Cluster) insert(h *host) {
	h.fillDevices()
	c.byName[h.Name] = h
	at := c.rand.IntN(len(c.hosts) + 1)
	c.hosts = append(c.hosts, h)
	h.slot = len(c.hosts) - 1
	for _, f := range c.list {
		f.grow(len(c.hosts))
	}
	c.swap(at, h.slot)
	c.enlarge(h.Has)
	c.judge(h)
}

func (h *host) fillDevices() {
	h.devices = [MaxDevices]int16{}
	for i := range h.Devices {
		h.devices[i] = Whole
	}
}

func (c *Cluster) enlarge(has Amounts) {
	for d, n := range has {
		if n < Unbounded {
			c.largest[d] = max(c.largest[d], n)
		}
	}
}

// swap changes the slots of two hosts, in the bits of every flavour too.
func (c *Cluster) swap(i, j int) {
	if i == j {
		return
	}
	c.hosts[i], c.hosts[j] = c.hosts[j], c.hosts[i]
	c.hosts[i].slot, c.hosts[j].slot = i, j
	for _, f := range c.list {
		f.may.swap(i, j)
		f.fit.swap(i, j)
		f.low = min(f.low, i/64, j/64)
	}
}

// RemoveHost forgets the host and whatever was on it. An unknown one is nothing.
func (c *Cluster) RemoveHost(name string) {
	h := c.byName[name]
	if h == nil {
		return
	}
	for n, p := range c.items {
		if p.on == h {
			c.Remove(n)
		}
	}
	last := len(c.hosts) - 1
	c.swap(h.slot, last)
	for _, f := range c.list {
		f.may.clear(last)
		f.fit.clear(last)
	}
	c.hosts = c.hosts[:last]
	delete(c.byName, name)
}

// Place finds a host for the item, puts it there and returns the host's name;
// or false, and Explain says why. An item that is placed already stays.
func (c *Cluster) Place(f *Flavour, it Item) (string, bool) {
	if p := c.items[it.Name]; p != nil {
		return p.on.Name, true
	}
	kept := c.lift(it.Takes)
	if kept != nil && c.fits(kept.on, f) && c.allows(kept.on, it) {
		c.put(f, it, kept.on)
		return kept.on.Name, true
	}
	best := c.best(f, it)
	if best == nil {
		c.drop(kept)
		return "", false
	}
	c.put(f, it, best)
	return best.Name, true
}

// lift takes an item's room away for a moment; drop gives it back.
func (c *Cluster) lift(name string) *placed {
	p := c.items[name]
	if name == "" || p == nil {
		return nil
	}
	c.Remove(name)
	return p
}

func (c *Cluster) drop(p *placed) {
	if p != nil {
		c.put(p.flavour, p.item, p.on)
	}
}

// best returns the best of the first hosts that fit, or nil.
func (c *Cluster) best(f *Flavour, it Item) *host {
	var best *host
	lowest, seen := 0.0, 0
	for h := range c.window(f, it) {
		s := c.score(h, f)
		if best == nil || s < lowest {
			best, lowest = h, s
		}
		if seen++; seen == c.opts.Window {
			break
		}
	}
	return best
}

// window gives the hosts that fit, in their order. A bit that is set may be too
// hopeful, and is looked at here; one that is not is sure.
func (c *Cluster) window(f *Flavour, it Item) func(func(*host) bool) {
	return func(yield func(*host) bool) {
		low := true // nothing was found yet
		for w := f.low; w < len(f.fit); w++ {
			for word := f.fit[w]; word != 0; word &= word - 1 {
				h := c.hosts[w*64+bits.TrailingZeros64(word)]
				if !c.fits(h, f) {
					f.fit.clear(h.slot)
					continue
				}
				if c.allows(h, it) && !yield(h) {
					return
				}
			}
			if low = low && f.fit[w] == 0; low {
				f.low = w + 1
			}
		}
	}
}

// Fitting returns those of the hosts that would take the item now, at most so
// many (all when 0), in the order given. Rank orders them.
func (c *Cluster) Fitting(f *Flavour, it Item, hosts []string, most int) []string {
	var fit []string
	for _, name := range hosts {
		h := c.byName[name]
		if h == nil || !f.may.has(h.slot) || !c.fits(h, f) || !c.allows(h, it) {
			continue
		}
		if fit = append(fit, name); len(fit) == most {
			break
		}
	}
	return fit
}

// Rank orders hosts by how well the flavour fits there, the best first; those
// that are as good as each other stay in the order given.
func (c *Cluster) Rank(f *Flavour, hosts []string) {
	scores := make(map[string]float64, len(hosts))
	for _, name := range hosts {
		if h := c.byName[name]; h != nil {
			scores[name] = c.score(h, f)
		}
	}
	slices.SortStableFunc(hosts, func(a, b string) int { return cmp.Compare(scores[a], scores[b]) })
}

// Put notes that the item is on the host, whether it fits or not: it is there.
// One that was elsewhere, or was something else, is so no longer. An unknown
// host is fault.NotFound.
func (c *Cluster) Put(f *Flavour, it Item, on string) error {
	h := c.byName[on]
	if h == nil {
		return fault.NotFound.Errorf("put %s on %s: there is no such host", it.Name, on)
	}
	if p := c.items[it.Name]; p != nil && p.on == h && p.flavour == f && p.item == it {
		return nil
	}
	c.Remove(it.Name)
	c.put(f, it, h)
	return nil
}

func (c *Cluster) put(f *Flavour, it Item, h *host) {
	p := &placed{item: it, on: h, flavour: f, devices: c.pick(h, f)}
	for d := range dims {
		h.free[d] -= f.Need[d]
	}
	h.take(p.devices, f, -1)
	h.trust[f.Trust]++
	h.items++
	h.stale = true
	c.items[it.Name] = p
	c.join(p, 1)
}

// take changes what is left of the devices by the flavour's part of each.
func (h *host) take(devices uint8, f *Flavour, sign int16) {
	part := int16(Whole)
	if f.Share > 0 {
		part = int16(f.Share)
	}
	for ; devices != 0; devices &= devices - 1 {
		h.devices[bits.TrailingZeros8(devices)] += sign * part
	}
}

// Remove takes the item off its host. An unknown one is nothing.
func (c *Cluster) Remove(name string) {
	p := c.items[name]
	if p == nil {
		return
	}
	delete(c.items, name)
	c.join(p, -1)
	h, f := p.on, p.flavour
	for d := range dims {
		h.free[d] += f.Need[d]
	}
	h.take(p.devices, f, 1)
	h.trust[f.Trust]--
	h.items--
	h.stale = true
	for _, f := range c.list {
		if f.may.has(h.slot) && !f.fit.has(h.slot) && c.fits(h, f) {
			f.set(h.slot)
		}
	}
}

// On returns where the item is.
func (c *Cluster) On(name string) (host string, ok bool) {
	p := c.items[name]
	if p == nil {
		return "", false
	}
	return p.on.Name, true
}

// Names returns the hosts, in the order of their names.
func (c *Cluster) Names() []string { return slices.Sorted(maps.Keys(c.byName)) }

// Left returns what is left of a host, and the host.
func (c *Cluster) Left(name string) (left Amounts, of Host, ok bool) {
	h := c.byName[name]
	if h == nil {
		return left, of, false
	}
	return h.free, h.Host, true
}

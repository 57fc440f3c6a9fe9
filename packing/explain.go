package packing

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Refusal says why an item fits nowhere.
type Refusal struct {
	Hosts   int      // how many there are
	Reasons []Reason // the most frequent first; a host counts for each it has
	Help    []string // what would help, the least first: each does alone
}

// Reason is one that excludes hosts.
type Reason struct {
	Text  string // as "memory"
	Hosts int    // how many it excludes
	Alone int    // how many nothing else excludes
}

// String is one sentence for people.
func (r Refusal) String() string {
	if r.Hosts == 0 {
		return "there is no host"
	}
	parts := make([]string, len(r.Reasons))
	for i, x := range r.Reasons {
		parts[i] = fmt.Sprintf("%d %s", x.Hosts, x.Text)
	}
	s := fmt.Sprintf("none of %d hosts fits: %s", r.Hosts, strings.Join(parts, ", "))
	if len(r.Help) > 0 {
		s += "; it would help: " + strings.Join(r.Help, "; or ")
	}
	return s
}

// Units writes amounts for people.
type Units func(dimension int, n int64) string

// objection is one thing that keeps a flavour off a host.
type objection struct {
	why  string
	help string // as what helps begins, where that is the same on every host
	lack int64  // how much of a dimension is missing
	dim  int    // which; dims when it is not about an amount
}

// Objections says in words what keeps the item off the host, or nothing.
func (c *Cluster) Objections(f *Flavour, it Item, on string) []string {
	h := c.byName[on]
	if h == nil {
		return []string{"it is not known"}
	}
	var all []string
	for _, o := range c.objections(h, f, it) {
		all = append(all, o.why)
	}
	return all
}

// Explain says why the item fits on none of the hosts, of all when none is
// named. It looks at each, so that it costs as much as a thousand placements
// on ten thousand hosts.
func (c *Cluster) Explain(f *Flavour, it Item, among []string, units Units) Refusal {
	if units == nil {
		units = func(_ int, n int64) string { return strconv.FormatInt(n, 10) }
	}
	e := explanation{units: units, reasons: map[string]*Reason{}}
	if among == nil {
		for _, h := range c.hosts {
			e.add(h, c.objections(h, f, it))
		}
	}
	for _, name := range among {
		if h := c.byName[name]; h != nil {
			e.add(h, c.objections(h, f, it))
		}
	}
	return e.refusal()
}

// explanation is a Refusal that is being counted.
type explanation struct {
	units   Units
	hosts   int
	reasons map[string]*Reason
	helps   map[string]string // by reason: what would help
	least   [dims]struct {
		lack int64
		on   string
	}
}

func (e *explanation) add(h *host, all []objection) {
	e.hosts++
	for _, o := range all {
		r := e.reasons[o.why]
		if r == nil {
			r = &Reason{Text: o.why}
			e.reasons[o.why] = r
		}
		r.Hosts++
		if len(all) > 1 {
			continue
		}
		r.Alone++
		if o.dim == dims {
			if e.helps == nil {
				e.helps = map[string]string{}
			}
			e.helps[o.why] = o.help
			continue
		}
		// Of two that lack the same, the name decides: the order of hosts is random.
		l := &e.least[o.dim]
		if l.on == "" || o.lack < l.lack || o.lack == l.lack && h.Name < l.on {
			l.lack, l.on = o.lack, h.Name
		}
	}
}

func (e *explanation) refusal() Refusal {
	r := Refusal{Hosts: e.hosts}
	for _, x := range e.reasons {
		r.Reasons = append(r.Reasons, *x)
	}
	slices.SortFunc(r.Reasons, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(b.Hosts, a.Hosts), cmp.Compare(a.Text, b.Text))
	})
	for d, l := range e.least {
		if l.on != "" {
			r.Help = append(r.Help, fmt.Sprintf("%s more %s free on %s", e.units(d, l.lack), dimension(d), l.on))
		}
	}
	for _, x := range r.Reasons {
		if help := e.helps[x.Text]; help != "" {
			r.Help = append(r.Help, fmt.Sprintf("%s (%s)", help, count(x.Alone)))
		}
	}
	return r
}

func count(n int) string {
	if n == 1 {
		return "1 host would take it"
	}
	return fmt.Sprintf("%d hosts would take it", n)
}

func dimension(d int) string { return [...]string{"CPU", "memory", "disk"}[d] }

// objections returns everything that keeps an item off a host.
func (c *Cluster) objections(h *host, f *Flavour, it Item) []objection {
	var all []objection
	add := func(why, help string) { all = append(all, objection{why: why, help: help, dim: dims}) }
	if h.Closed != "" {
		add("closed: "+h.Closed, "hosts that are open again")
	}
	for _, name := range f.Can {
		if !slices.Contains(h.Can, name) {
			add("without "+name, "to do without "+name)
		}
	}
	for _, l := range f.Labels {
		if !l.on(h) {
			text := l.Key + " " + strings.Join(l.Any, " or ")
			add("not "+text, "to take others than "+text)
		}
	}
	if len(h.Trusts) > 0 && !slices.Contains(h.Trusts, f.Trust) {
		add(fmt.Sprintf("not for trust %d", f.Trust), fmt.Sprintf("hosts that take trust %d", f.Trust))
	}
	if !c.opts.Mixed && !h.trusts(f.Trust, c.opts.Gap) {
		add("with machines of other trust", "to move machines of other trust away")
	}
	for d := range dims {
		if f.Need[d] > 0 && h.free[d] < f.Need[d] {
			all = append(all, objection{why: "short of " + dimension(d), lack: f.Need[d] - h.free[d], dim: d})
		}
	}
	if !h.hasDevices(f) {
		add("without a free device", "fewer devices, or a smaller share")
	}
	return append(all, c.rules(h, it)...)
}

// rules are the objections of the item's group.
func (c *Cluster) rules(h *host, it Item) (all []objection) {
	if c.allows(h, it) {
		return nil
	}
	where := [...]string{"", "on it", "in its failure domain"}
	g := c.groups[it.Group]
	if it.Apart != Nowhere && g.at(h, it.Apart) {
		all = append(all, objection{why: "with another of " + it.Group + " " + where[it.Apart], help: "to let two of " + it.Group + " be together", dim: dims})
	}
	if it.Together != Nowhere && !g.at(h, it.Together) {
		all = append(all, objection{why: "with none of " + it.Group + " " + where[it.Together], help: "to let " + it.Group + " be apart", dim: dims})
	}
	return all
}

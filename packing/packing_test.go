package packing

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// model says by plain counting what Cluster keeps account of.
type model struct {
	hosts map[string]Host
	on    map[string]placing
}

type placing struct {
	item   Item
	demand Demand
	host   string
}

// fits counts everything that is on the host from the start. Devices are the
// cluster's own choice, so they are taken from it.
func (m *model) fits(c *Cluster, h Host, d Demand, it Item) bool {
	left := h.Has
	for _, p := range m.on {
		if p.host != h.Name {
			continue
		}
		for i := range dims {
			left[i] -= p.demand.Need[i]
		}
		if gap := p.demand.Trust - d.Trust; !c.opts.Mixed && max(gap, -gap) > c.opts.Gap {
			return false
		}
	}
	for i := range dims {
		if d.Need[i] > 0 && left[i] < d.Need[i] {
			return false
		}
	}
	for _, x := range d.Can {
		if !slices.Contains(h.Can, x) {
			return false
		}
	}
	for _, l := range d.Labels {
		if v, ok := h.Labels[l.Key]; !ok || !slices.Contains(l.Any, v) {
			return false
		}
	}
	if h.Closed != "" || len(h.Trusts) > 0 && !slices.Contains(h.Trusts, d.Trust) {
		return false
	}
	return m.devices(c, h, d) && m.rules(h, it)
}

func (m *model) devices(c *Cluster, h Host, d Demand) bool {
	left := slices.Repeat([]int{Whole}, h.Devices)
	for name, p := range m.on {
		if p.host != h.Name {
			continue
		}
		for i := range left {
			if c.items[name].devices>>i&1 != 0 {
				left[i] -= p.demand.Share
				if p.demand.Share == 0 {
					left[i] = 0
				}
			}
		}
	}
	whole, shares := 0, 0
	for _, n := range left {
		if n == Whole {
			whole++
		}
		if n >= d.Share {
			shares++
		}
	}
	return whole >= d.Devices && (d.Share == 0 || shares > 0)
}

func (m *model) rules(h Host, it Item) bool {
	if it.Group == "" {
		return true
	}
	members, apart, together := 0, false, false
	near := func(o Host, s Scope) bool {
		return o.Name == h.Name || s == InDomain && h.Domain != "" && o.Domain == h.Domain
	}
	for _, p := range m.on {
		if p.item.Group == it.Group {
			members++
			apart = apart || it.Apart != Nowhere && near(m.hosts[p.host], it.Apart)
			together = together || it.Together != Nowhere && near(m.hosts[p.host], it.Together)
		}
	}
	return !apart && (it.Together == Nowhere || members == 0 || together)
}

var drawHost = rapid.Custom(func(t *rapid.T) Host {
	h := Host{
		Name: fmt.Sprint("h", rapid.IntRange(0, 11).Draw(t, "host")),
		Has: Amounts{
			rapid.Int64Range(0, 8).Draw(t, "cpu"), rapid.Int64Range(0, 16).Draw(t, "memory"),
			rapid.SampledFrom([]int64{Unbounded, 20}).Draw(t, "disk"),
		},
		Devices: rapid.IntRange(0, 3).Draw(t, "devices"),
		Domain:  rapid.SampledFrom([]string{"", "r1", "r2"}).Draw(t, "domain"),
		Labels:  map[string]string{"gpu": rapid.SampledFrom([]string{"A10", "T4"}).Draw(t, "gpu")},
		Trusts:  rapid.SampledFrom([][]int{nil, {0, 1}, {3}}).Draw(t, "trusts"),
		Closed:  rapid.SampledFrom([]string{"", "", "", "it drains"}).Draw(t, "closed"),
	}
	if rapid.Bool().Draw(t, "clones") {
		h.Can = []string{"instant-clone"}
	}
	return h
})

var drawDemand = rapid.Custom(func(t *rapid.T) Demand {
	d := Demand{Need: Amounts{
		rapid.Int64Range(0, 3).Draw(t, "cpu"), rapid.Int64Range(1, 6).Draw(t, "memory"), rapid.Int64Range(0, 6).Draw(t, "disk"),
	}}
	switch rapid.IntRange(0, 3).Draw(t, "device") {
	case 1:
		d.Devices = rapid.IntRange(1, 3).Draw(t, "devices")
	case 2:
		d.Share = rapid.SampledFrom([]int{250, 460, 1000}).Draw(t, "share")
	}
	if rapid.IntRange(0, 3).Draw(t, "clones") == 0 {
		d.Can = []string{"instant-clone"}
	}
	if rapid.IntRange(0, 3).Draw(t, "label") == 0 {
		d.Labels = []Label{{"gpu", rapid.SampledFrom([][]string{{"A10"}, {"T4", "A10"}}).Draw(t, "any")}}
	}
	d.Trust = rapid.IntRange(0, 3).Draw(t, "trust")
	return d
})

var drawItem = rapid.Custom(func(t *rapid.T) Item {
	it := Item{Name: fmt.Sprint("m", rapid.IntRange(0, 25).Draw(t, "name"))}
	if it.Group = rapid.SampledFrom([]string{"", "", "web", "db"}).Draw(t, "group"); it.Group != "" {
		it.Apart = Scope(rapid.IntRange(0, 2).Draw(t, "apart"))
		it.Together = Scope(rapid.IntRange(0, 2).Draw(t, "together"))
	}
	return it
})

// TestPlacesAsIfAllWasCountedEachTime has hosts and machines come, go and change
// in every order, and compares each answer with plain counting: room is given
// only where there is some, never twice, and refused only where there is none.
func TestPlacesAsIfAllWasCountedEachTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Options{
			Seed: rapid.Uint64().Draw(t, "seed"), Window: rapid.SampledFrom([]int{-1, 1, 3, 16}).Draw(t, "window"),
			Gap: rapid.IntRange(0, 3).Draw(t, "gap"), Mixed: rapid.Bool().Draw(t, "mixed"),
		}
		c, m := New(o), &model{map[string]Host{}, map[string]placing{}}
		if rapid.Bool().Draw(t, "expects") {
			c.Expect([]Expected{{drawDemand.Draw(t, "expected"), 2}, {drawDemand.Draw(t, "expected too"), 1}})
		}
		t.Repeat(map[string]func(*rapid.T){
			"host":   func(t *rapid.T) { m.setHost(t, c, drawHost.Draw(t, "a host")) },
			"gone":   func(t *rapid.T) { m.removeHost(c, fmt.Sprint("h", rapid.IntRange(0, 11).Draw(t, "gone"))) },
			"place":  func(t *rapid.T) { m.place(t, c, drawItem.Draw(t, "item"), drawDemand.Draw(t, "demand")) },
			"more":   func(t *rapid.T) { m.place(t, c, drawItem.Draw(t, "item"), drawDemand.Draw(t, "demand")) },
			"leave":  func(t *rapid.T) { m.remove(c, drawItem.Draw(t, "item").Name) },
			"put":    func(t *rapid.T) { m.put(t, c, drawItem.Draw(t, "item"), drawDemand.Draw(t, "demand")) },
			"":       func(t *rapid.T) { m.same(t, c) },
			"expect": func(t *rapid.T) { c.Expect([]Expected{{drawDemand.Draw(t, "expected"), 1}}) },
		})
	})
}

func (m *model) setHost(t *rapid.T, c *Cluster, h Host) {
	old, known := m.hosts[h.Name]
	if err := c.SetHost(h); err != nil {
		if !known || old.Devices == h.Devices {
			t.Fatalf("set %+v: %v", h, err)
		}
		return // its machines have devices it would lack
	}
	m.hosts[h.Name] = h
}

func (m *model) removeHost(c *Cluster, name string) {
	c.RemoveHost(name)
	delete(m.hosts, name)
	maps.DeleteFunc(m.on, func(_ string, p placing) bool { return p.host == name })
}

func (m *model) remove(c *Cluster, name string) {
	c.Remove(name)
	delete(m.on, name)
}

// put notes an item where it fits: a host that is over full has no devices to
// count.
func (m *model) put(t *rapid.T, c *Cluster, it Item, d Demand) {
	m.remove(c, it.Name)
	for _, name := range slices.Sorted(maps.Keys(m.hosts)) {
		if !m.devices(c, m.hosts[name], d) {
			continue
		}
		if err := c.Put(c.Flavour(d), it, name); err != nil {
			t.Fatal(err)
		}
		m.on[it.Name] = placing{it, d, name}
		return
	}
}

func (m *model) place(t *rapid.T, c *Cluster, it Item, d Demand) {
	if p, there := m.on[it.Name]; there {
		if on, ok := c.Place(c.Flavour(d), it); !ok || on != p.host {
			t.Fatalf("%s is on %s, and placed on %q again", it.Name, p.host, on)
		}
		return
	}
	f := c.Flavour(d)
	best := m.best(c, f, it)
	on, ok := c.Place(f, it)
	if ok != (best != "") || on != best {
		t.Fatalf("place %+v %+v: on %q, %v; want %q", it, d, on, ok, best)
	}
	if ok {
		m.on[it.Name] = placing{it, d, on}
		return
	}
	for name := range m.hosts {
		if len(c.Objections(f, it, name)) == 0 {
			t.Fatalf("%s is refused, and nothing is said against %s", it.Name, name)
		}
	}
	if r := c.Explain(f, it, nil, nil); r.Hosts != len(m.hosts) || len(m.hosts) > 0 && len(r.Reasons) == 0 {
		t.Fatalf("explained by %+v with %d hosts", r, len(m.hosts))
	}
}

// best looks at every host in the cluster's order, scores the first few that
// fit without anything remembered, and returns the best.
func (m *model) best(c *Cluster, f *Flavour, it Item) (best string) {
	lowest, seen := 0.0, 0
	for _, h := range c.hosts {
		if !m.fits(c, m.hosts[h.Name], f.Demand, it) {
			continue
		}
		anew := *h
		anew.stale = true
		if s := c.score(&anew, f); best == "" || s < lowest {
			best, lowest = h.Name, s
		}
		if seen++; seen == c.opts.Window {
			break
		}
	}
	return best
}

// same compares what the cluster remembers with a count.
func (m *model) same(t *rapid.T, c *Cluster) {
	if len(c.items) != len(m.on) || c.Len() != len(m.hosts) {
		t.Fatalf("%d items on %d hosts, want %d on %d", len(c.items), c.Len(), len(m.on), len(m.hosts))
	}
	for name, h := range m.hosts {
		want, n := h.Has, 0
		for _, p := range m.on {
			if p.host == name {
				n++
				for i := range dims {
					want[i] -= p.demand.Need[i]
				}
			}
		}
		left, _, _ := c.Left(name)
		if items := c.byName[name].items; left != want || items != n {
			t.Fatalf("%s has %v left and %d items, want %v and %d", name, left, items, want, n)
		}
	}
	for name, g := range c.groups {
		domains := map[string]int{}
		for _, p := range m.on {
			if d := m.hosts[p.host].Domain; p.item.Group == name && d != "" {
				domains[d]++
			}
		}
		if !maps.Equal(domains, g.domains) {
			t.Fatalf("%s is in the domains %v, want %v", name, g.domains, domains)
		}
	}
	for i, h := range c.hosts {
		if h.slot != i {
			t.Fatalf("%s is in slot %d and says %d", h.Name, i, h.slot)
		}
		for _, f := range c.list {
			if f.may.has(i) && c.fits(h, f) && (!f.fit.has(i) || i/64 < f.low) {
				t.Fatalf("%s would fit %+v, and no bit says so", h.Name, f.Demand)
			}
		}
	}
}

func TestTheSameSeedPlacesTheSame(t *testing.T) {
	run := func(seed uint64) (on []string) {
		c := New(Options{Seed: seed})
		for i := range 200 {
			if err := c.SetHost(Host{Name: fmt.Sprint("h", i), Has: Amounts{8, 32, Unbounded}}); err != nil {
				t.Fatal(err)
			}
		}
		f := c.Flavour(Demand{Need: Amounts{1, 3, 0}})
		for i := range 500 {
			h, _ := c.Place(f, Item{Name: fmt.Sprint(i)})
			on = append(on, h)
		}
		return on
	}
	if !slices.Equal(run(1), run(1)) {
		t.Error("two runs of one seed differ")
	}
	if slices.Equal(run(1), run(2)) {
		t.Error("runs of two seeds do not differ: the order of hosts is not random")
	}
}

func TestRoomThatIsKeptGoesToWhomItWasKeptFor(t *testing.T) {
	c := New(Options{})
	for _, h := range []string{"a", "b"} {
		if err := c.SetHost(Host{Name: h, Has: Amounts{4, 4, 4}}); err != nil {
			t.Fatal(err)
		}
	}
	f := c.Flavour(Demand{Need: Amounts{1, 4, 0}})
	if err := c.Put(f, Item{Name: "kept"}, "b"); err != nil {
		t.Fatal(err)
	}
	if on, _ := c.Place(f, Item{Name: "other"}); on != "a" {
		t.Errorf("another is on %q, want a: b is kept", on)
	}
	if on, ok := c.Place(f, Item{Name: "third"}); ok {
		t.Errorf("a third is on %s, where room is kept", on)
	}
	if on, _ := c.Place(f, Item{Name: "mine", Takes: "kept"}); on != "b" {
		t.Errorf("it is on %q, want b, which was kept for it", on)
	}
	if _, still := c.On("kept"); still {
		t.Error("the room is kept still")
	}
}

// TestRefusalsSayWhyAndWhatWouldHelp is the golden of an explanation.
func TestRefusalsSayWhyAndWhatWouldHelp(t *testing.T) {
	c := New(Options{Mixed: true})
	set := func(h Host) {
		if err := c.SetHost(h); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 6 {
		set(Host{Name: fmt.Sprint("small-", i), Has: Amounts{8, int64(10 + i), Unbounded}, Can: []string{"clones"}, Domain: "r1"})
	}
	set(Host{Name: "drained", Has: Amounts{8, 64, Unbounded}, Can: []string{"clones"}, Closed: "it drains", Domain: "r2"})
	set(Host{Name: "plain", Has: Amounts{8, 64, Unbounded}, Domain: "r3"})
	set(Host{Name: "strict", Has: Amounts{8, 64, Unbounded}, Can: []string{"clones"}, Trusts: []int{3}, Domain: "r4"})
	set(Host{Name: "taken", Has: Amounts{8, 64, Unbounded}, Can: []string{"clones"}, Domain: "r5"})
	d := Demand{Need: Amounts{1, 20, 0}, Can: []string{"clones"}, Trust: 1}
	if err := c.Put(c.Flavour(d), Item{Name: "web-1", Group: "web"}, "taken"); err != nil {
		t.Fatal(err)
	}
	it := Item{Name: "web-2", Group: "web", Apart: InDomain}
	if on, ok := c.Place(c.Flavour(d), it); ok {
		t.Fatalf("placed on %s", on)
	}
	got := c.Explain(c.Flavour(d), it, nil, func(_ int, n int64) string { return fmt.Sprint(n, " GiB") }).String()
	want := "none of 10 hosts fits: 6 short of memory, 1 closed: it drains, 1 not for trust 1, 1 with another of web in its failure domain, 1 without clones; " +
		"it would help: 5 GiB more memory free on small-5; or hosts that are open again (1 host would take it); or hosts that take trust 1 (1 host would take it); " +
		"or to let two of web be together (1 host would take it); or to do without clones (1 host would take it)"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

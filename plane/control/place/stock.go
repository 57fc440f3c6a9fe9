package place

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"consort.dev/consort/estate"
	"consort.dev/consort/packing"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/store"
)

// stock is what is known of the hypervisors and of what is placed on them. It
// is read from the store once, and kept by what the loops see change; that it
// is not behind is proved by the commit of a placement, which fails where
// somebody else has taken room on the host since.
type stock struct {
	mu      sync.Mutex
	cluster *packing.Cluster // nil: read the store first
	reading int64            // how often it was read
	rooms   map[string]int64 // by hypervisor: the revision at which room was last taken there
	sizes   control.Sizes
	seen    map[string]int64 // by name of an item, or of a hypervisor: its version
	waiting map[estate.Ref]*waiter
	unknown map[string]bool // hypervisors that have machines, and are not known
}

// few is up to how many hypervisors a plan's order is kept: it puts the one with
// the most memory free first, which is what people with two hosts want. Of more,
// those that fit are packed.
const few = packing.DefaultWindow

// read fills the stock from the store, unless it is filled. Rooms are read
// first: what is read after them has all that was placed at those revisions.
func (s *stock) read(ctx context.Context, st *store.Store) error {
	if s.cluster != nil {
		return nil
	}
	page, err := st.KV().List(ctx, control.Rooms, "", 0)
	if err != nil {
		return err
	}
	hypervisors, _, err := store.List[estate.Hypervisor](ctx, st, "")
	if err != nil {
		return err
	}
	images, _, err := store.List[estate.Image](ctx, st, "")
	if err != nil {
		return err
	}
	machines, _, err := store.List[estate.Machine](ctx, st, "")
	if err != nil {
		return err
	}
	s.reading++
	s.cluster, s.rooms, s.seen, s.sizes = packing.New(packing.Options{Gap: estate.TrustGap}), map[string]int64{}, map[string]int64{}, control.SizesOf(images)
	s.unknown = map[string]bool{}
	if s.waiting == nil {
		s.waiting = map[estate.Ref]*waiter{}
	}
	for _, e := range page.Entries {
		s.rooms[strings.TrimPrefix(e.Key, control.Rooms)] = e.Revision
	}
	for _, h := range hypervisors {
		s.host(h)
	}
	for _, m := range machines {
		s.machine(m)
	}
	s.expect(machines)
	return nil
}

// expect takes what there is for what is to come.
func (s *stock) expect(machines []*estate.Machine) {
	count := map[packing.Amounts]float64{}
	for _, m := range machines {
		count[s.needs(m).Need]++
	}
	var es []packing.Expected
	for need, n := range count {
		es = append(es, packing.Expected{Demand: packing.Demand{Need: need}, Weight: n})
	}
	// The most frequent say enough, and every one of them costs time.
	const most = 16
	slices.SortFunc(es, func(a, b packing.Expected) int {
		if a.Weight != b.Weight {
			return int(b.Weight - a.Weight)
		}
		return strings.Compare(fmt.Sprint(a.Demand.Need), fmt.Sprint(b.Demand.Need))
	})
	s.cluster.Expect(es[:min(len(es), most)])
}

// host notes what a hypervisor is, unless something newer is known.
func (s *stock) host(h *estate.Hypervisor) {
	key := hypervisorKey(h.Metadata.Name)
	if s.cluster == nil || s.seen[key] > h.Metadata.Version {
		return
	}
	if s.unknown[h.Metadata.Name] {
		s.cluster = nil // read what is on it
		return
	}
	s.seen[key] = h.Metadata.Version
	has := packing.Amounts{packing.Unbounded, packing.Unbounded, packing.Unbounded} // CPUs are shared
	if n := h.Status.Capacity.Memory; n > 0 {
		has[packing.Memory] = int64(n)
	}
	if n := h.Status.Capacity.Disk; n > 0 {
		has[packing.Disk] = int64(n)
	}
	// Without devices there is nothing in it that could be refused.
	_ = s.cluster.SetHost(packing.Host{Name: h.Metadata.Name, Has: has, Closed: closed(h)})
}

// closed says why a hypervisor takes nothing, or "".
func closed(h *estate.Hypervisor) string {
	switch {
	case h.Status.State == estate.HypervisorLost || h.Status.State == "":
		return "its agent does not answer"
	case h.Spec.Drain || h.Status.State == estate.HypervisorDraining:
		return "it takes nothing new"
	}
	return ""
}

// lose forgets a hypervisor that is gone.
func (s *stock) lose(name string) {
	if s.cluster != nil {
		s.cluster.RemoveHost(name)
		s.unknown[name] = true
		delete(s.seen, hypervisorKey(name))
	}
}

// hypervisorKey is under what the version of a hypervisor is in seen.
func hypervisorKey(name string) string { return "hypervisor " + name }

// A machine is an item where it is placed, and another where it is going to.
func itemOf(ref estate.Ref) string   { return ref.Project + "/" + ref.Name }
func comingOf(ref estate.Ref) string { return itemOf(ref) + " on its way" }

// machine notes where a machine is, unless something newer is known.
func (s *stock) machine(m *estate.Machine) {
	ref := m.Ref()
	if s.cluster == nil || s.seen[itemOf(ref)] > m.Metadata.Version {
		return
	}
	s.seen[itemOf(ref)] = m.Metadata.Version
	if m.Spec.Hypervisor != "" {
		delete(s.waiting, ref)
	}
	to := ""
	if mv := m.Spec.Moving; mv != nil && mv.To != m.Spec.Hypervisor {
		to = mv.To
	}
	s.put(m, itemOf(ref), m.Spec.Hypervisor)
	s.put(m, comingOf(ref), to)
}

// put notes that a machine takes room on the host, or on none.
func (s *stock) put(m *estate.Machine, item, on string) {
	if on != "" && s.cluster.Put(s.cluster.Flavour(s.needs(m)), packing.Item{Name: item}, on) == nil {
		return
	}
	s.cluster.Remove(item)
	if on != "" {
		s.unknown[on] = true
	}
}

// forget notes that a machine is gone.
func (s *stock) forget(ref estate.Ref) {
	if s.cluster != nil {
		s.cluster.Remove(itemOf(ref))
		s.cluster.Remove(comingOf(ref))
		delete(s.seen, itemOf(ref))
	}
	delete(s.waiting, ref)
}

// needs is what a machine takes of its host.
func (s *stock) needs(m *estate.Machine) packing.Demand {
	n := control.Needs(&m.Spec.Hardware, s.sizes)
	return packing.Demand{Need: packing.Amounts{0, int64(n.Memory), int64(n.Disk)}, Trust: m.Spec.HostTrust()}
}

// asks is what a host must have for a machine: the disk only where it is known
// what the machine's come to.
func (s *stock) asks(m *estate.Machine) *packing.Flavour {
	d := s.needs(m)
	if !control.Bounded(&m.Spec.Hardware) {
		d.Need[packing.Disk] = 0
	}
	return s.cluster.Flavour(d)
}

// choose takes room for the machine on the best of the hosts, all when none are
// named; or returns none. pick says which of those that fit, in the usual order.
func (s *stock) choose(m *estate.Machine, among []string, pick func(fit []string) string) string {
	f, it := s.asks(m), packing.Item{Name: itemOf(m.Ref())}
	if among == nil && pick == nil {
		on, _ := s.cluster.Place(f, it)
		s.put(m, it.Name, on)
		return on
	}
	if among == nil {
		among = s.cluster.Names()
	}
	most := 0
	if pick == nil {
		most = few
	}
	fit := s.cluster.Fitting(f, it, among, most)
	if len(fit) == 0 {
		return ""
	}
	if len(among) > few {
		s.cluster.Rank(f, fit)
	}
	on := fit[0]
	if pick != nil {
		on = pick(fit)
	}
	s.put(m, it.Name, on)
	return on
}

// refusal says in one sentence why none of the hosts takes the machine, and where
// in the line it is.
func (s *stock) refusal(m *estate.Machine, among []string, place, of int) string {
	f, it := s.asks(m), packing.Item{Name: itemOf(m.Ref())}
	r := s.cluster.Explain(f, it, among, func(_ int, n int64) string { return fmt.Sprintf("%d MiB", (n+int64(estate.MiB)-1)/int64(estate.MiB)) })
	if r.Hosts == 0 {
		return "no hypervisor fits; add one, or change the blueprint's hypervisor selector"
	}
	waits := inLine
	if of > 1 {
		waits += fmt.Sprintf(", place %d of %d", place, of)
	}
	if r.Hosts > few {
		return waits + ": " + r.String()
	}
	if among == nil {
		among = s.cluster.Names()
	}
	var no []string
	for _, name := range among {
		if why := s.objection(f, name); why != "" {
			no = append(no, name+": "+why)
		} else if of > 1 {
			no = append(no, name+": another has waited longer for the room there is")
		}
	}
	return waits + ": " + strings.Join(no, "; ")
}

// inLine is how a sentence begins about a machine that some host could take.
const inLine = "waiting for room"

// objection is what keeps a flavour off one host, with the amounts.
func (s *stock) objection(f *packing.Flavour, name string) string {
	left, h, ok := s.cluster.Left(name)
	short := func(d int, of string) string {
		need := estate.Bytes(f.Need[d])
		if need == 0 || left[d] >= int64(need) {
			return ""
		}
		return fmt.Sprintf("%d MiB of %s free, %s needed", max(0, left[d]/int64(estate.MiB)), of, need)
	}
	switch {
	case !ok:
		return ""
	case h.Closed != "":
		return h.Closed
	case short(packing.Memory, "memory") != "":
		return short(packing.Memory, "memory")
	case short(packing.Disk, "disk") != "":
		return short(packing.Disk, "disk")
	case len(s.cluster.Fitting(f, packing.Item{}, []string{name}, 1)) == 0:
		return fmt.Sprintf("on it are machines of a trust that never shares a host with trust %d", f.Trust)
	}
	return ""
}

package place

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/store"
)

// machines creates so many of the size, and returns them.
func machines(t *testing.T, s *store.Store, n int, memory estate.Bytes) (refs []estate.Ref) {
	t.Helper()
	for i := range n {
		m := &estate.Machine{Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Machine", Metadata: estate.Metadata{Name: fmt.Sprint("m", i), Project: "p"}}}
		m.Spec.Hardware.Memory = memory
		if err := s.Create(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		refs = append(refs, m.Ref())
	}
	return refs
}

// again takes steps as the loop does: at once where somebody wrote first.
func again(ctx context.Context, p *Placer, ref estate.Ref) error {
	for {
		if _, err := p.place(ctx, ref); fault.KindOf(err) != fault.Conflict || err == nil {
			return err
		}
	}
}

// TestTwoPlacersNeverGiveTheSameRoom has two placers, of which each knows only
// what it has read, place as much as there is and more.
func TestTwoPlacersNeverGiveTheSameRoom(t *testing.T) {
	const hosts, each, asked = 5, 8, 60
	var all []*estate.Hypervisor
	for i := range hosts {
		all = append(all, host(fmt.Sprint("h", i), each*estate.GiB, estate.HypervisorReady))
	}
	one := newPlacer(t, true, all...)
	two := &Placer{Store: one.Store, Alive: one.Alive, Now: one.Now, Log: one.Log}
	refs := machines(t, one.Store, asked, estate.GiB)
	var wg sync.WaitGroup
	for i, p := range []*Placer{one, two} {
		for w := range 4 {
			wg.Go(func() {
				for j := range refs {
					if j%8 == i*4+w {
						if err := again(t.Context(), p, refs[j]); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
	}
	wg.Wait()
	list, _, err := store.List[estate.Machine](t.Context(), one.Store, "")
	if err != nil {
		t.Fatal(err)
	}
	on := map[string]int{}
	for _, m := range list {
		on[m.Spec.Hypervisor]++
	}
	if on[""] != asked-hosts*each {
		t.Errorf("%d wait, want %d", on[""], asked-hosts*each)
	}
	for _, h := range all {
		if n := on[h.Metadata.Name]; n != each {
			t.Errorf("%d machines of 1Gi on %s, want %d", n, h.Metadata.Name, each)
		}
	}
}

// TestRoomThatAMoveTakesIsSeen has a move claim the room on a host before the
// placer hears of it.
func TestRoomThatAMoveTakesIsSeen(t *testing.T) {
	p := newPlacer(t, true, host("a", 3*estate.GiB, estate.HypervisorReady), host("b", 1, estate.HypervisorReady))
	first := placed(t, p, "first", estate.GiB, func(m *estate.Machine) { m.Spec.Hypervisor = "b" })
	if m := placed(t, p, "before", estate.GiB, nil); m.Spec.Hypervisor != "a" {
		t.Fatalf("before is on %q", m.Spec.Hypervisor)
	}
	first.Spec.Moving, first.Spec.Hardware.Memory = &estate.Moving{From: "b", To: "a"}, 2*estate.GiB
	if err := p.Store.Commit(t.Context(), store.Put(first), control.Takes("a")); err != nil {
		t.Fatal(err)
	}
	ref := machines(t, p.Store, 1, estate.GiB)[0]
	if err := again(t.Context(), p, ref); err != nil {
		t.Fatal(err)
	}
	if m, _ := store.Get[estate.Machine](t.Context(), p.Store, "p", ref.Name); m.Spec.Hypervisor != "" {
		t.Errorf("placed on %s, whose last room a move has taken", m.Spec.Hypervisor)
	}
}

func TestAHostIsLookedAtAgainBeforeItIsChosen(t *testing.T) {
	a, b := host("a", 8*estate.GiB, estate.HypervisorReady), host("b", 8*estate.GiB, estate.HypervisorReady)
	p := newPlacer(t, true, a, b)
	first := placed(t, p, "first", estate.GiB, nil)
	left := map[string]*estate.Hypervisor{"a": a, "b": b}[first.Spec.Hypervisor]
	left.Spec.Drain = true // and no loop is there to tell the placer
	if err := p.Store.Update(t.Context(), left); err != nil {
		t.Fatal(err)
	}
	if m := placed(t, p, "second", estate.GiB, nil); m.Spec.Hypervisor == "" || m.Spec.Hypervisor == first.Spec.Hypervisor {
		t.Errorf("second is on %q; %s drains", m.Spec.Hypervisor, first.Spec.Hypervisor)
	}
}

func TestAHostThatComesBackStillHasItsMachines(t *testing.T) {
	p := newPlacer(t, true, host("a", 3*estate.GiB, estate.HypervisorReady))
	placed(t, p, "first", 2*estate.GiB, nil)
	ref := estate.Ref{Kind: "Hypervisor", Name: "a"}
	if err := p.Store.Delete(t.Context(), ref, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := p.watchOver(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	if m := placed(t, p, "none", estate.GiB, nil); m.Status.Waiting != "no hypervisor fits; add one, or change the blueprint's hypervisor selector" {
		t.Errorf("without a host: %q", m.Status.Waiting)
	}
	back := host("a", 3*estate.GiB, estate.HypervisorReady)
	if err := p.Store.Create(t.Context(), back); err != nil {
		t.Fatal(err)
	}
	p.concerns(t.Context(), back)
	if m := placed(t, p, "second", 2*estate.GiB, nil); m.Spec.Hypervisor != "" {
		t.Error("the room of the machine that it had before was given away")
	}
}

func TestARoomThatIsLeftIsGivenAgain(t *testing.T) {
	p := newPlacer(t, true, host("a", 3*estate.GiB, estate.HypervisorReady))
	first := placed(t, p, "first", 2*estate.GiB, nil)
	if err := p.Store.Delete(t.Context(), first.Ref(), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := p.place(t.Context(), first.Ref()); err != nil {
		t.Fatal(err)
	}
	if m := placed(t, p, "second", 2*estate.GiB, nil); m.Spec.Hypervisor != "a" {
		t.Errorf("second is on %q: %s", m.Spec.Hypervisor, m.Status.Waiting)
	}
}

func TestARefusalByManyHostsIsCounted(t *testing.T) {
	var all []*estate.Hypervisor
	for i := range few + 4 {
		h := host(fmt.Sprintf("h%02d", i), estate.Bytes(100+i)*estate.MiB, estate.HypervisorReady)
		h.Spec.Drain = i < 3
		all = append(all, h)
	}
	p := newPlacer(t, true, all...)
	m := placed(t, p, "m", estate.GiB, nil)
	want := "waiting for room: none of 20 hosts fits: 20 short of memory, 3 closed: it takes nothing new; it would help: 905 MiB more memory free on h19"
	if m.Status.Waiting != want {
		t.Errorf("got  %s\nwant %s", m.Status.Waiting, want)
	}
}

// TestOfManyHostsTheTightestIsChosen plans for more hosts than a plan's order
// means anything for.
func TestOfManyHostsTheTightestIsChosen(t *testing.T) {
	var all []*estate.Hypervisor
	plan := &estate.Plan{}
	for i := range few + 1 {
		all = append(all, host(fmt.Sprintf("h%02d", i), estate.Bytes(32-i)*estate.GiB, estate.HypervisorReady))
		plan.Hypervisors = append(plan.Hypervisors, fmt.Sprintf("h%02d", i))
	}
	p := newPlacer(t, true, all...)
	d := &estate.Desktop{Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Desktop", Metadata: estate.Metadata{Name: "d", Project: "p"}}, Spec: estate.DesktopSpec{Blueprint: "b", Person: "ana"}}
	d.Status.Plan = plan
	if err := p.Store.Create(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	owner := d.Ref()
	if m := placed(t, p, "m", estate.GiB, func(m *estate.Machine) { m.Metadata.Owner = &owner }); m.Spec.Hypervisor != "h15" {
		t.Errorf("placed on %q, want h15, the smallest of the first %d", m.Spec.Hypervisor, few)
	}
}

package place

import (
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/plane/store"
)

// hall is one host of 2 GiB that first has to itself, and those that wait for it.
func hall(t *testing.T, waiting ...estate.Bytes) (*Placer, []*estate.Machine) {
	t.Helper()
	p := newPlacer(t, true, host("a", 2*estate.GiB, estate.HypervisorReady))
	now := time.Now()
	p.Now = func() time.Time { return now }
	all := []*estate.Machine{placed(t, p, "first", 2*estate.GiB, nil)}
	if all[0].Spec.Hypervisor != "a" {
		t.Fatalf("first waits: %s", all[0].Status.Waiting)
	}
	for i, memory := range waiting {
		m := placed(t, p, string(rune('k'+i)), memory, nil)
		if m.Spec.Hypervisor != "" {
			t.Fatalf("%s is on %s, which is full", m.Metadata.Name, m.Spec.Hypervisor)
		}
		all = append(all, m)
	}
	return p, all
}

// leaves has a machine be gone from its host.
func leaves(t *testing.T, p *Placer, m *estate.Machine) {
	t.Helper()
	if err := p.Store.Delete(t.Context(), m.Ref(), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := p.place(t.Context(), m.Ref()); err != nil {
		t.Fatal(err)
	}
}

// asks looks at the machine once more and returns where it is, or why nowhere.
func asks(t *testing.T, p *Placer, m *estate.Machine) (on, why string) {
	t.Helper()
	if _, err := p.place(t.Context(), m.Ref()); err != nil {
		t.Fatal(err)
	}
	m, err := store.Get[estate.Machine](t.Context(), p.Store, m.Metadata.Project, m.Metadata.Name)
	if err != nil {
		t.Fatal(err)
	}
	return m.Spec.Hypervisor, m.Status.Waiting
}

func TestWhoWaitsLongestIsPlacedFirst(t *testing.T) {
	p, all := hall(t, 2*estate.GiB, estate.GiB, 2*estate.GiB)
	first, one, two, three := all[0], all[1], all[2], all[3]
	if _, why := asks(t, p, three); !strings.HasPrefix(why, "waiting for room, place 3 of 3: a: ") {
		t.Errorf("the third is told %q", why)
	}
	leaves(t, p, first)
	late := placed(t, p, "late", estate.GiB, nil)
	for _, m := range []*estate.Machine{late, three, two} {
		if on, why := asks(t, p, m); on != "" || !strings.Contains(why, "another has waited longer for the room there is") {
			t.Errorf("%s is on %q, waiting %q: it came before who has waited longest", m.Metadata.Name, on, why)
		}
	}
	if on, why := asks(t, p, one); on != "a" {
		t.Fatalf("who has waited longest is told %q", why)
	}
	leaves(t, p, one)
	if on, why := asks(t, p, two); on != "a" {
		t.Errorf("the next is told %q", why)
	}
}

// Of those that fit in what is left the first gets it: a large one would else
// keep room empty that it cannot use.
func TestOneThatFitsNowhereHoldsNobodyUp(t *testing.T) {
	p, all := hall(t, 4*estate.GiB, estate.GiB)
	leaves(t, p, all[0])
	if on, why := asks(t, p, all[2]); on != "a" {
		t.Errorf("the small one is told %q", why)
	}
}

func TestOneThatAsksNoMoreHoldsNobodyUp(t *testing.T) {
	p, all := hall(t, 2*estate.GiB, estate.GiB)
	now := p.Now().Add(overdue + time.Second)
	p.Now = func() time.Time { return now }
	leaves(t, p, all[0])
	if on, why := asks(t, p, all[2]); on != "a" {
		t.Errorf("the one that asks is told %q", why)
	}
}

// Those who may go to none of the same hosts are no rivals.
func TestOnlyThoseWhoWaitForTheSameHostsAreCounted(t *testing.T) {
	p, all := hall(t, estate.GiB, estate.GiB)
	if err := p.Store.Create(t.Context(), host("b", estate.GiB/2, estate.HypervisorReady)); err != nil {
		t.Fatal(err)
	}
	p.stock.cluster = nil // read again
	only := func(name string) func(*estate.Machine) { return func(m *estate.Machine) { m.Spec.Only = name } }
	if m := placed(t, p, "elsewhere", estate.GiB, only("b")); m.Status.Waiting != "waiting for room, place 3 of 3: b: 512 MiB of memory free, 1Gi needed" {
		t.Errorf("it is told %q; the two before it may go anywhere", m.Status.Waiting)
	}
	for _, m := range all[1:] {
		leaves(t, p, m)
	}
	if m := placed(t, p, "here", estate.GiB, only("a")); m.Status.Waiting != "waiting for room: a: 0 MiB of memory free, 1Gi needed" {
		t.Errorf("it is told %q, and is alone", m.Status.Waiting)
	}
}

// Another plane may place what waits here.
func TestWhoWasPlacedByAnotherIsInTheLineNoMore(t *testing.T) {
	p, all := hall(t, 2*estate.GiB, 2*estate.GiB)
	_, err := store.Modify(t.Context(), p.Store, "p", all[1].Metadata.Name, func(m *estate.Machine) error {
		m.Spec.Hypervisor = "elsewhere"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	asks(t, p, all[1])
	p.stock.cluster = nil // its host is not known here
	if _, why := asks(t, p, all[2]); why != "waiting for room: a: 0 MiB of memory free, 2Gi needed" {
		t.Errorf("the one that is left is told %q", why)
	}
}

func TestSmallChangesFarBackAreNotTold(t *testing.T) {
	for _, c := range []struct {
		told, now int
		want      bool
	}{{3, 2, true}, {3, 3, false}, {100, 99, false}, {100, 80, true}, {100, 4, true}, {10, 30, true}} {
		if got := noticeable(c.told, c.now); got != c.want {
			t.Errorf("place %d after %d is told: %v", c.now, c.told, got)
		}
	}
}

package pool_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// tell says how everything is, for a failure.
func (y *yard) tell() string {
	var b strings.Builder
	for _, d := range y.seats() {
		fmt.Fprintf(&b, "seat %s: person %q, %s %s\n", d.Metadata.Name, d.Spec.Person, d.Status.State, d.Status.Waiting)
	}
	sessions, _, _ := store.List[estate.Session](y.Context(), y.store, "p")
	for _, s := range sessions {
		fmt.Fprintf(&b, "session %s of %s on %q: %s %s\n", s.Metadata.Name, s.Spec.Person, s.Spec.Desktop, s.Status.State, s.Status.Waiting)
	}
	pools, _, _ := store.List[estate.Pool](y.Context(), y.store, "p")
	for _, p := range pools {
		fmt.Fprintf(&b, "pool %s: %+v\n", p.Metadata.Name, p.Status)
	}
	return b.String()
}

func (y *yard) ready(session string) *estate.Session {
	y.Helper()
	y.until("session "+session+" is ready", func() bool { return y.session(session).Status.State == estate.SessionReady })
	return y.session(session)
}

func TestAPoolFillsUpAndItsSeatsStandStill(t *testing.T) {
	y := newYard(t, 5*time.Millisecond, 64*estate.GiB)
	y.pool("desk", func(s *estate.PoolSpec) { s.Warm = 3 })
	y.until("three seats are ready", func() bool { s := y.status("desk"); return s.Warm == 3 && s.Making == 0 && s.Is(estate.Ready) })
	y.until("they stand still", func() bool {
		all, _, err := store.List[estate.Machine](t.Context(), y.store, "p")
		y.must(err)
		still := 0
		for _, m := range all {
			if m.Status.Power == estate.Paused {
				still++
			}
		}
		return still == 3
	})
	if s := y.status("desk"); s.Make == 0 || s.Because == "" {
		t.Errorf("how long a seat takes (%s), and why so many are kept (%q), should be told", s.Make, s.Because)
	}
}

func TestWhoConnectsGetsAReadySeatThatGoesOn(t *testing.T) {
	y := newYard(t, 5*time.Millisecond, 64*estate.GiB)
	y.pool("desk", func(s *estate.PoolSpec) { s.Warm = 1 })
	y.until("a seat is ready", func() bool { return y.status("desk").Warm == 1 })
	before := y.seats()[0].Metadata.Name
	s, err := y.connect(t.Context(), "desk", "ana")
	y.must(err)
	s = y.ready(s.Metadata.Name)
	if s.Spec.Desktop != before {
		t.Errorf("ana is on %q, want the seat that was ready, %q", s.Spec.Desktop, before)
	}
	m, err := store.Get[estate.Machine](t.Context(), y.store, "p", before)
	y.must(err)
	if m.Spec.Power != estate.On || m.Status.Power != estate.On {
		t.Errorf("its machine is wanted %s and is %s, want on", m.Spec.Power, m.Status.Power)
	}
	if len(s.Status.Phases) == 0 || s.Status.Phases[0].Name != "seat" || s.Status.Queue != nil {
		t.Errorf("phases %+v, queue %+v: want the seat's first, and no queue", s.Status.Phases, s.Status.Queue)
	}
	again, err := y.connect(t.Context(), "desk", "ana")
	y.must(err)
	if again.Metadata.Name != s.Metadata.Name {
		t.Errorf("connecting again gave %s, want the same session %s", again.Metadata.Name, s.Metadata.Name)
	}
	y.until("another seat is made ready", func() bool { return y.status("desk").Warm == 1 })
}

func TestAReturnedSeatIsDestroyed(t *testing.T) {
	y := newYard(t, time.Millisecond, 64*estate.GiB)
	y.pool("desk", func(s *estate.PoolSpec) { s.Warm = 1 })
	s, err := y.connect(t.Context(), "desk", "ana")
	y.must(err)
	first := y.ready(s.Metadata.Name).Spec.Desktop
	y.leave(s.Metadata.Name)
	y.until("the seat is gone", func() bool {
		_, err := store.Get[estate.Desktop](t.Context(), y.store, "p", first)
		return errors.Is(err, fault.NotFound)
	})
	s, err = y.connect(t.Context(), "desk", "ana")
	y.must(err)
	if second := y.ready(s.Metadata.Name).Spec.Desktop; second == first {
		t.Errorf("ana got seat %s again after it was returned", second)
	}
	if y.status("desk").Stay == 0 {
		t.Error("how long persons stay should be known after one has left")
	}
}

func TestAKeptSeatWaitsForItsPerson(t *testing.T) {
	y := newYard(t, time.Millisecond, 64*estate.GiB)
	y.pool("desk", func(s *estate.PoolSpec) { s.Keep = estate.Duration(time.Hour) })
	s, err := y.connect(t.Context(), "desk", "ana")
	y.must(err)
	seat := y.ready(s.Metadata.Name).Spec.Desktop
	y.leave(s.Metadata.Name)
	y.until("the session has ended", func() bool { return y.session(s.Metadata.Name).Status.State == estate.SessionEnded })
	back, err := y.connect(t.Context(), "desk", "ana")
	y.must(err)
	if back.Metadata.Name == s.Metadata.Name || back.Spec.Desktop != seat {
		t.Errorf("back on %q with session %s, want another session on %q", back.Spec.Desktop, back.Metadata.Name, seat)
	}
	y.ready(back.Metadata.Name)
}

// disposable has what is written on every seat last as long as a session.
func (y *yard) disposable() {
	y.Helper()
	_, err := store.Modify(y.Context(), y.store, "p", "work", func(x *estate.Context) error {
		x.Spec.Lifetime = estate.Disposable
		return nil
	})
	y.must(err)
}

func TestASeatThatIsThrownAwayWaitsForNobody(t *testing.T) {
	y := newYard(t, time.Millisecond, 64*estate.GiB)
	y.disposable()
	y.pool("desk", func(s *estate.PoolSpec) { s.Keep, s.Warm = estate.Duration(time.Hour), 1 })
	s, err := y.connect(t.Context(), "desk", "ana")
	y.must(err)
	first := y.ready(s.Metadata.Name).Spec.Desktop
	y.leave(s.Metadata.Name)
	fresh, err := y.connect(t.Context(), "desk", "ana") // while the other is still there
	y.must(err)
	if got := y.ready(fresh.Metadata.Name).Spec.Desktop; got == first {
		t.Errorf("ana is on seat %s again after she threw it away", got)
	}
	y.until("the seat is gone, though the pool keeps seats", func() bool {
		_, err := store.Get[estate.Desktop](t.Context(), y.store, "p", first)
		return errors.Is(err, fault.NotFound)
	})
	if got := y.session(fresh.Metadata.Name); got.Status.State != estate.SessionReady {
		t.Errorf("her other session is %s, want it to go on", got.Status.State)
	}
}

func TestASeatIsNotThrownAwayUnderAnotherView(t *testing.T) {
	y := newYard(t, time.Millisecond, 64*estate.GiB)
	y.disposable()
	y.pool("desk", func(*estate.PoolSpec) {})
	at := estate.Ref{Kind: "Pool", Project: "p", Name: "desk"}
	s, err := y.connect(t.Context(), "desk", "ana")
	y.must(err)
	seat := y.ready(s.Metadata.Name).Spec.Desktop
	other, _, err := y.alive().pools.Connect(t.Context(), at, "ana", api.ConnectRequest{Presentation: "screen"})
	y.must(err)
	y.leave(other.Metadata.Name) // the newest; the first goes on
	back, _, err := y.alive().pools.Connect(t.Context(), at, "ana", api.ConnectRequest{Presentation: "screen"})
	y.must(err)
	if back.Spec.Desktop != seat {
		t.Errorf("ana is on %q, want the seat %s that she still looks at", back.Spec.Desktop, seat)
	}
}

func TestSeatsGoInTheOrderOfTheQueueAndWhoHasOneIsLast(t *testing.T) {
	y := newYard(t, time.Millisecond, 64*estate.GiB)
	y.pool("desk", func(s *estate.PoolSpec) { s.Maximum, s.PerPerson = 2, 2 })
	at := estate.Ref{Kind: "Pool", Project: "p", Name: "desk"}
	want := func(person string, another bool) string {
		t.Helper()
		s, _, err := y.alive().pools.Connect(t.Context(), at, person, api.ConnectRequest{Another: another})
		y.must(err)
		return s.Metadata.Name
	}
	ana := want("ana", false)
	y.ready(ana)
	ben := want("ben", false)
	y.ready(ben)
	anasOther := want("ana", true)
	cyd := want("cyd", false)
	dee := want("dee", false)
	places := func() string {
		var all []string
		for _, n := range []string{cyd, dee, anasOther} {
			if q := y.session(n).Status.Queue; q != nil {
				all = append(all, fmt.Sprint(q.Place, " of ", q.Of))
			}
		}
		return strings.Join(all, ", ")
	}
	y.until("three wait in their order", func() bool { return places() == "1 of 3, 2 of 3, 3 of 3" })
	if q := y.session(dee).Status.Queue; q.Expected.Before(time.Now()) {
		t.Errorf("dee can expect a seat at %s, which is past", q.Expected)
	}
	y.leave(ben)
	y.ready(cyd)
	if y.session(dee).Spec.Desktop != "" || y.session(anasOther).Spec.Desktop != "" {
		t.Errorf("one seat came free, and not only cyd got one:\n%s", y.tell())
	}
	if _, _, err := y.alive().pools.Connect(t.Context(), at, "ana", api.ConnectRequest{Another: true}); !errors.Is(err, fault.Denied) {
		t.Errorf("a third seat for ana: got %v, want denied", err)
	}
	y.leave(cyd)
	y.ready(dee)
	y.leave(dee)
	y.ready(anasOther)
}

func TestWhoNoLongerWaitsLeavesTheQueue(t *testing.T) {
	y := newYard(t, time.Millisecond, estate.GiB)
	y.pool("desk", func(s *estate.PoolSpec) { s.Maximum = 5 })
	ana, err := y.connect(t.Context(), "desk", "ana")
	y.must(err)
	y.ready(ana.Metadata.Name)
	ben, err := y.connect(t.Context(), "desk", "ben")
	y.must(err)
	y.until("ben waits, since the host has room for one", func() bool { return y.session(ben.Metadata.Name).Status.Queue != nil })
	y.leave(ben.Metadata.Name)
	y.until("his session has ended", func() bool { return y.session(ben.Metadata.Name).Status.State == estate.SessionEnded })
	cyd, err := y.connect(t.Context(), "desk", "cyd")
	y.must(err)
	y.leave(ana.Metadata.Name)
	y.ready(cyd.Metadata.Name)
}

func TestADeletedPoolTakesItsSeatsAndQueueAlong(t *testing.T) {
	y := newYard(t, time.Millisecond, 2*estate.GiB)
	y.pool("desk", func(s *estate.PoolSpec) { s.Warm = 1 })
	for _, person := range []string{"ana", "ben", "cyd"} {
		_, err := y.connect(t.Context(), "desk", person)
		y.must(err)
	}
	y.until("one waits", func() bool { return y.status("desk").Queue == 1 && y.status("desk").Taken == 2 })
	y.must(y.store.Delete(t.Context(), estate.Ref{Kind: "Pool", Project: "p", Name: "desk"}, 0))
	y.until("everything is gone", func() bool {
		_, err := store.Get[estate.Pool](t.Context(), y.store, "p", "desk")
		return errors.Is(err, fault.NotFound) && len(y.seats()) == 0
	})
}

func TestRefillsWaitForSomebodysStart(t *testing.T) {
	y := newYard(t, time.Hour, 64*estate.GiB) // nothing ever comes up
	y.create("Desktop", "p", "anas", func(r estate.Resource) {
		r.(*estate.Desktop).Spec = estate.DesktopSpec{Blueprint: "task", Person: "ana", Power: estate.On}
	})
	y.create("Session", "p", "anas-1", func(r estate.Resource) {
		s := r.(*estate.Session)
		s.Spec = estate.SessionSpec{Desktop: "anas", Person: "ana"}
		s.Status.State = estate.SessionWaiting
	})
	y.pool("desk", func(s *estate.PoolSpec) { s.Warm = 2 })
	y.until("the pool waits", func() bool { return strings.Contains(y.status("desk").Waiting, "somebody's start comes first") })
	if n := len(y.seats()); n != 1 {
		t.Errorf("there are %d desktops, want ana's alone:\n%s", n, y.tell())
	}
	_, err := store.Modify(t.Context(), y.store, "p", "anas", func(d *estate.Desktop) error { d.Spec.Power = estate.Off; return nil })
	y.must(err)
	y.until("a seat is made once nobody waits", func() bool { return y.status("desk").Making == 1 })
}

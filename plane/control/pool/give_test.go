package pool

import (
	"context"
	"errors"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

// pair is a free seat, and sessions of two persons who wait.
func pair(t *testing.T) (k *Keeper, seat *estate.Desktop, ana, ben *estate.Session) {
	t.Helper()
	s := store.New(mem.Open(mem.Options{}), store.Options{})
	t.Cleanup(func() { s.Close() })
	head := func(kind estate.Kind, name string) estate.Head {
		return estate.Head{APIVersion: estate.APIVersion, Kind: kind, Metadata: estate.Metadata{Name: name, Project: "p"}}
	}
	seat = &estate.Desktop{Head: head("Desktop", "desk-1"), Spec: estate.DesktopSpec{Blueprint: "task", Pool: "desk"}}
	ana = &estate.Session{Head: head("Session", "a"), Spec: estate.SessionSpec{Pool: "desk", Person: "ana"}}
	ben = &estate.Session{Head: head("Session", "b"), Spec: estate.SessionSpec{Pool: "desk", Person: "ben"}}
	if err := s.Commit(t.Context(), store.Create(seat), store.Create(ana), store.Create(ben)); err != nil {
		t.Fatal(err)
	}
	return &Keeper{Store: s, Now: time.Now}, seat, ana, ben
}

func get[T any](t *testing.T, k *Keeper, name string) *T {
	t.Helper()
	v, err := store.Get[T](t.Context(), k.Store, "p", name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestASeatThatWasGivenMeanwhileIsNotGivenAgain(t *testing.T) {
	k, seat, ana, ben := pair(t)
	late := get[estate.Desktop](t, k, "desk-1") // another plane has seen it free
	if err := k.give(t.Context(), new(estate.Pool), []gift{{ana, seat}}); err != nil {
		t.Fatal(err)
	}
	if err := k.give(t.Context(), new(estate.Pool), []gift{{ben, late}}); !errors.Is(err, fault.Conflict) {
		t.Errorf("the seat of ana given to ben: got %v, want a conflict", err)
	}
	if d := get[estate.Desktop](t, k, "desk-1"); d.Spec.Person != "ana" {
		t.Errorf("the seat is %q's", d.Spec.Person)
	}
	if s := get[estate.Session](t, k, "b"); s.Spec.Desktop != "" {
		t.Errorf("ben's session leads to %s", s.Spec.Desktop)
	}
}

func TestAPersonWhoLeftMeanwhileGetsNoSeat(t *testing.T) {
	k, seat, ana, _ := pair(t)
	if _, err := store.Modify(t.Context(), k.Store, "p", "a", func(s *estate.Session) error { s.Spec.End = true; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := k.give(t.Context(), new(estate.Pool), []gift{{ana, seat}}); !errors.Is(err, fault.Conflict) {
		t.Errorf("a seat for who has left: got %v, want a conflict", err)
	}
	if d := get[estate.Desktop](t, k, "desk-1"); !d.Free() {
		t.Errorf("the seat is %q's", d.Spec.Person)
	}
}

func TestASeatThatItsPersonCameBackToIsNotDestroyed(t *testing.T) {
	k, seat, ana, _ := pair(t)
	if err := k.give(t.Context(), new(estate.Pool), []gift{{ana, seat}}); err != nil {
		t.Fatal(err)
	}
	seen := get[estate.Desktop](t, k, "desk-1") // as a look saw it, whose session had ended
	if _, err := store.Modify(t.Context(), k.Store, "p", "desk-1", func(d *estate.Desktop) error { d.Status.Visits++; return nil }); err != nil {
		t.Fatal(err)
	}
	v := &view{pool: &estate.Pool{Head: estate.Head{Kind: "Pool", Metadata: estate.Metadata{Name: "desk", Project: "p"}}}}
	if err := k.destroy(context.Background(), v, seen, "Returned", ""); !errors.Is(err, fault.Conflict) {
		t.Errorf("destroying it: got %v, want a conflict", err)
	}
	if d := get[estate.Desktop](t, k, "desk-1"); !d.Metadata.Deleting.IsZero() {
		t.Error("it is being destroyed")
	}
}

func TestTwoPlanesTogetherMakeNoMoreSeatsThanThereMayBe(t *testing.T) {
	k, _, ana, ben := pair(t)
	p := &estate.Pool{Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Pool", Metadata: estate.Metadata{Name: "desk", Project: "p"}}}
	if err := k.Store.Create(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	late := get[estate.Pool](t, k, "desk") // another plane has counted the seats
	seat := func(name string) *estate.Desktop {
		return &estate.Desktop{Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Desktop", Metadata: estate.Metadata{Name: name, Project: "p"}}}
	}
	if err := k.give(t.Context(), p, []gift{{ana, seat("last")}}); err != nil {
		t.Fatal(err)
	}
	if err := k.give(t.Context(), late, []gift{{ben, seat("one-more")}}); !errors.Is(err, fault.Conflict) {
		t.Errorf("one more seat by who has not seen the last: got %v, want a conflict", err)
	}
}

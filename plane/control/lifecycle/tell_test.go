package lifecycle

import (
	"slices"
	"strings"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/plane/store"
)

// told waits until as many events on desktop d as wanted have the reasons
// wanted, and returns them in the order of their times.
func (w *world) told(reasons ...string) []*estate.Event {
	w.Helper()
	slices.Sort(reasons)
	var all []*estate.Event
	until(w, "d", "telling of "+strings.Join(reasons, ", "), func(*estate.Desktop) bool {
		var got []string
		all = w.events()
		for _, e := range all {
			got = append(got, e.Spec.Reason)
		}
		slices.Sort(got)
		return slices.Equal(got, reasons)
	})
	return all
}

func (w *world) events() []*estate.Event {
	w.Helper()
	all, _, err := store.List[estate.Event](w.Context(), w.s, "p")
	if err != nil {
		w.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(e *estate.Event) bool { return e.Spec.On.Kind != "Desktop" || e.Spec.On.Name != "d" })
	slices.SortFunc(all, func(a, b *estate.Event) int { return a.Spec.At.Compare(b.Spec.At) })
	return all
}

// says fails unless one event of the reason has the text in it.
func says(w *world, all []*estate.Event, reason, text string, bad bool) {
	w.Helper()
	for _, e := range all {
		if e.Spec.Reason == reason && strings.Contains(e.Spec.Text, text) && e.Spec.Bad == bad {
			return
		}
	}
	for _, e := range all {
		w.Logf("%s bad=%v: %s", e.Spec.Reason, e.Spec.Bad, e.Spec.Text)
	}
	w.Errorf("no event %s says %q with bad=%v", reason, text, bad)
}

func TestADesktopsWayIsToldOnceAStep(t *testing.T) {
	w := newWorld(t)
	w.desktop("d")
	w.runs("d")
	says(w, w.told("MachineMade", "Starting", "Running"), "MachineMade", "machine d is made, from image aaaaaaaaaaaa", false)
	// Many looks at the same state tell nothing.
	for _, title := range []string{"one", "two", "three"} {
		change(w, "d", func(d *estate.Desktop) { d.Spec.Title = title })
		until(w, "d", "seeing the change", func(d *estate.Desktop) bool { return d.Status.Observed == d.Metadata.Generation })
	}
	w.told("MachineMade", "Starting", "Running")
	change(w, "d", func(d *estate.Desktop) { d.Spec.Power = estate.Off })
	w.stops("d")
	w.told("MachineMade", "Starting", "Running", "Stopping", "Off")
	// It did run twice within ten minutes, and that is told.
	change(w, "d", func(d *estate.Desktop) { d.Spec.Power = estate.On })
	w.runs("d")
	all := w.told("MachineMade", "Starting", "Running", "Stopping", "Off", "Starting", "Running")
	if last := all[len(all)-1].Spec; last.Reason != "Running" || last.By != "lifecycle" {
		t.Errorf("the last event is %+v, want Running", last)
	}
}

func TestADesktopThatCannotBeComposedIsToldAsBad(t *testing.T) {
	w := newWorld(t)
	change(w, "office", func(b *estate.Blueprint) { b.Spec.Presentation = "telepathy" })
	w.desktop("d")
	says(w, w.told("Blocked"), "Blocked", "there is no presentation telepathy", true)
}

func TestTheEndOfASessionIsToldWithItsReason(t *testing.T) {
	w := newWorld(t)
	w.desktop("d")
	w.runs("d")
	for _, name := range []string{"by-lifecycle", "by-gateway"} {
		w.create("Session", "p", name, func(r estate.Resource) {
			r.(*estate.Session).Spec = estate.SessionSpec{Desktop: "d", Person: "ana"}
		})
		until(w, name, "ready", func(s *estate.Session) bool { return s.Status.State == estate.SessionReady })
	}
	change(w, "by-lifecycle", func(s *estate.Session) { s.Spec.End = true })
	change(w, "by-gateway", func(s *estate.Session) {
		s.Spec.End, s.Status.State, s.Status.Ended, s.Status.Because = true, estate.SessionEnded, s.Metadata.Created, "It was ended."
	})
	all := w.told("MachineMade", "Starting", "Running", "SessionEnded", "SessionEnded")
	says(w, all, "SessionEnded", "session by-lifecycle of ana ended: it was closed", false)
	says(w, all, "SessionEnded", "session by-gateway of ana ended: It was ended", false)
}

func TestAResetIsTold(t *testing.T) {
	w := newWorld(t)
	w.desktop("d")
	w.runs("d")
	change(w, "d", func(d *estate.Desktop) { d.Spec.Resets++ })
	all := w.told("MachineMade", "Starting", "Running", "Reset", "Stopping")
	says(w, all, "Reset", "machine d goes: a reset was asked for", false)
	w.letGo("d")
	w.runs("d")
	w.told("MachineMade", "Starting", "Running", "Reset", "Stopping", "MachineMade", "Starting", "Running")
}

func TestAnotherImageIsAnnouncedThenSwapped(t *testing.T) {
	w := newWorld(t)
	w.desktop("d")
	w.runs("d")
	change(w, "office", func(b *estate.Blueprint) { b.Spec.Image = "two" })
	swap := "image: aaaaaaaaaaaa becomes bbbbbbbbbbbb; at the next start, with a fresh system disk"
	says(w, w.told("MachineMade", "Starting", "Running", "ChangeAnnounced"), "ChangeAnnounced", swap, false)
	change(w, "d", func(d *estate.Desktop) { d.Spec.Power = estate.Off })
	w.stops("d")
	until(w, "d", "telling of the swap", func(*estate.Machine) bool {
		return slices.ContainsFunc(w.events(), func(e *estate.Event) bool { return e.Spec.Reason == "MachineReplaced" })
	})
	says(w, w.events(), "MachineReplaced", swap, false)
}

func TestADeletedDesktopsMachineIsTold(t *testing.T) {
	w := newWorld(t)
	w.desktop("d")
	w.runs("d")
	if err := w.s.Delete(t.Context(), estate.Ref{Kind: "Desktop", Project: "p", Name: "d"}, 0); err != nil {
		t.Fatal(err)
	}
	says(w, w.told("MachineMade", "Starting", "Running", "MachineRemoved"), "MachineRemoved", "the desktop was deleted", false)
}

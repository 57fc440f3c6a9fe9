package control

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

// recording is a recorder over an empty store, and its clock.
func recording(t *testing.T) (*Recorder, *time.Time, *bytes.Buffer) {
	s := store.New(mem.Open(mem.Options{}), store.Options{})
	t.Cleanup(func() { s.Close() })
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	log := &bytes.Buffer{}
	return &Recorder{Store: s, Now: func() time.Time { return now }, By: "tests", Log: slog.New(slog.NewTextHandler(log, nil))}, &now, log
}

func told(t *testing.T, r *Recorder) []*estate.Event {
	t.Helper()
	all, _, err := store.List[estate.Event](t.Context(), r.Store, "")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAnEventSaysWhatHappenedToWhat(t *testing.T) {
	r, now, _ := recording(t)
	r.Tell(t.Context(), Happening{On: one, Reason: "Running", Text: "it runs", Bad: true})
	all := told(t, r)
	if len(all) != 1 {
		t.Fatalf("got %d events, want 1", len(all))
	}
	e := all[0]
	if want := (estate.EventSpec{On: one, At: *now, By: "tests", Reason: "Running", Text: "it runs", Bad: true}); e.Spec != want {
		t.Errorf("got %+v, want %+v", e.Spec, want)
	}
	if e.Metadata.Project != "p" || !strings.HasPrefix(e.Metadata.Name, "desktop-one-20260102t030405-") {
		t.Errorf("got %s", e.Ref())
	}
	if ps := estate.Check(e); len(ps) > 0 {
		t.Errorf("it breaks rules: %v", ps)
	}
}

func TestTheSameWordIsNotWrittenTwiceWithinTenMinutes(t *testing.T) {
	r, now, _ := recording(t)
	begun := *now
	for i, c := range []struct {
		after time.Duration
		h     Happening
		want  int
	}{
		{0, Happening{On: one, Text: "runs"}, 1},
		{9 * time.Minute, Happening{On: one, Text: "runs"}, 1},
		{9 * time.Minute, Happening{On: two, Text: "runs"}, 2},
		{9 * time.Minute, Happening{On: one, Of: "session", Text: "runs"}, 3},
		{9 * time.Minute, Happening{On: one, Text: "is off"}, 4},
		{9 * time.Minute, Happening{On: one, Text: "runs"}, 5}, // it did happen again
		{18 * time.Minute, Happening{On: one, Text: "runs"}, 5},
		{19 * time.Minute, Happening{On: one, Text: "runs"}, 6},
	} {
		*now = begun.Add(c.after)
		r.Tell(t.Context(), c.h)
		if got := len(told(t, r)); got != c.want {
			t.Errorf("step %d, after %s: %d events, want %d", i, c.after, got, c.want)
		}
	}
}

func TestEventsOnTheWholeEstateAreInTheFirstProject(t *testing.T) {
	r, _, _ := recording(t)
	r.Tell(t.Context(), Happening{On: estate.Ref{Kind: "Hypervisor", Name: "h"}, Text: "it is lost"})
	if all := told(t, r); len(all) != 1 || all[0].Metadata.Project != "default" {
		t.Errorf("got %+v", all)
	}
}

func TestALongNameStillMakesAnEvent(t *testing.T) {
	r, _, _ := recording(t)
	on := estate.Ref{Kind: "Application", Project: "p", Name: strings.Repeat("a", 62) + "b"}
	r.Tell(t.Context(), Happening{On: on, Text: "it is there"})
	if all := told(t, r); len(all) != 1 || all[0].Spec.On != on {
		t.Errorf("got %+v", all)
	}
}

func TestAnEventThatCannotBeWrittenIsLoggedAndToldAgain(t *testing.T) {
	r, _, log := recording(t)
	h := Happening{On: one, Reason: "Running", Text: "it runs"}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.Tell(ctx, h)
	if !strings.Contains(log.String(), "write an event") {
		t.Errorf("the log has %q", log)
	}
	r.Tell(t.Context(), h)
	if got := len(told(t, r)); got != 1 {
		t.Errorf("got %d events, want the one told again", got)
	}
}

func TestNobodyHasToRecord(t *testing.T) {
	var r *Recorder
	r.Tell(t.Context(), Happening{On: one, Text: "it runs"}) // does not panic
}

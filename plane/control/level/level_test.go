package level_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/control/level"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

// world is an estate whose agents and mover a test plays, on fake time.
type world struct {
	*testing.T
	store *store.Store
	begun []*estate.Operation

	mu     sync.Mutex
	cannot map[string]string // what stands against a host
}

// against says what stands against hosts from now on.
func (w *world) against(cannot map[string]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cannot = cannot
}

// Begin implements level.Moves.
func (w *world) Begin(ctx context.Context, ref estate.Ref, req api.MoveRequest, by string) (*api.MoveReply, error) {
	reply := &api.MoveReply{To: req.To}
	w.mu.Lock()
	why := w.cannot[req.To]
	w.mu.Unlock()
	if why != "" {
		reply.Obstacles = []string{why}
	}
	switch {
	case req.DryRun:
		return reply, nil
	case len(reply.Obstacles) > 0:
		return nil, fault.Conflict.Errorf("%s", reply.Obstacles[0])
	}
	op := &estate.Operation{Head: head("Operation", fmt.Sprint("move-", len(w.begun))), Spec: estate.OperationSpec{
		Verb: estate.VerbMove, On: estate.Ref{Kind: "Machine", Project: "p", Name: ref.Name}, By: by, Why: req.Why, Move: &estate.MoveOrder{To: req.To}},
		Status: estate.OperationStatus{State: estate.OperationRunning}}
	w.begun = append(w.begun, op)
	return reply, w.store.Create(ctx, op)
}

func head(kind estate.Kind, name string) estate.Head {
	return estate.Head{APIVersion: estate.APIVersion, Kind: kind, Metadata: estate.Metadata{Name: name, Project: "p"}}
}

// newWorld has desktops ana and bea slow on alder, and cid quick on birch.
func newWorld(t *testing.T, mode estate.Mode) *world {
	w := &world{T: t, store: store.New(mem.Open(mem.Options{Now: time.Now}), store.Options{}), cannot: map[string]string{}}
	k := &level.Keeper{Store: w.store, Moves: w, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	for _, name := range []string{"alder", "birch", "cedar"} {
		h := &estate.Hypervisor{Head: head("Hypervisor", name)}
		h.Metadata.Project = ""
		w.must(w.store.Create(t.Context(), h))
	}
	w.must(w.store.Create(t.Context(), &estate.ServiceLevel{Head: head("ServiceLevel", "quick"), Spec: estate.ServiceLevelSpec{
		Application: "editor", Mode: mode, Level: estate.Level{Start: &estate.Startup{Within: estate.Duration(5 * time.Second)}, Target: 900_000},
	}}))
	for _, name := range []string{"ana", "bea", "cid"} {
		on := estate.Ref{Kind: "Desktop", Project: "p", Name: name}
		m := &estate.Machine{Head: head("Machine", name), Spec: estate.MachineSpec{Hypervisor: "alder", Layers: []estate.Layer{{Application: "editor"}}}}
		m.Metadata.Owner = &on
		if name == "cid" {
			m.Spec.Hypervisor = "birch"
		}
		w.must(w.store.Create(t.Context(), m))
		w.must(w.store.Create(t.Context(), &estate.Desktop{Head: head("Desktop", name), Spec: estate.DesktopSpec{Blueprint: "office"}, Status: estate.DesktopStatus{Machine: name}}))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = k.Loop().Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; w.store.Close() })
	w.starts("cid", 2, 2, 2)
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// starts plays an agent: the editor is started so often, an hour apart.
func (w *world) starts(machine string, seconds ...int) {
	w.Helper()
	for _, s := range seconds {
		time.Sleep(time.Hour)
		w.must(w.change(machine, func(m *estate.Machine) {
			m.Status.Launches = append(m.Status.Launches, estate.Launch{Application: "editor", Hypervisor: m.Spec.Hypervisor, At: time.Now().UTC(),
				Took: estate.Duration(time.Duration(s) * time.Second)})
		}))
	}
	w.wait()
}

func (w *world) change(machine string, f func(*estate.Machine)) error {
	_, err := store.Modify(w.Context(), w.store, "p", machine, func(m *estate.Machine) error { f(m); return nil })
	return err
}

// wait lets everything be looked at that is looked at now and then.
func (w *world) wait() {
	time.Sleep(2 * time.Minute)
	synctest.Wait()
}

// ends plays the mover.
func (w *world) ends(op *estate.Operation, state estate.OperationState, why string) {
	w.Helper()
	_, err := store.Modify(w.Context(), w.store, "p", op.Metadata.Name, func(o *estate.Operation) error {
		o.Status.State, o.Status.Error, o.Status.Ended = state, why, time.Now().UTC()
		return nil
	})
	w.must(err)
	if state == estate.OperationDone {
		w.must(w.change(op.Spec.On.Name, func(m *estate.Machine) { m.Spec.Hypervisor = op.Spec.Move.To }))
	}
	w.wait()
}

// about returns the decisions about a desktop, the oldest first.
func (w *world) about(desktop string) []*estate.Decision {
	w.Helper()
	all, _, err := store.List[estate.Decision](w.Context(), w.store, "p")
	w.must(err)
	all = slices.DeleteFunc(all, func(d *estate.Decision) bool { return d.Spec.On.Name != desktop })
	slices.SortFunc(all, func(a, b *estate.Decision) int { return a.Spec.At.Compare(b.Spec.At) })
	return all
}

// last is the last decision about a desktop, which must be in the state.
func (w *world) last(desktop string, state estate.DecisionState) *estate.Decision {
	w.Helper()
	all := w.about(desktop)
	if len(all) == 0 || all[len(all)-1].Status.State != state {
		for _, d := range all {
			w.Logf("%s: %+v", d.Spec.Say, d.Status)
		}
		w.Fatalf("%d decisions about %s, want the last to be %s", len(all), desktop, state)
	}
	return all[len(all)-1]
}

func TestModesSayHowFarADecisionGoes(t *testing.T) {
	for mode, want := range map[estate.Mode]estate.DecisionState{
		estate.Observe: estate.Observed, estate.Recommend: estate.Proposed, "": estate.Proposed, estate.Approve: estate.Proposed, estate.Auto: estate.Doing,
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, mode)
			w.starts("ana", 9, 9, 9)
			d := w.last("ana", want)
			if begun := len(w.begun); (begun == 1) != (want == estate.Doing) || d.Spec.Target != "birch" {
				t.Errorf("mode %q: %d moves were begun, to %s", mode, begun, d.Spec.Target)
			}
			if want != estate.Proposed {
				return
			}
			d.Status.State = estate.Approved
			w.must(w.store.Update(t.Context(), d))
			w.wait()
			if w.last("ana", estate.Doing); len(w.begun) != 1 || w.begun[0].Spec.Why != d.Spec.Say {
				t.Errorf("mode %q: %d moves were begun once somebody agreed, want 1", mode, len(w.begun))
			}
		})
	}
}

func TestOneDesktopOfAHostAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, estate.Auto)
		w.starts("ana", 9, 9, 9)
		w.starts("bea", 9, 9, 9)
		w.last("ana", estate.Doing)
		if n := len(w.about("bea")); n != 0 {
			t.Fatalf("%d decisions about bea while ana leaves the same host, want none", n)
		}
		w.ends(w.begun[0], estate.OperationDone, "")
		w.last("ana", estate.Done)
		w.last("bea", estate.Doing)
	})
}

func TestNobodyIsMovedWhileTheyWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, estate.Approve)
		session := &estate.Session{Head: head("Session", "s"), Spec: estate.SessionSpec{Desktop: "ana", Person: "ana"}, Status: estate.SessionStatus{State: estate.SessionOpen}}
		w.must(w.store.Create(t.Context(), session))
		w.starts("ana", 9, 9, 9)
		if n := len(w.about("ana")); n != 0 {
			t.Fatalf("%d decisions while somebody works, want none", n)
		}
		w.must(w.store.Delete(t.Context(), session.Ref(), 0))
		w.wait()
		d := w.last("ana", estate.Proposed)
		w.must(w.store.Create(t.Context(), &estate.Session{Head: head("Session", "s"), Spec: session.Spec, Status: session.Status}))
		d.Status.State = estate.Approved
		w.must(w.store.Update(t.Context(), d))
		w.wait()
		if d = w.last("ana", estate.Approved); len(w.begun) != 0 || !strings.Contains(d.Status.Waiting, "somebody works") {
			t.Fatalf("%d moves were begun while somebody works; it waits for %q", len(w.begun), d.Status.Waiting)
		}
		w.must(w.store.Delete(t.Context(), session.Ref(), 0))
		w.wait()
		w.last("ana", estate.Doing)
	})
}

func TestAMoveInVainIsRegretted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, estate.Auto)
		w.starts("ana", 9, 9, 9)
		w.ends(w.begun[0], estate.OperationDone, "")
		w.starts("cid", 9, 9, 9) // the new one is no better for others
		for range 3 {
			w.must(w.change("cid", func(m *estate.Machine) { m.Spec.Hypervisor = "cedar" }))
			w.starts("cid", 1) // a third host is known to be good
		}
		w.starts("ana", 9, 9, 9)
		d := w.last("ana", estate.Done)
		if d.Status.Outcome == nil || d.Status.Outcome.Met || !strings.Contains(d.Status.Outcome.Say, "3 of the last 3 starts") {
			t.Fatalf("it came to %+v, want 3 of 3 late starts", d.Status.Outcome)
		}
		time.Sleep(10 * time.Hour)
		if w.wait(); len(w.begun) != 1 {
			t.Fatalf("%d moves within a day of one in vain, want 1", len(w.begun))
		}
		time.Sleep(24 * time.Hour)
		w.wait()
		if w.last("ana", estate.Doing); len(w.begun) != 2 || w.begun[1].Spec.Move.To != "cedar" {
			t.Errorf("%d moves a day later, want a second, to cedar: it left alder, and is on birch", len(w.begun))
		}
	})
}

func TestAMoveThatFailsIsWithdrawnAndNotRepeatedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, estate.Auto)
		w.starts("ana", 9, 9, 9)
		w.ends(w.begun[0], estate.OperationFailed, "the disk was full")
		if d := w.last("ana", estate.Withdrawn); d.Status.Outcome == nil || d.Status.Outcome.Say != "the disk was full" {
			t.Errorf("it came to %+v", d.Status.Outcome)
		}
		if w.wait(); len(w.begun) != 1 {
			t.Errorf("%d moves at once, want 1", len(w.begun))
		}
	})
}

func TestADecisionIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, estate.Auto)
		w.starts("ana", 9, 9, 9)
		w.ends(w.begun[0], estate.OperationDone, "")
		d := w.last("ana", estate.Done)
		d.Status.Undo = "ada"
		w.must(w.store.Update(t.Context(), d))
		w.wait()
		if w.last("ana", estate.Undone); len(w.begun) != 2 || w.begun[1].Spec.Move.To != "alder" {
			t.Fatalf("%d moves, want one back to alder", len(w.begun))
		}
		w.ends(w.begun[1], estate.OperationDone, "")
		w.starts("ana", 9, 9, 9)
		if len(w.begun) != 2 {
			t.Errorf("%d moves: it went to where somebody brought it back from", len(w.begun))
		}
		time.Sleep(48 * time.Hour)
		w.starts("ana", 9)
		if len(w.begun) != 2 {
			t.Errorf("%d moves two days later: it went to where somebody brought it back from", len(w.begun))
		}
	})
}

func TestObstaclesAreAlternatives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, estate.Auto)
		w.against(map[string]string{"birch": "birch is being drained and takes nothing new"})
		w.starts("ana", 9, 9, 9)
		if n := len(w.about("ana")); n != 0 {
			t.Fatalf("%d decisions with nowhere to go, want none", n)
		}
		w.against(map[string]string{"cedar": "cedar cannot do transfer"})
		w.wait()
		d := w.last("ana", estate.Doing)
		if !slices.ContainsFunc(d.Spec.Alternatives, func(a estate.Alternative) bool { return a.On == "cedar" && a.Not == "cedar cannot do transfer" }) {
			t.Errorf("alternatives are %+v, want what stands against cedar", d.Spec.Alternatives)
		}
	})
}

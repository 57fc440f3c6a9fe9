package scale_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/front"
	"consort.dev/consort/plane/control/scale"
	"consort.dev/consort/plane/fronts"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

var shop = estate.Ref{Kind: "Service", Project: "p", Name: "shop"}

// each is how many requests a second one replica bears; a request that comes
// beyond that is bad.
const each = 50

// world is a service on a clock of its own: replicas that come and go as the
// service's status wants, requests that they answer, and a scaler that may be
// killed at any of its writes.
type world struct {
	*testing.T
	store  *store.Store
	now    time.Time
	rate   float64  // requests/s
	slow   string   // the machine that needs five times as long
	out    string   // the machine that the front leaves out
	dead   []string // machines on which the application died
	leave  bool     // nobody waits for an answer that is late
	sight  fronts.Sight
	scaler *scale.Scaler
	writes *mortal // of the scaler
}

func newWorld(t *testing.T, mode estate.Mode) *world {
	w := &world{T: t, now: time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC), rate: 20}
	kv := mem.Open(mem.Options{})
	w.store = store.New(kv, store.Options{Now: w.clock})
	t.Cleanup(func() { w.store.Close() })
	w.writes = &mortal{KV: kv}
	w.sight.Began = w.now
	w.sight.Objectives = []front.Count{{Objective: "fast"}}
	s := &estate.Service{Spec: estate.ServiceSpec{
		Image: "i", Context: "c", Port: 80, Applications: []estate.ApplicationChoice{{Name: "a"}}, Front: estate.FrontSpec{Port: 8080},
		Scale: estate.Scale{Least: 2, Most: 12, Mode: mode, Guess: 40},
		Levels: []estate.NamedLevel{{Name: "fast", Level: estate.Level{
			Response: &estate.Response{Within: estate.Duration(100 * time.Millisecond)}, Target: 990_000,
		}}},
	}}
	s.Head = estate.Head{APIVersion: estate.APIVersion, Kind: "Service", Metadata: estate.Metadata{Name: "shop", Project: "p"}}
	s.Status.Revisions, s.Status.Wanted, s.Status.Boot = []estate.Revision{{Number: 1}}, 2, estate.Duration(20*time.Second)
	w.must(w.store.Create(t.Context(), s))
	w.revive()
	return w
}

func (w *world) clock() time.Time { return w.now }

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// revive starts a scaler that knows only what is stored.
func (w *world) revive() {
	w.writes.left = 0
	w.scaler = &scale.Scaler{
		Store: store.New(w.writes, store.Options{Now: w.clock}), Now: w.clock, Log: slog.New(slog.DiscardHandler),
		Figures: func(estate.Ref) (fronts.Sight, bool) {
			s := w.sight
			s.Replicas = slices.Clone(s.Replicas)
			for i := range s.Replicas {
				s.Replicas[i].Tally.Counts = slices.Clone(s.Replicas[i].Tally.Counts)
			}
			s.Objectives, s.Series = slices.Clone(s.Objectives), slices.Clone(s.Series)
			return s, true
		},
	}
}

// tick lets five seconds go by: the replicas answer and come and go, and the
// scaler looks as often as it asks to.
func (w *world) tick() {
	w.Helper()
	w.now = w.now.Add(5 * time.Second)
	w.serve(5)
	w.keep()
	for range 4 {
		again, err := w.scaler.Loop().Step(w.Context(), shop)
		switch {
		case errors.Is(err, errKilled):
			w.revive()
		case errors.Is(err, fault.Conflict):
		case err != nil:
			w.Fatal(err)
		}
		if err == nil && again <= 0 {
			w.Fatal("a service that nobody looks at again")
		}
	}
}

// keep is what the keeper of services does.
func (w *world) keep() {
	_, err := store.Modify(w.Context(), w.store, "p", "shop", func(s *estate.Service) error {
		st := &s.Status
		st.Replicas = slices.DeleteFunc(st.Replicas, func(r estate.Replica) bool { return r.State == estate.ReplicaLeaving })
		stay := 0
		for i := range st.Replicas {
			r := &st.Replicas[i]
			if w.now.Sub(r.Made) >= 20*time.Second {
				r.State = estate.ReplicaReady
			}
			if r.Instead == "" {
				stay++
			}
		}
		add := func(instead string) {
			st.Made++
			st.Replicas = append(st.Replicas, estate.Replica{
				Machine: fmt.Sprintf("shop-%d", st.Made), Revision: 1, State: estate.ReplicaStarting, Made: w.now, Instead: instead,
			})
		}
		for ; stay < st.Wanted; stay++ {
			add("")
		}
		for i := range st.Replicas {
			if !st.Replicas[i].Replace {
				continue
			}
			j := slices.IndexFunc(st.Replicas, func(r estate.Replica) bool { return r.Instead == st.Replicas[i].Machine })
			if j < 0 {
				add(st.Replicas[i].Machine)
			} else if st.Replicas[j].State == estate.ReplicaReady {
				st.Replicas[i].State, st.Replicas[j].Instead = estate.ReplicaLeaving, ""
			}
		}
		st.Ready = 0
		for _, r := range st.Replicas {
			if r.State == estate.ReplicaReady {
				st.Ready++
			}
		}
		return nil
	})
	w.must(err)
}

// serve has the ready replicas answer what comes in so many seconds.
func (w *world) serve(seconds float64) {
	var ready []string
	for _, r := range w.service().Status.Replicas {
		if r.State == estate.ReplicaReady {
			ready = append(ready, r.Machine)
		}
	}
	w.sight.Replicas = slices.DeleteFunc(w.sight.Replicas, func(st front.Standing) bool { return !slices.Contains(ready, st.Name) })
	w.sight.Quick = 10 * time.Millisecond
	for _, name := range ready {
		i := slices.IndexFunc(w.sight.Replicas, func(st front.Standing) bool { return st.Name == name })
		if i < 0 {
			i = len(w.sight.Replicas)
			w.sight.Replicas = append(w.sight.Replicas, front.Standing{Name: name, State: front.Ready, Tally: front.Tally{Counts: []front.Count{{Objective: "fast"}}}})
		}
		w.sight.Replicas[i].State, w.sight.Replicas[i].Because = front.Ready, ""
		if name == w.out {
			w.sight.Replicas[i].State, w.sight.Replicas[i].Because = front.Out, "it answers with errors"
			continue
		}
		n := int64(w.rate * seconds / float64(len(ready)))
		if slices.Contains(w.dead, name) {
			w.sight.Replicas[i].State, w.sight.Replicas[i].Because = front.Unready, "its probe fails: connection refused"
			w.sight.Series[0].Count += n // and no answer
			continue
		}
		load := w.rate / float64(len(ready)) / each
		bad, took := int64(0), time.Duration(float64(10*time.Millisecond)/(1-min(load*.9, .9)))
		if load > 1 {
			bad = int64(float64(n) * (load - 1) / load)
		}
		if name == w.slow {
			took, bad = 5*took, n/20
		}
		t := &w.sight.Replicas[i].Tally
		t.Answered += n
		if w.leave {
			t.Answered -= bad
		}
		t.Time += time.Duration(n) * took
		t.Counts[0].Total += n
		t.Counts[0].Good += n - bad
		w.sight.Objectives[0].Total += n
		w.sight.Objectives[0].Good += n - bad
		if len(w.sight.Series) == 0 {
			w.sight.Series = []front.Series{{}}
		}
		w.sight.Series[0].Count += n
	}
}

func (w *world) service() *estate.Service {
	w.Helper()
	s, err := store.Get[estate.Service](w.Context(), w.store, "p", "shop")
	w.must(err)
	return s
}

func (w *world) decisions() []*estate.Decision {
	w.Helper()
	all, _, err := store.List[estate.Decision](w.Context(), w.store, "p")
	w.must(err)
	return all
}

func (w *world) tell() string {
	var b strings.Builder
	for _, d := range w.decisions() {
		fmt.Fprintf(&b, "%s %s %d to %d %s %+v: %s\n", d.Metadata.Name, d.Spec.Act, d.Spec.From, d.Spec.To, d.Status.State, d.Status.Outcome, d.Spec.Say)
	}
	s := w.service()
	fmt.Fprintf(&b, "wanted %d ready %d %+v\n", s.Status.Wanted, s.Status.Ready, s.Status.Levels)
	return b.String()
}

// acts returns the decisions to do so that were carried out.
func (w *world) acts(act string) (all []*estate.Decision) {
	for _, d := range w.decisions() {
		if d.Spec.Act == act && (d.Status.State == estate.Doing || d.Status.State == estate.Done) {
			all = append(all, d)
		}
	}
	return all
}

// minutes lets so many minutes go by.
func (w *world) minutes(n int) {
	for range n * 12 {
		w.tick()
	}
}

func TestAServiceGrowsBeforeItsLevelBreaksAndShrinksAfter(t *testing.T) {
	w := newWorld(t, estate.Auto)
	w.minutes(10)
	for w.rate < 200 {
		w.rate *= 1.06
		w.tick()
	}
	w.minutes(5)
	if n := w.service().Status.Ready; n < 4 || len(w.acts("out")) == 0 {
		t.Fatalf("%d replicas answer %.0f requests/s, want at least 4, by decisions:\n%s", n, w.rate, w.tell())
	}
	w.rate = 20
	w.minutes(60)
	if n := w.service().Status.Ready; n > 3 || len(w.acts("in")) == 0 {
		t.Fatalf("%d replicas are left for %.0f requests/s, want at most 3, by decisions:\n%s", n, w.rate, w.tell())
	}
	l := w.service().Status.Levels
	if len(l) != 1 || l[0].State != estate.Kept || l[0].Total != w.sight.Objectives[0].Total {
		t.Errorf("levels %+v, want one that is kept with all %d requests", l, w.sight.Objectives[0].Total)
	}
	w.everythingIsExplained()
}

func TestOneSlowReplicaAloneIsReplaced(t *testing.T) {
	w := newWorld(t, estate.Auto)
	w.minutes(5)
	for w.rate < 200 {
		w.rate *= 1.06
		w.tick()
	}
	w.minutes(15)
	before := len(w.acts("replace"))
	w.slow = w.service().Status.Replicas[1].Machine
	w.minutes(10)
	replaced := w.acts("replace")[before:]
	if len(replaced) != 1 || !slices.Equal(replaced[0].Spec.Gone, []string{w.slow}) {
		t.Fatalf("replaced: %+v, want %s once:\n%s", replaced, w.slow, w.tell())
	}
	for _, r := range w.service().Status.Replicas {
		if r.Machine == w.slow {
			t.Errorf("%s is still there", w.slow)
		}
	}
	w.everythingIsExplained()
}

// TestWhoLeavesIsCountedOnce: clients who leave after the bound are bad requests
// without an answer, and no share of them is above the whole.
func TestWhoLeavesIsCountedOnce(t *testing.T) {
	w := newWorld(t, estate.Auto)
	w.rate, w.leave = 2*each*10, true
	w.minutes(2)
	all := w.decisions()
	if len(all) == 0 {
		t.Fatal("nothing was decided while nine in ten left")
	}
	for _, d := range all {
		for _, f := range d.Spec.Evidence {
			if f.Unit == "%" && strings.HasPrefix(f.Name, "bad") && f.Value > 100 {
				t.Errorf("%s: %s are %.1f %%", d.Spec.Say, f.Name, f.Value)
			}
		}
	}
}

// TestAReplicaThatItsFrontLeavesOutIsReplaced: one that gets no requests looks no
// worse than its equals, however bad it is.
func TestAReplicaThatItsFrontLeavesOutIsReplaced(t *testing.T) {
	w := newWorld(t, estate.Auto)
	w.minutes(5)
	w.out = w.service().Status.Replicas[0].Machine
	w.minutes(3)
	replaced := w.acts("replace")
	if len(replaced) != 1 || !slices.Equal(replaced[0].Spec.Gone, []string{w.out}) || !strings.Contains(replaced[0].Spec.Say, "it answers with errors") {
		t.Fatalf("replaced: %+v, want %s once, for its errors:\n%s", replaced, w.out, w.tell())
	}
	w.everythingIsExplained()
}

// everythingIsExplained checks that every decision has its reasons, and its
// outcome once that was due.
func (w *world) everythingIsExplained() {
	w.Helper()
	for _, d := range w.decisions() {
		s := &d.Spec
		if s.Say == "" || s.Objective == "" || len(s.Evidence) == 0 || len(s.Alternatives) == 0 || s.Expected.Say == "" {
			w.Errorf("decision %s lacks a reason: %+v", d.Metadata.Name, s)
		}
		if due := w.now.Sub(s.Expected.By) > time.Minute; due && d.Status.Outcome == nil {
			w.Errorf("decision %s was due at %s and has no outcome:\n%s", d.Metadata.Name, s.Expected.By, w.tell())
		}
	}
}

// TestAServiceThatDiedOnEveryMachineComesBack: each is replaced once, one at a time.
func TestAServiceThatDiedOnEveryMachineComesBack(t *testing.T) {
	w := newWorld(t, estate.Auto)
	w.minutes(5)
	for _, r := range w.service().Status.Replicas {
		w.dead = append(w.dead, r.Machine)
	}
	w.minutes(12)
	var gone []string
	for _, d := range w.acts("replace") {
		gone = append(gone, d.Spec.Gone...)
		if !strings.Contains(d.Spec.Say, "its probe fails: connection refused") {
			t.Errorf("says %q", d.Spec.Say)
		}
	}
	slices.Sort(gone)
	if len(w.dead) != 2 || !slices.Equal(gone, w.dead) || w.service().Status.Ready != 2 {
		t.Fatalf("replaced: %v, want each of %v once:\n%s", gone, w.dead, w.tell())
	}
	w.everythingIsExplained()
}

func TestWhatIsOnlyRecommendedIsNotDone(t *testing.T) {
	for mode, want := range map[estate.Mode]estate.DecisionState{
		estate.Observe: estate.Observed, estate.Recommend: estate.Proposed, estate.Approve: estate.Proposed,
	} {
		w := newWorld(t, mode)
		w.minutes(5)
		w.rate = 90
		for range 60 {
			if len(w.decisions()) > 0 {
				break
			}
			w.tick()
		}
		all := w.decisions()
		if len(all) != 1 || all[0].Status.State != want || w.service().Status.Wanted != 2 {
			t.Errorf("%s: want one decision that is %s and 2 replicas:\n%s", mode, want, w.tell())
		}
	}
}

func TestWhatSomebodyAgreesToIsDoneAndCanBeUndone(t *testing.T) {
	w := newWorld(t, estate.Approve)
	w.minutes(5)
	w.rate = 90
	for len(w.decisions()) == 0 {
		w.tick()
	}
	d := w.decisions()[0]
	d.Status.State, d.Status.Approved, d.Status.Waiting = estate.Approved, "ana", ""
	w.must(w.store.Update(t.Context(), d))
	w.tick()
	if s := w.service(); s.Status.Wanted != d.Spec.To || s.Status.Decision != d.Metadata.Name {
		t.Fatalf("%d replicas are wanted by %q, want %d by %s", s.Status.Wanted, s.Status.Decision, d.Spec.To, d.Metadata.Name)
	}
	_, err := store.Modify(t.Context(), w.store, "p", d.Metadata.Name, func(d *estate.Decision) error { d.Status.Undo = "ana"; return nil })
	w.must(err)
	w.tick()
	got, err := store.Get[estate.Decision](t.Context(), w.store, "p", d.Metadata.Name)
	w.must(err)
	if got.Status.State != estate.Undone || w.service().Status.Wanted != d.Spec.From {
		t.Errorf("it is %s and %d are wanted, want undone and %d", got.Status.State, w.service().Status.Wanted, d.Spec.From)
	}
}

// TestWhoeverDiesNeverActsTwice kills the scaler at each of its writes in turn,
// just before and just after, and lets another go on.
func TestWhoeverDiesNeverActsTwice(t *testing.T) {
	killed := 0
	for at := 1; at <= 14; at++ {
		for _, before := range []bool{true, false} {
			w := newWorld(t, estate.Auto)
			w.minutes(3)
			w.rate = 90
			w.writes.left, w.writes.before = at, before
			w.minutes(4)
			if w.writes.died {
				killed++
			}
			for _, act := range w.decisions() {
				if act.Status.State == estate.Approved {
					t.Errorf("killed at write %d: decision %s was never carried out:\n%s", at, act.Metadata.Name, w.tell())
				}
			}
			want := 2
			for _, d := range w.acts("out") {
				want += d.Spec.To - d.Spec.From
			}
			want += len(w.acts("replace"))
			if made := int(w.service().Status.Made); made != want || len(w.acts("out")) == 0 {
				t.Errorf("killed at write %d (before: %v): %d machines were made, want %d as the decisions say, each once:\n%s", at, before, made, want, w.tell())
			}
		}
	}
	if killed < 20 {
		t.Errorf("only %d were killed; the test no longer reaches the writes", killed)
	}
}

var errKilled = fault.Unavailable.Errorf("the plane was killed")

// mortal is an engine as one life of the scaler sees it.
type mortal struct {
	store.KV
	left   int // writes until it dies; never when 0
	before bool
	died   bool
}

// Commit implements store.KV.
func (m *mortal) Commit(ctx context.Context, t store.Txn) (int64, error) {
	if m.left > 0 {
		if m.left--; m.left == 0 {
			m.died = true
			if !m.before {
				_, _ = m.KV.Commit(ctx, t)
			}
			return 0, errKilled
		}
	}
	return m.KV.Commit(ctx, t)
}

// TestTheSimulatorAsksTheSame proves by imports that the benchmark judges the
// very function that runs live.
func TestTheSimulatorAsksTheSame(t *testing.T) {
	for _, pkg := range []string{"consort.dev/consort/bench/scale", "consort.dev/consort/plane/control/scale"} {
		out, err := exec.Command("go", "list", "-f", `{{join .Imports "\n"}}`, pkg).Output()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(strings.Fields(string(out)), "consort.dev/consort/decide") {
			t.Errorf("%s does not import decide", pkg)
		}
	}
}

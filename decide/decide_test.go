package decide_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/decide"
	"consort.dev/consort/estate"
)

var update = flag.Bool("update", false, "rewrite the goldens")

const step = 5 * time.Second

// service plays a service whose replicas do what a test says.
type service struct {
	policy   decide.Policy
	state    decide.State
	now      time.Time
	rate     float64                            // requests/s
	work     time.Duration                      // mean response time
	bad      float64                            // share
	slow     map[estate.MachineID]time.Duration // response times of some
	worse    map[estate.MachineID]float64       // bad shares of some
	out      map[estate.MachineID]string        // why the front leaves some out
	shares   map[estate.MachineID]float64       // of the requests, that some get; the others get equal ones
	replicas []decide.Replica
	blind    bool
	vcpus    int
	made     int
}

func newService(n int) *service {
	s := &service{
		policy: decide.Policy{Service: "shop", Level: decide.Level{Bound: 300 * time.Millisecond, Share: 0.99}, Scaling: decide.Replicas,
			Least: 1, Most: 100, Guess: 45, Modes: []decide.Mode{decide.Auto}},
		now: time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC), rate: 44 * float64(n), work: 40 * time.Millisecond,
		slow: map[estate.MachineID]time.Duration{}, worse: map[estate.MachineID]float64{},
	}
	for range n {
		s.add()
	}
	return s
}

// measured is what the next five seconds look like.
func (s *service) measured() decide.Measured {
	s.now = s.now.Add(step)
	m := decide.Measured{At: s.now, Span: step, Seen: !s.blind, Boot: 30 * time.Second, Quick: s.work * 2 / 5, VCPUs: s.vcpus}
	m.Replicas = append(m.Replicas, s.replicas...)
	if s.blind {
		return m
	}
	m.Arrived = int64(s.rate * step.Seconds())
	ready, rest := 0, float64(m.Arrived)
	for _, r := range m.Replicas {
		if share, is := s.shares[r.ID]; is {
			rest -= float64(m.Arrived) * share
		} else if r.Phase == decide.Ready && s.out[r.ID] == "" {
			ready++
		}
	}
	for i, r := range m.Replicas {
		m.Replicas[i].Out = s.out[r.ID]
		if r.Phase != decide.Ready || s.out[r.ID] != "" {
			continue
		}
		work, bad := s.work, s.bad
		if w, is := s.slow[r.ID]; is {
			work = w
		}
		if b, is := s.worse[r.ID]; is {
			bad = b
		}
		n := int64(rest / float64(max(ready, 1)))
		if share, is := s.shares[r.ID]; is {
			n = int64(float64(m.Arrived) * share)
		}
		m.Replicas[i].Answered, m.Replicas[i].Bad, m.Replicas[i].Time = n, int64(float64(n)*bad), time.Duration(n)*work
	}
	return m
}

// tick asks once; what is decided happens at once.
func (s *service) tick() decide.Decision {
	d, state := decide.Decide(s.policy, s.measured(), s.state)
	if d.Mode == decide.Auto {
		state = state.Took(d)
		s.obey(d)
	}
	s.state = state
	return d
}

func (s *service) obey(d decide.Decision) {
	if d.Act == decide.In || d.Act == decide.Replace {
		s.replicas = slices.DeleteFunc(s.replicas, func(r decide.Replica) bool { return slices.Contains(d.Gone, r.ID) })
	}
	for d.Act != decide.Resize && d.Act != decide.Move && len(s.replicas) < d.To {
		s.add()
	}
	if d.Act == decide.Resize {
		s.vcpus = d.To
	}
}

func (s *service) add() {
	i := s.made
	s.made++
	s.replicas = append(s.replicas, decide.Replica{ID: estate.MachineID(fmt.Sprintf("web-%d", i)),
		Host: fmt.Sprintf("host-%d", i), Domain: fmt.Sprintf("rack-%d", i%4), Phase: decide.Ready})
}

// runs asks for some time and returns the first decision that acts, or the last.
func (s *service) runs(d time.Duration) decide.Decision {
	var last decide.Decision
	for range int(d / step) {
		if last = s.tick(); last.Act != decide.Wait {
			return last
		}
	}
	return last
}

func TestMoreReplicasForMoreRequests(t *testing.T) {
	s := newService(10)
	s.runs(time.Minute)
	s.rate = 1400
	d := s.runs(30 * time.Second)
	if d.Act != decide.Out || d.To <= 10 {
		t.Fatalf("%s to %d (%s), want out", d.Act, d.To, d.Say)
	}
	if !strings.Contains(d.Say, "requests/s arrive and one replica keeps 300ms up to") {
		t.Errorf("says %q", d.Say)
	}
}

func TestFewerReplicasOnceNothingAskedForThem(t *testing.T) {
	s := newService(10)
	s.rate = 200
	d := s.runs(5 * time.Minute)
	if d.Act != decide.In || d.From != 10 || d.To != 8 {
		t.Fatalf("%s from %d to %d, want in from 10 to 8: a quarter at most", d.Act, d.From, d.To)
	}
	if len(d.Gone) != 2 {
		t.Errorf("%v leave, want 2", d.Gone)
	}
}

func TestTheSlowestLeaveFirst(t *testing.T) {
	s := newService(10)
	s.rate = 200
	s.slow["web-7"] = 45 * time.Millisecond
	if d := s.runs(5 * time.Minute); d.Act != decide.In || d.Gone[0] != "web-7" {
		t.Errorf("%s %v, want in with web-7 first", d.Act, d.Gone)
	}
}

func TestASlowReplicaIsReplacedElsewhere(t *testing.T) {
	s := newService(10)
	s.slow["web-3"] = 90 * time.Millisecond
	d := s.runs(3 * time.Minute)
	if d.Act != decide.Replace || len(d.Gone) != 1 || d.Gone[0] != "web-3" || len(d.Avoid) != 1 || d.Avoid[0] != "host-3" {
		t.Fatalf("%s %v avoiding %v, want replace web-3 avoiding host-3", d.Act, d.Gone, d.Avoid)
	}
}

func TestABadReplicaIsReplaced(t *testing.T) {
	s := newService(20)
	s.worse["web-3"] = 0.15 // 0.75 % of all: the level is kept
	d := s.runs(3 * time.Minute)
	for d.Act == decide.Out {
		d = s.runs(3 * time.Minute)
	}
	if d.Act != decide.Replace || d.Gone[0] != "web-3" {
		t.Fatalf("%s %v, want replace web-3", d.Act, d.Gone)
	}
}

func TestTheSlowerOfTwoIsReplacedWhenItIsPlain(t *testing.T) {
	for slow, want := range map[time.Duration]decide.Act{40 * time.Millisecond: decide.Wait, 54 * time.Millisecond: decide.Wait, 90 * time.Millisecond: decide.Replace} {
		s := newService(2)
		s.policy.Least, s.policy.Most = 2, 2
		s.slow["web-1"] = slow
		if d := s.runs(5 * time.Minute); d.Act != want || want == decide.Replace && d.Gone[0] != "web-1" {
			t.Errorf("one of two takes %s and the other 40ms: %s %v, want %s", slow, d.Act, d.Gone, want)
		}
	}
}

func TestAReplicaThatItsFrontLeavesOutIsReplaced(t *testing.T) {
	const why = "it takes 300ms where its siblings take 40ms"
	for name, c := range map[string]struct {
		of    int           // replicas
		out   int           // that are left out
		after time.Duration // that they were ready for
		lasts time.Duration // that it lasts
		want  decide.Act
	}{
		"for long":                        {3, 1, time.Minute, time.Minute, decide.Replace},
		"of two":                          {2, 1, time.Minute, time.Minute, decide.Replace},
		"soon after it came":              {3, 1, 10 * time.Second, time.Minute, decide.Replace},
		"for a front's first ten seconds": {3, 1, time.Minute, 10 * time.Second, decide.Wait},
		"with most of its equals":         {3, 2, time.Minute, time.Minute, decide.Wait},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(c.of)
			s.policy.Least, s.policy.Most, s.rate = c.of, c.of, 40
			s.runs(c.after)
			s.out = map[estate.MachineID]string{"web-1": why}
			if c.out == 2 {
				s.out["web-2"] = why
			}
			d := s.runs(c.lasts)
			s.out = nil
			if d.Act == decide.Wait {
				d = s.runs(time.Minute)
			}
			if d.Act != c.want {
				t.Fatalf("%s, want %s", d.Act, c.want)
			}
			if c.want == decide.Replace && (d.Gone[0] != "web-1" || !strings.Contains(d.Say, why)) {
				t.Errorf("%v, because %q; want web-1, because %q", d.Gone, d.Say, why)
			}
		})
	}
}

// TestTheFirstRequestsAreNoFailedForecast: a service that nobody asked yet is not
// given a margin for the moment in which somebody does.
func TestTheFirstRequestsAreNoFailedForecast(t *testing.T) {
	s := newService(2)
	s.policy.Modes, s.rate = nil, 0 // the same two all the time
	s.runs(3 * time.Minute)
	s.rate = 40
	for range 24 {
		s.tick()
	}
	if got := s.tick().Why.Margin; got > 0.15 {
		t.Errorf("a margin of %.2f after the first two minutes with requests, want at most 0.15", got)
	}
}

func TestTheFirstRequestsAreNoTrend(t *testing.T) {
	s := newService(2)
	s.policy.Least, s.policy.Most, s.policy.Guess, s.rate = 2, 3, 6, 0
	s.runs(time.Minute)
	s.rate = 8
	if d := s.runs(3 * time.Minute); d.Act != decide.Wait {
		t.Errorf("8 requests/s after none, two bear 12: %s (%s), want wait", d.Act, d.Say)
	}
}

// TestAGuessThatIsFarTooHighIsDroppedAtOnce: what was never borne is not gone
// down from in steps, each as long as a boot.
func TestAGuessThatIsFarTooHighIsDroppedAtOnce(t *testing.T) {
	s := newService(10)
	s.policy.Modes, s.policy.Guess = nil, 450 // and the same ten all the time
	s.runs(3 * time.Minute)
	s.rate, s.bad = 880, 0.05
	for range 3 {
		s.tick()
	}
	if safe := s.tick().Why.Safe; safe > 88 {
		t.Errorf("ten that break their level at 88 requests/s each, and bore 44 before, are believed to bear %.0f; want less than 88", safe)
	}
}

func TestWhenEachRequestTakesLongerTheSafeRateFallsAtOnce(t *testing.T) {
	s := newService(10)
	s.policy.Modes = nil // the same ten all the time
	for s.now.Before(time.Date(2026, 5, 4, 9, 4, 0, 0, time.UTC)) {
		s.tick()
	}
	before := s.tick().Why.Safe
	s.work = s.work * 5 / 4
	for range 4 {
		s.tick()
	}
	if after := s.tick().Why.Safe; after > before*0.85 {
		t.Errorf("safe rate %.1f after, %.1f before; want at most 0.85 of it", after, before)
	}
}

func TestALargerSizeForAServiceOfOne(t *testing.T) {
	s := newService(1)
	s.policy.Scaling, s.policy.Sizes, s.vcpus, s.policy.Guess = decide.Size, []int{2, 4, 8, 16}, 4, 20
	s.rate = 70
	s.runs(time.Minute)
	s.rate = 150
	if d := s.runs(time.Minute); d.Act != decide.Resize || d.From != 4 || d.To < 8 {
		t.Errorf("%s from %d to %d, want resize from 4 to 8 or more", d.Act, d.From, d.To)
	}
}

func TestAServiceOfOnePlaceMovesAndNeverBack(t *testing.T) {
	s := newService(1)
	s.policy.Scaling, s.bad, s.rate = decide.Place, 0.05, 200
	d := s.runs(3 * time.Minute)
	if d.Act != decide.Move || d.Gone[0] != "web-0" || !reflect.DeepEqual(d.Avoid, []string{"host-0"}) {
		t.Fatalf("%s %v avoiding %v, want move web-0 avoiding host-0", d.Act, d.Gone, d.Avoid)
	}
	s.replicas[0].Host = "host-9"
	if d := s.runs(50 * time.Minute); d.Act != decide.Wait {
		t.Fatalf("%s within the hour, want wait", d.Act)
	}
	if d := s.runs(20 * time.Minute); d.Act != decide.Move || !reflect.DeepEqual(d.Avoid, []string{"host-0", "host-9"}) {
		t.Errorf("%s avoiding %v, want move avoiding both hosts it left", d.Act, d.Avoid)
	}
}

func TestTheMostConservativeModeWins(t *testing.T) {
	for _, c := range []struct {
		modes []decide.Mode
		want  decide.Mode
	}{
		{[]decide.Mode{decide.Auto}, decide.Auto},
		{[]decide.Mode{decide.Auto, decide.Approve}, decide.Approve},
		{[]decide.Mode{decide.Observe, decide.Auto, decide.Recommend}, decide.Observe},
		{[]decide.Mode{decide.Auto, "whatever"}, decide.Observe},
		{nil, decide.Observe},
	} {
		s := newService(2)
		s.policy.Modes = c.modes
		if got := s.tick().Mode; got != c.want {
			t.Errorf("%v: %s, want %s", c.modes, got, c.want)
		}
	}
}

func TestADecisionNobodyCarriedOutHoldsNothingBack(t *testing.T) {
	s := newService(10)
	s.policy.Modes, s.rate = []decide.Mode{decide.Recommend}, 200
	first := s.runs(5 * time.Minute)
	again := s.tick()
	if first.Act != decide.In || again.Act != decide.In || len(s.state.Acts) != 0 {
		t.Errorf("%s, then %s, %d acts; want in twice and none", first.Act, again.Act, len(s.state.Acts))
	}
}

func TestTookTwiceIsOnce(t *testing.T) {
	s := newService(10)
	s.rate = 200
	var d decide.Decision
	for d.Act != decide.In {
		d, s.state = decide.Decide(s.policy, s.measured(), s.state)
	}
	once := s.state.Took(d)
	if twice := once.Took(d); !reflect.DeepEqual(once, twice) {
		t.Error("a second Took changes the state")
	}
}

func TestOutcomesAreTold(t *testing.T) {
	s := newService(10)
	s.rate = 200
	in := s.runs(5 * time.Minute)
	s.rate = 900
	var undone bool
	for range 60 {
		d := s.tick()
		if d.Act == decide.Out && d.Undoes.Equal(in.At) {
			undone = true
		}
		for _, o := range d.Outcomes {
			if o.Act == decide.In && o.Of.Equal(in.At) && !o.Met && undone && s.state.Hold > 60*time.Second {
				return
			}
		}
	}
	t.Error("the scale-in was not regretted, taken back and told of")
}

func TestTheStateIsStored(t *testing.T) {
	a, b := newService(10), newService(10)
	for i := range 200 {
		a.rate, b.rate = 300+float64(i), 300+float64(i)
		text, err := json.Marshal(b.state)
		if err != nil {
			t.Fatal(err)
		}
		b.state = decide.State{}
		if err := json.Unmarshal(text, &b.state); err != nil {
			t.Fatal(err)
		}
		if x, y := a.tick(), b.tick(); !reflect.DeepEqual(x, y) {
			t.Fatalf("after %d: %+v, and from a stored state %+v", i, x, y)
		}
	}
}

// goldens are decisions as people read them.
func TestExplanations(t *testing.T) {
	for name, play := range map[string]func() decide.Decision{
		"out": func() decide.Decision {
			s := newService(10)
			s.runs(time.Minute)
			s.rate = 900
			return s.runs(30 * time.Second)
		},
		"in": func() decide.Decision { s := newService(10); s.rate = 200; return s.runs(5 * time.Minute) },
		"replace": func() decide.Decision {
			s := newService(10)
			s.slow["web-3"] = 90 * time.Millisecond
			return s.runs(3 * time.Minute)
		},
		"burning": func() decide.Decision { s := newService(10); s.bad = 0.05; return s.runs(time.Minute) },
		"blind":   func() decide.Decision { s := newService(10); s.blind = true; return s.tick() },
		"quiet":   func() decide.Decision { s := newService(1); s.rate = 0; return s.runs(time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			got, err := json.MarshalIndent(play(), "", " ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("decision is\n%swant\n%s", got, want)
			}
		})
	}
}

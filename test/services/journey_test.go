package services

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"consort.dev/consort/estate"
)

const (
	bound  = 750 * time.Millisecond // of testdata/desk.yaml
	budget = .05
	usual  = 8 // requests/s: one replica is believed to bear 6
	steady = 5 // requests/s, which leave room for what comes by chance

	// What is asked for, in testdata/desk.yaml.
	waits  = ".21/5000"   // for a place, mostly: one replica bears some 9 requests/s
	counts = ".05/100000" // for the CPU, too
)

// TestAServiceGrowsAndShrinksWithItsLoad doubles what is asked of two real
// machines within a minute and a half, to nearly all that two can bear, and halves
// it again: a third one is decided on before the level is broken and goes when
// nothing asks for it, and users see none of it.
func TestAServiceGrowsAndShrinksWithItsLoad(t *testing.T) {
	s, users := asked(t, waits, usual)
	twice := time.Now()
	users.comes(2*usual, 90*time.Second)
	out := s.decided("out", twice)
	if out.Spec.Urgent || fact(s, out, "bad in the last minute") > 100*budget {
		t.Errorf("the level had broken before more replicas were decided on: %v", out.Spec.Evidence)
	}
	s.until("a third replica answers", func(v *estate.Service) bool { return v.Status.Ready == 3 })
	users.asked(s, 90*1.5*usual+60*2*usual, twice) // it has been twice as much for a minute
	users.kept(s, "while it doubled", twice)

	half := time.Now()
	users.comes(usual, 0)
	s.decided("in", half)
	s.until("two replicas are left", func(v *estate.Service) bool { return len(v.Status.Replicas) == 2 && v.Status.Ready == 2 })
	s.explained("out", "in")
	users.kept(s, "while it halved, and after", half)
}

// TestTheOneSlowReplicaIsReplaced takes the CPU of one of two real machines away,
// from outside: it alone is replaced, and the level holds.
func TestTheOneSlowReplicaIsReplaced(t *testing.T) {
	s, users := asked(t, counts, steady)
	both := s.service().Status.Replicas
	slowed, other := both[0].Machine, both[1].Machine
	hog := time.Now()
	s.fleet.Must("exec", slowed, "--", "sh", "-c", hogs)
	s.tell("%s is slowed", slowed)
	d := s.decided("replace", hog)
	if len(d.Spec.Gone) != 1 || d.Spec.Gone[0] != slowed {
		t.Errorf("%v are replaced, want %s", d.Spec.Gone, slowed)
	}
	v := s.until(slowed+" has gone", func(v *estate.Service) bool {
		return len(v.Status.Replicas) == 2 && v.Status.Ready == 2 && find(v, slowed) == nil
	})
	if find(v, other) == nil {
		t.Errorf("%s has gone too", other)
	}
	users.kept(s, "while one was slow", hog)
	s.explained("replace")
}

// asked returns the service of testdata/desk.yaml with users who have asked it for
// the work for a while, and nothing decided yet.
func asked(t *testing.T, work string, rate float64) (*stage, *crowd) {
	t.Helper()
	if os.Getenv("CONSORT_JOURNEYS") == "" {
		t.Skip("needs minutes: make test-services")
	}
	s := newStage(t, "desk", "../../examples/service/image.yaml", "testdata/desk.yaml")
	users := newCrowd(t, s.url+work, rate)
	began := time.Now()
	users.asked(s, 30*rate, began)
	users.kept(s, "at first", began)
	if all := s.decisions(t.Context()); len(all) > 0 {
		t.Fatalf("%q at first, want no decision yet", all[0].Spec.Say)
	}
	return s, users
}

// hogs take the guest's CPU from whoever else wants it, until it ends.
const hogs = `for i in 1 2 3 4; do setsid sh -c 'while :; do :; done' </dev/null >/dev/null 2>&1 & done`

// asked waits until so many have asked since then and know their answer.
func (c *crowd) asked(s *stage, n float64, since time.Time) {
	s.Helper()
	s.until(fmt.Sprintf("%.0f have asked", n), func(*estate.Service) bool { return float64(c.since(since, bound).all) >= n })
}

// kept checks that the users who asked since then got what is promised.
func (c *crowd) kept(s *stage, when string, since time.Time) {
	s.Helper()
	got := c.since(since, bound)
	s.tell("%s: %s", when, got)
	if got.bad() > budget || got.failed > 0 {
		s.Errorf("%s %.1f %% of the requests were bad and %d failed; at most %.0f %% may be, and none", when, 100*got.bad(), got.failed, 100*budget)
	}
}

// explained checks that these were all acts, in this order, and that each has its
// reasons, what else was considered, and an outcome.
func (s *stage) explained(acts ...string) {
	s.Helper()
	s.until("every act has an outcome", func(*estate.Service) bool {
		for _, d := range s.decisions(s.Context()) {
			if d.Status.Outcome == nil {
				return false
			}
		}
		return true
	})
	var did []string
	for _, d := range s.decisions(s.Context()) {
		did = append(did, d.Spec.Act)
		s.tell("%s: %s. Expected: %s. %s", d.Status.State, d.Spec.Say, d.Spec.Expected.Say, d.Status.Outcome.Say)
		if d.Spec.Say == "" || len(d.Spec.Evidence) == 0 || len(d.Spec.Alternatives) == 0 || d.Spec.Expected.Say == "" {
			s.Errorf("%s is not explained: %+v", d.Metadata.Name, d.Spec)
		}
		if d.Status.State != estate.Done || !d.Status.Outcome.Met {
			s.Errorf("%s is %s with the outcome %+v; want done, as expected", d.Metadata.Name, d.Status.State, d.Status.Outcome)
		}
	}
	if !slices.Equal(did, acts) {
		s.Errorf("the acts were %v, want %v", did, acts)
	}
}

// fact is a number that the decision rests on.
func fact(s *stage, d *estate.Decision, name string) float64 {
	s.Helper()
	for _, f := range d.Spec.Evidence {
		if f.Name == name {
			return f.Value
		}
	}
	s.Fatalf("%s says nothing of %q: %+v", d.Metadata.Name, name, d.Spec.Evidence)
	return 0
}

func find(v *estate.Service, machine string) *estate.Replica {
	for i := range v.Status.Replicas {
		if v.Status.Replicas[i].Machine == machine {
			return &v.Status.Replicas[i]
		}
	}
	return nil
}

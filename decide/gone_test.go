package decide_test

import (
	"strings"
	"testing"
	"time"

	"consort.dev/consort/decide"
	"consort.dev/consort/estate"
)

const refused = "connect: connection refused"

// died has the application die on every replica, a minute after they came. Who
// comes later works or does not.
func died(n int, later string) (s *service, next func() decide.Decision) {
	s = newService(n)
	s.policy.Least, s.policy.Most, s.rate, s.out = n, n, 40, map[estate.MachineID]string{}
	s.runs(time.Minute)
	for _, r := range s.replicas {
		s.out[r.ID] = refused
	}
	return s, func() decide.Decision {
		d := s.tick()
		for _, r := range s.replicas {
			if _, known := s.out[r.ID]; !known && later != "" {
				s.out[r.ID] = later
			}
		}
		return d
	}
}

// TestWhenAllAreLeftOutTheyAreReplacedOneByOne: nobody answers, so there is no
// equal to compare with; that it lasts is what counts.
func TestWhenAllAreLeftOutTheyAreReplacedOneByOne(t *testing.T) {
	for _, n := range []int{1, 2, 4} {
		s, next := died(n, "")
		began := s.now
		var at []time.Time
		for s.now.Sub(began) < 20*time.Minute {
			d := next()
			if d.Act == decide.Wait {
				continue
			}
			if d.Act != decide.Replace || len(d.Gone) != 1 || s.out[d.Gone[0]] == "" || !strings.Contains(d.Say, refused) {
				t.Fatalf("%d replicas: %s %v: %s; want one replaced that is left out", n, d.Act, d.Gone, d.Say)
			}
			at = append(at, s.now)
		}
		if len(at) != n {
			t.Fatalf("%d of %d were replaced", len(at), n)
		}
		if first := at[0].Sub(began); first < 90*time.Second || first > 2*time.Minute {
			t.Errorf("of %d the first was replaced after %s, want about 100 s", n, first)
		}
		for i := range at[1:] {
			// All but the last two are replaced as soon as it is known that this helps.
			if gap := at[i+1].Sub(at[i]); gap < 90*time.Second || 2*(n-i-1) > n && gap > 2*time.Minute {
				t.Errorf("of %d, two were replaced within %s, want 90 s", n, gap)
			}
		}
	}
}

// TestWhatNoOtherMachineMendsIsTriedOnce: what they wait for is somewhere else.
func TestWhatNoOtherMachineMendsIsTriedOnce(t *testing.T) {
	s, next := died(4, refused)
	var acts int
	var last decide.Decision
	for range 50 * 12 {
		if last = next(); last.Act != decide.Wait {
			acts++
		}
	}
	why := ""
	for _, a := range last.Alternatives {
		if a.Act == decide.Replace {
			why = a.Not
		}
	}
	if acts != 1 || !strings.Contains(why, "none answers: another machine is no remedy") {
		t.Errorf("%d acts in 50 minutes, and none now because %q; want one, and that it did not help", acts, why)
	}
	if d := s.runs(20 * time.Minute); d.Act != decide.Replace {
		t.Errorf("after an hour: %s, want another try", d.Act)
	}
}

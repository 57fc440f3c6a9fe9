package service

import (
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/front"
	"consort.dev/consort/plane/fronts"
)

// canary is a rollout from revision 1, of which replicas old-1 and old-2 are, to
// revision 2, of which new-1 is, by a level that 99 % of the requests must keep.
func canary(tallies map[string]front.Tally) *view {
	v := &view{service: &estate.Service{}, now: time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)}
	v.service.Spec.Levels = []estate.NamedLevel{{Name: "fast", Level: estate.Level{
		Response: &estate.Response{Within: estate.Duration(time.Second)}, Target: 990_000,
	}}}
	s := &v.service.Status
	s.Rollout = &estate.Rollout{From: 1, To: 2, State: estate.RolloutRunning}
	for _, name := range []string{"old-1", "old-2", "new-1"} {
		revision := 1
		if name == "new-1" {
			revision = 2
		}
		s.Replicas = append(s.Replicas, estate.Replica{Machine: name, Revision: revision, State: estate.ReplicaReady, Ready: v.now.Add(-time.Hour)})
		v.sight.Replicas = append(v.sight.Replicas, front.Standing{Name: name, State: front.Ready, Tally: tallies[name]})
	}
	return v
}

// told is what a replica did: so many answers within the bound, and so many
// clients who left when that was over.
func told(answered, left int64) front.Tally {
	return front.Tally{Answered: answered, Time: time.Duration(answered) * 100 * time.Millisecond,
		Counts: []front.Count{{Objective: "fast", Good: answered, Total: answered + left}}}
}

// TestWhoLeavesALateRequestCountsOnce: among all, and among the bad ones.
func TestWhoLeavesALateRequestCountsOnce(t *testing.T) {
	v := canary(map[string]front.Tally{"old-1": told(100, 0), "old-2": told(100, 0), "new-1": told(30, 10)})
	a := v.answered(v.of(2), map[string]front.Tally{"new-1": told(10, 0)})
	if a.all != 30 || a.bad != 10 || a.answered != 20 {
		t.Errorf("of %v requests %v were bad and %v answered; want 30, 10 and 20", a.all, a.bad, a.answered)
	}
	if p := a.pace(); p < .099 || p > .101 {
		t.Errorf("an answer took %v s, want 0.1: who left got none", p)
	}
}

// TestARevisionThatNeverAnswersIsRolledBack: its clients leave, all of them.
func TestARevisionThatNeverAnswersIsRolledBack(t *testing.T) {
	v := canary(map[string]front.Tally{"old-1": told(100, 0), "old-2": told(100, 0), "new-1": told(0, 10)})
	if why := v.broken(v.of(2), nil); !strings.Contains(why, "100.0% of its 10 requests were bad") {
		t.Errorf("it goes on (%q), want it refused since all of its 10 requests were bad", why)
	}
}

// TestWhoCameBackCountsAnew has a replica's machine start again in a rollout: its
// front has forgotten what it answered before.
func TestWhoCameBackCountsAnew(t *testing.T) {
	k, v := &Keeper{}, canary(map[string]front.Tally{"old-1": told(1000, 0), "old-2": told(1000, 0)})
	k.baseline(v)
	v.sight = fronts.Sight{Figures: front.Figures{Replicas: []front.Standing{{Name: "old-1", Tally: told(20, 0)}, {Name: "old-2", Tally: told(1020, 0)}}}}
	if a := v.answered(v.of(1), k.baseline(v)); a.all != 40 || a.time < 3.9 || a.time > 4.1 {
		t.Errorf("the old ones got %v requests in %v s, want 20 each in 4 s", a.all, a.time)
	}
	v.sight.Replicas[0].Tally = told(1030, 0) // more than it had at first
	if a := v.answered(v.of(1), k.baseline(v)); a.all != 1050 {
		t.Errorf("the old ones got %v requests, want 1030 and 20", a.all)
	}
}

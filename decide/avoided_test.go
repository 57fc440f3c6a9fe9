package decide_test

import (
	"testing"
	"time"

	"consort.dev/consort/decide"
	"consort.dev/consort/estate"
)

// TestASlowReplicaThatItsFrontAvoidsIsReplaced has a front give fewer requests
// to the one that answers slowly: few of them must do where it is much slower,
// and must not where it is a little.
func TestASlowReplicaThatItsFrontAvoidsIsReplaced(t *testing.T) {
	for _, c := range []struct {
		slow  time.Duration
		share float64 // of the requests that it still gets
		want  decide.Act
	}{
		{200 * time.Millisecond, 0.08, decide.Replace},
		{90 * time.Millisecond, 0.25, decide.Replace},
		{65 * time.Millisecond, 0.04, decide.Wait},
		{200 * time.Millisecond, 0, decide.Wait}, // nothing is known of it
	} {
		s := newService(2)
		s.policy.Least, s.policy.Most, s.policy.Guess, s.rate = 2, 2, 6, 8
		s.runs(time.Minute)
		s.slow["web-1"], s.shares = c.slow, map[estate.MachineID]float64{"web-1": c.share}
		d := s.runs(5 * time.Minute)
		if d.Act != c.want || c.want == decide.Replace && d.Gone[0] != "web-1" {
			t.Errorf("one of two takes %s, the other 40ms, and gets %.0f %% of the requests: %s %v, want %s", c.slow, 100*c.share, d.Act, d.Gone, c.want)
		} else {
			t.Logf("%s after %s: %s", d.Act, s.now.Sub(time.Date(2026, 5, 4, 9, 1, 0, 0, time.UTC)), d.Say)
		}
	}
}

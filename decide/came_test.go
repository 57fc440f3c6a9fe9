package decide_test

import (
	"testing"
	"time"

	"consort.dev/consort/decide"
)

// TestWhoCameInsteadAndIsAsSlowLeavesFirst replaces a slow replica by one as
// slow, while fewer are needed: it leaves, and none that is well.
func TestWhoCameInsteadAndIsAsSlowLeavesFirst(t *testing.T) {
	for _, boot := range []time.Duration{0, 15 * time.Second, 30 * time.Second, 45 * time.Second} {
		s := newService(10)
		s.rate, s.slow["web-3"], s.slow["web-10"] = 380, 90*time.Millisecond, 90*time.Millisecond
		if d := s.runs(3 * time.Minute); d.Act != decide.Replace || d.Gone[0] != "web-3" {
			t.Fatalf("%s %v, want replace web-3", d.Act, d.Gone)
		}
		s.rate = 200
		fresh := &s.replicas[len(s.replicas)-1]
		fresh.Phase = decide.Starting
		for range int(boot / step) {
			if d := s.tick(); d.Act != decide.Wait {
				t.Fatalf("%s while one starts", d.Act)
			}
		}
		fresh.Phase = decide.Ready
		d := s.runs(5 * time.Minute)
		if d.Act != decide.In || d.Gone[0] != "web-10" {
			t.Errorf("it came in %s: %s %v (%s), want in with web-10, which is the slowest", boot, d.Act, d.Gone, d.Say)
		}
	}
}

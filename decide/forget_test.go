package decide_test

import (
	"testing"
	"time"

	"consort.dev/consort/decide"
	"consort.dev/consort/estate"
)

// TestAReplicaThatHasBecomeSomethingElseIsJudgedAnew has one replica that is slow
// until it is moved, made larger, or made from something else; nobody carries
// out what is decided.
func TestAReplicaThatHasBecomeSomethingElseIsJudgedAnew(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*decide.Replica)
		anew   bool
	}{
		{"is on another host", func(r *decide.Replica) { r.Host = "host-99" }, true},
		{"has more vCPUs", func(r *decide.Replica) { r.VCPUs = 8 }, true},
		{"is of another revision", func(r *decide.Replica) { r.Revision = 2 }, true},
		{"is what it was", func(*decide.Replica) {}, false}, // a span is not enough to forget a minute
	} {
		s := newService(10)
		s.policy.Modes, s.slow["web-3"] = nil, 90*time.Millisecond
		for i := range s.replicas {
			s.replicas[i].VCPUs, s.replicas[i].Revision = 2, 1
		}
		if d := s.runs(3 * time.Minute); d.Act != decide.Replace || d.Gone[0] != "web-3" {
			t.Fatalf("%s %v, want replace web-3", d.Act, d.Gone)
		}
		c.change(&s.replicas[3])
		delete(s.slow, estate.MachineID("web-3"))
		if d := s.tick(); (d.Act != decide.Replace) != c.anew {
			t.Errorf("web-3 %s and answers as quickly as its equals: %s %v (%s)", c.name, d.Act, d.Gone, d.Say)
		}
	}
}

// TestWhatIsSafeFollowsTheSize has all replicas become twice as large.
func TestWhatIsSafeFollowsTheSize(t *testing.T) {
	s := newService(10)
	s.policy.Modes = nil
	size := func(vcpus, revision int) {
		for i := range s.replicas {
			s.replicas[i].VCPUs, s.replicas[i].Revision = vcpus, revision
		}
	}
	size(2, 1)
	for range 24 {
		s.tick()
	}
	before := s.tick().Why.Safe
	size(2, 2)
	if same := s.tick().Why.Safe; same < 0.95*before || same > 1.05*before {
		t.Errorf("safe rate %.1f after an update to the same size, %.1f before; want about as much", same, before)
	}
	s.replicas[0].VCPUs = 4
	if same := s.tick().Why.Safe; same > 1.05*before {
		t.Errorf("safe rate %.1f while one of ten is larger, %.1f before; want about as much", same, before)
	}
	size(4, 2)
	if after := s.tick().Why.Safe; after < 1.9*before || after > 2.2*before {
		t.Errorf("safe rate %.1f with 4 vCPUs, %.1f with 2; want about twice as much", after, before)
	}
}

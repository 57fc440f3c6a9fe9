package decide_test

import (
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"consort.dev/consort/decide"
)

// TestWhateverHappens plays services that do anything, and checks what must
// hold of every decision.
func TestWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newService(rapid.IntRange(1, 40).Draw(t, "replicas"))
		s.policy.Least = rapid.IntRange(0, 5).Draw(t, "least")
		s.policy.Most = rapid.IntRange(40, 60).Draw(t, "most")
		s.policy.Guess = rapid.SampledFrom([]float64{0, 1, 45, 500}).Draw(t, "guess")
		for range rapid.IntRange(1, 80).Draw(t, "ticks") {
			s.rate = rapid.Float64Range(0, 4000).Draw(t, "rate")
			s.bad = rapid.SampledFrom([]float64{0, 0, 0, 0.004, 0.02, 1}).Draw(t, "bad")
			s.blind = rapid.IntRange(0, 9).Draw(t, "blind") == 0
			s.work = time.Duration(rapid.IntRange(1, 400).Draw(t, "ms")) * time.Millisecond
			m := s.measured()
			before := s.state
			d, state := decide.Decide(s.policy, m, before)
			again, same := decide.Decide(s.policy, m, before)
			if !reflect.DeepEqual(d, again) || !reflect.DeepEqual(state, same) {
				t.Fatal("the same input, another decision")
			}
			check(t, s.policy, m, d)
			s.state = state.Took(d)
			s.obey(d)
		}
	})
}

func check(t *rapid.T, p decide.Policy, m decide.Measured, d decide.Decision) {
	var bad, answered int64
	for _, r := range m.Replicas {
		bad, answered = bad+r.Bad, answered+r.Answered
	}
	switch {
	case d.Say == "" || len(d.Alternatives) == 0 || d.Why.Objective == "":
		t.Fatalf("no reasons: %+v", d)
	case d.From != len(m.Replicas):
		t.Fatalf("from %d, there are %d", d.From, len(m.Replicas))
	case d.Act != decide.Wait && (d.Why.Blind || !m.Seen):
		t.Fatalf("%s while blind", d.Act)
	case d.Act != decide.Wait && d.Expected.By.Before(d.At):
		t.Fatalf("%s that expects nothing: %+v", d.Act, d.Expected)
	case d.Act == decide.In && d.Why.Burning:
		t.Fatal("in while burning")
	case d.Act == decide.In && (d.To < p.Least || d.To >= d.From || len(d.Gone) != d.From-d.To):
		t.Fatalf("in from %d to %d with %v, at least %d", d.From, d.To, d.Gone, p.Least)
	case d.Act == decide.In && d.From-d.To > max(1, d.From/4):
		t.Fatalf("in from %d to %d: more than a quarter", d.From, d.To)
	case d.Act == decide.In && d.To < d.Why.Wanted:
		t.Fatalf("in to %d, wanted %d", d.To, d.Why.Wanted)
	case d.Act == decide.Out && (d.To > p.Most || d.To <= d.From):
		t.Fatalf("out from %d to %d, at most %d", d.From, d.To, p.Most)
	}
}

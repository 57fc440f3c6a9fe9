package slo_test

import (
	"fmt"
	"math"
	"math/big"
	"testing"
	"time"

	"consort.dev/consort/plane/slo"
	"consort.dev/consort/plane/slo/slotest"
)

const (
	minute = time.Minute
	day    = 24 * time.Hour
	month  = 30 * day
)

func worldCup(t testing.TB) slotest.Trace {
	t.Helper()
	trace, err := slotest.WorldCup()
	if err != nil {
		t.Fatal(err)
	}
	return trace
}

// replicas feed a ledger as they do in life: each counts for itself since it
// started, starts again at times, and is read once a minute.
type replicas struct {
	ledger *slo.Ledger
	meter  *slo.Meter
	counts [3]slo.Reading
}

func newReplicas(begin time.Time) *replicas {
	r := &replicas{ledger: slo.NewLedger(begin, month), meter: slo.NewMeter(begin.Add(-minute))}
	for i := range r.counts {
		r.counts[i] = slo.Reading{Source: fmt.Sprint("web-", i), Started: begin}
	}
	return r
}

func (r *replicas) serve(t *testing.T, at time.Time, i int, m slotest.Minute) {
	r.ledger.Advance(at)
	if !m.Heard {
		return
	}
	for k := range r.counts {
		c := &r.counts[k]
		if (i+k*7)%997 == 0 { // it starts again, and says so
			c.Started, c.Count = at, slo.Count{}
		}
		part := func(n int64) int64 { return n*int64(k+1)/3 - n*int64(k)/3 }
		total, bad := part(m.Total), part(m.Bad)
		c.Total += total
		c.Good += total - bad
		fresh, known, err := r.meter.Read(*c)
		if err != nil || !known {
			t.Fatalf("minute %d, %s: %v, known %v", i, c.Source, err, known)
		}
		if err := r.ledger.Add(at, fresh); err != nil {
			t.Fatal(err)
		}
	}
}

// TestExactOnTheWorldCup compares every window with counting by hand, while
// replicas start again and the plane is killed and comes back with a snapshot.
func TestExactOnTheWorldCup(t *testing.T) {
	trace := worldCup(t)
	trace.Sprinkle(1771)
	trace.Fail(50_000, 75)
	trace.Fail(90_001, 3)
	r := newReplicas(trace.Begin)
	o := slo.Objective{Target: 999_000}
	windows := []int{5, 30, 60, 120, 360, 1440, 3 * 1440, 30 * 1440}
	compared := 0
	for i, m := range trace.Minutes {
		at := trace.At(i)
		r.serve(t, at, i, m)
		if i%9973 == 0 {
			var err error
			if r.ledger, r.meter, err = slo.Restore(slo.Snapshot(r.ledger, r.meter)); err != nil {
				t.Fatal(err)
			}
		}
		if i%37 != 0 {
			continue
		}
		for _, w := range windows {
			bad, total := trace.Sum(i+1-w, i+1)
			end := at.Add(minute)
			got := r.ledger.Judge(o, end.Add(-time.Duration(w)*minute), end)
			allowed := new(big.Int).Div(new(big.Int).Mul(big.NewInt(total), big.NewInt(1000)), big.NewInt(1_000_000)).Int64()
			if got.Bad() != bad || got.Total != total || got.Allowed != allowed || got.Left() != allowed-bad {
				t.Fatalf("minute %d, last %d: %d bad of %d, %d allowed; by hand %d of %d, %d", i, w, got.Bad(), got.Total, got.Allowed, bad, total, allowed)
			}
			compared++
		}
	}
	if compared < 27_000 {
		t.Errorf("compared %d windows", compared)
	}
	last := r.ledger.Judge(o, trace.At(len(trace.Minutes)-43_200), trace.At(len(trace.Minutes)))
	if last.Minutes != 43_200 || last.Heard != 43_200 {
		t.Errorf("heard %d of the last %d minutes", last.Heard, last.Minutes)
	}
}

// TestRatioAveragingIsWrong shows the error of tools that average ratios, in the
// month of June with one hour in which every request failed, beside ours.
func TestRatioAveragingIsWrong(t *testing.T) {
	june := func() slotest.Trace {
		return worldCup(t).Part(time.Date(1998, 6, 1, 0, 0, 0, 0, time.UTC), time.Date(1998, 7, 1, 0, 0, 0, 0, time.UTC))
	}
	quietest, busiest := june().Hours()
	for _, c := range []struct {
		name         string
		hour         int
		least, most  float64 // reported / true
		reportedTrue string
	}{
		{"quietest", quietest, 9.5, 10.5, "about 9.7 times too much"},
		{"busiest", busiest, 1 / 8.6, 1 / 7.9, "about 8.4 times too little"},
	} {
		trace := june()
		trace.Fail(c.hour, 60)
		r := newReplicas(trace.Begin)
		for i, m := range trace.Minutes {
			r.serve(t, trace.At(i), i, m)
		}
		bad, total := trace.Sum(0, len(trace.Minutes))
		got := r.ledger.Count(trace.Begin, trace.At(len(trace.Minutes)))
		if got.Bad() != bad || got.Total != total {
			t.Errorf("%s: we count %d of %d, by hand %d of %d", c.name, got.Bad(), got.Total, bad, total)
		}
		truth := float64(bad) / float64(total)
		times := trace.Averages().Ratio(0, len(trace.Minutes)) / truth
		if times < c.least || times > c.most || math.IsNaN(times) {
			t.Errorf("%s hour: averaging reports %.3f times the truth, want %s", c.name, times, c.reportedTrue)
		}
		t.Logf("%s hour: averaging reports %.2f times the budget that was spent (1/%.2f)", c.name, times, 1/times)
	}
}

package embedded

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/metrics"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// counted is a counter that grows by ten a second, every 15 s for five minutes
// until noon.
func counted(t *testing.T, s *Store) {
	t.Helper()
	var all []metrics.Sample
	for at := noon.Add(-5 * time.Minute); !at.After(noon); at = at.Add(15 * time.Second) {
		all = append(all, metrics.Sample{Labels: metrics.Labels{metrics.Name: "requests_total", "service": "shop"}, At: at, Value: 10 * at.Sub(noon.Add(-time.Hour)).Seconds()})
	}
	if err := s.Append(t.Context(), all); err != nil {
		t.Fatal(err)
	}
}

// one is the value of the only series of an answer.
func one(t *testing.T, s *Store, promql string, at time.Time) float64 {
	t.Helper()
	got, err := s.Query(t.Context(), promql, at)
	if err != nil || len(got) != 1 || len(got[0].Points) != 1 {
		t.Fatalf("%s: %v, %v; want one series of one point", promql, got, err)
	}
	return got[0].Points[0].Value
}

func TestWhatIsKeptIsThereAfterARestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	counted(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	defer s.Close()
	if got := one(t, s, `sum(rate(requests_total{service="shop"}[2m]))`, noon); math.Abs(got-10) > 1e-9 {
		t.Errorf("%v requests/s after a restart, want 10", got)
	}
}

func TestARangeHasAPointAtEveryStep(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	counted(t, s)
	got, err := s.QueryRange(t.Context(), "requests_total", metrics.Range{From: noon.Add(-time.Minute), To: noon, Step: 30 * time.Second})
	if err != nil || len(got) != 1 || len(got[0].Points) != 3 {
		t.Fatalf("%v, %v; want one series of three points", got, err)
	}
	if p := got[0].Points[1]; !p.At.Equal(noon.Add(-30*time.Second)) || p.Value != 35700 {
		t.Errorf("the second point is %v, want 35700 half a minute before noon", p)
	}
	if got[0].Labels["service"] != "shop" || got[0].Labels[metrics.Name] != "requests_total" {
		t.Errorf("labels %v", got[0].Labels)
	}
}

func TestASampleTwiceIsOnceAndOneThatContradictsIsLeftOut(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	sample := func(v float64) []metrics.Sample {
		return []metrics.Sample{
			{Labels: metrics.Labels{metrics.Name: "a"}, At: noon, Value: v},
			{Labels: metrics.Labels{metrics.Name: "b"}, At: noon.Add(time.Duration(v) * time.Millisecond), Value: v},
		}
	}
	for range 2 {
		if err := s.Append(t.Context(), sample(1)); err != nil {
			t.Fatal(err)
		}
	}
	err := s.Append(t.Context(), sample(2))
	if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "1 of 2 were left out") {
		t.Errorf("another value of the same moment: %v", err)
	}
	if a, b := one(t, s, "a", noon.Add(time.Second)), one(t, s, "b", noon.Add(time.Second)); a != 1 || b != 2 {
		t.Errorf("a is %v and b is %v; want the first value of a, and what came with it kept", a, b)
	}
}

func TestWhatCannotBeAskedIsInvalid(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	if _, err := s.Query(t.Context(), "sum(", noon); !errors.Is(err, fault.Invalid) {
		t.Errorf("sum(: %v", err)
	}
	if _, err := s.QueryRange(t.Context(), "a", metrics.Range{From: noon, To: noon.Add(time.Hour), Step: time.Millisecond}); !errors.Is(err, fault.Invalid) {
		t.Errorf("3.6 million steps: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Query(ctx, "a", noon); !errors.Is(err, context.Canceled) {
		t.Errorf("when nobody waits: %v", err)
	}
	if got, err := s.Query(t.Context(), "a", noon); err != nil || len(got) != 0 {
		t.Errorf("of what nobody measured: %v, %v; want an empty answer", got, err)
	}
}

func TestASeriesThatIsGoneIsNotFound(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	for i, v := range []float64{1, metrics.Gone()} {
		if err := s.Append(t.Context(), []metrics.Sample{{Labels: metrics.Labels{metrics.Name: "up"}, At: noon.Add(time.Duration(i) * time.Second), Value: v}}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Query(t.Context(), "up", noon.Add(2*time.Second)); err != nil || len(got) != 0 {
		t.Errorf("%v, %v; want nothing", got, err)
	}
}

package scrape

import (
	"context"
	"log/slog"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"consort.dev/consort/plane/metrics"
)

// shelf keeps what it is given, a batch each.
type shelf chan []metrics.Sample

func (s shelf) Append(_ context.Context, all []metrics.Sample) error { s <- all; return nil }

// TestASeriesThatIsGoneIsEnded looks at two rounds: in between, one of two
// machines has gone.
func TestASeriesThatIsGoneIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		power := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "power"}, []string{"machine"})
		power.WithLabelValues("a").Set(1)
		power.WithLabelValues("b").Set(1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		kept := make(shelf)
		go func() {
			_ = NewSelf(power).Keep(ctx, Keeping{To: kept, Every: 15 * time.Second, With: metrics.Labels{"job": "consort"}, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
		}()
		find := func(all []metrics.Sample, machine string) []float64 {
			var vs []float64
			for _, s := range all {
				if s.Labels[metrics.Name] == "power" && s.Labels["machine"] == machine && s.Labels["job"] == "consort" {
					vs = append(vs, s.Value)
				}
			}
			return vs
		}
		first, began := <-kept, time.Now()
		for _, m := range []string{"a", "b"} {
			if got := find(first, m); len(got) != 1 || got[0] != 1 {
				t.Errorf("first round, machine %s: %v, want [1]", m, got)
			}
		}
		power.DeleteLabelValues("b")
		second := <-kept
		if took := time.Since(began); took != 15*time.Second {
			t.Errorf("the second round came after %s, want 15s", took)
		}
		if got := find(second, "a"); len(got) != 1 || got[0] != 1 {
			t.Errorf("second round, machine a: %v, want [1]", got)
		}
		if got := find(second, "b"); len(got) != 1 || math.Float64bits(got[0]) != math.Float64bits(metrics.Gone()) {
			t.Errorf("second round, machine b: %v, want its end", got)
		}
		if got := find(<-kept, "b"); got != nil {
			t.Errorf("third round, machine b: %v, want it ended once", got)
		}
	})
}

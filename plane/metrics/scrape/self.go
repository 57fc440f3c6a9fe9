package scrape

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"consort.dev/consort/plane/metrics"
)

// Self is what this process counts, for others to read and for its own store.
type Self struct{ registry *prometheus.Registry }

// NewSelf returns what the collectors count, and what the process uses.
func NewSelf(all ...prometheus.Collector) *Self {
	r := prometheus.NewRegistry()
	r.MustRegister(all...)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return &Self{r}
}

// Handler serves the page that Prometheus reads. A collector that fails leaves
// the others on it.
func (s *Self) Handler() http.Handler {
	return promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// Keeping is where and how often the process keeps what it counts.
type Keeping struct {
	To interface {
		Append(context.Context, []metrics.Sample) error
	}
	Every time.Duration
	With  metrics.Labels // of every series
	Now   func() time.Time
	Log   *slog.Logger
}

// Keep keeps it until ctx ends. A series that is no longer counted, as of a
// machine that has gone, is ended: nobody finds its last value any more.
func (s *Self) Keep(ctx context.Context, k Keeping) error {
	tick := time.NewTicker(k.Every)
	defer tick.Stop()
	was := map[string]metrics.Labels{}
	for {
		now := k.Now()
		samples, err := Own(s.registry, now, k.With)
		if err != nil {
			k.Log.Warn("not all that is counted can be kept", "error", err)
		}
		is := map[string]metrics.Labels{}
		for _, one := range samples {
			is[key(one.Labels)] = one.Labels
		}
		for name, l := range was {
			if is[name] == nil {
				samples = append(samples, metrics.Sample{Labels: l, At: now, Value: metrics.Gone()})
			}
		}
		if err := k.To.Append(ctx, samples); err != nil && ctx.Err() == nil {
			k.Log.Warn("what is counted is not kept", "error", err)
		}
		was = is
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// key tells series apart.
func key(l metrics.Labels) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(l)) {
		b.WriteString(name + "\x00" + l[name] + "\x00")
	}
	return b.String()
}

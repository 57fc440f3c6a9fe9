package spans

import "github.com/prometheus/client_golang/prometheus"

// buckets are upper bounds in seconds: from a warm seat's first frame to a cold
// boot inside two emulations.
var buckets = []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300}

// counts are the measurements of all Connects.
type counts struct {
	connects *prometheus.CounterVec
	whole    *prometheus.HistogramVec
	phases   *prometheus.HistogramVec
}

func newCounts() *counts {
	return &counts{
		connects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vdi_session_connects_total", Help: "Connects that ended, by what came of them: shown, or given up.",
		}, []string{"outcome"}),
		whole: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "vdi_session_connect_duration_seconds", Help: "From the click until the first frame was sent.", Buckets: buckets,
		}, []string{"hypervisor"}),
		phases: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "vdi_session_connect_phase_duration_seconds", Help: "Each phase of a Connect whose first frame was sent.", Buckets: buckets,
		}, []string{"hypervisor", "phase"}),
	}
}

// add counts a Connect. How long one took that was given up says when somebody
// lost patience, and is in no histogram.
func (c *counts) add(now connect) {
	if !now.shown {
		c.connects.WithLabelValues("given up").Inc()
		return
	}
	c.connects.WithLabelValues("shown").Inc()
	c.whole.WithLabelValues(now.hypervisor).Observe(now.ended.Sub(now.session.Metadata.Created).Seconds())
	for _, p := range now.phases {
		c.phases.WithLabelValues(now.hypervisor, p.Name).Observe(p.Ended.Sub(p.Began).Seconds())
	}
}

// Describe implements prometheus.Collector.
func (t *Teller) Describe(to chan<- *prometheus.Desc) {
	t.counts.connects.Describe(to)
	t.counts.whole.Describe(to)
	t.counts.phases.Describe(to)
}

// Collect implements prometheus.Collector: the histograms of every Connect that
// was told.
func (t *Teller) Collect(to chan<- prometheus.Metric) {
	t.counts.connects.Collect(to)
	t.counts.whole.Collect(to)
	t.counts.phases.Collect(to)
}

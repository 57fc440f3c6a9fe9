// Package scrape gives the measurements of fronts in the form that Prometheus
// reads, under the names that OpenTelemetry's conventions have there.
package scrape

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"consort.dev/consort/front"
)

// Collector is a prometheus.Collector of the fronts that a function lists.
type Collector struct{ fronts func() []*front.Front }

// New returns a collector. Two fronts of one service would collide.
func New(fronts func() []*front.Front) *Collector { return &Collector{fronts} }

var (
	duration = prometheus.NewDesc("http_server_request_duration_seconds",
		"From the first byte of a request until the last of its response, as the service's user has it.",
		[]string{"service", "replica", "http_request_method", "http_response_status_code"}, nil)
	inFlight = prometheus.NewDesc("http_server_active_requests", "Requests that have not ended.", []string{"service"}, nil)
	good     = prometheus.NewDesc("consort_front_good_total", "Requests that kept an objective.", []string{"service", "objective"}, nil)
	total    = prometheus.NewDesc("consort_front_requests_total", "Requests that count for an objective.", []string{"service", "objective"}, nil)
	queued   = prometheus.NewDesc("consort_front_queued", "Requests that wait for a replica.", []string{"service"}, nil)
	refused  = prometheus.NewDesc("consort_front_refused_total", "Requests that found no room, or no replica in time.", []string{"service"}, nil)
	retries  = prometheus.NewDesc("consort_front_retries_total", "Requests that were tried on another replica.", []string{"service"}, nil)
	denied   = prometheus.NewDesc("consort_front_retries_denied_total", "Retries that the budget did not allow.", []string{"service"}, nil)
	ejected  = prometheus.NewDesc("consort_front_ejections_total", "How often a replica was left out because it failed or was slow.", []string{"service"}, nil)
	state    = prometheus.NewDesc("consort_front_replica_state", "1 for the state that a replica is in.", []string{"service", "replica", "state"}, nil)
)

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{duration, inFlight, good, total, queued, refused, retries, denied, ejected, state} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	for _, f := range c.fronts() {
		n := f.Figures()
		for _, s := range n.Series {
			to <- prometheus.MustNewConstHistogram(duration, uint64(s.Count), s.Sum, cumulative(s.Histogram),
				n.Service, s.Replica, s.Method, strconv.Itoa(s.Status))
		}
		count := func(d *prometheus.Desc, v int64, labels ...string) {
			to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), append([]string{n.Service}, labels...)...)
		}
		for _, o := range n.Objectives {
			count(good, o.Good, o.Objective)
			count(total, o.Total, o.Objective)
		}
		count(refused, n.Refused)
		count(retries, n.Retries)
		count(denied, n.Unretried)
		count(ejected, n.Ejections)
		to <- prometheus.MustNewConstMetric(inFlight, prometheus.GaugeValue, float64(n.InFlight), n.Service)
		to <- prometheus.MustNewConstMetric(queued, prometheus.GaugeValue, float64(n.Queued), n.Service)
		for _, r := range n.Replicas {
			to <- prometheus.MustNewConstMetric(state, prometheus.GaugeValue, 1, n.Service, r.Name, string(r.State))
		}
	}
}

// cumulative is the histogram as Prometheus has it: by upper bound, all that is
// at most as long.
func cumulative(h front.Histogram) map[float64]uint64 {
	by, sum := map[float64]uint64{}, int64(0)
	for i, bound := range front.Bounds {
		sum += h.Counts[i]
		by[bound] = uint64(sum)
	}
	return by
}

package scrape

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/metrics"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// program counts a little of everything.
func program() *prometheus.Registry {
	r := prometheus.NewPedanticRegistry()
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "took_seconds", Buckets: []float64{0.1, 1}}, []string{"job"})
	took.WithLabelValues("its own").Observe(0.5)
	seen := prometheus.NewCounter(prometheus.CounterOpts{Name: "seen_total"})
	seen.Add(3)
	r.MustRegister(took, seen)
	return r
}

func TestAPageIsReadAsItIsGathered(t *testing.T) {
	from := program()
	page := httptest.NewServer(promhttp.HandlerFor(from, promhttp.HandlerOpts{}))
	defer page.Close()
	with := metrics.Labels{"job": "shop", "instance": "web-1"}
	scraped, err := Get(t.Context(), page.Client(), page.URL, now, with)
	if err != nil {
		t.Fatal(err)
	}
	own, err := Own(from, now, with)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{"took_seconds_bucket 0.1": 0, "took_seconds_bucket 1": 1, "took_seconds_bucket +Inf": 1, "took_seconds_sum ": 0.5, "took_seconds_count ": 1, "seen_total ": 3}
	for how, all := range map[string][]metrics.Sample{"scraped": scraped, "own": own} {
		if len(all) != len(want) {
			t.Errorf("%s: %d samples, want %d", how, len(all), len(want))
		}
		for _, s := range all {
			v, is := want[s.Labels[metrics.Name]+" "+s.Labels["le"]]
			if !is || v != s.Value || s.Labels["job"] != "shop" || s.Labels["instance"] != "web-1" || !s.At.Equal(now) {
				t.Errorf("%s: %v is %v at %s", how, s.Labels, s.Value, s.At)
			}
		}
	}
}

func TestATargetThatIsNoneIsUnavailable(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"not found": http.NotFound,
		"a page":    func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
	} {
		s := httptest.NewServer(h)
		if _, err := Get(t.Context(), s.Client(), s.URL, now, nil); !errors.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
		if _, err := Get(t.Context(), s.Client(), s.URL, now, nil); !errors.Is(err, fault.Unavailable) {
			t.Errorf("%s, and gone: %v", name, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("a{b=\"c\"} 1 1700000000000\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_count 3\nh_sum 4\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := Read(strings.NewReader(text), now, metrics.Labels{"job": "x"})
		for _, s := range all {
			if err != nil || s.Labels[metrics.Name] == "" || s.Labels["job"] != "x" {
				t.Errorf("%v, %v", s, err)
			}
		}
	})
}

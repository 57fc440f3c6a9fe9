package scrape_test

import (
	"context"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"consort.dev/consort/fault"
	"consort.dev/consort/front"
	"consort.dev/consort/front/scrape"
)

func TestPrometheusReadsWhatWasMeasured(t *testing.T) {
	f, err := front.New(front.Options{
		Service: "shop", Objectives: []front.Objective{{Name: "fast", Bound: time.Minute}},
		Dial: func(context.Context, string, int) (net.Conn, error) {
			return nil, fault.Unavailable.Errorf("it is off")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Set([]front.Replica{{Name: "web-1", Port: 80}}); err != nil {
		t.Fatal(err)
	}
	f.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))

	r := prometheus.NewPedanticRegistry()
	r.MustRegister(scrape.New(func() []*front.Front { return []*front.Front{f} }))
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, line := range []string{
		`http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_code="503",replica="web-1",service="shop"} 1`,
		`http_server_request_duration_seconds_bucket{http_request_method="GET",http_response_status_code="503",replica="web-1",service="shop",le="10"} 1`,
		`consort_front_good_total{objective="fast",service="shop"} 0`,
		`consort_front_requests_total{objective="fast",service="shop"} 1`,
		`consort_front_replica_state{replica="web-1",service="shop",state="ready"} 1`,
	} {
		if !strings.Contains(w.Body.String(), line+"\n") {
			t.Errorf("no line %s in\n%s", line, w.Body)
		}
	}
}

package otlp

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/metrics"
)

// kept is a store for tests.
type kept struct {
	all []metrics.Sample
	err error
}

func (k *kept) Append(_ context.Context, s []metrics.Sample) error {
	k.all = append(k.all, s...)
	return k.err
}

// pushed is what a program sends: a histogram in seconds, a counter, a gauge,
// and a sum of what came since the last push.
const pushed = `{"resourceMetrics":[{"resource":{"attributes":[
	{"key":"service.name","value":{"stringValue":"shop"}},{"key":"service.namespace","value":{"stringValue":"web"}},
	{"key":"service.instance.id","value":{"stringValue":"web-3"}}]},
"scopeMetrics":[{"metrics":[
	{"name":"http.server.request.duration","unit":"s","histogram":{"aggregationTemporality":2,"dataPoints":[
		{"timeUnixNano":"1795435200000000000","count":"7","sum":1.5,"bucketCounts":["4","2","1"],"explicitBounds":[0.1,0.25],
		 "attributes":[{"key":"http.request.method","value":{"stringValue":"GET"}},{"key":"http.response.status_code","value":{"intValue":"200"}}]}]}},
	{"name":"orders","unit":"1","sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{"timeUnixNano":"1795435200000000000","asInt":"42"}]}},
	{"name":"queue.length","gauge":{"dataPoints":[{"timeUnixNano":"1795435200000000000","asDouble":2.5}]}},
	{"name":"delta","sum":{"aggregationTemporality":1,"dataPoints":[{"asInt":"1"},{"asInt":"2"}]}}]}]}]}`

func push(t *testing.T, to *kept, kind, body string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, Path, bytes.NewBufferString(body))
	r.Header.Set("Content-Type", kind)
	Handler(to).ServeHTTP(w, r)
	text, _ := io.ReadAll(w.Body)
	return w.Code, string(text)
}

func TestAPushIsKeptUnderItsNameInPrometheus(t *testing.T) {
	var to kept
	if code, text := push(t, &to, "application/json", pushed); code != http.StatusOK || !strings.Contains(text, `"rejectedDataPoints":"2"`) {
		t.Errorf("%d %s; want 200 that tells of the two points of delta", code, text)
	}
	got := map[string]float64{}
	for _, s := range to.all {
		if s.Labels["job"] != "web/shop" || s.Labels["instance"] != "web-3" {
			t.Errorf("%v is not of web/shop on web-3", s.Labels)
		}
		if s.At.Unix() != 1795435200 {
			t.Errorf("%v is of %s", s.Labels, s.At)
		}
		got[s.Labels[metrics.Name]+"{"+s.Labels["http_request_method"]+s.Labels["http_response_status_code"]+s.Labels["le"]+"}"] = s.Value
	}
	want := map[string]float64{
		"http_server_request_duration_seconds_bucket{GET2000.1}":  4,
		"http_server_request_duration_seconds_bucket{GET2000.25}": 6,
		"http_server_request_duration_seconds_bucket{GET200+Inf}": 7,
		"http_server_request_duration_seconds_sum{GET200}":        1.5,
		"http_server_request_duration_seconds_count{GET200}":      7,
		"orders_total{}": 42,
		"queue_length{}": 2.5,
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s is %v, want %v", k, got[k], v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d series, want %d: %v", len(got), len(want), got)
	}
}

func TestTheAnswerToAPushIsTheProtocols(t *testing.T) {
	for _, c := range []struct {
		name, kind, body string
		err              error
		want             int
	}{
		{"nothing", "application/x-protobuf", "", nil, 200},
		{"not a message", "application/x-protobuf", "\xff\xff", nil, 400},
		{"text", "text/plain", "", nil, 415},
		{"late", "application/json", pushed, fault.Invalid.Errorf("3 of 7 were left out"), 200},
		{"a full disk", "application/json", pushed, io.ErrShortWrite, 503},
	} {
		if code, text := push(t, &kept{err: c.err}, c.kind, c.body); code != c.want {
			t.Errorf("%s: %d %s, want %d", c.name, code, text, c.want)
		}
	}
}

func FuzzPush(f *testing.F) {
	f.Add([]byte(pushed))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, kind := range []string{"application/json", "application/x-protobuf"} {
			if code, _ := push(t, &kept{}, kind, string(body)); code != 200 && code != 400 {
				t.Errorf("%s: %d", kind, code)
			}
		}
	})
}

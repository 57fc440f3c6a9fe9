// Package otlp takes measurements that programs push by OpenTelemetry's protocol
// over HTTP, under the names that its conventions have in Prometheus.
package otlp

import (
	"context"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/otlptranslator"
	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/metrics"
)

// mostBody is how much one push may be.
const mostBody = 16 << 20

// Path is where programs push to (OTLP 1.9, "OTLP/HTTP Request").
const Path = "/v1/metrics"

// Handler takes pushes in protobuf or JSON and keeps them. What cannot be kept
// is counted in the answer, as the protocol says.
func Handler(to interface {
	Append(context.Context, []metrics.Sample) error
}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostBody))
		if err != nil {
			http.Error(w, "send less at once", http.StatusRequestEntityTooLarge)
			return
		}
		var pushed collector.ExportMetricsServiceRequest
		kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
		form := map[string]struct {
			read  func([]byte, proto.Message) error
			write func(proto.Message) ([]byte, error)
		}{
			"application/x-protobuf": {proto.Unmarshal, proto.Marshal},
			"application/json":       {protojson.Unmarshal, protojson.Marshal},
		}[kind]
		if form.read == nil {
			http.Error(w, "send application/x-protobuf or application/json", http.StatusUnsupportedMediaType)
			return
		}
		if err := form.read(body, &pushed); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		samples, refused, why := Samples(&pushed)
		err = to.Append(r.Context(), samples)
		if err != nil && !errors.Is(err, fault.Invalid) {
			http.Error(w, "cannot be kept now; send it again", http.StatusServiceUnavailable)
			return
		}
		if err != nil {
			refused, why = max(refused, 1), errors.Join(why, err)
		}
		answer := &collector.ExportMetricsServiceResponse{}
		if refused > 0 {
			answer.PartialSuccess = &collector.ExportMetricsPartialSuccess{RejectedDataPoints: int64(refused), ErrorMessage: why.Error()}
		}
		text, err := form.write(answer)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(text) // the sender may be gone
	})
}

// Samples are the points of a push, how many of them have no place in the store,
// and why. Sums and histograms must be cumulative: what came since the last push
// is wrong as soon as one push is lost.
func Samples(pushed *collector.ExportMetricsServiceRequest) (all []metrics.Sample, refused int, why error) {
	for _, of := range pushed.GetResourceMetrics() {
		source := from(of.GetResource().GetAttributes())
		for _, scope := range of.GetScopeMetrics() {
			for _, m := range scope.GetMetrics() {
				got, n, err := samples(m, source)
				if err != nil {
					why, refused = err, refused+max(n, len(got), 1)
					continue
				}
				all = append(all, got...)
			}
		}
	}
	return all, refused, why
}

// from is where points come from, as Prometheus labels it (OpenTelemetry's
// "Prometheus and OpenMetrics Compatibility").
func from(attributes []*common.KeyValue) metrics.Labels {
	l := metrics.Labels{}
	job, space := "", ""
	for _, a := range attributes {
		switch a.GetKey() {
		case "service.name":
			job = text(a.GetValue())
		case "service.namespace":
			space = text(a.GetValue()) + "/"
		case "service.instance.id":
			l["instance"] = text(a.GetValue())
		}
	}
	if job != "" {
		l["job"] = space + job
	}
	return l
}

// samples are the points of one metric.
func samples(m *otlp.Metric, source metrics.Labels) (all []metrics.Sample, refused int, why error) {
	switch {
	case m.GetGauge() != nil:
		name, err := named(m, otlptranslator.MetricTypeGauge)
		return numbers(name, m.GetGauge().GetDataPoints(), source), 0, err
	case m.GetSum() != nil && cumulative(m.GetSum()):
		var kind otlptranslator.MetricType = otlptranslator.MetricTypeNonMonotonicCounter
		if m.GetSum().GetIsMonotonic() {
			kind = otlptranslator.MetricTypeMonotonicCounter
		}
		name, err := named(m, kind)
		return numbers(name, m.GetSum().GetDataPoints(), source), 0, err
	case m.GetHistogram() != nil && cumulative(m.GetHistogram()):
		name, err := named(m, otlptranslator.MetricTypeHistogram)
		for _, p := range m.GetHistogram().GetDataPoints() {
			all = append(all, buckets(name, p, source)...)
		}
		return all, 0, err
	}
	n := len(m.GetSum().GetDataPoints()) + len(m.GetHistogram().GetDataPoints()) + len(m.GetExponentialHistogram().GetDataPoints()) + len(m.GetSummary().GetDataPoints())
	return nil, n, fault.Unsupported.Errorf("%s: only gauges, and cumulative sums and histograms of given bounds, are kept", m.GetName())
}

func cumulative(of interface {
	GetAggregationTemporality() otlp.AggregationTemporality
}) bool {
	return of.GetAggregationTemporality() == otlp.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE
}

// named is a metric's name in Prometheus: http.server.request.duration in s is
// http_server_request_duration_seconds.
func named(m *otlp.Metric, kind otlptranslator.MetricType) (string, error) {
	namer := otlptranslator.NewMetricNamer("", otlptranslator.UnderscoreEscapingWithSuffixes)
	return namer.Build(otlptranslator.Metric{Name: m.GetName(), Unit: m.GetUnit(), Type: kind})
}

func numbers(name string, points []*otlp.NumberDataPoint, source metrics.Labels) []metrics.Sample {
	var all []metrics.Sample
	for _, p := range points {
		v := p.GetAsDouble()
		if whole, is := p.GetValue().(*otlp.NumberDataPoint_AsInt); is {
			v = float64(whole.AsInt)
		}
		if noValue(p.GetFlags()) {
			v = metrics.Gone()
		}
		all = append(all, metrics.Sample{Labels: labels(name, p.GetAttributes(), source), At: moment(p.GetTimeUnixNano()), Value: v})
	}
	return all
}

// buckets are the series of a histogram: each counts all that is at most as
// long.
func buckets(name string, p *otlp.HistogramDataPoint, source metrics.Labels) []metrics.Sample {
	var all []metrics.Sample
	at := moment(p.GetTimeUnixNano())
	add := func(suffix string, v float64, le string) {
		l := labels(name+suffix, p.GetAttributes(), source)
		if le != "" {
			l["le"] = le
		}
		if noValue(p.GetFlags()) {
			v = metrics.Gone()
		}
		all = append(all, metrics.Sample{Labels: l, At: at, Value: v})
	}
	sum := uint64(0)
	for i, bound := range p.GetExplicitBounds() {
		if i < len(p.GetBucketCounts()) {
			sum += p.GetBucketCounts()[i]
		}
		add("_bucket", float64(sum), strconv.FormatFloat(bound, 'g', -1, 64))
	}
	add("_bucket", float64(p.GetCount()), "+Inf")
	if p.Sum != nil {
		add("_sum", p.GetSum(), "")
	}
	add("_count", float64(p.GetCount()), "")
	return all
}

func noValue(flags uint32) bool {
	return flags&uint32(otlp.DataPointFlags_DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK) != 0
}

func labels(name string, attributes []*common.KeyValue, source metrics.Labels) metrics.Labels {
	l := metrics.Labels{metrics.Name: name}
	namer := otlptranslator.LabelNamer{}
	for _, a := range attributes {
		if key, err := namer.Build(a.GetKey()); err == nil {
			l[key] = text(a.GetValue())
		}
	}
	for k, v := range source {
		l[k] = v
	}
	return l
}

// text is a value of an attribute; lists and maps are written as JSON.
func text(v *common.AnyValue) string {
	switch x := v.GetValue().(type) {
	case *common.AnyValue_StringValue:
		return x.StringValue
	case *common.AnyValue_BoolValue:
		return strconv.FormatBool(x.BoolValue)
	case *common.AnyValue_IntValue:
		return strconv.FormatInt(x.IntValue, 10)
	case *common.AnyValue_DoubleValue:
		return strconv.FormatFloat(x.DoubleValue, 'g', -1, 64)
	case nil:
		return ""
	}
	b, _ := protojson.Marshal(v) // what was read can be written
	return string(b)
}

func moment(nanos uint64) time.Time {
	return time.Unix(0, int64(min(nanos, math.MaxInt64)))
}

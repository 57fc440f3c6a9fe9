// Package scrape reads what a program shows of itself in Prometheus's text form.
package scrape

import (
	"context"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/metrics"
)

// mostText is how much one target may show.
const mostText = 16 << 20

// Get reads a target's page. The samples are of the moment now, unless the
// target says otherwise, and carry the labels given: they win over the target's
// own.
func Get(ctx context.Context, client *http.Client, url string, now time.Time, with metrics.Labels) ([]metrics.Sample, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fault.Invalid.Errorf("scrape %s: %w", url, err)
	}
	req.Header.Set("Accept", "text/plain;version=0.0.4")
	got, err := client.Do(req)
	if err != nil {
		return nil, fault.Unavailable.Errorf("scrape %s: %w", url, err)
	}
	defer got.Body.Close()
	if got.StatusCode != http.StatusOK {
		return nil, fault.Unavailable.Errorf("scrape %s: it answers %s", url, got.Status)
	}
	all, err := Read(io.LimitReader(got.Body, mostText), now, with)
	if err != nil {
		return nil, fault.Unavailable.Errorf("scrape %s: %w", url, err)
	}
	return all, nil
}

// Read reads the text form.
func Read(from io.Reader, now time.Time, with metrics.Labels) ([]metrics.Sample, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(from)
	if err != nil {
		return nil, err
	}
	var all []metrics.Sample
	for _, f := range families {
		all = append(all, family(f, now, with)...)
	}
	return all, nil
}

// Own gathers what this process counts.
func Own(from prometheus.Gatherer, now time.Time, with metrics.Labels) ([]metrics.Sample, error) {
	families, err := from.Gather()
	var all []metrics.Sample
	for _, f := range families {
		all = append(all, family(f, now, with)...)
	}
	return all, err
}

// family is the samples of one metric, as Prometheus keeps them: histograms and
// summaries are several series.
func family(f *dto.MetricFamily, now time.Time, with metrics.Labels) []metrics.Sample {
	var all []metrics.Sample
	for _, m := range f.GetMetric() {
		at := now
		if ms := m.GetTimestampMs(); ms != 0 {
			at = time.UnixMilli(ms)
		}
		add := func(suffix string, v float64, extra ...string) {
			l := metrics.Labels{metrics.Name: f.GetName() + suffix}
			for _, p := range m.GetLabel() {
				l[p.GetName()] = p.GetValue()
			}
			for k, v := range with {
				l[k] = v
			}
			for i := 0; i < len(extra); i += 2 {
				l[extra[i]] = extra[i+1]
			}
			all = append(all, metrics.Sample{Labels: l, At: at, Value: v})
		}
		switch {
		case m.Counter != nil:
			add("", m.Counter.GetValue())
		case m.Gauge != nil:
			add("", m.Gauge.GetValue())
		case m.Untyped != nil:
			add("", m.Untyped.GetValue())
		case m.Summary != nil:
			for _, q := range m.Summary.GetQuantile() {
				add("", q.GetValue(), "quantile", number(q.GetQuantile()))
			}
			add("_sum", m.Summary.GetSampleSum())
			add("_count", float64(m.Summary.GetSampleCount()))
		case m.Histogram != nil:
			endless := false
			for _, b := range m.Histogram.GetBucket() {
				endless = endless || math.IsInf(b.GetUpperBound(), 1)
				add("_bucket", float64(b.GetCumulativeCount()), "le", number(b.GetUpperBound()))
			}
			if !endless {
				add("_bucket", float64(m.Histogram.GetSampleCount()), "le", "+Inf")
			}
			add("_sum", m.Histogram.GetSampleSum())
			add("_count", float64(m.Histogram.GetSampleCount()))
		}
	}
	return all
}

func number(v float64) string {
	if math.IsInf(v, 1) {
		return "+Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// Package promapi asks any server that speaks Prometheus's HTTP API: its own,
// Thanos, Mimir, VictoriaMetrics.
package promapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/metrics"
)

// Source is a metrics.Source. What the server measures is its own affair: it
// scrapes whom it wants.
type Source struct {
	at     *url.URL
	client *http.Client
}

var _ metrics.Source = (*Source)(nil)

// mostAnswer is how much is read of one answer.
const mostAnswer = 64 << 20

// New returns a source at a URL, as http://127.0.0.1:9090 or what a server of
// many tenants has before /api/v1. Proxies, certificates and credentials are
// the client's.
func New(at string, client *http.Client) (*Source, error) {
	u, err := url.Parse(strings.TrimSuffix(at, "/"))
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fault.Invalid.Errorf("ask %q for measurements: give a URL, as http://127.0.0.1:9090", at)
	}
	return &Source{u, client}, nil
}

// Query implements metrics.Source.
func (s *Source) Query(ctx context.Context, text string, at time.Time) ([]metrics.Series, error) {
	return s.ask(ctx, "/api/v1/query", url.Values{"query": {text}, "time": {seconds(at)}})
}

// QueryRange implements metrics.Source.
func (s *Source) QueryRange(ctx context.Context, text string, over metrics.Range) ([]metrics.Series, error) {
	if err := over.Check(); err != nil {
		return nil, err
	}
	return s.ask(ctx, "/api/v1/query_range", url.Values{
		"query": {text}, "start": {seconds(over.From)}, "end": {seconds(over.To)}, "step": {strconv.FormatFloat(over.Step.Seconds(), 'f', -1, 64)},
	})
}

// seconds writes a time as the API wants it: since 1970, to the millisecond.
func seconds(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64)
}

// answer is the body of both calls (prometheus.io/docs, "HTTP API").
type answer struct {
	Status string `json:"status"`
	Error  string `json:"error"`
	Kind   string `json:"errorType"`
	Data   struct {
		Type   string          `json:"resultType"`
		Result json.RawMessage `json:"result"`
	} `json:"data"`
}

func (s *Source) ask(ctx context.Context, path string, form url.Values) ([]metrics.Series, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.at.String()+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fault.Invalid.Errorf("ask %s: %w", s.at.Redacted(), err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	got, err := s.client.Do(req)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fault.Unavailable.Errorf("ask %s for measurements: %w", s.at.Redacted(), err)
	}
	defer got.Body.Close()
	body, err := io.ReadAll(io.LimitReader(got.Body, mostAnswer+1))
	if err != nil {
		return nil, fault.Unavailable.Errorf("read the answer of %s: %w", s.at.Redacted(), err)
	}
	if len(body) > mostAnswer {
		return nil, fault.Invalid.Errorf("the answer of %s is over %d MiB; ask for less", s.at.Redacted(), mostAnswer>>20)
	}
	var a answer
	if err := json.Unmarshal(body, &a); err != nil || a.Status == "" {
		return nil, fault.Unavailable.Errorf("%s answers %s and not as Prometheus does; is the URL that of its API?", s.at.Redacted(), got.Status)
	}
	if a.Status != "success" {
		return nil, refusal(a.Kind).Errorf("ask %s for measurements: %s", s.at.Redacted(), a.Error)
	}
	all, err := read(a)
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", s.at.Redacted(), err)
	}
	return all, nil
}

// refusal is the kind of an error that the server tells: questions it cannot
// read or carry out are ours, anything else is its own trouble.
func refusal(kind string) fault.Kind {
	if kind == "bad_data" || kind == "execution" {
		return fault.Invalid
	}
	return fault.Unavailable
}

// read takes the series out of an answer.
func read(a answer) ([]metrics.Series, error) {
	if a.Data.Type == "scalar" {
		p, err := point(a.Data.Result)
		return []metrics.Series{{Labels: metrics.Labels{}, Points: []metrics.Point{p}}}, err
	}
	if a.Data.Type != "vector" && a.Data.Type != "matrix" {
		return nil, fault.Invalid.Errorf("it is a %s; ask for numbers", a.Data.Type)
	}
	var list []struct {
		Metric     metrics.Labels    `json:"metric"`
		Value      json.RawMessage   `json:"value"`
		Values     []json.RawMessage `json:"values"`
		Histogram  json.RawMessage   `json:"histogram"`
		Histograms json.RawMessage   `json:"histograms"`
	}
	if err := json.Unmarshal(a.Data.Result, &list); err != nil {
		return nil, fault.Unavailable.Errorf("%w", err)
	}
	all := make([]metrics.Series, 0, len(list))
	for _, one := range list {
		if one.Histogram != nil || one.Histograms != nil {
			return nil, fault.Unsupported.Errorf("%v is a native histogram; ask for one of its quantiles", one.Metric)
		}
		if one.Value != nil {
			one.Values = append(one.Values, one.Value)
		}
		series := metrics.Series{Labels: one.Metric}
		for _, raw := range one.Values {
			p, err := point(raw)
			if err != nil {
				return nil, err
			}
			series.Points = append(series.Points, p)
		}
		all = append(all, series)
	}
	return all, nil
}

// point reads [seconds, "value"].
func point(raw json.RawMessage) (metrics.Point, error) {
	var at float64
	var text string
	if err := json.Unmarshal(raw, &[]any{&at, &text}); err != nil {
		return metrics.Point{}, fault.Unavailable.Errorf("point %s: %w", raw, err)
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return metrics.Point{}, fault.Unavailable.Errorf("value %q is no number", text)
	}
	return metrics.Point{At: time.UnixMilli(int64(math.Round(at * 1000))), Value: v}, nil
}

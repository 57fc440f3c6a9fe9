package rpc

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/metrics"
)

// query answers what holds at a moment.
func (c *call) query() error {
	return c.measured(func(form url.Values) (api.AnswerData, error) {
		at, err := moment(form.Get("time"), c.Now())
		if err != nil {
			return api.AnswerData{}, err
		}
		all, err := c.Metrics.Query(c.r.Context(), form.Get("query"), at)
		out := api.AnswerData{Type: "vector", Series: []api.AnswerSeries{}}
		for _, s := range all {
			for _, p := range s.Points {
				point := written(p)
				out.Series = append(out.Series, api.AnswerSeries{Labels: s.Labels, Point: &point})
			}
		}
		return out, err
	})
}

// queryRange answers for every step of a range.
func (c *call) queryRange() error {
	return c.measured(func(form url.Values) (api.AnswerData, error) {
		from, err := moment(form.Get("start"), time.Time{})
		to, err2 := moment(form.Get("end"), time.Time{})
		step, err3 := stepOf(form.Get("step"))
		if err := errors.Join(err, err2, err3); err != nil {
			return api.AnswerData{}, err
		}
		all, err := c.Metrics.QueryRange(c.r.Context(), form.Get("query"), metrics.Range{From: from, To: to, Step: step})
		out := api.AnswerData{Type: "matrix", Series: []api.AnswerSeries{}}
		for _, s := range all {
			one := api.AnswerSeries{Labels: s.Labels, Points: [][2]any{}}
			for _, p := range s.Points {
				one.Points = append(one.Points, written(p))
			}
			out.Series = append(out.Series, one)
		}
		return out, err
	})
}

// measured answers a question of somebody who may ask. Measurements are of all
// projects. An error is told in Prometheus's form but to our own client, which
// accepts problems.
func (c *call) measured(ask func(url.Values) (api.AnswerData, error)) error {
	switch {
	case !c.caller.Admin && !c.caller.Auditor:
		return fault.Denied.Errorf("ask for measurements: only administrators and auditors may")
	case c.Metrics == nil:
		return fault.Unsupported.Errorf("this plane keeps no measurements")
	}
	if err := c.r.ParseForm(); err != nil {
		return fault.Invalid.Errorf("read the question: %w", err)
	}
	data, err := ask(c.r.Form)
	if err != nil && c.r.Header.Get("Accept") == api.ProblemType {
		return err
	}
	switch {
	case errors.Is(err, fault.Invalid), errors.Is(err, fault.Unsupported):
		return c.reply(http.StatusBadRequest, api.Answer{Status: "error", Kind: "bad_data", Error: err.Error()})
	case errors.Is(err, fault.Unavailable):
		return c.reply(http.StatusServiceUnavailable, api.Answer{Status: "error", Kind: "unavailable", Error: err.Error()})
	case err != nil:
		return err
	}
	return c.reply(http.StatusOK, api.Answer{Status: "success", Data: data})
}

// written is a point as Prometheus writes it.
func written(p metrics.Point) [2]any {
	return [2]any{float64(p.At.UnixMilli()) / 1000, strconv.FormatFloat(p.Value, 'f', -1, 64)}
}

// moment reads seconds since 1970 or RFC 3339; what is empty is otherwise, if
// there is one.
func moment(text string, otherwise time.Time) (time.Time, error) {
	if text == "" && !otherwise.IsZero() {
		return otherwise, nil
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil && s >= 0 && s < 1e11 {
		return time.UnixMilli(int64(s * 1000)), nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return t, fault.Invalid.Errorf("%q is no time; write seconds since 1970, or as 2026-11-23T08:00:00Z", text)
	}
	return t, nil
}

// stepOf reads seconds, or a span as 30s.
func stepOf(text string) (time.Duration, error) {
	if s, err := strconv.ParseFloat(text, 64); err == nil && s > 0 && s < 1e9 {
		return time.Duration(s * float64(time.Second)), nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fault.Invalid.Errorf("step %q is no span; write seconds, or as 30s", text)
	}
	return d, nil
}

package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Answer is what a question in PromQL brought, in the words of Prometheus's HTTP
// API, so that whoever asks Prometheus can ask us.
type Answer struct {
	Status string     `json:"status" enum:"success,error"`
	Data   AnswerData `json:"data,omitzero"`
	Kind   string     `json:"errorType,omitempty" doc:"One word, where there was no answer."`
	Error  string     `json:"error,omitempty" doc:"Why there was none."`
}

// AnswerData is the series of an answer.
type AnswerData struct {
	Type   string         `json:"resultType" enum:"vector,matrix" doc:"A vector has one point a series, a matrix several."`
	Series []AnswerSeries `json:"result"`
}

// AnswerSeries is one series. Points are a time in seconds since 1970, and a
// value as text.
type AnswerSeries struct {
	Labels map[string]string `json:"metric"`
	Point  *[2]any           `json:"value,omitempty" doc:"Of a vector: seconds since 1970, and the value as text."`
	Points [][2]any          `json:"values,omitempty" doc:"Of a matrix."`
}

// Query asks in PromQL what holds now or, where span is not 0, what held in the
// time before, at each step.
func (c *Client) Query(ctx context.Context, promql string, now time.Time, span, step time.Duration) (*Answer, error) {
	seconds := func(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }
	r := request{method: http.MethodGet, path: QueryPath, query: url.Values{"query": {promql}, "time": {seconds(now)}}}
	if span != 0 {
		r.path = QueryRangePath
		r.query = url.Values{"query": {promql}, "start": {seconds(now.Add(-span))}, "end": {seconds(now)}, "step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)}}
	}
	r.header = http.Header{"Accept": {ProblemType}} // not Prometheus's form of an error
	out := new(Answer)
	_, err := c.do(ctx, r, out)
	return out, err
}

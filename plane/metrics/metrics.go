// Package metrics says how what was measured is kept and asked for.
package metrics

import (
	"context"
	"math"
	"time"

	"consort.dev/consort/fault"
)

// Name is the label that holds a metric's name.
const Name = "__name__"

// Labels are what tells one series from another; its Name is among them.
type Labels map[string]string

// Sample is one value of one series.
type Sample struct {
	Labels Labels
	At     time.Time // to the millisecond
	Value  float64
}

// Series is what is known of one series.
type Series struct {
	Labels Labels // without a Name where the question made a value of its own
	Points []Point
}

// Point is a value at a time.
type Point struct {
	At    time.Time
	Value float64
}

// Source answers questions in PromQL. A question that cannot be read, or that
// asks for too much, is fault.Invalid; a source that does not answer is
// fault.Unavailable.
type Source interface {
	// Query answers what holds at a moment: one point a series, in any order. A
	// scalar is a series without labels. Nothing that matches is an empty answer.
	Query(ctx context.Context, promql string, at time.Time) ([]Series, error)
	// QueryRange answers for every step of a range, both ends included. A step at
	// which a series has no value has no point.
	QueryRange(ctx context.Context, promql string, over Range) ([]Series, error)
}

// Store is a Source that keeps what it is given.
type Store interface {
	Source
	// Append keeps samples: all that it can. A sample that is there already is
	// kept once. One that is older than the store takes, or that contradicts
	// another of the same moment, is left out, and the error says how many were.
	Append(ctx context.Context, samples []Sample) error
}

// Range is the moments of a question: From, a Step later, and so on until To.
type Range struct {
	From, To time.Time
	Step     time.Duration
}

// mostSteps is how many points one series may have in an answer, as Prometheus
// allows.
const mostSteps = 11_000

// Check refuses ranges that are upside down or too fine.
func (r Range) Check() error {
	switch {
	case r.To.Before(r.From):
		return fault.Invalid.Errorf("the range ends at %s, before it begins", r.To.UTC().Format(time.RFC3339))
	case r.Step < time.Millisecond:
		return fault.Invalid.Errorf("step %s is too short; a millisecond is the least", r.Step)
	case r.To.Sub(r.From)/r.Step > mostSteps:
		return fault.Invalid.Errorf("%s in steps of %s are more than %d points; take longer steps", r.To.Sub(r.From), r.Step, mostSteps)
	}
	return nil
}

// staleBits is the NaN by which Prometheus says that a series has ended
// (model/value.StaleNaN).
const staleBits = 0x7ff0000000000002

// Gone is the value that ends a series: from then on a question finds none.
func Gone() float64 { return math.Float64frombits(staleBits) }

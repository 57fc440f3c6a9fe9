// Package slo says how much of an error budget is spent, exact to the event.
//
// Good and total events are kept per minute as running sums of whole numbers, so
// that every window is one subtraction and a busy minute weighs what it should.
// Averages of ratios are not used anywhere: they say up to ten times too much at
// night and eight times too little at a peak (TestRatioAveragingIsWrong).
//
// The package has no clock and does no I/O. Whoever drives a Ledger from several
// goroutines locks it.
package slo

import (
	"math/bits"
	"time"

	"consort.dev/consort/estate"
)

// Count is events, or slices of time.
type Count struct {
	Good  int64
	Total int64 // good and bad
}

// Bad returns those that were not good.
func (c Count) Bad() int64 { return c.Total - c.Good }

func (c Count) plus(d Count) Count  { return Count{c.Good + d.Good, c.Total + d.Total} }
func (c Count) minus(d Count) Count { return Count{c.Good - d.Good, c.Total - d.Total} }

// valid reports whether c can be a number of events.
func (c Count) valid() bool { return c.Good >= 0 && c.Total >= c.Good }

// Objective is what is judged: the share of good events, or of good slices.
type Objective struct {
	Target estate.Share
	Slice  time.Duration // whole minutes; 0: every event counts for itself
	Good   estate.Share  // of a slice's events, for it to be good; 0: all of them
}

// ObjectiveOf returns the objective of a level.
func ObjectiveOf(l *estate.Level) Objective {
	o := Objective{Target: l.Target}
	if s, is := l.Slices(); is {
		o.Slice, o.Good = time.Duration(s.Length), s.Good
	}
	return o
}

// Verdict is how an objective stands in a window.
type Verdict struct {
	State   estate.LevelState
	Count         // events, or slices
	Allowed int64 // how many may be bad with that many in all, rounded down
	Minutes int64 // of the window that lie after the ledger's beginning
	Heard   int64 // of these, in which the source was heard
}

// Left returns how many more may be bad; less than 0 when the budget is spent.
func (v Verdict) Left() int64 { return v.Allowed - v.Bad() }

// Blind reports whether nobody listened: no-data is then no sign of silence.
func (v Verdict) Blind() bool { return v.Heard == 0 }

// verdict judges a count against a target.
func verdict(c Count, target estate.Share, minutes, heard int64) Verdict {
	v := Verdict{Count: c, Minutes: minutes, Heard: heard, State: estate.NoData}
	if c.Total == 0 {
		return v
	}
	v.Allowed = part(c.Total, estate.Whole-target)
	v.State = estate.Kept
	if v.Left() < 0 {
		v.State = estate.Broken
	}
	return v
}

// part returns the share of n, rounded down, for any n and shares up to all.
func part(n int64, share estate.Share) int64 {
	hi, lo := bits.Mul64(uint64(n), uint64(share))
	q, _ := bits.Div64(hi, lo, uint64(estate.Whole))
	return int64(q)
}

// atLeast reports whether good is at least the share of total, without rounding.
func atLeast(c Count, share estate.Share) bool {
	return !less(uint64(c.Good), uint64(estate.Whole), uint64(c.Total), uint64(share))
}

// less reports whether a*b < c*d, which may be larger than 64 bits.
func less(a, b, c, d uint64) bool {
	h1, l1 := bits.Mul64(a, b)
	h2, l2 := bits.Mul64(c, d)
	return h1 < h2 || h1 == h2 && l1 < l2
}

package slo

import (
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// Ledger keeps the events of one level. It takes 20 bytes for each minute it
// keeps, whatever comes: 864,020 bytes for 30 days.
type Ledger struct {
	begin int64 // the first minute ever counted, since 1970
	head  int64 // the minute that is being counted
	// Sums of everything up to and with a minute, at minute % len. There is one
	// more than is kept: what the oldest window is subtracted from.
	good, total []int64
	heard       []uint32 // minutes in which the source was heard; may wrap, like every sum here
	lost        Count
}

// NewLedger returns a ledger that counts from the minute of begin on, and keeps
// the length of time, in whole minutes.
func NewLedger(begin time.Time, keep time.Duration) *Ledger {
	l := sized(keep)
	l.begin, l.head = minute(begin), minute(begin)
	return l
}

func sized(keep time.Duration) *Ledger {
	n := max(1, int64(keep/time.Minute)) + 1
	return &Ledger{good: make([]int64, n), total: make([]int64, n), heard: make([]uint32, n)}
}

// minute returns the minutes since 1970.
func minute(t time.Time) int64 {
	s := t.Unix()
	if s < 0 {
		s -= 59 // towards the past, as after 1970
	}
	return s / 60
}

// Keep returns the longest window that can be counted.
func (l *Ledger) Keep() time.Duration { return time.Duration(len(l.good)-1) * time.Minute }

// Lost returns the events that Add refused because they came too late.
func (l *Ledger) Lost() Count { return l.lost }

// Advance makes the minute of now the one that is being counted. A clock that
// goes back changes nothing.
func (l *Ledger) Advance(now time.Time) {
	to := minute(now)
	last := l.at(l.head)
	good, total, heard := l.good[last], l.total[last], l.heard[last]
	// After a longer pause than is kept, every place is written once.
	for m := max(l.head, to-int64(len(l.good))) + 1; m <= to; m++ {
		i := l.at(m)
		l.good[i], l.total[i], l.heard[i] = good, total, heard
	}
	l.head = max(l.head, to)
}

// Add counts events of the minute of at; a count of nothing says that the source
// was heard and had nothing to tell. Events may come late: they count where they
// belong. What is older than the ledger keeps is fault.Stale and noted as lost.
// A minute that Advance has not reached, and a count that cannot be, are
// fault.Invalid.
func (l *Ledger) Add(at time.Time, c Count) error {
	m := minute(at)
	switch {
	case !c.valid():
		return fault.Invalid.Errorf("count events: %d good of %d cannot be", c.Good, c.Total)
	case m > l.head:
		return fault.Invalid.Errorf("count events of %s: that is yet to come; see that the clocks agree", at.UTC().Format(time.RFC3339))
	case m < l.oldest():
		l.lost = l.lost.plus(c)
		return fault.Stale.Errorf("count events of %s: the ledger begins at %s", at.UTC().Format(time.RFC3339), clock(l.oldest()))
	}
	var news uint32
	if l.heardIn(m) == 0 {
		news = 1
	}
	i := l.at(m)
	for ; m <= l.head; m++ {
		l.good[i] += c.Good
		l.total[i] += c.Total
		l.heard[i] += news
		if i++; i == len(l.good) {
			i = 0
		}
	}
	return nil
}

// heardIn returns 1 when the source was heard in the minute, else 0.
func (l *Ledger) heardIn(m int64) uint32 { return l.heard[l.at(m)] - l.heard[l.at(m-1)] }

// oldest is the oldest minute that is counted still.
func (l *Ledger) oldest() int64 { return max(l.begin, l.head-int64(len(l.good))+2) }

// at is where the sums up to a minute are.
func (l *Ledger) at(m int64) int {
	n := int64(len(l.good))
	return int(((m % n) + n) % n)
}

func clock(m int64) string { return time.Unix(m*60, 0).UTC().Format(time.RFC3339) }

// span is whole minutes [from, to) that are kept.
func (l *Ledger) span(from, to time.Time) (first, end int64) {
	first, end = max(minute(from), l.oldest()), min(minute(to), l.head+1)
	return first, max(first, end)
}

// in returns the events of the minutes [first, end).
func (l *Ledger) in(first, end int64) Count {
	if first >= end {
		return Count{}
	}
	a, b := l.at(first-1), l.at(end-1)
	return Count{l.good[b] - l.good[a], l.total[b] - l.total[a]}
}

// Count returns the events of the minutes from from to before to, as far as the
// ledger reaches.
func (l *Ledger) Count(from, to time.Time) Count { return l.in(l.span(from, to)) }

// Judge returns how the objective stands in the minutes from from to before to.
// Slices lie on multiples of their length since 1970; those that begin in the
// window and have ended are counted, but for those without events: they are
// neither good nor bad.
func (l *Ledger) Judge(o Objective, from, to time.Time) Verdict {
	first, end := l.span(from, to)
	var heard uint32
	if first < end {
		heard = l.heard[l.at(end-1)] - l.heard[l.at(first-1)]
	}
	c := l.in(first, end)
	if o.Slice > 0 {
		c = l.slices(o, first, min(end, l.head))
	}
	return verdict(c, o.Target, end-first, int64(heard))
}

func (l *Ledger) slices(o Objective, first, end int64) Count {
	n := max(1, int64(o.Slice/time.Minute))
	good := o.Good
	if good == 0 {
		good = estate.Whole
	}
	var c Count
	for m := up(first, n); m+n <= end; m += n {
		if s := l.in(m, m+n); s.Total > 0 {
			c.Total++
			if atLeast(s, good) {
				c.Good++
			}
		}
	}
	return c
}

// up returns the first multiple of n that is not before m.
func up(m, n int64) int64 {
	r := ((m % n) + n) % n
	if r == 0 {
		return m
	}
	return m + n - r
}

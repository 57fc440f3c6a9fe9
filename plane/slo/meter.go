package slo

import (
	"maps"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/fault"
)

// Reading is what one source has counted since it started.
type Reading struct {
	Source  string    // one process, one series
	Started time.Time // when it began to count; zero when it does not say
	Count
}

// Meter turns what sources have counted since they started into what is new.
// Sources are told apart, since the sum of several hides that one started again.
type Meter struct {
	since int64 // Unix seconds: sources that started later are new as a whole
	last  map[string]Reading
}

// NewMeter returns a meter that counts what happens after since.
func NewMeter(since time.Time) *Meter {
	return &Meter{since: since.Unix(), last: map[string]Reading{}}
}

// Read returns the events that are new since the source was read last. It
// reports false when that cannot be known: at the first reading of a source that
// was there before the meter, or does not say since when.
//
// A source that counts less than before has started again, as has one that says
// so: what it has counted since is new. When a reading cannot be, as more good
// than total from one that was not read at once, it is fault.Invalid, and the
// next one tells what this one did not.
func (m *Meter) Read(r Reading) (fresh Count, known bool, err error) {
	old, seen := m.last[r.Source]
	again := seen && (r.Good < old.Good || r.Total < old.Total || r.Started.After(old.Started) && !old.Started.IsZero())
	switch {
	case !r.Count.valid():
		return Count{}, false, fault.Invalid.Errorf("read %s: %d good of %d cannot be", r.Source, r.Good, r.Total)
	case again, !seen && r.Started.Unix() > m.since:
		fresh, known = r.Count, true
	case seen:
		fresh, known = r.minus(old.Count), true
		if !fresh.valid() {
			return Count{}, false, fault.Invalid.Errorf("read %s: %d good of %d new events cannot be; it was read while it counted", r.Source, fresh.Good, fresh.Total)
		}
	}
	m.last[r.Source] = r
	return fresh, known, nil
}

// Forget drops a source that is gone for good; it takes memory until then.
func (m *Meter) Forget(source string) { delete(m.last, source) }

// Sources returns the sources that the meter remembers, sorted.
func (m *Meter) Sources() []string { return slices.Sorted(maps.Keys(m.last)) }

func (m *Meter) readings() []Reading {
	return slices.SortedFunc(maps.Values(m.last), func(a, b Reading) int { return strings.Compare(a.Source, b.Source) })
}

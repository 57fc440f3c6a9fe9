package slo

import (
	"time"

	"consort.dev/consort/estate"
)

// Window returns the minutes [from, to) that the window means at now: the minute
// that is being counted is its last. A calendar is read in the zone, which the
// caller looked up by the window's name for it; nil is UTC.
func Window(w estate.Window, now time.Time, zone *time.Location) (from, to time.Time) {
	to = now.Truncate(time.Minute).Add(time.Minute)
	if w.Calendar == "" {
		return to.Add(-time.Duration(w.Length())), to
	}
	if zone == nil {
		zone = time.UTC
	}
	begin, local := w.Begin(), now.In(zone)
	y, m, d := local.Date()
	var months, days int // how far back the one before began
	switch w.Calendar {
	case estate.Day:
		days = 1
	case estate.Week:
		days = 7
		d -= (int(local.Weekday()-begin.Weekday()) + 7) % 7
	case estate.Month:
		months, d = 1, begin.Day()
	case estate.Quarter:
		months, d = 3, begin.Day()
		m -= (m - begin.Month() + 12) % 3
	}
	from = time.Date(y, m, d, begin.Hour(), begin.Minute(), 0, 0, zone)
	if from.After(now) {
		from = time.Date(y, m-time.Month(months), d-days, begin.Hour(), begin.Minute(), 0, 0, zone)
	}
	return from, to
}

package slo

import (
	"time"

	"consort.dev/consort/estate"
)

// Rule says when a budget burns so fast that somebody must know: at Burn times
// the even rate, over a long window so that it matters and over a short one so
// that it still goes on.
type Rule struct {
	Severity    Severity
	Tenths      int64 // the burn rate, in tenths
	Long, Short time.Duration
}

// Severity is how soon somebody must look.
type Severity string

// The severities.
const (
	Page   Severity = "page"   // now
	Ticket Severity = "ticket" // this week
)

// Rules returns the rules, fastest first: the table of the SRE workbook,
// chapter 5. Of a budget for 30 days they spend 2 %, 5 %, 10 % and 10 % in
// their long windows.
func Rules() []Rule {
	const day = 24 * time.Hour
	return []Rule{
		{Page, 144, time.Hour, 5 * time.Minute},
		{Page, 60, 6 * time.Hour, 30 * time.Minute},
		{Ticket, 30, day, 2 * time.Hour},
		{Ticket, 10, 3 * day, 6 * time.Hour},
	}
}

// LeastBad is how many bad events the long window needs before a rule burns: one
// failed request of ten at night wakes nobody.
const LeastBad = 10

// Burning is what a rule finds.
type Burning string

// What a rule finds. Unknown is no sign that things are well.
const (
	Quiet   Burning = "quiet"
	Burns   Burning = "burns"
	Unknown Burning = "no-data" // nothing was counted of late
)

// Alert is a rule and what it finds.
type Alert struct {
	Rule
	Found           Burning
	InLong, InShort Verdict
}

// Alerts applies the rules to the time up to now; the minute that is being
// counted is part of it. Windows too short for a slice are as long as two. Rules that
// look further back than the objective's own window are left out.
func (l *Ledger) Alerts(o Objective, window time.Duration, now time.Time) []Alert {
	var out []Alert
	end := now.Truncate(time.Minute).Add(time.Minute)
	least := 2*o.Slice + time.Minute // holds one whole slice wherever it begins
	for _, r := range Rules() {
		if r.Long > window {
			continue
		}
		a := Alert{Rule: r, Found: Quiet, InLong: l.Judge(o, end.Add(-max(r.Long, least)), end), InShort: l.Judge(o, end.Add(-max(r.Short, least)), end)}
		switch events := l.Count(end.Add(-r.Long), end); {
		case a.InShort.Total == 0: // the long window, too, says nothing of now
			a.Found = Unknown
		case events.Bad() >= LeastBad && burns(a.InLong.Count, o.Target, r.Tenths) && burns(a.InShort.Count, o.Target, r.Tenths):
			a.Found = Burns
		}
		out = append(out, a)
	}
	return out
}

// burns reports whether bad/total is at least tenths/10 of what the target
// allows, without rounding.
func burns(c Count, target estate.Share, tenths int64) bool {
	return !less(uint64(c.Bad()), uint64(estate.Whole)*10, uint64(c.Total), uint64(tenths)*uint64(estate.Whole-target))
}

// Rate returns how many times faster than evenly the budget burns, for people;
// false when nothing was counted. Rules compare whole numbers instead.
func (v Verdict) Rate(target estate.Share) (float64, bool) {
	if v.Total == 0 || target >= estate.Whole {
		return 0, false
	}
	return float64(v.Bad()) / float64(v.Total) * float64(estate.Whole) / float64(estate.Whole-target), true
}

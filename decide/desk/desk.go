// Package desk turns how long an application takes to start on a desktop into
// what is done about it: the desktop is moved to where that is known to be
// quicker, or it stays, with reasons.
//
// It is pure, as package decide is: measurements go in, a decision comes out,
// and what was decided before is part of what goes in.
package desk

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"consort.dev/consort/decide"
	"consort.dev/consort/estate"
)

// Policy is what is promised of one application, and what may be done.
type Policy struct {
	Application string
	Bound       time.Duration // for one start
	Share       estate.Share  // of the starts that must keep it
	Blueprint   string        // where the desktop's size is written
	Modes       []decide.Mode // of everybody who has a say
}

// Start is one start of the application.
type Start struct {
	At   time.Time
	Took time.Duration
}

// Host is one hypervisor.
type Host struct {
	Name    string
	Against string  // why it cannot take the desktop; empty when it can, or has it
	Busy    bool    // a desktop comes or goes there by a decision like this one
	Starts  []Start // of the application there, on other desktops, the oldest first
}

// Past is an earlier decision about the desktop that was carried out.
type Past struct {
	At       time.Time // when it had been
	From, To string
	Judged   bool
	Met      bool // what was expected came true
}

// Measured is what is known now.
type Measured struct {
	At     time.Time
	Here   string  // where the desktop is
	Starts []Start // of the application on it there, the oldest first
	Hosts  []Host  // Here among them
	InUse  bool    // somebody works on it
	Past   []Past  // the oldest first
}

// Decision is to move the desktop, or to wait.
type Decision struct {
	Act          decide.Act // Move or Wait
	From, To     string     // hypervisors
	Mode         decide.Mode
	Say          string // one plain sentence
	Objective    string
	Evidence     []estate.Fact
	Alternatives []estate.Alternative
	Expected     estate.Expectation
}

const (
	lately       = 7 * 24 * time.Hour // what is older says little of now
	enough       = 3                  // starts, before a desktop or a host is judged
	enoughLate   = 2                  // and of those too late: one may be anything
	betweenMoves = 4 * time.Hour      // of one desktop: each costs its person minutes
	firstHold    = 24 * time.Hour     // after a move in vain; twice as long after another
	neverBack    = 30 * 24 * time.Hour
	judgedBy     = 7 * 24 * time.Hour // after a move
)

// look is what the starts of one place say.
type look struct {
	starts, late int
	median       time.Duration
	last         time.Duration
}

func (p Policy) look(all []Start, now time.Time) look {
	var took []time.Duration
	for _, s := range all {
		if now.Sub(s.At) <= lately {
			took = append(took, s.Took)
		}
	}
	l := look{starts: len(took)}
	for _, t := range took {
		if l.last = t; t > p.Bound {
			l.late++
		}
	}
	if slices.Sort(took); l.starts > 0 {
		l.median = took[l.starts/2]
	}
	return l
}

// kept reports whether no more starts were late than may be.
func (p Policy) kept(l look) bool {
	return int64(l.late)*int64(estate.Whole) <= int64(l.starts)*int64(estate.Whole-p.Share)
}

// broken reports whether the level is broken, and goes on to be.
func (p Policy) broken(l look) bool {
	return l.starts >= enough && l.late >= enoughLate && !p.kept(l) && l.last > p.Bound
}

// String is what is promised, as people say it.
func (p Policy) String() string {
	return fmt.Sprintf("%s of the starts of %s within %s", p.Share, p.Application, p.Bound)
}

// Broken reports whether the level is broken on the desktop, so that there is
// something to decide.
func Broken(p Policy, m Measured) bool { return p.broken(p.look(m.Starts, m.At)) }

// Decide says what is to be done about the desktop now.
func Decide(p Policy, m Measured) Decision {
	here := p.look(m.Starts, m.At)
	d := Decision{Act: decide.Wait, From: m.Here, To: m.Here, Mode: decide.Strictest(p.Modes), Objective: p.String(), Evidence: p.evidence(m, here)}
	if !p.broken(here) {
		d.Say = fmt.Sprintf("it stays on %s: %s", m.Here, p.count(here))
		return d
	}
	best, not := p.target(m)
	d.Alternatives = not
	d.Alternatives = append(d.Alternatives, estate.Alternative{Act: string(decide.Resize), To: 1,
		Not: "its size is that of blueprint " + p.Blueprint + ", which its other desktops have as well"})
	if best.Name == "" {
		d.Say = fmt.Sprintf("it stays on %s although %s: no other host is known to be better", m.Here, p.count(here))
		return d
	}
	there := p.look(best.Starts, m.At)
	if held := p.heldBack(m, best); held != "" {
		d.Say = fmt.Sprintf("it stays on %s although %s: %s", m.Here, p.count(here), held)
		d.Alternatives = append(d.Alternatives, estate.Alternative{Act: string(decide.Move), To: 1, On: best.Name, Not: held})
		return d
	}
	d.Act, d.To = decide.Move, best.Name
	d.Alternatives = append(d.Alternatives, estate.Alternative{Act: string(decide.Wait), To: 1, On: m.Here,
		Not: fmt.Sprintf("it does not mend by itself: the last %d starts were no better", min(here.starts, enough))})
	d.Say = fmt.Sprintf("move from %s to %s, because %s, and there it starts in %s (median of %d on other desktops)",
		m.Here, best.Name, p.count(here), brief(there.median), there.starts)
	d.Expected = estate.Expectation{By: m.At.Add(judgedBy), Say: fmt.Sprintf("%s on %s", p, best.Name)}
	return d
}

// target returns the host on which the application is known to start quickest,
// and why not another. It has no name where none is known to be better.
func (p Policy) target(m Measured) (best Host, not []estate.Alternative) {
	move := func(to, why string) estate.Alternative {
		return estate.Alternative{Act: string(decide.Move), To: 1, On: to, Not: why}
	}
	median := func(h Host) time.Duration { return p.look(h.Starts, m.At).median }
	var fit []Host
	for _, h := range m.Hosts {
		l := p.look(h.Starts, m.At)
		why := p.against(m, h, l)
		switch {
		case h.Name == m.Here && l.starts >= enough && p.kept(l):
			return Host{}, []estate.Alternative{move("", fmt.Sprintf("other desktops on %s start it in %s: another host is no remedy", m.Here, brief(l.median)))}
		case h.Name == m.Here:
		case why != "":
			not = append(not, move(h.Name, why))
		default:
			fit = append(fit, h)
		}
	}
	if len(fit) == 0 {
		return Host{}, not
	}
	slices.SortStableFunc(fit, func(a, b Host) int { return cmp.Compare(median(a), median(b)) })
	for _, h := range fit[1:] {
		not = append(not, move(h.Name, fmt.Sprintf("it starts in %s there, and in %s on %s", brief(median(h)), brief(median(fit[0])), fit[0].Name)))
	}
	return fit[0], not
}

// against says why the desktop should not go to a host.
func (p Policy) against(m Measured, h Host, l look) string {
	for _, past := range m.Past {
		if past.From == h.Name && m.At.Sub(past.At) < neverBack {
			return fmt.Sprintf("it left %s on %s", h.Name, past.At.UTC().Format("2 Jan 2006"))
		}
	}
	switch {
	case h.Against != "":
		return h.Against
	case l.starts < enough:
		return fmt.Sprintf("not known: it was started %d times there of late, and %d are needed", l.starts, enough)
	case !p.kept(l):
		return fmt.Sprintf("no better: %s", p.count(l))
	}
	return ""
}

// heldBack says which guard rail holds a move back, or nothing.
func (p Policy) heldBack(m Measured, to Host) string {
	hold := firstHold
	for _, past := range m.Past {
		if past.Judged && !past.Met {
			if left := past.At.Add(hold); m.At.Before(left) {
				return fmt.Sprintf("its move to %s was in vain; none until %s", past.To, left.UTC().Format("2 Jan 15:04"))
			}
			hold *= 2
		}
	}
	if n := len(m.Past); n > 0 {
		if next := m.Past[n-1].At.Add(betweenMoves); m.At.Before(next) {
			return fmt.Sprintf("it was moved a short time ago; not again before %s", next.UTC().Format("2 Jan 15:04"))
		}
	}
	for _, h := range m.Hosts {
		if h.Busy && (h.Name == m.Here || h.Name == to.Name) {
			return fmt.Sprintf("another desktop is being moved from or to %s: one at a time", h.Name)
		}
	}
	if m.InUse {
		return "somebody works on it"
	}
	return ""
}

// Judge says what a move brought: whether what was expected came true, once
// there were starts enough or it has been long enough.
func Judge(p Policy, past Past, m Measured) (o estate.Outcome, known bool) {
	var since []Start
	for _, s := range m.Starts {
		if s.At.After(past.At) {
			since = append(since, s)
		}
	}
	l := p.look(since, m.At)
	o.At = m.At.UTC()
	switch {
	case m.Here != past.To:
		o.Say = fmt.Sprintf("it has left %s before that was known", past.To)
	case l.starts >= enough, m.At.Sub(past.At) >= judgedBy && l.starts > 0:
		o.Met, o.Say = p.kept(l), p.count(l)
	case m.At.Sub(past.At) >= judgedBy:
		o.Say = fmt.Sprintf("%s was not started on %s since", p.Application, past.To)
	default:
		return o, false
	}
	return o, true
}

// count is what the starts say, as the end of a sentence.
func (p Policy) count(l look) string {
	return fmt.Sprintf("%d of the last %d starts of %s took longer than %s (median %s)", l.late, l.starts, p.Application, p.Bound, brief(l.median))
}

// evidence is what a decision rests on, in an order for people.
func (p Policy) evidence(m Measured, here look) []estate.Fact {
	all := []estate.Fact{
		{Name: "bound", Value: p.Bound.Seconds(), Unit: "s"},
		{Name: "starts on " + m.Here, Value: float64(here.starts), Unit: "starts"},
		{Name: "too late on " + m.Here, Value: float64(here.late), Unit: "starts"},
		{Name: "median on " + m.Here, Value: here.median.Seconds(), Unit: "s"},
	}
	for _, s := range m.Starts[max(0, len(m.Starts)-5):] {
		all = append(all, estate.Fact{Name: "start at " + s.At.UTC().Format("2 Jan 15:04:05"), Value: s.Took.Seconds(), Unit: "s"})
	}
	for _, h := range m.Hosts {
		if l := p.look(h.Starts, m.At); l.starts > 0 {
			all = append(all, estate.Fact{Name: fmt.Sprintf("median of %d starts on other desktops on %s", l.starts, h.Name), Value: l.median.Seconds(), Unit: "s"})
		}
	}
	return all
}

func brief(d time.Duration) string { return d.Round(10 * time.Millisecond).String() }

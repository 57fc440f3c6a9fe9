package decide

import (
	"fmt"
	"slices"
	"time"
)

// heldBack says why an option must not be taken now, or nothing.
func (v view) heldBack(o option, s *State) string {
	for _, guard := range []func(view, option, *State) string{needed, known, capped, shrinking, spaced, single, alone} {
		if why := guard(v, o, s); why != "" {
			return why
		}
	}
	return ""
}

// needed refuses what would change nothing.
func needed(v view, o option, s *State) string {
	switch o.act {
	case Out:
		if o.to <= v.units && v.burning && s.Vain >= vainPushes {
			return fmt.Sprintf("%d times more replicas did not help; look at what the service itself waits for", s.Vain)
		}
		if o.to <= v.units && v.want >= v.p.Most {
			return fmt.Sprintf("%d is the most there may be", v.p.Most)
		}
		if o.to <= v.units {
			return fmt.Sprintf("%d bear %s requests/s, and no more is expected", v.units, round(v.safe*float64(v.units)))
		}
	case In:
		if v.units <= v.p.Least {
			return fmt.Sprintf("%d is the least there may be", v.p.Least)
		}
		if o.to >= v.units {
			return fmt.Sprintf("%d were wanted within the last %s", s.peak(v.m.At), s.Hold)
		}
	case Resize:
		if o.to == v.units {
			return "no other size fits better"
		}
	case Replace, Move:
		if len(o.gone) == 0 {
			return "no replica does worse than its equals"
		}
	}
	return ""
}

// known refuses everything that is not plainly right without measurements. That
// a front leaves all replicas out is known without an answer.
func known(v view, o option, s *State) string {
	one := o.act == Replace || o.act == Move
	if v.blind && !(one && v.m.Seen && v.allGone(s)) {
		return "nothing is known of what the service did in the last " + short.String()
	}
	return ""
}

// capped keeps the number of acts an hour down. Urgent ones pass. The more acts
// there were, the more one must take away to be worth another.
func capped(v view, o option, s *State) string {
	most := v.p.Acts
	if most == 0 {
		most = usualActs
	}
	adds := o.act == Out || o.act == Resize && o.to > v.units
	switch {
	case o.act == Replace || o.act == Move:
		most /= 2
	case !adds:
		worth := small + float64(v.units-o.to)/float64(v.units)*worthier
		most = int(float64(most) * min(worth, 1))
	}
	if !o.urgent && len(s.Acts) >= most {
		return fmt.Sprintf("%d acts in the last hour are enough", len(s.Acts))
	}
	return ""
}

// shrinking refuses to take capacity from a service that needs it.
func shrinking(v view, o option, s *State) string {
	if o.act != In && (o.act != Resize || o.to > v.units) {
		return ""
	}
	if v.burning || v.now.bad >= enoughBad && v.now.badShare() > v.p.Level.budget() {
		return fmt.Sprintf("%s of the requests were bad in the last %s", percent(v.now.badShare()), short)
	}
	if v.minute.span < 0.9*long.Seconds() {
		return "less than a minute is known"
	}
	if v.now.rate() > growing*v.minute.rate() {
		return fmt.Sprintf("requests grow: %s/s in the last %s, %s/s in the last minute", round(v.now.rate()), short, round(v.minute.rate()))
	}
	if len(v.ready) < len(v.m.Replicas) {
		return "a replica is still starting or leaving"
	}
	if ago := v.m.At.Sub(s.LastIn); !s.LastIn.IsZero() && ago < max(betweenIn, s.Hold/2) {
		return fmt.Sprintf("replicas left %s ago; what that does must be seen first", ago)
	}
	if since := v.m.At.Sub(s.Singles); !s.Singles.IsZero() && since < v.m.Boot+short {
		return "a replica is being replaced"
	}
	return ""
}

// spaced keeps remedies for single replicas apart in time.
func spaced(v view, o option, s *State) string {
	if o.act != Replace && o.act != Move {
		return ""
	}
	apart, but := oneByOne, ""
	switch {
	case v.allGone(s):
		apart, but = betweenOwn, ", and none answers: another machine is no remedy for what they share"
	case v.mostGone(s): // the one that came answers, most of the others do not
		apart = v.m.Boot + long
	}
	if ago := v.m.At.Sub(s.Singles); !s.Singles.IsZero() && ago < apart {
		return fmt.Sprintf("one was replaced %s ago%s", ago.Round(time.Second), but)
	}
	if at, is := s.Moved[o.gone[0]]; is && v.m.At.Sub(at) < betweenOwn {
		return fmt.Sprintf("%s was moved %s ago; once an hour is enough", o.gone[0], v.m.At.Sub(at).Round(time.Second))
	}
	return ""
}

// single keeps the blast radius of remedies for single replicas small.
func single(v view, o option, s *State) string {
	if o.act != Replace && o.act != Move {
		return ""
	}
	away := len(v.m.Replicas) - len(v.ready)
	if most := max(1, int(blast*float64(v.units))); away+1 > most {
		return fmt.Sprintf("%d of %d are away already, and at most %d may be", away, v.units, most)
	}
	return ""
}

// alone allows one act in a failure domain at a time.
func alone(v view, o option, s *State) string {
	if o.act != Replace && o.act != Move {
		return ""
	}
	domain := ""
	for _, r := range v.m.Replicas {
		if slices.Contains(o.gone, r.ID) {
			domain = r.Domain
		}
	}
	for _, r := range v.m.Replicas {
		if domain != "" && r.Domain == domain && r.Phase != Ready {
			return fmt.Sprintf("another replica in %s is %s", domain, r.Phase)
		}
	}
	return ""
}

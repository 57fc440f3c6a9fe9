package decide

import "fmt"

// verify judges the earlier decisions whose time has come, and learns from
// them: a want is held longer after a scale-in that was regretted, and shorter
// after one that was not.
func (s *State) verify(v view) []Outcome {
	var out []Outcome
	open := s.Open
	s.Open = nil
	for _, e := range open {
		regretted := (e.Act == In) && s.LastIn.IsZero()
		if e.By.After(v.m.At) && !regretted || v.blind {
			s.Open = append(s.Open, e)
			continue
		}
		o := Outcome{Of: e.Of, Act: e.Act, Met: v.kept() && !regretted}
		o.Say = fmt.Sprintf("%s of the requests were bad in the last minute", percent(v.minute.badShare()))
		if regretted {
			o.Say = "regretted: more were wanted before the hold was over"
		}
		s.weigh(o, !v.burning && !regretted)
		out = append(out, o)
	}
	return out
}

// kept reports whether the level was kept in the last minute, as far as so few
// requests can tell.
func (v view) kept() bool {
	return v.minute.bad < enoughBad || v.minute.badShare() <= v.p.Level.budget()
}

// weigh learns from an outcome: what is well by now has helped, though it may have
// come late.
func (s *State) weigh(o Outcome, well bool) {
	switch {
	case o.Act == In && well:
		s.Hold = max(leastHold, s.Hold*4/5)
	case o.Act == Out && well:
		s.Vain = 0
	case o.Act == Out && o.Of.Equal(s.Pushed):
		s.Vain++
	}
}

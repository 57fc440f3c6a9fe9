package lifecycle

import (
	"context"
	"slices"
	"time"

	"consort.dev/consort/compose"
	"consort.dev/consort/estate"
	"consort.dev/consort/plane/store"
)

const (
	// keepEnded is how long an ended session can be looked at.
	keepEnded = 10 * time.Minute
	// nobodyCame ends a session that was ready and that nobody opened.
	nobodyCame = 10 * time.Minute
)

// phase is one part of Connect: its name, what a waiting person reads, and when
// it is over.
type phase struct {
	name, text string
	over       func(v *view, way estate.Presentation) bool
}

// phases are passed in order; each begins when the one before has ended.
func phases(s *estate.Session) []phase {
	all := []phase{
		{"compose", "Putting the layers together", func(v *view, _ estate.Presentation) bool { return v.machine != nil }},
		{"place", "Finding a place to run", func(v *view, _ estate.Presentation) bool { return v.machine.Spec.Hypervisor != "" }},
		{"start", "Starting the machine", func(v *view, _ estate.Presentation) bool { return v.machine.Status.Power == estate.On }},
		{"boot", "Booting the system", func(v *view, _ estate.Presentation) bool {
			g := v.machine.Status.Guest
			return g.Agent || g.Desktop || !planOf(v.desktop).Guest.Agent
		}},
		{"desktop", "Drawing the desktop", func(v *view, way estate.Presentation) bool {
			if way.Port != 0 && (!v.machine.Own() || len(v.machine.Status.Guest.Addresses) == 0) {
				return false // its guest shows it, which must be reached for that
			}
			return drawn(v.machine, v.desktop.Status.Plan)
		}},
	}
	if s.Spec.Pool != "" { // by the time its seat is looked at, it has one
		all = append([]phase{{"seat", "Finding a free seat", func(*view, estate.Presentation) bool { return true }}}, all...)
	}
	return all
}

// keepSessions tells every session how far its desktop is, and returns when to
// look again.
func (k *Keeper) keepSessions(ctx context.Context, v *view) (time.Duration, error) {
	var again time.Duration
	for _, s := range v.sessions {
		now := k.Now()
		switch age := now.Sub(s.Status.Ended); {
		case s.Status.State == estate.SessionEnded && v.desktop.Spec.Pool != "":
			k.ended(ctx, s) // it goes with the seat: until then it tells whose turn it was
			continue
		case s.Status.State == estate.SessionEnded && age > keepEnded:
			if err := k.Store.Delete(ctx, s.Ref(), 0); err != nil {
				return 0, err
			}
			continue
		case s.Status.State == estate.SessionEnded:
			k.ended(ctx, s)
			again = soonest(again, keepEnded-age+time.Second)
			continue
		case s.Spec.End:
			if err := k.endSession(ctx, s, "it was closed"); err != nil {
				return 0, err
			}
			continue
		}
		if v.desktop.Spec.Power != estate.On {
			if err := k.endSession(ctx, s, "the desktop was turned off"); err != nil {
				return 0, err
			}
			continue
		}
		why, rest := v.lasted(s, now)
		if why != "" {
			if err := k.endSession(ctx, s, why); err != nil {
				return 0, err
			}
			continue
		}
		again = soonest(again, rest)
		left, err := k.advance(ctx, v, s)
		if err != nil {
			return 0, err
		}
		again = soonest(again, left)
	}
	return again, nil
}

// advance brings a session's phases up to now, and returns when it should be
// looked at again.
func (k *Keeper) advance(ctx context.Context, v *view, s *estate.Session) (time.Duration, error) {
	way, why := k.way(v, s)
	now := k.Now()
	fresh, err := store.Modify(ctx, k.Store, s.Metadata.Project, s.Metadata.Name, func(s *estate.Session) error {
		st := &s.Status
		if st.State == estate.SessionEnded {
			return nil
		}
		if why != "" {
			st.State, st.Waiting = estate.SessionWaiting, why
			return nil
		}
		waiting := walk(s, v, way, now)
		if waiting == "" {
			beside(s, v, now)
		}
		if v.machine != nil {
			st.Machine = v.machine.Metadata.Name
		}
		st.Way = way
		switch {
		case waiting != "":
			st.State, st.Waiting = estate.SessionWaiting, waiting
		case st.State != estate.SessionOpen:
			st.State, st.Waiting = estate.SessionReady, ""
		}
		return nil
	})
	if err != nil || fresh.Status.State != estate.SessionReady {
		return 0, err
	}
	shown := fresh.Status.Shown()
	since, limit, because := shown[len(shown)-1].Ended, nobodyCame, "nobody came"
	if left := fresh.Status.Left; left.After(since) {
		since, because = left, "nobody came back"
		if most := v.timeOuts().Disconnect; most > 0 {
			limit = time.Duration(most)
		}
	}
	if idle := now.Sub(since); idle < limit {
		return limit - idle + wakeLate, nil
	}
	return 0, k.endSession(ctx, fresh, because)
}

// wakeLate is how long after a time-out a session is looked at.
const wakeLate = 100 * time.Millisecond

// timeOuts returns how long the desktop's context lets its sessions last.
func (v *view) timeOuts() estate.TimeOuts {
	for _, x := range v.inventory.Contexts {
		if x.Metadata.Name == planOf(v.desktop).Context {
			return x.Spec.TimeOuts
		}
	}
	return estate.TimeOuts{}
}

// lasted returns why a session that has lasted as long as its context lets it
// ends now, or when that will be.
func (v *view) lasted(s *estate.Session, now time.Time) (because string, left time.Duration) {
	most := time.Duration(v.timeOuts().Absolute)
	if most == 0 || s.Status.Opened.IsZero() {
		return "", 0
	}
	if left = most - now.Sub(s.Status.Opened); left > 0 {
		return "", left + wakeLate
	}
	return "it has lasted " + most.String() + ", which is as long as its context lets one", 0
}

// walk records which phases are over and returns what is waited for, or "". A
// phase whose end no longer holds, as after a reset, begins anew.
func walk(s *estate.Session, v *view, way estate.Presentation, now time.Time) string {
	st, began := &s.Status, s.Metadata.Created
	for i, p := range phases(s) {
		if i == len(st.Phases) {
			st.Phases = append(st.Phases, estate.Phase{Name: p.name, Text: p.text, Began: began})
		}
		at := &st.Phases[i]
		if !p.over(v, way) {
			if !at.Ended.IsZero() {
				at.Began, at.Ended = now, time.Time{}
			}
			st.Phases = st.Phases[:i+1]
			if _, text := stateOf(v, v.desktop); text != "" {
				return text
			}
			return p.text
		}
		if at.Ended.IsZero() {
			at.Ended = now
		}
		began = at.Ended
	}
	return ""
}

// beside notes when a clone has its identity and its addresses: somebody may
// look at it already. What it has from the beginning is no phase.
func beside(s *estate.Session, v *view, now time.Time) {
	shown := s.Status.Shown()
	began := shown[len(shown)-1].Ended
	for _, p := range []struct {
		name, text string
		over       bool
	}{
		{estate.IdentityReady, "Giving it an identity of its own", v.machine.Own()},
		{estate.NetworkReady, "Plugging in its network", v.machine.Own() && v.addressed()},
	} {
		phases := s.Status.Phases
		switch i := slices.IndexFunc(phases, func(q estate.Phase) bool { return q.Name == p.name }); {
		case i < 0 && !p.over:
			s.Status.Phases = append(phases, estate.Phase{Name: p.name, Text: p.text, Began: began})
		case i >= 0 && p.over && phases[i].Ended.IsZero():
			phases[i].Ended = now
		}
	}
}

// way works out how the session reaches the machine, or why it cannot.
func (k *Keeper) way(v *view, s *estate.Session) (estate.Presentation, string) {
	name := s.Spec.Presentation
	switch {
	case v.blueprint == nil:
		return estate.Presentation{}, texts(v.reasons)
	case name == "" || name == v.blueprint.Spec.Presentation:
		return planOf(v.desktop).Presentation, ""
	}
	other := *v.blueprint
	other.Spec.Presentation = name
	desktop := *v.desktop
	desktop.Spec.Presentation = ""
	plan, reasons := compose.Plan(v.inventory, &other, &desktop)
	if blocked := compose.Blocked(reasons); len(blocked) > 0 {
		return estate.Presentation{}, texts(blocked)
	}
	return plan.Presentation, ""
}

func (k *Keeper) endSession(ctx context.Context, s *estate.Session, because string) error {
	now, err := store.Modify(ctx, k.Store, s.Metadata.Project, s.Metadata.Name, func(s *estate.Session) error {
		if s.Status.State != estate.SessionEnded {
			s.Status.State, s.Status.Ended, s.Status.Because = estate.SessionEnded, k.Now(), because
			s.Status.Waiting = ""
		}
		return nil
	})
	if err != nil {
		return err
	}
	k.ended(ctx, now)
	return nil
}

// soonest returns the shorter of two waits; 0 is none.
func soonest(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

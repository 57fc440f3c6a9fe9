package lifecycle

import (
	"testing"
	"time"

	"consort.dev/consort/estate"
)

// TestADisposableDesktopGoesWithItsSession looks at who is on it, and whether its
// key is there.
func TestADisposableDesktopGoesWithItsSession(t *testing.T) {
	made := time.Now()
	session := func(state estate.SessionState, opened, ended time.Duration) *estate.Session {
		s := &estate.Session{Status: estate.SessionStatus{State: state}}
		if opened != 0 {
			s.Status.Opened = made.Add(opened)
		}
		if ended != 0 {
			s.Status.Ended = made.Add(ended)
		}
		return s
	}
	over := session(estate.SessionEnded, 1, 2)
	late := session(estate.SessionWaiting, 0, 0)
	late.Metadata.Created = made.Add(3)
	for name, c := range map[string]struct {
		open     bool // not sealed
		pool     string
		lost     bool
		sessions []*estate.Session
		want     bool
	}{
		"nobody came yet":                  {},
		"somebody is on it":                {sessions: []*estate.Session{session(estate.SessionOpen, 1, 0)}},
		"its session is over":              {sessions: []*estate.Session{over}, want: true},
		"one is over and one goes on":      {sessions: []*estate.Session{over, session(estate.SessionReady, 0, 0)}},
		"somebody connects after it":       {sessions: []*estate.Session{over, late}, want: true},
		"somebody connects to the next":    {sessions: []*estate.Session{session(estate.SessionEnded, -2, -1), late}},
		"the one before was another's":     {sessions: []*estate.Session{session(estate.SessionEnded, -2, -1)}},
		"nobody looked":                    {sessions: []*estate.Session{session(estate.SessionEnded, 0, 2)}},
		"it is a seat":                     {pool: "counter", sessions: []*estate.Session{over}},
		"it is a seat and its key is gone": {pool: "counter", lost: true, want: true},
		"its key is gone":                  {lost: true, want: true},
		"it is kept":                       {open: true, lost: true, sessions: []*estate.Session{over}},
	} {
		m := &estate.Machine{Spec: estate.MachineSpec{Sealed: !c.open}}
		m.Metadata.Created = made
		if c.lost {
			m.Status.Lost = made.Add(time.Second)
		}
		v := &view{desktop: &estate.Desktop{Spec: estate.DesktopSpec{Pool: c.pool}}, machine: m, sessions: c.sessions}
		if got := v.spent(); got != c.want {
			t.Errorf("%s: the machine goes: %v, want %v", name, got, c.want)
		}
	}
}

func TestADisposableDesktopOfOnesOwnBeginsAtATemplate(t *testing.T) {
	v := &view{desktop: new(estate.Desktop), plan: estate.Plan{Guest: estate.GuestFacts{Agent: true, Screen: true}}}
	if got := v.template(); got != "" {
		t.Errorf("a desktop that is kept goes on from %s", got)
	}
	v.plan.Disposable = true
	if v.template() == "" {
		t.Error("one that is thrown away boots")
	}
}

package lifecycle

import (
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
)

// looked is a session that somebody looked at for so long, and has left for so
// long unless they look still.
func (w *world) looked(name string, lasted, gone time.Duration) {
	w.Helper()
	w.create("Session", "p", name, func(r estate.Resource) {
		r.(*estate.Session).Spec = estate.SessionSpec{Desktop: "d", Person: "ana"}
	})
	until(w, name, "ready", func(s *estate.Session) bool { return s.Status.State == estate.SessionReady })
	change(w, name, func(s *estate.Session) {
		s.Status.State, s.Status.Opened = estate.SessionOpen, time.Now().Add(-lasted)
		for i := range s.Status.Phases {
			s.Status.Phases[i].Began, s.Status.Phases[i].Ended = s.Status.Opened, s.Status.Opened
		}
		if gone > 0 {
			s.Status.State, s.Status.Left = estate.SessionReady, time.Now().Add(-gone)
		}
	})
}

func TestSessionsEndWithTheTimeThatTheirContextGivesThem(t *testing.T) {
	for name, c := range map[string]struct {
		rule         estate.TimeOuts
		lasted, gone time.Duration
		because      string // "" where it goes on
	}{
		"open, no rule":                 {estate.TimeOuts{}, 48 * time.Hour, 0, ""},
		"open, within absolute":         {estate.TimeOuts{Absolute: estate.Duration(2 * time.Hour)}, time.Hour, 0, ""},
		"open, beyond absolute":         {estate.TimeOuts{Absolute: estate.Duration(2 * time.Hour)}, 3 * time.Hour, 0, "as long as its context"},
		"left, beyond absolute":         {estate.TimeOuts{Absolute: estate.Duration(2 * time.Hour)}, 3 * time.Hour, time.Second, "as long as its context"},
		"left, no rule, a moment ago":   {estate.TimeOuts{}, time.Hour, time.Minute, ""},
		"left, no rule, long ago":       {estate.TimeOuts{}, time.Hour, nobodyCame + time.Minute, "nobody came back"},
		"left, within disconnect":       {estate.TimeOuts{Disconnect: estate.Duration(2 * time.Hour)}, time.Hour, time.Hour, ""},
		"left, beyond disconnect":       {estate.TimeOuts{Disconnect: estate.Duration(time.Minute)}, time.Hour, 2 * time.Minute, "nobody came back"},
		"open, and a short disconnect":  {estate.TimeOuts{Disconnect: estate.Duration(time.Millisecond)}, time.Hour, 0, ""},
		"open, and absolute comes soon": {estate.TimeOuts{Absolute: estate.Duration(time.Hour + 300*time.Millisecond)}, time.Hour, 0, "as long as its context"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			change(w, "work", func(x *estate.Context) { x.Spec.TimeOuts = c.rule })
			w.desktop("d")
			w.runs("d")
			w.looked("s", c.lasted, c.gone)
			if c.because != "" {
				until(w, "s", "ended because it "+c.because, func(s *estate.Session) bool {
					return s.Status.State == estate.SessionEnded && strings.Contains(s.Status.Because, c.because)
				})
				return
			}
			for range 50 { // what ends too early shows within a few looks
				change(w, "d", func(m *estate.Machine) { m.Status.Starts++ })
				s := until(w, "s", "there", func(*estate.Session) bool { return true })
				if s.Status.State == estate.SessionEnded {
					t.Fatalf("it ended because %s", s.Status.Because)
				}
				pauseForLoop(t.Context())
			}
		})
	}
}

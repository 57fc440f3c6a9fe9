package pool

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
)

// monday is a Monday at eight in Berlin's winter.
var monday = time.Date(2026, 11, 23, 8, 0, 0, 0, time.FixedZone("CET", 3600))

func spec(change func(*estate.PoolSpec)) *estate.PoolSpec {
	s := &estate.PoolSpec{Blueprint: "task", Warm: 2, Maximum: 10}
	if change != nil {
		change(s)
	}
	return s
}

func TestWant(t *testing.T) {
	office := spec(func(s *estate.PoolSpec) {
		s.Schedule = []estate.Shift{{Days: []estate.Weekday{"mon", "fri"}, From: "08:30", To: "18:00", Warm: 6}, {From: "22:00", To: "02:00", Warm: 1}}
	})
	none := spec(func(s *estate.PoolSpec) { s.Warm = 0 })
	busy := spec(func(s *estate.PoolSpec) { s.Autoscale.Most = 8 })
	for name, c := range map[string]struct {
		p    picture
		want string // target give order refill drop
		why  string
	}{
		"an empty pool is filled one by one":         {picture{spec: spec(nil), room: 5, cpus: 2}, "2 0 0 1 0", "keeps 2 ready"},
		"not faster":                                 {picture{spec: spec(nil), making: 1, room: 5, cpus: 2}, "2 0 0 0 0", ""},
		"not while somebody's start waits":           {picture{spec: spec(nil), starts: 1, room: 5, cpus: 2}, "2 0 0 0 0", ""},
		"not where there is no room":                 {picture{spec: spec(nil), cpus: 2}, "2 0 0 0 0", ""},
		"a full pool is left alone":                  {picture{spec: spec(nil), warm: 2, room: 5, cpus: 2}, "2 0 0 0 0", ""},
		"ready seats that are too many go":           {picture{spec: spec(nil), warm: 4, room: 5, cpus: 2}, "2 0 0 0 2", ""},
		"who waits gets what is there":               {picture{spec: spec(nil), warm: 2, waiting: 1, room: 5, cpus: 2}, "2 1 0 0 0", ""},
		"a seat in the making too":                   {picture{spec: spec(nil), warm: 1, making: 1, waiting: 2, room: 5, cpus: 2}, "2 2 0 0 0", ""},
		"others get new ones, one for each CPU":      {picture{spec: spec(nil), warm: 2, waiting: 9, room: 50, cpus: 2}, "2 2 2 0 0", ""},
		"many at once when they take a moment":       {picture{spec: spec(nil), waiting: 9, room: 50, cpus: 2, make: 300 * time.Millisecond}, "2 0 9 0 0", ""},
		"those begun already count":                  {picture{spec: spec(nil), waiting: 3, taken: 1, begun: 1, room: 5, cpus: 2}, "2 0 1 0 0", ""},
		"never more than there is room for":          {picture{spec: spec(nil), waiting: 9, room: 3, cpus: 2, make: time.Second}, "2 0 3 0 0", ""},
		"never more than the maximum":                {picture{spec: spec(nil), waiting: 9, taken: 7, leaving: 1, room: 50, cpus: 2, make: time.Second}, "2 0 2 0 0", ""},
		"seats that go count until they are gone":    {picture{spec: spec(nil), waiting: 1, taken: 8, leaving: 2, room: 50, cpus: 2}, "2 0 0 0 0", ""},
		"taken ones leave less to keep ready":        {picture{spec: spec(nil), taken: 9, room: 50, cpus: 2}, "1 0 0 1 0", "9 of at most 10 seats are taken"},
		"before the shift":                           {picture{spec: office, now: monday.Add(-2 * time.Hour), warm: 2, room: 9, cpus: 2}, "2 0 0 0 0", "keeps 2 ready"},
		"just in time for the shift":                 {picture{spec: office, now: monday.Add(28 * time.Minute), warm: 2, room: 9, cpus: 2}, "6 0 0 1 0", "begins soon"},
		"in the shift":                               {picture{spec: office, now: monday.Add(time.Hour), warm: 6, room: 9, cpus: 2}, "6 0 0 0 0", "from 08:30 to 18:00"},
		"on another day":                             {picture{spec: office, now: monday.Add(25 * time.Hour), warm: 2, room: 9, cpus: 2}, "2 0 0 0 0", "keeps 2"},
		"a shift may keep fewer, and pass midnight":  {picture{spec: office, now: monday.Add(17 * time.Hour), warm: 2, room: 9, cpus: 2}, "1 0 0 0 1", "from 22:00"},
		"nobody comes":                               {picture{spec: busy, warm: 2, room: 9, cpus: 2, make: 14 * time.Second}, "2 0 0 0 0", "keeps 2"},
		"twelve a minute, and seats take long":       {picture{spec: busy, warm: 2, room: 9, cpus: 2, make: 14 * time.Second, rate: 12}, "6 0 0 1 0", "12.0 persons a minute come and a seat takes 14s to make: 6"},
		"twelve a minute, and seats take no time":    {picture{spec: busy, warm: 2, room: 9, cpus: 2, make: 200 * time.Millisecond, rate: 12}, "2 0 0 0 0", "keeps 2"},
		"never more than autoscaling may":            {picture{spec: busy, warm: 2, room: 9, cpus: 2, make: 14 * time.Second, rate: 90}, "8 0 0 1 0", "the 8 ready seats that autoscaling may keep"},
		"how busy the hosts are has no say":          {picture{spec: busy, warm: 2, room: 9, cpus: 64, make: 14 * time.Second, rate: 12}, "6 0 0 1 0", ""},
		"a first seat is made for its template":      {picture{spec: none, clones: true, room: 5, cpus: 2}, "0 0 0 1 0", "keeps 0"},
		"which goes when it is ready":                {picture{spec: none, clones: true, warm: 1, room: 5, cpus: 2, make: time.Second}, "0 0 0 0 1", ""},
		"and is not made again":                      {picture{spec: none, clones: true, room: 5, cpus: 2, make: time.Second}, "0 0 0 0 0", ""},
		"nor while it is made":                       {picture{spec: none, clones: true, making: 1, room: 5, cpus: 2}, "0 0 0 0 0", ""},
		"nor while it goes":                          {picture{spec: none, clones: true, leaving: 1, room: 5, cpus: 2}, "0 0 0 0 0", ""},
		"nor where there are no templates":           {picture{spec: none, room: 5, cpus: 2}, "0 0 0 0 0", ""},
		"nor while somebody's start waits for it":    {picture{spec: none, clones: true, starts: 1, room: 5, cpus: 2}, "0 0 0 0 0", ""},
		"a seat that takes an age is made all alone": {picture{spec: spec(nil), waiting: 3, room: 9, cpus: 1, make: time.Hour}, "2 0 1 0 0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if c.p.now.IsZero() {
				c.p.now = monday
			}
			d := want(c.p)
			if got := fmt.Sprint(d.target, d.give, d.order, d.refill, d.drop); got != c.want {
				t.Errorf("target give order refill drop: got %s, want %s (%+v)", got, c.want, d)
			}
			if !strings.Contains(d.why, c.why) {
				t.Errorf("why: got %q, want %q in it", d.why, c.why)
			}
		})
	}
}

func TestForecast(t *testing.T) {
	at := func(out []time.Time) string {
		var all []string
		for _, t := range out {
			all = append(all, fmt.Sprint(t.Sub(monday).Round(time.Second)))
		}
		return strings.Join(all, " ")
	}
	p := picture{spec: spec(func(s *estate.PoolSpec) { s.Maximum = 3 }), now: monday, cpus: 1, room: 9, make: 10 * time.Second, stay: 10 * time.Minute, waiting: 5}
	for name, c := range map[string]struct {
		change       func(*picture)
		taken, begun []time.Time
		want         string
	}{
		"one after the other, then when the first have left": {func(*picture) {}, nil, nil, "10s 20s 30s 10m20s 10m30s"},
		"after those under way":                              {func(p *picture) { p.room, p.taken = 1, 2 }, []time.Time{monday.Add(-9 * time.Minute), monday}, []time.Time{monday}, "20s 1m10s 10m10s 10m30s 11m20s"},
		"who stays longer than usual stays on":               {func(p *picture) { p.room, p.taken, p.waiting = 0, 3, 1 }, []time.Time{monday.Add(-time.Hour), monday.Add(-time.Hour), monday.Add(-time.Hour)}, nil, "30m10s"},
		"nothing is promised where there is no room at all":  {func(p *picture) { p.room = 0 }, nil, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			q := p
			c.change(&q)
			if got := at(forecast(q, c.taken, c.begun)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestRatesFade(t *testing.T) {
	rate := 0.0
	for range 60 { // one every ten seconds, for ten minutes
		rate = decayed(rate, 10*time.Second, 1)
	}
	if rate < 4 || rate > 6 {
		t.Errorf("six a minute for ten minutes: got a rate of %.2f", rate)
	}
	if after := decayed(rate, 5*time.Minute, 0); after < rate*0.45 || after > rate*0.55 {
		t.Errorf("five minutes later: got %.2f, want half of %.2f", after, rate)
	}
	if after := decayed(rate, 2*time.Hour, 0); after != 0 {
		t.Errorf("two hours later: got %.2f, want 0", after)
	}
}

func TestPlacesAreToldWhenTheyHaveChangedNoticeably(t *testing.T) {
	told := estate.Queued{Place: 100, Of: 200, Expected: monday.Add(10 * time.Minute)}
	for name, c := range map[string]struct {
		change func(*estate.Queued)
		want   bool
	}{
		"nothing":                      {func(*estate.Queued) {}, false},
		"a few places":                 {func(q *estate.Queued) { q.Place = 90 }, false},
		"a fifth of the places":        {func(q *estate.Queued) { q.Place = 80 }, true},
		"further back":                 {func(q *estate.Queued) { q.Place = 101 }, true},
		"a few persons more":           {func(q *estate.Queued) { q.Of = 230 }, false},
		"many persons more":            {func(q *estate.Queued) { q.Of = 240 }, true},
		"near the front":               {func(q *estate.Queued) { q.Place = 5 }, true},
		"a minute later":               {func(q *estate.Queued) { q.Expected = q.Expected.Add(time.Minute) }, false},
		"three minutes later":          {func(q *estate.Queued) { q.Expected = q.Expected.Add(3 * time.Minute) }, true},
		"no expectation any more":      {func(q *estate.Queued) { q.Expected = time.Time{} }, true},
		"measured, no longer supposed": {func(q *estate.Queued) { q.Assumed = true }, true},
	} {
		now := told
		c.change(&now)
		if got := noticeable(told, now, monday); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestFewWordsForALongQueue(t *testing.T) {
	// Who is at place 500 is told their place about thirty times until it is 1.
	told, writes := 500, 0
	for place := 500; place > 0; place-- {
		if noticeable(estate.Queued{Place: told}, estate.Queued{Place: place}, monday) {
			told = place
			writes++
		}
	}
	if writes > 40 || writes < 5 {
		t.Errorf("a place is told %d times on the way from 500 to 1", writes)
	}
	if slices.Contains([]string{span(5 * time.Second), span(70 * time.Second), span(5 * time.Minute), span(3 * time.Hour)}, "") {
		t.Error("a length of time has no words")
	}
}

// Who connects is waited for until they have seen their desktop.
func TestWhoConnectsHoldsRefillsBackUntilTheySee(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	ended := func(name string, ago time.Duration) estate.Phase {
		return estate.Phase{Name: name, Ended: now.Add(-ago)}
	}
	tests := map[string]struct {
		status estate.SessionStatus
		age    time.Duration
		want   bool
	}{
		"a desktop comes up":         {estate.SessionStatus{State: estate.SessionWaiting}, time.Minute, true},
		"one does not":               {estate.SessionStatus{State: estate.SessionWaiting}, time.Hour, false},
		"it is up, and nobody looks": {estate.SessionStatus{State: estate.SessionReady, Phases: []estate.Phase{ended("seat", time.Second)}}, time.Minute, true},
		"nor ever will":              {estate.SessionStatus{State: estate.SessionReady, Phases: []estate.Phase{ended("seat", 4*time.Second)}}, time.Minute, false},
		"it has just been shown": {estate.SessionStatus{State: estate.SessionOpen,
			Phases: []estate.Phase{ended(estate.FirstFrame, 500*time.Millisecond), ended(estate.NetworkReady, 0)}}, time.Minute, true},
		"somebody works": {estate.SessionStatus{State: estate.SessionOpen,
			Phases: []estate.Phase{ended(estate.FirstFrame, 2*time.Second), ended(estate.NetworkReady, 0)}}, time.Minute, false},
	}
	for name, tt := range tests {
		if got := connects(&tt.status, tt.age, now); got != tt.want {
			t.Errorf("%s: refills are held back = %v, want %v", name, got, tt.want)
		}
	}
}

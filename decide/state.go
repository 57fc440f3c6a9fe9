package decide

import (
	"maps"
	"slices"
	"time"

	"consort.dev/consort/estate"
)

// State is what was learned about one service, and what was done of late. The
// zero State knows nothing.
type State struct {
	Ticks     []Tick                         `json:"ticks,omitempty"`    // of the last minute
	Load      float64                        `json:"load,omitempty"`     // what one replica (or vCPU) bears within the level: requests/s times seconds of a quick request
	Borne     float64                        `json:"borne,omitempty"`    // the most of it that was ever borne well
	Stressed  bool                           `json:"stressed,omitempty"` // whether more than that was ever too much
	Quick     float64                        `json:"quick,omitempty"`    // response time of the quickest tenth, in seconds, when it was last known
	Usual     float64                        `json:"usual,omitempty"`    // the same, over some minutes
	Stretch   float64                        `json:"stretch,omitempty"`  // the mean response time, in quick ones, when hardly any request waits for others
	Margin    float64                        `json:"margin,omitempty"`   // share by which arrivals exceed forecasts
	Forecasts []Forecast                     `json:"forecasts,omitempty"`
	Peaks     []Peak                         `json:"peaks,omitempty"` // falling: who is later is smaller
	Each      map[estate.MachineID]Behaviour `json:"each,omitempty"`
	Like      Make                           `json:"like,omitzero"`    // what a replica was when Load was learned, where all were alike
	Learned   time.Time                      `json:"learned,omitzero"` // when Flight was last lowered

	Hold    time.Duration                  `json:"hold,omitempty"`   // how long a want is believed to come back
	LastIn  time.Time                      `json:"lastIn,omitzero"`  // when replicas last left
	Shrunk  int                            `json:"shrunk,omitempty"` // and how many there were before
	Pushed  time.Time                      `json:"pushed,omitzero"`  // when replicas were last added because the level was breaking
	Added   time.Time                      `json:"added,omitzero"`   // when replicas were last added
	Vain    int                            `json:"vain,omitempty"`   // how many times in a row that did not help
	Acts    []time.Time                    `json:"acts,omitempty"`   // of the last hour
	Moved   map[estate.MachineID]time.Time `json:"moved,omitempty"`
	Left    map[estate.MachineID][]string  `json:"left,omitempty"`   // hosts that a machine has left
	Singles time.Time                      `json:"singles,omitzero"` // when a single replica was last replaced or moved
	Open    []Expected                     `json:"open,omitempty"`
}

// Tick is one span of measurements of the whole service.
type Tick struct {
	At       time.Time     `json:"at"`
	Span     time.Duration `json:"span"`
	Arrived  int64         `json:"arrived"`
	Answered int64         `json:"answered"`
	Bad      int64         `json:"bad"`
	Time     time.Duration `json:"time"`
	Quick    time.Duration `json:"quick"`
	Units    int           `json:"units"` // ready replicas, or their vCPUs
}

// Forecast is a rate foretold for a time that has not come yet.
type Forecast struct {
	For  time.Time `json:"for"`
	Rate float64   `json:"rate"`
}

// Peak is how many were wanted once.
type Peak struct {
	At   time.Time `json:"at"`
	Want int       `json:"want"`
}

// Make is what a replica is and where it is, as far as that decides what it can
// do.
type Make struct {
	Host     string `json:"host,omitempty"`
	VCPUs    int    `json:"vcpus,omitempty"`
	Revision int    `json:"revision,omitempty"`
}

// Behaviour is what one replica did of late; older requests count for less. What
// it did while it was something else, or elsewhere, does not count.
type Behaviour struct {
	Make
	Answered float64 `json:"answered"`
	Bad      float64 `json:"bad"`
	Time     float64 `json:"time"`          // seconds
	Spans    int     `json:"spans"`         // it was ready for
	Out      float64 `json:"out,omitempty"` // spans in which its front left it out
}

// pace is the replica's mean response time in seconds.
func (b Behaviour) pace() float64 { return ratio(b.Time, b.Answered) }

func (s State) clone() State {
	s.Ticks = slices.Clone(s.Ticks)
	s.Forecasts = slices.Clone(s.Forecasts)
	s.Peaks = slices.Clone(s.Peaks)
	s.Each = maps.Clone(s.Each)
	s.Acts = slices.Clone(s.Acts)
	s.Moved = maps.Clone(s.Moved)
	s.Left = maps.Clone(s.Left)
	for id, hosts := range s.Left {
		s.Left[id] = slices.Clone(hosts)
	}
	s.Open = slices.Clone(s.Open)
	return s
}

// see takes in what was measured and forgets what is too old.
func (s *State) see(m Measured) {
	s.Ticks = slices.DeleteFunc(s.Ticks, func(t Tick) bool { return m.At.Sub(t.At) >= long })
	s.Acts = slices.DeleteFunc(s.Acts, func(t time.Time) bool { return m.At.Sub(t) >= time.Hour })
	s.Hold = max(s.Hold, leastHold)
	s.Peaks = slices.DeleteFunc(s.Peaks, func(p Peak) bool { return m.At.Sub(p.At) > mostHold })
	here := map[estate.MachineID]bool{}
	for _, r := range m.Replicas {
		here[r.ID] = true
	}
	maps.DeleteFunc(s.Each, func(id estate.MachineID, _ Behaviour) bool { return !here[id] })
	maps.DeleteFunc(s.Moved, func(id estate.MachineID, _ time.Time) bool { return !here[id] })
	maps.DeleteFunc(s.Left, func(id estate.MachineID, _ []string) bool { return !here[id] })
	if !m.Seen || m.Span <= 0 {
		return
	}
	t := Tick{At: m.At, Span: m.Span, Arrived: m.Arrived, Quick: m.Quick}
	for _, r := range m.Replicas {
		t.Answered += r.Answered
		t.Bad += r.Bad
		t.Time += r.Time
		if r.Phase == Ready {
			t.Units++
			s.seeOne(r)
		}
	}
	if m.VCPUs > 0 {
		t.Units *= m.VCPUs
	}
	s.Ticks = append(s.Ticks, t)
}

func (s *State) seeOne(r Replica) {
	if s.Each == nil {
		s.Each = map[estate.MachineID]Behaviour{}
	}
	b, is := s.Each[r.ID], Make{r.Host, r.VCPUs, r.Revision}
	if b.Make != is {
		b = Behaviour{Make: is}
	}
	b.Answered = b.Answered*fade + float64(r.Answered)
	b.Bad = b.Bad*fade + float64(r.Bad)
	b.Time = b.Time*fade + r.Time.Seconds()
	b.Out *= fade
	if r.Out != "" {
		b.Out++
	}
	b.Spans++
	s.Each[r.ID] = b
}

// window is the sum of the ticks within some time.
type window struct {
	span                   float64 // seconds
	arrived, answered, bad float64
	quick                  float64 // seconds, weighted by answers
	time                   float64 // seconds
	units                  float64 // replica-seconds
}

func (s *State) last(at time.Time, d time.Duration) window {
	var w window
	for _, t := range s.Ticks {
		if t.At.After(at) || at.Sub(t.At) >= d {
			continue
		}
		w.span += t.Span.Seconds()
		w.arrived += float64(t.Arrived)
		w.answered += float64(t.Answered)
		w.bad += float64(t.Bad)
		w.time += t.Time.Seconds()
		w.quick += t.Quick.Seconds() * float64(t.Answered)
		w.units += float64(t.Units) * t.Span.Seconds()
	}
	return w
}

func (w window) rate() float64     { return ratio(w.arrived, w.span) }
func (w window) badShare() float64 { return ratio(w.bad, w.answered) }
func (w window) stretch() float64  { return ratio(w.time, w.quick) }
func (w window) pace() float64     { return ratio(w.quick, w.answered) }

// load is what each replica (or vCPU) bore: requests/s times seconds of a quick
// one.
func (w window) load() float64 { return ratio(w.arrived, w.units) * w.pace() }

// ratio is a/b, and 0 of nothing.
func ratio(a, b float64) float64 {
	if b <= 0 {
		return 0
	}
	return a / b
}

// Took returns the state after a decision was carried out. A second call for
// the same decision changes nothing.
func (s State) Took(d Decision) State {
	if d.Act == Wait || slices.ContainsFunc(s.Acts, d.At.Equal) {
		return s
	}
	s = s.clone()
	s.Acts = append(s.Acts, d.At)
	if d.Expected != (Expected{}) {
		s.Open = append(s.Open, d.Expected)
	}
	switch {
	case d.Act == In || d.Act == Resize && d.To < d.From:
		s.LastIn, s.Shrunk = d.At, d.From
	case d.Act == Out || d.Act == Resize:
		s.Added = d.At
		if !d.Undoes.IsZero() {
			s.Hold = min(mostHold, s.Hold*3/2)
			s.LastIn = time.Time{}
		}
		if d.Urgent {
			s.Pushed = d.At
		}
	case d.Act == Replace || d.Act == Move:
		s.Singles = d.At
		s.left(d)
	}
	return s
}

// left notes which hosts the machines of a decision leave.
func (s *State) left(d Decision) {
	if s.Moved == nil {
		s.Moved, s.Left = map[estate.MachineID]time.Time{}, map[estate.MachineID][]string{}
	}
	for _, id := range d.Gone {
		s.Moved[id] = d.At
		s.Left[id] = slices.Clone(d.Avoid)
	}
}

// addedSince reports whether replicas were added after the moment.
func (s *State) addedSince(t time.Time) bool { return s.Added.After(t) }

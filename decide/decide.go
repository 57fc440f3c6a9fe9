// Package decide turns what a service does into what is done about it: more or
// fewer replicas, a larger one, another in place of a bad one, or nothing yet.
//
// It is pure. The time is part of what was measured, and what was learned is a
// State that goes in and comes out, so that a plane can store it. The live loop
// and the simulator call the same Decide.
package decide

import (
	"time"

	"consort.dev/consort/estate"
)

// Policy is what whoever composed the service wants, and what may be done.
type Policy struct {
	Service string  `json:"service"` // as sentences call it
	Level   Level   `json:"level"`
	Scaling Scaling `json:"scaling"`
	Least   int     `json:"least"`           // replicas
	Most    int     `json:"most"`            // replicas
	Sizes   []int   `json:"sizes,omitempty"` // vCPUs that a replica may have, rising; for Size
	Guess   float64 `json:"guess,omitempty"` // requests/s that one replica (or vCPU) is believed to bear, until it is learned
	Acts    int     `json:"acts,omitempty"`  // at most so many an hour, urgent ones apart; 30 when 0
	Modes   []Mode  `json:"modes"`           // of everybody who has a say
}

// Level is a response level: a share of requests answered well within a bound.
type Level struct {
	Bound time.Duration `json:"bound"`
	Share float64       `json:"share"` // of good requests, as 0.99
}

// budget is the share of requests that may be bad.
func (l Level) budget() float64 { return 1 - l.Share }

// Scaling is how a service may grow.
type Scaling string

// The ways to grow.
const (
	Replicas Scaling = "replicas" // any number of equal ones
	Size     Scaling = "size"     // one, larger or smaller
	Place    Scaling = "place"    // one, which can only be moved
)

// Mode is how far a decision may go by itself.
type Mode string

// The modes, the most conservative first.
const (
	Observe   Mode = "observe"   // it is written down
	Recommend Mode = "recommend" // and shown
	Approve   Mode = "approve"   // and carried out once somebody agrees
	Auto      Mode = "auto"      // and carried out
)

// Measured is what was seen since the last time.
type Measured struct {
	At       time.Time     `json:"at"`
	Span     time.Duration `json:"span"`    // since the last time
	Seen     bool          `json:"seen"`    // false: nobody knows what happened in the span; not the same as no requests
	Arrived  int64         `json:"arrived"` // requests that came
	Boot     time.Duration `json:"boot"`    // from a decision to a new replica's first request, of late
	Quick    time.Duration `json:"quick"`   // a tenth of the requests were answered sooner: what one takes that waits for no other
	VCPUs    int           `json:"vcpus,omitempty"`
	Replicas []Replica     `json:"replicas"`
}

// Replica is one machine of the service.
type Replica struct {
	ID       estate.MachineID `json:"id"`
	Host     string           `json:"host,omitempty"`
	Domain   string           `json:"domain,omitempty"` // what fails with it
	VCPUs    int              `json:"vcpus,omitempty"`
	Revision int              `json:"revision,omitempty"` // what it is made from
	Phase    Phase            `json:"phase"`
	Answered int64            `json:"answered"`      // requests whose end was in the span
	Bad      int64            `json:"bad"`           // of those: too late, or wrong
	Time     time.Duration    `json:"time"`          // the sum of their response times
	Out      string           `json:"out,omitempty"` // why its front leaves it out now; empty while it does not
}

// Phase is where a replica is in its life.
type Phase string

// The phases.
const (
	Starting Phase = "starting"
	Ready    Phase = "ready"
	Leaving  Phase = "leaving"
)

// Act is what can be done.
type Act string

// The acts.
const (
	Wait    Act = "wait"
	Out     Act = "out"     // more replicas
	In      Act = "in"      // fewer
	Resize  Act = "resize"  // another number of vCPUs
	Replace Act = "replace" // a new replica, then the bad one goes
	Move    Act = "move"    // the same machine on another host
)

// Decision is one act of management and all its reasons.
type Decision struct {
	At     time.Time          `json:"at"`
	Act    Act                `json:"act"`
	From   int                `json:"from"` // replicas, or vCPUs
	To     int                `json:"to"`
	Gone   []estate.MachineID `json:"gone,omitempty"`  // who leaves or moves
	Avoid  []string           `json:"avoid,omitempty"` // hosts that must not take it
	Mode   Mode               `json:"mode"`
	Urgent bool               `json:"urgent,omitempty"` // the level is at stake
	Undoes time.Time          `json:"undoes,omitzero"`  // the scale-in it takes back

	Say          string        `json:"say"` // one plain sentence
	Why          Why           `json:"why"`
	Alternatives []Alternative `json:"alternatives"`
	Expected     Expected      `json:"expected,omitzero"`
	Outcomes     []Outcome     `json:"outcomes,omitempty"` // of earlier decisions, known now
}

// Why is the evidence.
type Why struct {
	Objective string  `json:"objective"`
	Rate      float64 `json:"rate"`     // requests/s, of the last 15 s or the last minute, whichever is more
	Forecast  float64 `json:"forecast"` // requests/s when a replica that is asked for now is ready
	Margin    float64 `json:"margin"`   // share by which arrivals exceeded such forecasts
	Safe      float64 `json:"safe"`     // requests/s that one replica (or vCPU) bears within the level, as learned
	Quick     float64 `json:"quick"`    // response time in seconds of the quickest tenth, of late
	BadShort  float64 `json:"badShort"` // share of bad requests, last 15 s
	BadLong   float64 `json:"badLong"`  // share of bad requests, last minute
	Blind     bool    `json:"blind,omitempty"`
	Burning   bool    `json:"burning,omitempty"`
	Wanted    int     `json:"wanted"` // what the measurements alone ask for, before any guard rail
}

// Alternative is what else was considered.
type Alternative struct {
	Act Act    `json:"act"`
	To  int    `json:"to"`
	Not string `json:"not"` // why not
}

// Expected is what a decision should bring.
type Expected struct {
	Of  time.Time `json:"of"` // when it was decided
	Act Act       `json:"act"`
	By  time.Time `json:"by"` // when that is judged
	Say string    `json:"say"`
}

// Outcome is what a decision brought.
type Outcome struct {
	Of  time.Time `json:"of"`
	Act Act       `json:"act"`
	Met bool      `json:"met"`
	Say string    `json:"say"`
}

// Decide says what is to be done now. The state it returns has seen the
// measurement but not the act: whoever carries the decision out calls Took, so
// that a decision which nobody carried out holds nothing back.
func Decide(p Policy, m Measured, s State) (Decision, State) {
	s = s.clone()
	s.see(m)
	s.learn(p, m)
	v := look(p, m, s)
	s.remember(v)
	d := v.choose(&s)
	d.Outcomes = s.verify(v)
	return d, s
}

// Strictest returns the most conservative of the modes; without any it is
// Observe.
func Strictest(modes []Mode) Mode {
	order := []Mode{Observe, Recommend, Approve, Auto}
	least := len(order) - 1
	for _, m := range modes {
		at := 0 // a mode nobody knows is the most conservative
		for i, o := range order {
			if m == o {
				at = i
			}
		}
		least = min(least, at)
	}
	if len(modes) == 0 {
		least = 0
	}
	return order[least]
}

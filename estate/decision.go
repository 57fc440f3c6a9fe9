package estate

import "time"

// Decision is one act of management with all its reasons. It is written down
// before anything is done.
type Decision struct {
	Head
	Spec   DecisionSpec   `json:"spec"`
	Status DecisionStatus `json:"status,omitzero"`
}

// DecisionSpec is what was decided, and why. It never changes.
type DecisionSpec struct {
	On           Ref           `json:"on" doc:"What it is about."`
	At           time.Time     `json:"at,omitzero"`
	Act          string        `json:"act" doc:"One word for programs, as out, in or replace."`
	From         int           `json:"from" doc:"How many there were."`
	To           int           `json:"to" doc:"How many there shall be."`
	Gone         []string      `json:"gone,omitempty" doc:"Machines that leave."`
	Source       string        `json:"source,omitempty" doc:"The hypervisor that what it is about leaves."`
	Target       string        `json:"target,omitempty" doc:"The hypervisor that it goes to."`
	Avoid        []string      `json:"avoid,omitempty" doc:"Hosts that must not take what comes instead."`
	Mode         Mode          `json:"mode" enum:"observe,recommend,approve,auto"`
	Urgent       bool          `json:"urgent,omitempty" doc:"The service level is at stake."`
	Undoes       time.Time     `json:"undoes,omitzero" doc:"When the decision was made that this one takes back."`
	Say          string        `json:"say" doc:"One plain sentence."`
	Objective    string        `json:"objective" doc:"What is promised."`
	Evidence     []Fact        `json:"evidence" doc:"What was measured, forecast and learned."`
	Alternatives []Alternative `json:"alternatives" doc:"What else was considered."`
	Expected     Expectation   `json:"expected,omitzero"`
}

// Fact is one number that a decision rests on.
type Fact struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"`
}

// Alternative is what else could have been done.
type Alternative struct {
	Act string `json:"act"`
	To  int    `json:"to"`
	On  string `json:"on,omitempty" doc:"The hypervisor it would go to."`
	Not string `json:"not" doc:"Why not."`
}

// Expectation is what a decision should bring.
type Expectation struct {
	By  time.Time `json:"by,omitzero" doc:"When that is judged."`
	Say string    `json:"say"`
}

// DecisionStatus is what became of a decision.
type DecisionStatus struct {
	Progress
	State    DecisionState `json:"state,omitempty" enum:"observed,proposed,approved,doing,done,undone,withdrawn"`
	Approved string        `json:"approved,omitempty" doc:"Who agreed: a person, or the mode of the service."`
	Undo     string        `json:"undo,omitempty" doc:"The person who wants it undone."`
	Ended    time.Time     `json:"ended,omitzero" doc:"When it was carried out, undone or withdrawn."`
	Outcome  *Outcome      `json:"outcome,omitempty" doc:"What it brought, once that was measured."`
}

// DecisionState is how far a decision is.
type DecisionState string

// The states of a decision.
const (
	Observed  DecisionState = "observed"  // written down, and nothing more
	Proposed  DecisionState = "proposed"  // somebody may agree
	Approved  DecisionState = "approved"  // it is about to be carried out
	Doing     DecisionState = "doing"     // it is being carried out
	Done      DecisionState = "done"      // it was carried out
	Undone    DecisionState = "undone"    // it was carried out and taken back
	Withdrawn DecisionState = "withdrawn" // it was not carried out, and no longer makes sense
)

// Outcome is what was measured after a decision.
type Outcome struct {
	At  time.Time `json:"at,omitzero"`
	Met bool      `json:"met" doc:"What was expected came true."`
	Say string    `json:"say"`
}

// Open reports whether somebody or something has still to act on it.
func (s *DecisionStatus) Open() bool { return s.State == Proposed || s.State == Approved }

// Check implements Resource.
func (d *Decision) Check() []Problem {
	var c checks
	if d.Spec.On.Name == "" {
		c.add("spec.on.name", "say what it is about")
	}
	if d.Spec.Act == "" {
		c.add("spec.act", "say what is to be done")
	}
	if d.Spec.Say == "" {
		c.add("spec.say", "say it in one sentence")
	}
	oneOf(&c, "spec.mode", d.Spec.Mode, true, Observe, Recommend, Approve, Auto)
	return c
}

// Links implements Resource. What it was about may be gone: there are none.
func (d *Decision) Links() []Link { return nil }

// Progress implements Resource.
func (d *Decision) Progress() *Progress { return &d.Status.Progress }

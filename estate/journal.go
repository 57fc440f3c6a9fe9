package estate

import "time"

// Operation is the journal of one act of many steps.
type Operation struct {
	Head
	Spec   OperationSpec   `json:"spec"`
	Status OperationStatus `json:"status,omitzero"`
}

// OperationSpec is what is done to which object, and who asked.
type OperationSpec struct {
	Verb string `json:"verb" doc:"What is done, as rebuild."`
	On   Ref    `json:"on"`
	By   string `json:"by,omitempty" doc:"The person or part that asked."`
	Why  string `json:"why,omitempty" doc:"One sentence."`
}

// OperationStatus is how far it has come.
type OperationStatus struct {
	Progress
	Steps []OperationStep `json:"steps,omitempty"`
	Ended time.Time       `json:"ended,omitzero"`
	Error string          `json:"error,omitempty"`
}

// OperationStep is one step with the identifier of its effect, chosen before
// the effect, so that a step repeated after a crash is recognised.
type OperationStep struct {
	Name   string    `json:"name"`
	Effect string    `json:"effect,omitempty"`
	Began  time.Time `json:"began,omitzero"`
	Ended  time.Time `json:"ended,omitzero"`
}

// Check implements Resource.
func (o *Operation) Check() []Problem {
	var c checks
	if o.Spec.Verb == "" {
		c.add("spec.verb", "an operation needs a verb")
	}
	return c
}

// Links implements Resource. The object of a finished operation may be gone,
// so it is not a link.
func (o *Operation) Links() []Link { return nil }

// Progress implements Resource.
func (o *Operation) Progress() *Progress { return &o.Status.Progress }

// Event is something that happened to an object. Events are kept for an hour.
type Event struct {
	Head
	Spec   EventSpec `json:"spec"`
	Status Bare      `json:"status,omitzero"`
}

// EventSpec is what happened.
type EventSpec struct {
	On     Ref       `json:"on"`
	At     time.Time `json:"at"`
	By     string    `json:"by" doc:"The part that reports it."`
	Reason string    `json:"reason" doc:"One word for programs."`
	Text   string    `json:"text" doc:"One sentence for people."`
	Bad    bool      `json:"bad,omitempty" doc:"Somebody should look."`
}

// Check implements Resource.
func (e *Event) Check() []Problem { return nil }

// Links implements Resource.
func (e *Event) Links() []Link { return nil }

// Progress implements Resource.
func (e *Event) Progress() *Progress { return &e.Status.Progress }

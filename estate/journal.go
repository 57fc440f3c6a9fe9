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

	Move  *MoveOrder `json:"move,omitempty" doc:"Of a move."`
	Abort bool       `json:"abort,omitempty" doc:"Somebody wants it undone; it stays asked for."`
}

// VerbMove is the verb of an operation that moves a machine.
const VerbMove = "move"

// MoveOrder is a move as it was asked for, and what is restored at its end.
type MoveOrder struct {
	From         string `json:"from"`
	To           string `json:"to"`
	Live         bool   `json:"live,omitempty" doc:"The machine runs on the way."`
	GuestType    string `json:"guestType,omitempty" doc:"The type of guest that it is there; the usual one when empty."`
	WasType      string `json:"wasType,omitempty" doc:"Which it was before."`
	Power        Power  `json:"power" doc:"The power state it had, and gets back."`
	Unverified   bool   `json:"unverified,omitempty" doc:"Nobody asked for its guest to be tried at the other end."`
	Untried      string `json:"untried,omitempty" doc:"Why no command can be run in its guest at the other end."`
	Desktop      string `json:"desktop,omitempty" doc:"The desktop that it is the machine of."`
	Reselect     bool   `json:"reselect,omitempty" doc:"Another presentation reaches the desktop there."`
	Presentation string `json:"presentation,omitempty" doc:"With reselect: which; the blueprint's own when empty."`
	Was          string `json:"was,omitempty" doc:"Which it was before."`
}

// OperationState is how an operation stands.
type OperationState string

// The states of an operation.
const (
	OperationRunning OperationState = "running"
	OperationUndoing OperationState = "undoing" // it failed, or was aborted; what it did is being taken back
	OperationDone    OperationState = "done"
	OperationFailed  OperationState = "failed" // everything is as it was before
)

// OperationStatus is how far it has come.
type OperationStatus struct {
	Progress
	State OperationState  `json:"state,omitempty"`
	Steps []OperationStep `json:"steps,omitempty"`
	Disks []DiskCopy      `json:"disks,omitempty" doc:"Of a move: what is carried."`
	Ended time.Time       `json:"ended,omitzero"`
	Error string          `json:"error,omitempty" doc:"Why it failed."`
	Note  string          `json:"note,omitempty" doc:"What to know about the outcome."`
}

// DiskCopy is how far one disk has been carried.
type DiskCopy struct {
	Name    string    `json:"name"`
	Size    Bytes     `json:"size" doc:"As the guest sees it."`
	Carried Bytes     `json:"carried,omitempty" doc:"Sent so far. Runs of zeros are not sent."`
	Digest  Digest    `json:"digest,omitempty" doc:"Of its content, the same before and after."`
	Began   time.Time `json:"began,omitzero"`
	Ended   time.Time `json:"ended,omitzero" doc:"When it was there and hashed."`
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

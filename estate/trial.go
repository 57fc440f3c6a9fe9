package estate

import (
	"fmt"
	"time"
)

// Trial is one workload run on one hypervisor at one release: a cell of the
// competitive matrix.
type Trial struct {
	Head
	Spec   TrialSpec `json:"spec"`
	Status Bare      `json:"status,omitzero"`
}

// TrialSpec is what was run, on what, and what came out. It is a record: nobody
// acts on it.
type TrialSpec struct {
	Run         string    `json:"run" doc:"The trials of one run are compared with each other."`
	Hypervisor  string    `json:"hypervisor"`
	Product     string    `json:"product,omitempty" doc:"The vendor's name and release."`
	Accelerator string    `json:"accelerator,omitempty"`
	GuestType   string    `json:"guestType,omitempty"`
	Workload    string    `json:"workload" doc:"What ran, as packets."`
	At          time.Time `json:"at,omitzero" doc:"When its last repeat ended."`
	Figures     []Figure  `json:"figures,omitempty"`
	Note        string    `json:"note,omitempty" doc:"Why nothing was measured, or what must be known to read it."`
}

// Figure is one thing measured, once for each repeat.
type Figure struct {
	Name    string    `json:"name" doc:"With the unit at its end, as rtt_64_p50_us."`
	Better  Better    `json:"better" enum:"lower,higher"`
	Samples []float64 `json:"samples" doc:"In the order of the repeats."`
}

// Better says which way a figure is better.
type Better string

// The ways.
const (
	Lower  Better = "lower"
	Higher Better = "higher"
)

// Check implements Resource.
func (t *Trial) Check() []Problem {
	var c checks
	c.name("spec.run", t.Spec.Run, true)
	c.name("spec.hypervisor", t.Spec.Hypervisor, true)
	c.name("spec.workload", t.Spec.Workload, true)
	for i, f := range t.Spec.Figures {
		p := fmt.Sprintf("spec.figures[%d]", i)
		if f.Name == "" {
			c.add(p+".name", "a figure needs a name with its unit")
		}
		oneOf(&c, p+".better", f.Better, true, Lower, Higher)
		if len(f.Samples) == 0 {
			c.add(p+".samples", "a figure without samples measured nothing; leave it out and say why in note")
		}
	}
	if len(t.Spec.Figures) == 0 && t.Spec.Note == "" {
		c.add("spec.note", "say why nothing was measured")
	}
	return c
}

// Links implements Resource. The hypervisor of an old trial may be gone, so it
// is not a link.
func (t *Trial) Links() []Link { return nil }

// Progress implements Resource.
func (t *Trial) Progress() *Progress { return &t.Status.Progress }

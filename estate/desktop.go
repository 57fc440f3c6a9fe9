package estate

import (
	"fmt"
	"slices"
	"time"
)

// Blueprint is a composed desktop: three layers from three vendors and what
// goes around them.
type Blueprint struct {
	Head
	Spec   BlueprintSpec `json:"spec"`
	Status Bare          `json:"status,omitzero"`
}

// BlueprintSpec is one line for each layer.
type BlueprintSpec struct {
	Title        string              `json:"title,omitempty" doc:"What people call it."`
	Image        string              `json:"image" doc:"The system."`
	Presentation string              `json:"presentation" doc:"How the desktop reaches the person."`
	Applications []ApplicationChoice `json:"applications,omitempty" doc:"What is brought to it."`
	Hypervisor   Selector            `json:"hypervisor,omitzero" doc:"Where it may run; anywhere when empty."`
	Prefer       Preference          `json:"prefer,omitzero" doc:"What its hypervisor should be good at, where several fit."`
	Context      string              `json:"context" doc:"The security compartment it lives in."`
	Category     Category            `json:"category,omitempty" enum:"knowledge,task,offline"`
	Size         Size                `json:"size,omitzero"`
	Home         Bytes               `json:"home,omitempty" doc:"Size of the person's home; no home when empty."`
}

// ApplicationChoice picks a version of an application.
type ApplicationChoice struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty" doc:"The newest when empty."`
}

// Selector picks hypervisors. Every part given must match.
type Selector struct {
	Name   string            `json:"name,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	Needs  []Capability      `json:"needs,omitempty" doc:"Capabilities it must have."`
}

// Preference is a cell of the competitive matrix. It orders the hypervisors that
// fit, where the latest run that measured it shows a difference between them; it
// never rules one out.
type Preference struct {
	Workload string `json:"workload" doc:"As disk."`
	Figure   string `json:"figure" doc:"Of that workload, as random_write_4k_sync_iops; 'consort matrix show' lists them."`
}

// Category is the sort of work a desktop is for.
type Category string

// The categories.
const (
	Knowledge Category = "knowledge"
	Task      Category = "task"
	Offline   Category = "offline"
)

// Size is how large a desktop's machine is.
type Size struct {
	CPUs   int    `json:"cpus,omitempty" doc:"2 when empty."`
	Memory Bytes  `json:"memory,omitempty" doc:"1Gi when empty."`
	Screen Screen `json:"screen,omitzero" doc:"1280 by 800 when empty."`
}

// Check implements Resource.
func (b *Blueprint) Check() []Problem {
	var c checks
	s := &b.Spec
	c.name("spec.image", s.Image, true)
	c.name("spec.presentation", s.Presentation, true)
	c.name("spec.context", s.Context, true)
	c.name("spec.hypervisor.name", s.Hypervisor.Name, false)
	if s.Prefer != (Preference{}) {
		c.name("spec.prefer.workload", s.Prefer.Workload, true)
		if s.Prefer.Figure == "" {
			c.add("spec.prefer.figure", "say which figure of %s; 'consort matrix show' lists them", s.Prefer.Workload)
		}
	}
	oneOf(&c, "spec.category", s.Category, false, Knowledge, Task, Offline)
	seen := map[string]bool{}
	for i, a := range s.Applications {
		p := fmt.Sprintf("spec.applications[%d].name", i)
		c.name(p, a.Name, true)
		if seen[a.Name] {
			c.add(p, "%q is chosen twice", a.Name)
		}
		seen[a.Name] = true
	}
	if s.Size.CPUs < 0 || s.Size.CPUs > 256 {
		c.add("spec.size.cpus", "%d is not between 1 and 256", s.Size.CPUs)
	}
	if s.Size.Memory != 0 && s.Size.Memory < 16*MiB {
		c.add("spec.size.memory", "%s is too little; at least 16Mi", s.Size.Memory)
	}
	if s.Home != 0 && s.Home < 16*MiB {
		c.add("spec.home", "%s is too little; at least 16Mi", s.Home)
	}
	return c
}

// Links implements Resource.
func (b *Blueprint) Links() []Link {
	return composed(b.Metadata.Project, b.Spec.Image, b.Spec.Context, b.Spec.Applications, b.Spec.Hypervisor.Name)
}

// composed returns the links of what is composed of these; the hypervisor may be
// any, and is then empty.
func composed(project, image, context string, applications []ApplicationChoice, hypervisor string) []Link {
	ls := []Link{
		{"spec.image", Ref{"Image", project, image}},
		{"spec.context", Ref{"Context", project, context}},
	}
	for i, a := range applications {
		ls = append(ls, Link{fmt.Sprintf("spec.applications[%d].name", i), Ref{"Application", project, a.Name}})
	}
	if hypervisor != "" {
		ls = append(ls, Link{"spec.hypervisor.name", Ref{"Hypervisor", "", hypervisor}})
	}
	return ls
}

// Progress implements Resource.
func (b *Blueprint) Progress() *Progress { return &b.Status.Progress }

// Desktop is one person's running composition of a blueprint. One that is a seat
// of a pool has no person until it is taken.
type Desktop struct {
	Head
	Spec   DesktopSpec   `json:"spec"`
	Status DesktopStatus `json:"status,omitzero"`
}

// DesktopSpec is whose desktop it is and whether it runs.
type DesktopSpec struct {
	Title     string `json:"title,omitempty" doc:"What its person calls it."`
	Blueprint string `json:"blueprint"`
	Person    string `json:"person,omitempty" doc:"Who works on it. Only a seat that nobody has taken has none."`
	Pool      string `json:"pool,omitempty" doc:"The pool that it is a seat of; written by the plane."`
	Power     Power  `json:"power,omitempty" enum:"off,on" doc:"off when empty; Connect turns it on."`
	Resets    int64  `json:"resets,omitempty" doc:"Raise it by one for a fresh system disk. The home stays."`

	Presentation string `json:"presentation,omitempty" doc:"In place of the blueprint's own, where its hypervisor has no display for that. A move sets it."`
}

// DesktopState is where a desktop is in its life, in one word.
type DesktopState string

// The states of a desktop.
const (
	DesktopOff       DesktopState = "off"
	DesktopPreparing DesktopState = "preparing" // its image or layers are being made
	DesktopStarting  DesktopState = "starting"
	DesktopRunning   DesktopState = "running"
	DesktopWarm      DesktopState = "warm" // a seat that is ready and that nobody has taken
	DesktopStopping  DesktopState = "stopping"
	DesktopMoving    DesktopState = "moving"  // it goes to another hypervisor
	DesktopBlocked   DesktopState = "blocked" // it cannot be composed; conditions say why
)

// DesktopStatus is what became of a desktop.
type DesktopStatus struct {
	Progress
	State        DesktopState `json:"state,omitempty"`
	Machine      string       `json:"machine,omitempty"`
	Home         string       `json:"home,omitempty" doc:"Its person's volume."`
	Resets       int64        `json:"resets,omitempty" doc:"Resets done."`
	Plan         *Plan        `json:"plan,omitempty" doc:"The composition its machine was made from."`
	Next         *Plan        `json:"next,omitempty" doc:"The composition it changes to at its next start."`
	Presentation string       `json:"presentation,omitempty" doc:"How to reach it now."`
	Made         time.Time    `json:"made,omitzero" doc:"When it could be worked on for the first time."`
	Taken        time.Time    `json:"taken,omitzero" doc:"Of a seat: when its person got it."`
	Visits       int64        `json:"visits,omitempty" doc:"Of a seat: how many sessions its person has had on it."`
}

// Free reports whether the desktop is a seat that may be given to somebody.
func (d *Desktop) Free() bool {
	return d.Spec.Pool != "" && d.Spec.Person == "" && d.Metadata.Deleting.IsZero()
}

// Disposable reports whether what is written on the desktop lasts as long as a
// session.
func (d *Desktop) Disposable() bool { return d.Status.Plan != nil && d.Status.Plan.Disposable }

// Plan is a blueprint worked out against the inventory: what exactly runs.
type Plan struct {
	Image        Digest       `json:"image"`
	Presentation Presentation `json:"presentation"`
	Layers       []Layer      `json:"layers,omitempty"`
	Hardware     Hardware     `json:"hardware"`
	Context      string       `json:"context"`
	Trust        int          `json:"trust,omitempty" doc:"Of the context."`
	Disposable   bool         `json:"disposable,omitempty" doc:"Its machine is sealed, and lasts as long as a session."`
	Network      string       `json:"network,omitempty"`
	Home         Bytes        `json:"home,omitempty"`
	Hypervisors  []string     `json:"hypervisors,omitempty" doc:"Where it may run, best first."`
	Guest        GuestFacts   `json:"guest"`
}

// Presentation is a presentation provider with the way it reaches a machine.
type Presentation struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol" doc:"What is spoken to the machine."`
	Port     int    `json:"port,omitempty" doc:"The guest's port; the machine's own display when empty."`
}

// Check implements Resource.
func (d *Desktop) Check() []Problem {
	var c checks
	c.name("spec.blueprint", d.Spec.Blueprint, true)
	c.name("spec.person", d.Spec.Person, d.Spec.Pool == "")
	c.name("spec.pool", d.Spec.Pool, false)
	oneOf(&c, "spec.power", d.Spec.Power, false, Off, On)
	c.name("spec.presentation", d.Spec.Presentation, false)
	if d.Spec.Resets < 0 {
		c.add("spec.resets", "%d is less than nothing", d.Spec.Resets)
	}
	return c
}

// Links implements Resource.
func (d *Desktop) Links() []Link {
	ls := []Link{{"spec.blueprint", Ref{"Blueprint", d.Metadata.Project, d.Spec.Blueprint}}}
	if d.Spec.Person != "" {
		ls = append(ls, Link{"spec.person", Ref{"Person", "", d.Spec.Person}})
	}
	if d.Spec.Pool != "" {
		ls = append(ls, Link{"spec.pool", Ref{"Pool", d.Metadata.Project, d.Spec.Pool}})
	}
	return ls
}

// Progress implements Resource.
func (d *Desktop) Progress() *Progress { return &d.Status.Progress }

// Session is one person looking at one desktop through one presentation, or
// waiting for a seat of a pool.
type Session struct {
	Head
	Spec   SessionSpec   `json:"spec"`
	Status SessionStatus `json:"status,omitzero"`
}

// SessionSpec is who looks at what.
type SessionSpec struct {
	Desktop      string `json:"desktop,omitempty" doc:"Empty while its person waits for a seat."`
	Pool         string `json:"pool,omitempty" doc:"The pool that its desktop is a seat of, or will be."`
	Person       string `json:"person"`
	Presentation string `json:"presentation,omitempty" doc:"The blueprint's own when empty."`
	Record       bool   `json:"record,omitempty" doc:"Keeps what is shown from the next time somebody looks, where its context allows it."`
	End          bool   `json:"end,omitempty" doc:"Ends the session."`
}

// SessionState is how far a session has come.
type SessionState string

// The states of a session.
const (
	SessionWaiting SessionState = "waiting" // the desktop is being brought up
	SessionReady   SessionState = "ready"   // a ticket may be asked for
	SessionOpen    SessionState = "open"    // somebody is connected
	SessionEnded   SessionState = "ended"
)

// SessionStatus is how a session goes.
type SessionStatus struct {
	Progress
	State   SessionState `json:"state,omitempty"`
	Phases  []Phase      `json:"phases,omitempty" doc:"The phases of Connect, in order."`
	Way     Presentation `json:"way,omitzero" doc:"How the machine is reached."`
	Machine string       `json:"machine,omitempty"`
	Opened  time.Time    `json:"opened,omitzero" doc:"When somebody looked for the first time."`
	Left    time.Time    `json:"left,omitzero" doc:"When the last who looked left."`
	Ended   time.Time    `json:"ended,omitzero"`
	Because string       `json:"because,omitempty" doc:"Why it ended."`
	Queue   *Queued      `json:"queue,omitempty" doc:"Set while its person waits for a seat."`
}

// Queued is somebody's place among those who wait for a seat of a pool. It is
// told anew when it has changed noticeably, and not with every seat.
type Queued struct {
	Place    int       `json:"place" doc:"1 is the next to get a seat."`
	Of       int       `json:"of" doc:"How many wait in all."`
	Expected time.Time `json:"expected,omitzero" doc:"When a seat is expected."`
	Assumed  bool      `json:"assumed,omitempty" doc:"The expectation rests on what is usual elsewhere: nothing was measured here yet."`
}

// Names of the phases that come after a session is ready. The last two are
// beside Connect: a clone is looked at before it is its own.
const (
	TicketUsed = "ticket"      // the viewer came
	FirstFrame = "first-frame" // the desktop was shown: the end of Connect

	IdentityReady = "identity" // from then on it can be typed into
	NetworkReady  = "network"  // from then on it can be reached
)

// Shown returns the phases of Connect itself, without what goes on beside it.
func (s *SessionStatus) Shown() []Phase {
	return slices.DeleteFunc(slices.Clone(s.Phases), func(p Phase) bool {
		return p.Name == IdentityReady || p.Name == NetworkReady
	})
}

// Phase is one named part of Connect.
type Phase struct {
	Name  string    `json:"name"`
	Text  string    `json:"text,omitempty" doc:"What is done, for the person who waits."`
	Began time.Time `json:"began,omitzero"`
	Ended time.Time `json:"ended,omitzero"`
}

// Check implements Resource.
func (s *Session) Check() []Problem {
	var c checks
	c.name("spec.desktop", s.Spec.Desktop, s.Spec.Pool == "")
	c.name("spec.pool", s.Spec.Pool, false)
	c.name("spec.person", s.Spec.Person, true)
	c.name("spec.presentation", s.Spec.Presentation, false)
	return c
}

// Links implements Resource.
func (s *Session) Links() []Link {
	ls := []Link{{"spec.person", Ref{"Person", "", s.Spec.Person}}}
	if s.Spec.Desktop != "" {
		ls = append(ls, Link{"spec.desktop", Ref{"Desktop", s.Metadata.Project, s.Spec.Desktop}})
	}
	if s.Spec.Pool != "" {
		ls = append(ls, Link{"spec.pool", Ref{"Pool", s.Metadata.Project, s.Spec.Pool}})
	}
	return ls
}

// Progress implements Resource.
func (s *Session) Progress() *Progress { return &s.Status.Progress }

package estate

import (
	"fmt"
	"time"
)

// Service is an application that answers requests: equal replicas behind one
// front, as many as its service levels need.
type Service struct {
	Head
	Spec   ServiceSpec   `json:"spec"`
	Status ServiceStatus `json:"status,omitzero"`
}

// ServiceSpec is what a replica is made from, and what is promised to those who
// ask the service.
type ServiceSpec struct {
	Title        string              `json:"title,omitempty" doc:"What people call it."`
	Image        string              `json:"image" doc:"The system of every replica."`
	Applications []ApplicationChoice `json:"applications" doc:"What is brought to every replica; the first one answers the requests and is started."`
	Context      string              `json:"context" doc:"The security compartment it lives in; its network is how replicas are reached."`
	Hypervisor   Selector            `json:"hypervisor,omitzero" doc:"Where replicas may run; anywhere when empty."`
	Size         Size                `json:"size,omitzero" doc:"What one replica needs."`
	Port         int                 `json:"port" minimum:"1" maximum:"65535" doc:"Where a replica answers."`
	Probe        Probe               `json:"probe,omitzero" doc:"How it is known that a replica can work."`
	Front        FrontSpec           `json:"front" doc:"Where requests come in."`
	Scale        Scale               `json:"scale" doc:"How many replicas there may be, and who decides."`
	Levels       []NamedLevel        `json:"levels,omitempty" doc:"What is promised. The first response level with a bound decides how many replicas there are."`
	Update       Update              `json:"update,omitzero" doc:"How another image, application or size comes to the replicas."`
}

// Probe asks a replica whether it can work.
type Probe struct {
	Path     string   `json:"path,omitempty" doc:"Of a GET that answers 200 to 399; that it can be connected to is enough when empty."`
	Interval Duration `json:"interval,omitempty" doc:"5s when empty."`
}

// FrontSpec is where requests come in, on the plane's own host.
type FrontSpec struct {
	Port int  `json:"port" minimum:"1024" maximum:"65535" doc:"Where clients connect; at the address that the plane was given for services."`
	TCP  bool `json:"tcp,omitempty" doc:"Connections are carried as they are; HTTP is spoken when empty."`
}

// Scale is how many replicas there may be, and who decides.
type Scale struct {
	Least int     `json:"least" minimum:"1" maximum:"1000" doc:"Never fewer."`
	Most  int     `json:"most" minimum:"1" maximum:"1000" doc:"Never more."`
	Mode  Mode    `json:"mode,omitempty" enum:"observe,recommend,approve,auto" doc:"How far decisions go by themselves; recommend when empty."`
	Guess float64 `json:"guess,omitempty" doc:"Requests a second that one replica is believed to bear, until that is learned."`
}

// Mode is how far a decision goes by itself.
type Mode string

// The modes, the most conservative first.
const (
	Observe   Mode = "observe"   // it is written down
	Recommend Mode = "recommend" // and shown as something to do
	Approve   Mode = "approve"   // and done once somebody agrees
	Auto      Mode = "auto"      // and done
)

// NamedLevel is a level of a service.
type NamedLevel struct {
	Name string `json:"name"`
	Level
}

// Update is how replicas are replaced by others that are made differently.
type Update struct {
	Canary   Share    `json:"canary,omitempty" doc:"Share of the requests that the first new replica gets; 10% when empty."`
	Watch    Duration `json:"watch,omitempty" doc:"How long that one is judged before others follow; 1m when empty."`
	Requests int      `json:"requests,omitempty" doc:"How many requests it is judged by; with fewer it is watched up to three times as long. 50 when empty."`
	Patience Duration `json:"patience,omitempty" doc:"How long a new replica may take until it answers; 10m when empty."`
}

// Defaults returns the update with what it does not say filled in.
func (u Update) Defaults() Update {
	if u.Canary == 0 {
		u.Canary = Whole / 10
	}
	if u.Watch == 0 {
		u.Watch = Duration(time.Minute)
	}
	if u.Requests == 0 {
		u.Requests = 50
	}
	if u.Patience == 0 {
		u.Patience = Duration(10 * time.Minute)
	}
	return u
}

// ServiceStatus is how many replicas there are, and why.
type ServiceStatus struct {
	Progress
	Wanted   int    `json:"wanted,omitempty" doc:"How many replicas are wanted now."`
	Because  string `json:"because,omitempty" doc:"Why that many."`
	Decision string `json:"decision,omitempty" doc:"The last decision that was carried out."`
	Ready    int    `json:"ready,omitempty" doc:"Replicas that answer."`
	Address  string `json:"address,omitempty" doc:"Where the front takes requests; empty while it does not."`

	Replicas []Replica `json:"replicas,omitempty"`
	// Made is raised in the transaction that makes a replica's machine, so that a
	// plane that dies and another never make more than there may be.
	Made int64 `json:"made,omitempty" doc:"How many replicas there ever were; their machines are named by it."`

	Boot      Duration   `json:"boot,omitempty" doc:"How long a replica takes until it answers: the last one; not measured yet when empty."`
	Revisions []Revision `json:"revisions,omitempty" doc:"What replicas are and were made from, the newest last."`
	Rollout   *Rollout   `json:"rollout,omitempty" doc:"The last change of what they are made from."`
	Levels    []Standing `json:"levels,omitempty"`
}

// Replica is one machine of a service.
type Replica struct {
	Machine  string       `json:"machine"`
	Revision int          `json:"revision"`
	State    ReplicaState `json:"state" enum:"starting,ready,leaving"`
	Replace  bool         `json:"replace,omitempty" doc:"Another one is to stand in for it."`
	Avoid    []string     `json:"avoid,omitempty" doc:"Hosts that must not take the one that stands in."`
	Instead  string       `json:"instead,omitempty" doc:"The machine that leaves once this one answers."`
	Made     time.Time    `json:"made,omitzero"`
	Launched int64        `json:"launched,omitempty" doc:"The start of the machine at which its application was started."`
	Ready    time.Time    `json:"ready,omitzero" doc:"When it answered first."`
	Leaves   time.Time    `json:"leaves,omitzero" doc:"Since when it leaves."`
}

// ReplicaState is where a replica is in its life.
type ReplicaState string

// The states of a replica.
const (
	ReplicaStarting ReplicaState = "starting"
	ReplicaReady    ReplicaState = "ready"
	ReplicaLeaving  ReplicaState = "leaving" // gets nothing new, and goes when it has answered
)

// Revision is one way to make replicas.
type Revision struct {
	Number  int           `json:"number"`
	Made    time.Time     `json:"made,omitzero"`
	Recipe  ReplicaRecipe `json:"recipe"`
	Plan    Plan          `json:"plan" doc:"The composition that came of it."`
	Verdict string        `json:"verdict,omitempty" doc:"What came of its rollout, in a sentence."`
	Refused bool          `json:"refused,omitempty" doc:"It was rolled back: replicas are made from it again only when somebody changes the spec."`
}

// ReplicaRecipe is the part of the spec that a replica is made from.
type ReplicaRecipe struct {
	Image        string              `json:"image"`
	Applications []ApplicationChoice `json:"applications"`
	Size         Size                `json:"size,omitzero"`
	Port         int                 `json:"port"`
}

// Rollout is the change from one revision to another.
type Rollout struct {
	From    int          `json:"from"`
	To      int          `json:"to"`
	State   RolloutState `json:"state" enum:"running,done,rolled-back"`
	Began   time.Time    `json:"began,omitzero"`
	Judged  time.Time    `json:"judged,omitzero" doc:"When the first new replica passed the gate."`
	Ended   time.Time    `json:"ended,omitzero"`
	Verdict string       `json:"verdict,omitempty" doc:"What its gate says, in a sentence."`
}

// RolloutState is how far a rollout is.
type RolloutState string

// The states of a rollout.
const (
	RolloutRunning    RolloutState = "running"
	RolloutDone       RolloutState = "done"
	RolloutRolledBack RolloutState = "rolled-back"
)

// Standing is how a level of a service stands.
type Standing struct {
	Name     string     `json:"name"`
	State    LevelState `json:"state" enum:"no-data,kept,broken"`
	Good     int64      `json:"good,omitempty"`
	Total    int64      `json:"total,omitempty"`
	Left     int64      `json:"left" doc:"How many more may be bad in the window."`
	Burn     float64    `json:"burn,omitempty" doc:"How many times faster than evenly the budget burnt in the last hour."`
	Alert    string     `json:"alert,omitempty" doc:"page or ticket while it burns too fast."`
	Measured time.Time  `json:"measured,omitzero"`
}

// mostServiceName leaves room for what the names of its machines and decisions add.
const mostServiceName = 40

// Check implements Resource.
func (s *Service) Check() []Problem {
	var c checks
	p := &s.Spec
	if len(s.Metadata.Name) > mostServiceName {
		c.add("metadata.name", "%q is too long for the names of its machines and decisions; at most %d characters", s.Metadata.Name, mostServiceName)
	}
	c.name("spec.image", p.Image, true)
	c.name("spec.context", p.Context, true)
	c.name("spec.hypervisor.name", p.Hypervisor.Name, false)
	if len(p.Applications) == 0 {
		c.add("spec.applications", "name the application that answers the requests")
	}
	seen := map[string]bool{}
	for i, a := range p.Applications {
		at := fmt.Sprintf("spec.applications[%d].name", i)
		c.name(at, a.Name, true)
		if seen[a.Name] {
			c.add(at, "%q is chosen twice", a.Name)
		}
		seen[a.Name] = true
	}
	if p.Size.CPUs != 0 {
		c.between("spec.size.cpus", p.Size.CPUs, 1, 256)
	}
	if p.Size.Memory != 0 && p.Size.Memory < 16*MiB {
		c.add("spec.size.memory", "%s is too little; at least 16Mi", p.Size.Memory)
	}
	c.between("spec.port", p.Port, 1, 65535)
	c.between("spec.front.port", p.Front.Port, 1024, 65535)
	p.Probe.check(&c)
	p.Scale.check(&c)
	p.Update.check(&c)
	return append(c, p.levelProblems()...)
}

func (p Probe) check(c *checks) {
	if p.Path != "" && p.Path[0] != '/' {
		c.add("spec.probe.path", "%q does not begin with /", p.Path)
	}
	if p.Interval < 0 || p.Interval != 0 && p.Interval < Duration(100*time.Millisecond) {
		c.add("spec.probe.interval", "%s is too often; at least 100ms", p.Interval)
	}
}

func (s Scale) check(c *checks) {
	c.between("spec.scale.least", s.Least, 1, 1000)
	c.between("spec.scale.most", s.Most, 1, 1000)
	if s.Most < s.Least {
		c.add("spec.scale.most", "%d are fewer than the %d there must be", s.Most, s.Least)
	}
	oneOf(c, "spec.scale.mode", s.Mode, false, Observe, Recommend, Approve, Auto)
	if s.Guess < 0 {
		c.add("spec.scale.guess", "%g is less than nothing", s.Guess)
	}
}

func (u Update) check(c *checks) {
	if u.Canary != 0 {
		c.share("spec.update.canary", u.Canary)
	}
	c.between("spec.update.requests", u.Requests, 0, 1_000_000)
	for _, d := range []struct {
		path string
		is   Duration
	}{{"spec.update.watch", u.Watch}, {"spec.update.patience", u.Patience}} {
		if d.is < 0 {
			c.add(d.path, "%s is less than nothing", d.is)
		}
	}
}

func (p *ServiceSpec) levelProblems() []Problem {
	var c checks
	seen := map[string]bool{}
	for i := range p.Levels {
		l := &p.Levels[i]
		at := fmt.Sprintf("spec.levels[%d]", i)
		c.name(at+".name", l.Name, true)
		if seen[l.Name] {
			c.add(at+".name", "%q names two levels", l.Name)
		}
		seen[l.Name] = true
		if l.Start != nil {
			c.add(at+".start", "is for applications on desktops; write a ServiceLevel for the application")
		}
		c = append(c, l.Problems(at)...)
	}
	return c
}

// Promise returns the level that decides how many replicas there are: the first
// that bounds responses measured by the service's own front.
func (p *ServiceSpec) Promise() (NamedLevel, bool) {
	for _, l := range p.Levels {
		if r := l.Response; r != nil && r.Within > 0 && r.Measured == nil {
			return l, true
		}
	}
	return NamedLevel{}, false
}

// Recipe returns what replicas are made from.
func (p *ServiceSpec) Recipe() ReplicaRecipe {
	return ReplicaRecipe{p.Image, p.Applications, p.Size, p.Port}
}

// Revision returns the revision of the number, or nil.
func (s *ServiceStatus) Revision(number int) *Revision {
	for i := range s.Revisions {
		if s.Revisions[i].Number == number {
			return &s.Revisions[i]
		}
	}
	return nil
}

// Serving is the number of the revision that replicas are made from: the last
// one that was not refused, and during a rollout the one it comes from. 0 when
// there is none yet.
func (s *ServiceStatus) Serving() int {
	if r := s.Rollout; r != nil && r.State == RolloutRunning {
		return r.From
	}
	for i := len(s.Revisions) - 1; i >= 0; i-- {
		if !s.Revisions[i].Refused {
			return s.Revisions[i].Number
		}
	}
	return 0
}

// Links implements Resource.
func (s *Service) Links() []Link {
	return composed(s.Metadata.Project, s.Spec.Image, s.Spec.Context, s.Spec.Applications, s.Spec.Hypervisor.Name)
}

// Progress implements Resource.
func (s *Service) Progress() *Progress { return &s.Status.Progress }

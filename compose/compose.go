// Package compose works a blueprint out against the inventory: the plan of what
// exactly runs, or every reason why it cannot.
package compose

import (
	"slices"

	"consort.dev/consort/estate"
)

// Inventory is what there is to compose from. Objects of other projects than
// the blueprint's are passed over.
type Inventory struct {
	Hypervisors   []*estate.Hypervisor
	Images        []*estate.Image
	Applications  []*estate.Application
	Contexts      []*estate.Context
	Networks      []*estate.Network
	Volumes       []*estate.Volume
	Machines      []*estate.Machine // tells who holds a volume, and where the desktop runs already
	Grants        []*estate.Grant
	Groups        []*estate.Group
	Presentations []estate.PresentationOffer
	Deliveries    []estate.DeliveryOffer
}

// Reason is one thing that stands between a blueprint and its plan, or a note
// beside the plan.
type Reason struct {
	Path    string // field of the blueprint
	Text    string // one sentence that says what would help
	Waiting bool   // it passes on its own: something is being built, or is in use
	Note    bool   // it keeps nothing from running
}

// String returns "path: text".
func (r Reason) String() string { return r.Path + ": " + r.Text }

// Blocked returns the reasons that last until somebody changes something.
func Blocked(rs []Reason) []Reason {
	return pick(rs, func(r Reason) bool { return !r.Waiting && !r.Note })
}

// Waiting returns the reasons that pass on their own.
func Waiting(rs []Reason) []Reason {
	return pick(rs, func(r Reason) bool { return r.Waiting && !r.Note })
}

// Notes returns what is worth knowing and keeps nothing from running.
func Notes(rs []Reason) []Reason { return pick(rs, func(r Reason) bool { return r.Note }) }

func pick(rs []Reason, want func(Reason) bool) []Reason {
	var out []Reason
	for _, r := range rs {
		if want(r) {
			out = append(out, r)
		}
	}
	return out
}

// What a blueprint gets when it does not say.
const (
	DefaultCPUs   = 2
	DefaultMemory = estate.GiB
	DefaultWidth  = 1280
	DefaultHeight = 800
)

// SeatDisk is what is kept free on a host for what one seat of a pool writes: it
// begins with nothing of its own and lasts as long as one person's visit.
const SeatDisk = estate.GiB

// Names of a desktop's disks.
const (
	RootDisk = "root"
	HomeDisk = "home"
)

// Plan composes the blueprint for the desktop. All reasons are told at once,
// in the order of the blueprint's fields; with any that blocks or waits the plan
// is empty. Without a desktop it answers for somebody who is entitled to
// everything. To see the way of another presentation, plan a copy of the
// blueprint that names it: nothing else of the plan changes.
func Plan(in Inventory, blueprint *estate.Blueprint, desktop *estate.Desktop) (estate.Plan, []Reason) {
	c := &composition{in: in.of(blueprint.Metadata.Project), b: blueprint, d: desktop}
	c.size()
	c.image()
	c.presentation()
	c.applications()
	c.context()
	c.home()
	c.hypervisors()
	if len(Blocked(c.reasons)) > 0 || len(Waiting(c.reasons)) > 0 {
		return estate.Plan{}, c.reasons
	}
	return c.plan, c.reasons
}

// composition is one call of Plan.
type composition struct {
	in      Inventory
	b       *estate.Blueprint
	d       *estate.Desktop // may be nil
	plan    estate.Plan
	reasons []Reason

	img   *estate.Image // nil when there is none
	guest estate.GuestFacts
	wants []want // what the hypervisor must be able to do, and for whom
	where string // hypervisor that has the home already
}

// want is a capability that a part of the plan needs.
type want struct {
	name  estate.Capability
	value string // the capability's value must equal it, when given
	who   string // as "presentation a", "delivery b"
}

func (in Inventory) of(project string) Inventory {
	in.Images = ofProject(in.Images, project)
	in.Applications = ofProject(in.Applications, project)
	in.Contexts = ofProject(in.Contexts, project)
	in.Networks = ofProject(in.Networks, project)
	in.Volumes = ofProject(in.Volumes, project)
	in.Machines = ofProject(in.Machines, project)
	return in
}

func ofProject[T estate.Resource](all []T, project string) []T {
	var out []T
	for _, r := range all {
		if r.Header().Metadata.Project == project {
			out = append(out, r)
		}
	}
	return out
}

func named[T estate.Resource](all []T, name string) (found T, ok bool) {
	i := slices.IndexFunc(all, func(r T) bool { return r.Header().Metadata.Name == name })
	if i < 0 {
		return found, false
	}
	return all[i], true
}

// names returns the sorted names of the objects that pass.
func names[T estate.Resource](all []T, pass func(T) bool) []string {
	var out []string
	for _, r := range all {
		if pass == nil || pass(r) {
			out = append(out, r.Header().Metadata.Name)
		}
	}
	slices.Sort(out)
	return out
}

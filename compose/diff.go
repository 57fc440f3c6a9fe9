package compose

import (
	"fmt"
	"slices"
	"strings"

	"consort.dev/consort/estate"
)

// Need is what a change costs the person, from nothing to a fresh system disk.
type Need string

// The needs, cheapest first.
const (
	Nothing   Need = "nothing"   // nobody notices
	Reconnect Need = "reconnect" // sessions end and open again; the machine runs on
	Attach    Need = "attach"    // disks come and go on the running machine
	Rebuild   Need = "rebuild"   // the machine is made anew with a fresh system disk; the home stays
)

// The layers a change can be in.
const (
	InImage        = "image"
	InPresentation = "presentation"
	InApplications = "applications"
	InHypervisor   = "hypervisor"
	InHardware     = "hardware"
	InContext      = "context"
)

// What changes about a home.
const (
	aHome    = "home"
	homeSize = "home size"
)

// Change is one difference between two plans.
type Change struct {
	Layer string // one of the layers above
	What  string // what in it, as an application's name; may be empty
	Was   string // empty: it is new
	Is    string // empty: it goes
	Needs Need
}

// String returns one sentence.
func (c Change) String() string {
	what := c.Layer
	if c.What != "" {
		what += " " + c.What
	}
	switch {
	case c.Was == "":
		what += ": " + c.Is + " is added"
	case c.Is == "":
		what += ": " + c.Was + " is removed"
	default:
		what += ": " + c.Was + " becomes " + c.Is
	}
	return what + "; " + c.cost()
}

func (c Change) cost() string {
	switch c.Needs {
	case Reconnect:
		return "sessions open again, the desktop runs on"
	case Attach:
		return "while the desktop runs"
	case Rebuild:
		switch {
		case c.Layer == InContext && c.What == "":
			return "at the next start, with a fresh system disk; files of one context stay in it"
		case c.What == aHome:
			return "at the next start, with a fresh system disk; files stay in the home they are in"
		}
		return "at the next start, with a fresh system disk; the home stays"
	}
	if c.What == homeSize {
		return "homes that are there keep their size"
	}
	return "nobody notices"
}

// Most returns the costliest need of the changes.
func Most(cs []Change) Need {
	order := []Need{Nothing, Reconnect, Attach, Rebuild}
	most := 0
	for _, c := range cs {
		most = max(most, slices.Index(order, c.Needs))
	}
	return order[most]
}

// Diff says what becomes different from one plan to the next, layer by layer,
// and what each change costs. Equal plans differ in nothing.
func Diff(was, is estate.Plan) []Change {
	var cs []Change
	add := func(layer, what, a, b string, n Need) {
		if a != b {
			cs = append(cs, Change{layer, what, a, b, n})
		}
	}
	add(InImage, "", was.Image.Short(), is.Image.Short(), Rebuild)
	add(InPresentation, "", way(was.Presentation), way(is.Presentation), Reconnect)
	cs = append(cs, diffLayers(was.Layers, is.Layers)...)
	n := Nothing
	if len(was.Hypervisors) > 0 && !slices.Contains(is.Hypervisors, was.Hypervisors[0]) {
		n = Rebuild // a system disk lies on one host
	}
	add(InHypervisor, "", set(was.Hypervisors), set(is.Hypervisors), n)
	a, b := was.Hardware, is.Hardware
	add(InHardware, "cpus", count(a.CPUs), count(b.CPUs), Rebuild)
	add(InHardware, "memory", bytesOf(a.Memory), bytesOf(b.Memory), Rebuild)
	add(InHardware, "firmware", string(a.Firmware), string(b.Firmware), Rebuild)
	add(InHardware, "screen", screen(a.Screen), screen(b.Screen), Rebuild)
	add(InHardware, aHome, volumes(a), volumes(b), Rebuild)
	add(InHardware, homeSize, bytesOf(was.Home), bytesOf(is.Home), Nothing)
	add(InContext, "", was.Context, is.Context, Rebuild) // what one compartment wrote does not enter another
	add(InContext, "lifetime", lifetime(was), lifetime(is), Rebuild)
	add(InContext, "network", was.Network, is.Network, Rebuild)
	return cs
}

func diffLayers(was, is []estate.Layer) []Change {
	var cs []Change
	find := func(all []estate.Layer, app string) estate.Layer {
		for _, l := range all {
			if l.Application == app {
				return l
			}
		}
		return estate.Layer{}
	}
	for _, l := range was {
		n := find(is, l.Application)
		if l != n {
			cs = append(cs, Change{InApplications, l.Application, layerText(l, n), layerText(n, l), Attach})
		}
	}
	for _, l := range is {
		if find(was, l.Application).Application == "" {
			cs = append(cs, Change{InApplications, l.Application, "", layerText(l, estate.Layer{}), Attach})
		}
	}
	return cs
}

// layerText is the version, and the digest where the version alone would not
// tell the two apart.
func layerText(l, other estate.Layer) string {
	switch {
	case l.Application == "":
		return ""
	case l.Version != other.Version:
		return l.Version
	case l.Digest != other.Digest:
		return l.Version + " (" + l.Digest.Short() + ")"
	}
	return l.Version + " by " + l.Delivery
}

// set lists names without the order of preference, which changes all the time.
func set(names []string) string {
	return strings.Join(slices.Sorted(slices.Values(names)), ", ")
}

func way(p estate.Presentation) string {
	if p.Port != 0 {
		return fmt.Sprintf("%s (guest port %d)", p.Name, p.Port)
	}
	return p.Name
}

func count(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func bytesOf(b estate.Bytes) string {
	if b == 0 {
		return ""
	}
	return b.String()
}

func screen(s estate.Screen) string {
	if s == (estate.Screen{}) {
		return ""
	}
	return fmt.Sprintf("%dx%d", s.Width, s.Height)
}

func volumes(h estate.Hardware) string {
	var all []string
	for _, d := range h.Disks {
		if d.Volume != "" {
			all = append(all, d.Volume)
		}
	}
	return strings.Join(all, ", ")
}

// lifetime returns "" for the plan of nothing.
func lifetime(p estate.Plan) string {
	switch {
	case p.Disposable:
		return string(estate.Disposable)
	case p.Context != "":
		return string(estate.Persistent)
	}
	return ""
}

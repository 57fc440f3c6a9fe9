// Package estate holds the words of Consort: what a hypervisor, a machine, an
// application, a desktop and a session are, and the rules each must keep. The
// same types are the JSON of the API, of the store and of manifests. It does no
// I/O and imports nothing of ours.
package estate

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// APIVersion is the only version of the words there is.
const APIVersion = "consort.dev/v1"

// Kind names a sort of object: "Machine", "Desktop".
type Kind string

// Head is what every object begins with.
type Head struct {
	APIVersion string   `json:"apiVersion" enum:"consort.dev/v1" doc:"Version of the words used."`
	Kind       Kind     `json:"kind" doc:"Sort of object."`
	Metadata   Metadata `json:"metadata" doc:"Who the object is."`
}

// Header returns the head itself, so that code can handle any kind.
func (h *Head) Header() *Head { return h }

// Ref returns the reference that leads to the object.
func (h *Head) Ref() Ref { return Ref{h.Kind, h.Metadata.Project, h.Metadata.Name} }

// Metadata is who an object is. People set Name, Project and Labels; the plane
// sets the rest.
type Metadata struct {
	Name       string            `json:"name" doc:"Unique among its kind in its project. Lower-case letters, digits and dashes."`
	Project    string            `json:"project,omitempty" doc:"The project it belongs to; empty for kinds that belong to the whole estate."`
	Labels     map[string]string `json:"labels,omitempty" doc:"Marks that selectors match."`
	UID        string            `json:"uid,omitempty" doc:"UUIDv4 minted by the plane; never reused."`
	Version    int64             `json:"version,omitempty" doc:"Store revision of the last change; the ETag."`
	Generation int64             `json:"generation,omitempty" doc:"Counts changes of the spec."`
	Created    time.Time         `json:"created,omitzero" doc:"When the object was first stored."`
	Deleting   time.Time         `json:"deleting,omitzero" doc:"When deletion was asked for; it ends when the last finalizer is gone."`
	Finalizers []string          `json:"finalizers,omitempty" doc:"Who still has to clean up before the object may go."`
	Owner      *Ref              `json:"owner,omitempty" doc:"The object it was made for, and goes with."`
}

// AgentFinalizer holds a machine or a volume until its agent has cleaned up.
const AgentFinalizer = "agent"

// Resource is an object of any kind. Every kind is a struct that embeds Head
// and has fields Spec (what is wanted) and Status (what is).
type Resource interface {
	// Header returns the head for reading and writing.
	Header() *Head
	// Check returns what is wrong with the spec, each problem at its field.
	Check() []Problem
	// Links returns the objects the spec names, each at its field.
	Links() []Link
	// Progress returns the common part of the status.
	Progress() *Progress
}

// Problem is one broken rule.
type Problem struct {
	Path string `json:"path" doc:"Field path, as spec.disks[1].size."`
	Text string `json:"text" doc:"What is wrong and what would be right."`
}

// String returns "path: text".
func (p Problem) String() string { return p.Path + ": " + p.Text }

// Link is a mention of another object at a field.
type Link struct {
	Path string // field path of the name
	To   Ref
}

// LinksOf returns every object that r names: those of its spec, and its project.
func LinksOf(r Resource) []Link {
	ls := r.Links()
	if p := r.Header().Metadata.Project; p != "" {
		ls = append(ls, Link{"metadata.project", Ref{"Project", "", p}})
	}
	return ls
}

// Ref leads to an object.
type Ref struct {
	Kind    Kind   `json:"kind"`
	Project string `json:"project,omitempty"`
	Name    string `json:"name"`
}

// String returns "kind/name", or "kind/project/name" inside a project; kinds
// are written in lower case, as on the command line.
func (r Ref) String() string {
	k := strings.ToLower(string(r.Kind))
	if r.Project == "" {
		return k + "/" + r.Name
	}
	return k + "/" + r.Project + "/" + r.Name
}

// Progress is the common part of every status.
type Progress struct {
	Waiting    string      `json:"waiting,omitempty" doc:"One sentence: what is being waited for. Empty when nothing is."`
	Observed   int64       `json:"observedGeneration,omitempty" doc:"The generation this status speaks of."`
	Conditions []Condition `json:"conditions,omitempty" doc:"What holds and what does not."`
}

// Condition is one statement about an object that holds, does not, or is not known.
type Condition struct {
	Type   string    `json:"type" doc:"What the statement is about, as Ready."`
	Status string    `json:"status" enum:"True,False,Unknown"`
	Reason string    `json:"reason,omitempty" doc:"One word for programs."`
	Text   string    `json:"text,omitempty" doc:"One sentence for people, ending in what to do next where something is wrong."`
	Since  time.Time `json:"since,omitzero" doc:"When the status last changed."`
}

// Values of Condition.Status, and the condition every kind has.
const (
	True    = "True"
	False   = "False"
	Unknown = "Unknown"
	Ready   = "Ready"
)

// Set records a condition and reports whether anything changed. The time moves
// only when the status does.
func (p *Progress) Set(c Condition) bool {
	for i := range p.Conditions {
		old := &p.Conditions[i]
		if old.Type != c.Type {
			continue
		}
		if old.Status == c.Status {
			c.Since = old.Since
		}
		changed := *old != c
		*old = c
		return changed
	}
	p.Conditions = append(p.Conditions, c)
	return true
}

// Is reports whether the condition of the type has status True.
func (p *Progress) Is(typ string) bool {
	return slices.ContainsFunc(p.Conditions, func(c Condition) bool { return c.Type == typ && c.Status == True })
}

// Get returns the condition of the type; a missing one is Unknown.
func (p *Progress) Get(typ string) Condition {
	for _, c := range p.Conditions {
		if c.Type == typ {
			return c
		}
	}
	return Condition{Type: typ, Status: Unknown}
}

var nameRule = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// NameProblem says what is wrong with a name, or returns "". Names reach
// command lines and file systems, so they are DNS labels and nothing else.
func NameProblem(name string) string {
	switch {
	case name == "":
		return "a name is needed"
	case len(name) > 63:
		return fmt.Sprintf("%q is %d characters long; at most 63", name, len(name))
	case !nameRule.MatchString(name):
		return fmt.Sprintf("%q is not a name: use lower-case letters, digits and dashes, beginning and ending with a letter or digit", name)
	}
	return ""
}

// Check returns every broken rule of r: those of its head and those of its spec.
func Check(r Resource) []Problem {
	var c checks
	h := r.Header()
	info, known := KindNamed(string(h.Kind))
	if h.APIVersion != APIVersion {
		c.add("apiVersion", "%q is not a version we speak; use %s", h.APIVersion, APIVersion)
	}
	if !known {
		c.add("kind", "%q is not a kind", h.Kind)
		return c
	}
	if t := NameProblem(h.Metadata.Name); t != "" {
		c.add("metadata.name", "%s", t)
	}
	switch {
	case info.Global && h.Metadata.Project != "":
		c.add("metadata.project", "a %s belongs to the whole estate, not to a project; remove it", h.Kind)
	case !info.Global:
		if t := NameProblem(h.Metadata.Project); t != "" {
			c.add("metadata.project", "%s", t)
		}
	}
	for _, k := range sortedKeys(h.Metadata.Labels) {
		if k == "" || len(k) > 63 || len(h.Metadata.Labels[k]) > 63 {
			c.add("metadata.labels", "label %q: keys and values have at most 63 characters, keys at least one", k)
		}
	}
	return append(c, r.Check()...)
}

// checks collects problems.
type checks []Problem

func (c *checks) add(path, format string, args ...any) {
	*c = append(*c, Problem{path, fmt.Sprintf(format, args...)})
}

// name adds a problem where a reference is not a name; an empty one only where needed.
func (c *checks) name(path, name string, needed bool) {
	if name == "" && !needed {
		return
	}
	if t := NameProblem(name); t != "" {
		c.add(path, "%s", t)
	}
}

// oneOf adds a problem where v is none of the values; empty passes when it is not needed.
func oneOf[T ~string](c *checks, path string, v T, needed bool, values ...T) {
	if v == "" && !needed || slices.Contains(values, v) {
		return
	}
	names := make([]string, len(values))
	for i, w := range values {
		names[i] = string(w)
	}
	c.add(path, "%q is not one of %s", string(v), strings.Join(names, ", "))
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

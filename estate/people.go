package estate

import (
	"fmt"
	"strings"
)

// Project is a part of the estate with people of its own.
type Project struct {
	Head
	Spec   ProjectSpec `json:"spec"`
	Status Bare        `json:"status,omitzero"`
}

// ProjectSpec describes a project.
type ProjectSpec struct {
	Title string `json:"title,omitempty"`
}

// Bare is the status of a kind that only has conditions.
type Bare struct {
	Progress
}

// Check implements Resource.
func (p *Project) Check() []Problem { return nil }

// Links implements Resource.
func (p *Project) Links() []Link { return nil }

// Progress implements Resource.
func (p *Project) Progress() *Progress { return &p.Status.Progress }

// Person is somebody who signs in. Credentials are not part of it: they are
// kept apart and never served.
type Person struct {
	Head
	Spec   PersonSpec `json:"spec"`
	Status Bare       `json:"status,omitzero"`
}

// PersonSpec describes a person.
type PersonSpec struct {
	Title   string `json:"title,omitempty" doc:"The name shown."`
	Admin   bool   `json:"admin,omitempty" doc:"May do everything in the estate."`
	Auditor bool   `json:"auditor,omitempty" doc:"May read the audit log."`
}

// Check implements Resource.
func (p *Person) Check() []Problem { return nil }

// Links implements Resource.
func (p *Person) Links() []Link { return nil }

// Progress implements Resource.
func (p *Person) Progress() *Progress { return &p.Status.Progress }

// Group is persons who are granted the same things.
type Group struct {
	Head
	Spec   GroupSpec `json:"spec"`
	Status Bare      `json:"status,omitzero"`
}

// GroupSpec lists a group's members.
type GroupSpec struct {
	Title   string   `json:"title,omitempty"`
	Members []string `json:"members" doc:"Names of persons."`
}

// Check implements Resource.
func (g *Group) Check() []Problem {
	var c checks
	for i, m := range g.Spec.Members {
		c.name(fmt.Sprintf("spec.members[%d]", i), m, true)
	}
	return c
}

// Links implements Resource.
func (g *Group) Links() []Link {
	var ls []Link
	for i, m := range g.Spec.Members {
		ls = append(ls, Link{fmt.Sprintf("spec.members[%d]", i), Ref{"Person", "", m}})
	}
	return ls
}

// Progress implements Resource.
func (g *Group) Progress() *Progress { return &g.Status.Progress }

// Grant lets a person or a group use or manage something of its project. An
// entitlement to an application is a Grant of it. A Grant of a pool entitles to a
// seat with everything that its blueprint brings.
type Grant struct {
	Head
	Spec   GrantSpec `json:"spec"`
	Status Bare      `json:"status,omitzero"`
}

// GrantSpec is to whom, what, and in which role.
type GrantSpec struct {
	To   Grantee `json:"to" doc:"A person or a group: exactly one."`
	Of   Granted `json:"of" doc:"What is granted."`
	Role Role    `json:"role" enum:"use,operate"`
}

// Grantee is who receives a grant.
type Grantee struct {
	Person string `json:"person,omitempty"`
	Group  string `json:"group,omitempty"`
}

// Granted is what a grant is of.
type Granted struct {
	Kind Kind   `json:"kind" enum:"Application,Blueprint,Pool,Project" doc:"Project grants everything in the grant's own project."`
	Name string `json:"name,omitempty" doc:"Empty for the grant's own project."`
}

// Role is what a grantee may do.
type Role string

// The roles.
const (
	Use     Role = "use"     // see it, have it on a desktop, connect to it
	Operate Role = "operate" // change it
)

// Check implements Resource.
func (g *Grant) Check() []Problem {
	var c checks
	s := &g.Spec
	if (s.To.Person == "") == (s.To.Group == "") {
		c.add("spec.to", "a grant goes to a person or to a group: set exactly one")
	}
	c.name("spec.to.person", s.To.Person, false)
	c.name("spec.to.group", s.To.Group, false)
	oneOf(&c, "spec.of.kind", s.Of.Kind, true, "Application", "Blueprint", "Pool", "Project")
	switch {
	case s.Of.Kind == "Project" && s.Of.Name != "":
		c.add("spec.of.name", "a grant of the project is of the grant's own project; remove the name")
	case s.Of.Kind != "Project":
		c.name("spec.of.name", s.Of.Name, true)
	}
	oneOf(&c, "spec.role", s.Role, true, Use, Operate)
	return c
}

// Links implements Resource.
func (g *Grant) Links() []Link {
	var ls []Link
	if n := g.Spec.To.Person; n != "" {
		ls = append(ls, Link{"spec.to.person", Ref{"Person", "", n}})
	}
	if n := g.Spec.To.Group; n != "" {
		ls = append(ls, Link{"spec.to.group", Ref{"Group", "", n}})
	}
	if n := g.Spec.Of.Name; n != "" && g.Spec.Of.Kind != "Project" {
		ls = append(ls, Link{"spec.of.name", Ref{g.Spec.Of.Kind, g.Metadata.Project, n}})
	}
	return ls
}

// Progress implements Resource.
func (g *Grant) Progress() *Progress { return &g.Status.Progress }

// Gives reports whether the grant gives the person, who is in the groups, at
// least the role for the object.
func (g *Grant) Gives(person string, groups []string, role Role, of Ref) bool {
	s := &g.Spec
	if g.Metadata.Project != of.Project && !(of.Kind == "Project" && of.Name == g.Metadata.Project) {
		return false
	}
	to := s.To.Person == person && person != ""
	for _, n := range groups {
		to = to || s.To.Group == n && n != ""
	}
	if !to || role == Operate && s.Role != Operate {
		return false
	}
	return s.Of.Kind == "Project" || strings.EqualFold(string(s.Of.Kind), string(of.Kind)) && s.Of.Name == of.Name
}

package estate

import "strings"

// KindInfo is what is known of a kind without holding an object of it.
type KindInfo struct {
	Kind   Kind
	Plural string // in URLs and on the command line
	Global bool   // belongs to the whole estate, not to a project
	Doc    string // one sentence
	New    func() Resource
}

// Kinds returns every kind, in the order in which a set of them can be applied:
// what is referred to comes before what refers to it.
func Kinds() []KindInfo {
	return []KindInfo{
		{"Project", "projects", true, "A part of the estate with people of its own.", func() Resource { return new(Project) }},
		{"Person", "persons", true, "Somebody who signs in.", func() Resource { return new(Person) }},
		{"Group", "groups", true, "Persons who are granted the same things.", func() Resource { return new(Group) }},
		{"Hypervisor", "hypervisors", true, "A place where machines run.", func() Resource { return new(Hypervisor) }},
		{"Context", "contexts", false, "A security compartment.", func() Resource { return new(Context) }},
		{"Network", "networks", false, "What a NIC joins.", func() Resource { return new(Network) }},
		{"Image", "images", false, "A bootable system.", func() Resource { return new(Image) }},
		{"Application", "applications", false, "What its vendor knows of an application.", func() Resource { return new(Application) }},
		{"ServiceLevel", "servicelevels", false, "A promise to those who use an application.", func() Resource { return new(ServiceLevel) }},
		{"Blueprint", "blueprints", false, "A composed desktop.", func() Resource { return new(Blueprint) }},
		{"Volume", "volumes", false, "Data that outlives a desktop.", func() Resource { return new(Volume) }},
		{"Pool", "pools", false, "Desktops kept ready for persons who need any free one at once.", func() Resource { return new(Pool) }},
		{"Service", "services", false, "An application that answers requests, on as many machines as its levels need.", func() Resource { return new(Service) }},
		{"Desktop", "desktops", false, "One person's running composition of a blueprint.", func() Resource { return new(Desktop) }},
		{"Machine", "machines", false, "One virtual machine.", func() Resource { return new(Machine) }},
		{"Session", "sessions", false, "One person looking at one desktop.", func() Resource { return new(Session) }},
		{"Grant", "grants", false, "Who may use or manage what.", func() Resource { return new(Grant) }},
		{"Operation", "operations", false, "The journal of one act of many steps.", func() Resource { return new(Operation) }},
		{"Decision", "decisions", false, "One act of management with all its reasons.", func() Resource { return new(Decision) }},
		{"Trial", "trials", true, "One workload measured on one hypervisor.", func() Resource { return new(Trial) }},
		{"Event", "events", false, "Something that happened to an object.", func() Resource { return new(Event) }},
	}
}

// KindNamed returns the kind with the name, which may be its plural, its
// singular in any case, or its Kind.
func KindNamed(name string) (KindInfo, bool) {
	for _, k := range Kinds() {
		if strings.EqualFold(name, string(k.Kind)) || strings.EqualFold(name, k.Plural) {
			return k, true
		}
	}
	return KindInfo{}, false
}

// KindOf returns the kind of object that T is.
func KindOf[T any]() KindInfo {
	for _, k := range Kinds() {
		if _, ok := any(k.New()).(*T); ok {
			return k
		}
	}
	panic("estate: not a kind")
}

// NewNamed returns an empty object of the kind with its head filled in.
func (k KindInfo) NewNamed(project, name string) Resource {
	r := k.New()
	*r.Header() = Head{APIVersion: APIVersion, Kind: k.Kind, Metadata: Metadata{Name: name, Project: project}}
	return r
}

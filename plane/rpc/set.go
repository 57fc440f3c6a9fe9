package rpc

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/near"
	"consort.dev/consort/plane/store"
)

// set is objects that are checked together and written together.
type set struct {
	c       *call
	members []member
	refs    map[estate.Ref]bool
	broken  []estate.Problem
	names   map[estate.Ref][]string // of each kind and project; a cache
}

// member is an object of a set: what it will be, and what is stored.
type member struct {
	next   estate.Resource
	stored estate.Resource // nil when it is new
	at     string          // path of the object in the request; "" when it is all of it
}

func newSet(c *call) *set {
	return &set{c: c, refs: map[estate.Ref]bool{}, names: map[estate.Ref][]string{}}
}

// add takes an object into the set once the caller may write it.
func (s *set) add(next, stored estate.Resource, at string) error {
	ref := next.Header().Ref()
	if s.refs[ref] {
		s.wrong(at, "metadata.name", fmt.Sprintf("%s is in the set twice; remove one", ref))
		return nil
	}
	s.refs[ref] = true
	s.members = append(s.members, member{next, stored, at})
	if stored == nil {
		return s.c.allow("create", ref)
	}
	if same(stored, next) {
		return s.c.allow("get", ref)
	}
	return s.c.mayUpdate(stored, next)
}

func (s *set) wrong(at, path, text string) {
	s.broken = append(s.broken, estate.Problem{Path: join(at, path), Text: text})
}

// check returns an error for every broken rule of the set.
func (s *set) check() error {
	for _, m := range s.members {
		before := len(s.broken)
		for _, p := range estate.Check(m.next) {
			s.wrong(m.at, p.Path, p.Text)
		}
		if len(s.broken) > before {
			continue // what it refers to would only be noise
		}
		for _, p := range frozen(m.stored, m.next) {
			s.wrong(m.at, p.Path, p.Text)
		}
		if err := s.links(m); err != nil {
			return err
		}
	}
	if len(s.broken) == 0 {
		return nil
	}
	what := "the set"
	if len(s.members) == 1 {
		what = s.members[0].next.Header().Ref().String()
	}
	return invalid(what, s.broken)
}

// links adds a problem for every mention of something that is not there. What
// was mentioned before is not asked for again: it may be on its way out.
func (s *set) links(m member) error {
	old := map[estate.Ref]bool{}
	if m.stored != nil {
		for _, l := range estate.LinksOf(m.stored) {
			old[l.To] = true
		}
	}
	for _, l := range estate.LinksOf(m.next) {
		if old[l.To] || s.refs[l.To] {
			continue
		}
		_, err := s.c.Store.Load(s.c.r.Context(), l.To)
		switch {
		case err == nil:
		case errors.Is(err, fault.NotFound):
			known, err := s.known(l.To)
			if err != nil {
				return err
			}
			kind := strings.ToLower(string(l.To.Kind))
			s.wrong(m.at, l.Path, fmt.Sprintf("there is no %s %q%s", kind, l.To.Name, near.DidYouMean(l.To.Name, known, "there are")))
		default:
			return err
		}
	}
	return nil
}

// known returns the names that could have been meant: of the same kind and
// project, stored or in the set, as far as the caller may see them.
func (s *set) known(ref estate.Ref) ([]string, error) {
	of := estate.Ref{Kind: ref.Kind, Project: ref.Project}
	if names, ok := s.names[of]; ok {
		return names, nil
	}
	rs, _, _, err := s.c.Store.Page(s.c.r.Context(), ref.Kind, ref.Project, "", 0)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, r := range rs {
		if s.c.allow("get", r.Header().Ref()) == nil {
			names = append(names, r.Header().Metadata.Name)
		}
	}
	for r := range s.refs {
		if r.Kind == ref.Kind && r.Project == ref.Project {
			names = append(names, r.Name)
		}
	}
	s.names[of] = names
	return names, nil
}

// commit writes what differs, in one transaction.
func (s *set) commit() error {
	var edits []store.Edit
	for _, m := range s.members {
		switch {
		case m.stored == nil:
			edits = append(edits, store.Create(m.next))
		case same(m.stored, m.next):
		default:
			edits = append(edits, store.Put(m.next))
		}
	}
	if len(edits) == 0 {
		return nil
	}
	return s.changing(func() error { return s.c.Store.Commit(s.c.r.Context(), edits...) })
}

// same reports whether two objects are equal on the wire.
func same(a, b estate.Resource) bool {
	x, err := tree(a)
	if err != nil {
		return false
	}
	y, err := tree(b)
	return err == nil && reflect.DeepEqual(x, y)
}

// clone returns a copy that shares nothing.
func clone(r estate.Resource) (estate.Resource, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fault.Internal.Errorf("copy %s: %w", r.Header().Ref(), err)
	}
	k, _ := estate.KindNamed(string(r.Header().Kind))
	out := k.New()
	if err := json.Unmarshal(data, out); err != nil {
		return nil, fault.Internal.Errorf("copy %s: %w", r.Header().Ref(), err)
	}
	return out, nil
}

// specOf returns the spec of an object of any kind.
func specOf(r estate.Resource) reflect.Value { return reflect.ValueOf(r).Elem().FieldByName("Spec") }

// statusOf returns the status of an object of any kind.
func statusOf(r estate.Resource) reflect.Value {
	return reflect.ValueOf(r).Elem().FieldByName("Status")
}

// fresh returns a new object with the name, labels and spec given. What only
// the plane writes must be left out.
func fresh(given estate.Resource) (estate.Resource, error) {
	h := given.Header()
	var ps []estate.Problem
	add := func(set bool, path, who string) {
		if set {
			ps = append(ps, estate.Problem{Path: path, Text: who + " writes this; leave it out"})
		}
	}
	switch g := given.(type) {
	case *estate.Machine:
		add(g.Spec.Hypervisor != "", "spec.hypervisor", "placement")
		add(g.Spec.Epoch != 0, "spec.epoch", "placement")
		add(g.Spec.Because != "", "spec.because", "placement")
		add(g.Spec.Moving != nil, "spec.moving", "a move")
	case *estate.Volume:
		add(g.Spec.Holder != "", "spec.holder", "the plane")
	case *estate.Desktop:
		add(g.Spec.Pool != "", "spec.pool", "a pool that makes a seat")
	}
	if len(ps) > 0 {
		return nil, invalid(h.Ref().String(), ps)
	}
	k, _ := estate.KindNamed(string(h.Kind))
	next := k.NewNamed(h.Metadata.Project, h.Metadata.Name)
	next.Header().APIVersion = h.APIVersion
	next.Header().Metadata.Labels = h.Metadata.Labels
	if h.Kind == "Machine" || h.Kind == "Volume" {
		next.Header().Metadata.Finalizers = []string{estate.AgentFinalizer}
	}
	specOf(next).Set(specOf(given))
	return next, nil
}

// replaceSpec gives next the labels and the spec of given, and keeps what the
// plane writes into a spec.
func replaceSpec(next, given estate.Resource) error {
	next.Header().APIVersion = given.Header().APIVersion
	next.Header().Metadata.Labels = given.Header().Metadata.Labels
	kept, err := clone(next)
	if err != nil {
		return err
	}
	specOf(next).Set(specOf(given))
	switch n := next.(type) {
	case *estate.Machine:
		was := kept.(*estate.Machine)
		n.Spec.Hypervisor, n.Spec.Epoch, n.Spec.Moving = was.Spec.Hypervisor, was.Spec.Epoch, was.Spec.Moving
		n.Spec.Because = was.Spec.Because
	case *estate.Volume:
		n.Spec.Holder = kept.(*estate.Volume).Spec.Holder
	case *estate.Desktop:
		was := kept.(*estate.Desktop)
		n.Spec.Pool = was.Spec.Pool
		if n.Spec.Power == "" {
			n.Spec.Power = was.Spec.Power
		}
	}
	return nil
}

// frozen returns a problem for each field that may not change once it is set.
func frozen(stored, next estate.Resource) []estate.Problem {
	if stored == nil {
		return nil
	}
	var ps []estate.Problem
	fixed := func(path string, was, is any) {
		if !reflect.DeepEqual(was, is) {
			ps = append(ps, estate.Problem{Path: path, Text: fmt.Sprintf("it is %v for good; make another object instead", was)})
		}
	}
	switch n := next.(type) {
	case *estate.Session:
		was := stored.(*estate.Session)
		fixed("spec.desktop", was.Spec.Desktop, n.Spec.Desktop)
		fixed("spec.pool", was.Spec.Pool, n.Spec.Pool)
		fixed("spec.person", was.Spec.Person, n.Spec.Person)
		fixed("spec.presentation", was.Spec.Presentation, n.Spec.Presentation)
	case *estate.Desktop:
		if was := stored.(*estate.Desktop); was.Spec.Pool != "" && was.Spec.Person != n.Spec.Person {
			ps = append(ps, estate.Problem{Path: "spec.person", Text: "a seat goes to one person, whom pool " + was.Spec.Pool + " chooses, and to nobody after them"})
		}
	case *estate.Machine:
		was := stored.(*estate.Machine)
		if !reflect.DeepEqual(was.Spec.Hardware, n.Spec.Hardware) {
			ps = append(ps, estate.Problem{Path: "spec.hardware", Text: "another hardware is another machine; make one"})
		}
		if mv := was.Spec.Moving; mv != nil && was.Spec.Power != n.Spec.Power {
			ps = append(ps, estate.Problem{Path: "spec.power", Text: fmt.Sprintf("it moves to %s: wait for operation %s, or abort that", mv.To, mv.Operation)})
		}
	case *estate.Volume:
		switch was := stored.(*estate.Volume).Spec.Size; {
		case was > n.Spec.Size:
			ps = append(ps, estate.Problem{Path: "spec.size", Text: fmt.Sprintf("a volume never shrinks; it has %s", was)})
		case was < n.Spec.Size:
			ps = append(ps, estate.Problem{Path: "spec.size", Text: fmt.Sprintf("not built yet: a volume does not grow; leave it at %s", was)})
		}
	case *estate.Blueprint:
		if was := stored.(*estate.Blueprint).Spec.Home; was > 0 && was < n.Spec.Home {
			ps = append(ps, estate.Problem{Path: "spec.home", Text: fmt.Sprintf("not built yet: homes that are there do not grow; leave it at %s, or make another blueprint", was)})
		}
	}
	return ps
}

// mayUpdate asks whether the caller may turn stored into next. The person of a
// desktop may name it, turn it on and off and reset it, and may end their own
// sessions; whoever operates the project may do the rest.
func (c *call) mayUpdate(stored, next estate.Resource) error {
	ref := next.Header().Ref()
	err := c.allow("update", ref)
	if c.caller.Admin || c.caller.Person == "" {
		return err
	}
	trial, cerr := clone(stored)
	if cerr != nil {
		return cerr
	}
	mine := false
	switch n := next.(type) {
	case *estate.Desktop:
		was := trial.(*estate.Desktop)
		mine = was.Spec.Person == c.caller.Person
		was.Spec.Title, was.Spec.Power, was.Spec.Resets = n.Spec.Title, n.Spec.Power, n.Spec.Resets
	case *estate.Session:
		was := trial.(*estate.Session)
		mine = was.Spec.Person == c.caller.Person
		was.Spec.End = was.Spec.End || n.Spec.End
		was.Spec.Record = was.Spec.Record || n.Spec.Record
	}
	switch {
	case !mine:
		return err
	case same(trial, next):
		return c.allow("connect", ref)
	}
	if c.allow("update", estate.Ref{Kind: "Project", Name: ref.Project}) == nil {
		return err
	}
	return fault.Denied.Errorf("change %s: its person may change title, power and resets; ask an operator of project %s for the rest", ref, ref.Project)
}

// unused returns fault.Conflict, naming who refers to the object, if anybody
// does. Objects made for it go with it and do not count, nor do the sessions of
// a desktop and those that have ended.
func (c *call) unused(ref estate.Ref) error {
	var users []string
	for _, k := range estate.Kinds() {
		rs, _, _, err := c.Store.Page(c.r.Context(), k.Kind, "", "", 0)
		if err != nil {
			return err
		}
		for _, r := range rs {
			if at, uses := uses(r, ref); uses && len(users) < 5 {
				if c.allow("get", r.Header().Ref()) != nil {
					at = "something you may not see"
				}
				users = append(users, at)
			}
		}
	}
	if len(users) == 0 {
		return nil
	}
	return fault.Conflict.Errorf("delete %s: still used by %s; delete or change that first", ref, strings.Join(users, ", "))
}

// uses reports whether r refers to ref, and where.
func uses(r estate.Resource, ref estate.Ref) (string, bool) {
	h := r.Header()
	if o := h.Metadata.Owner; o != nil && *o == ref {
		return "", false
	}
	if s, ok := r.(*estate.Session); ok && (s.Status.State == estate.SessionEnded || ref.Kind == "Desktop") {
		return "", false // sessions go with their desktop
	}
	if ref.Kind == "Project" && h.Metadata.Project == ref.Name && h.Kind != "Event" {
		return h.Ref().String(), true
	}
	for _, l := range r.Links() {
		if l.To == ref {
			return h.Ref().String() + " (" + l.Path + ")", true
		}
	}
	return "", false
}

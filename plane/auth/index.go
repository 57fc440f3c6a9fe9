package auth

import (
	"context"
	"slices"
	"sync"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/plane/store"
)

// decisive are the kinds whose objects decide who may do what.
var decisive = [...]estate.Kind{"Person", "Group", "Grant", "Blueprint", "Pool", "Desktop", "Machine", "Volume", "Session", "Operation", "Decision", "Event"}

// remembered is how many deleted objects are known still, so that watchers who
// could see them learn that they went.
const remembered = 1024

// index is what is known of the decisive objects, kept by Run.
type index struct {
	mu   sync.RWMutex
	view *view // nil while Run does not keep it
}

// view is the decisive objects. One that Run keeps changes under its lock.
type view struct {
	store   *store.Store
	lock    *sync.RWMutex
	objects map[estate.Ref]estate.Resource
	grants  map[string]map[string]*estate.Grant       // by project and name
	groups  map[string]*estate.Group                  // by name
	member  map[string][]string                       // groups by person
	desks   map[string]map[estate.Ref]*estate.Desktop // by person
	gone    map[estate.Ref]estate.Resource
	order   []estate.Ref // of gone, the oldest first
}

// Run keeps what decides in memory until ctx ends.
func (a *Auth) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := a.follow(ctx); err != nil && ctx.Err() == nil {
			a.Log.Warn("who may do what is read anew", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
	return nil
}

// follow reads everything that decides and applies changes to it until the
// watch ends. Meanwhile questions are answered from memory.
func (a *Auth) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v, revision, err := a.load(ctx)
	if err != nil {
		return err
	}
	events, err := a.Store.Watch(ctx, revision, decisive[:]...)
	if err != nil {
		return err
	}
	v.lock = &a.index.mu
	a.index.mu.Lock()
	a.index.view = v
	a.index.mu.Unlock()
	defer func() {
		a.index.mu.Lock()
		a.index.view = nil
		a.index.mu.Unlock()
	}()
	for e := range events {
		a.index.mu.Lock()
		v.apply(e)
		a.index.mu.Unlock()
	}
	return ctx.Err()
}

// load reads everything that decides, and the revision to watch from.
func (a *Auth) load(ctx context.Context) (*view, int64, error) {
	v := &view{
		store: a.Store, lock: new(sync.RWMutex), objects: map[estate.Ref]estate.Resource{},
		grants: map[string]map[string]*estate.Grant{}, groups: map[string]*estate.Group{},
		desks: map[string]map[estate.Ref]*estate.Desktop{}, gone: map[estate.Ref]estate.Resource{},
	}
	var first int64
	for i, k := range decisive {
		rs, revision, _, err := a.Store.Page(ctx, k, "", "", 0)
		if err != nil {
			return nil, 0, err
		}
		if i == 0 {
			first = revision // what came later is seen twice, which does no harm
		}
		for _, r := range rs {
			v.apply(store.Event{Object: r})
		}
	}
	return v, first, nil
}

// view returns what decides: as Run keeps it, or else read now.
func (a *Auth) view(ctx context.Context) (*view, error) {
	a.index.mu.RLock()
	v := a.index.view
	a.index.mu.RUnlock()
	if v != nil {
		return v, nil
	}
	v, _, err := a.load(ctx)
	return v, err
}

// apply takes one change in.
func (v *view) apply(e store.Event) {
	ref := e.Object.Header().Ref()
	if old, ok := v.objects[ref].(*estate.Desktop); ok {
		delete(v.desks[old.Spec.Person], ref)
	}
	if e.Deleted {
		v.bury(ref, e.Object)
		return
	}
	v.objects[ref] = e.Object
	delete(v.gone, ref)
	switch o := e.Object.(type) {
	case *estate.Group:
		v.groups[ref.Name] = o
		v.count()
	case *estate.Grant:
		if v.grants[ref.Project] == nil {
			v.grants[ref.Project] = map[string]*estate.Grant{}
		}
		v.grants[ref.Project][ref.Name] = o
	case *estate.Desktop:
		if v.desks[o.Spec.Person] == nil {
			v.desks[o.Spec.Person] = map[estate.Ref]*estate.Desktop{}
		}
		v.desks[o.Spec.Person][ref] = o
	}
}

func (v *view) bury(ref estate.Ref, last estate.Resource) {
	delete(v.objects, ref)
	switch ref.Kind {
	case "Group":
		delete(v.groups, ref.Name)
		v.count()
	case "Grant":
		delete(v.grants[ref.Project], ref.Name)
	}
	v.gone[ref] = last
	v.order = append(v.order, ref)
	if len(v.order) > remembered {
		delete(v.gone, v.order[0])
		v.order = slices.Clone(v.order[1:])
	}
}

// find returns the object, or what it last was if it is gone, or nil. What was
// made a moment ago is read from the store.
func (v *view) find(ctx context.Context, ref estate.Ref) estate.Resource {
	v.lock.RLock()
	r, gone := v.objects[ref], v.gone[ref]
	v.lock.RUnlock()
	if r != nil {
		return r
	}
	if gone != nil {
		return gone
	}
	r, err := v.store.Load(ctx, ref)
	if err != nil {
		return nil
	}
	return r
}

// count works out who is in which groups. Groups change seldom.
func (v *view) count() {
	v.member = map[string][]string{}
	for name, g := range v.groups {
		for _, person := range g.Spec.Members {
			v.member[person] = append(v.member[person], name)
		}
	}
	for _, names := range v.member {
		slices.Sort(names)
	}
}

// groupsOf returns the names of the groups the person is in.
func (v *view) groupsOf(person string) []string {
	v.lock.RLock()
	defer v.lock.RUnlock()
	return v.member[person]
}

// gives reports whether a grant gives the caller the role for the object.
func (v *view) gives(c Caller, role estate.Role, of estate.Ref) bool {
	project := of.Project
	if of.Kind == "Project" {
		project = of.Name
	}
	v.lock.RLock()
	defer v.lock.RUnlock()
	for _, g := range v.grants[project] {
		if g.Gives(c.Person, c.Groups, role, of) {
			return true
		}
	}
	return false
}

// operatesAny reports whether the caller operates any project at all.
func (v *view) operatesAny(c Caller) bool {
	v.lock.RLock()
	defer v.lock.RUnlock()
	for project, grants := range v.grants {
		for _, g := range grants {
			if g.Gives(c.Person, c.Groups, estate.Operate, estate.Ref{Kind: "Project", Name: project}) {
				return true
			}
		}
	}
	return false
}

// belongs reports whether the caller has anything in the project: a grant, or
// a desktop.
func (v *view) belongs(c Caller, project string) bool {
	v.lock.RLock()
	defer v.lock.RUnlock()
	for ref := range v.desks[c.Person] {
		if ref.Project == project {
			return true
		}
	}
	for _, g := range v.grants[project] {
		if g.Spec.To.Person == c.Person || slices.Contains(c.Groups, g.Spec.To.Group) {
			return true
		}
	}
	return false
}

// worksOn reports whether a desktop of the caller is made from the blueprint.
func (v *view) worksOn(c Caller, blueprint estate.Ref) bool {
	v.lock.RLock()
	defer v.lock.RUnlock()
	for ref, d := range v.desks[c.Person] {
		if ref.Project == blueprint.Project && d.Spec.Blueprint == blueprint.Name {
			return true
		}
	}
	return false
}

// sits reports whether a pool that the caller may have a seat of is made from
// the blueprint.
func (v *view) sits(ctx context.Context, c Caller, blueprint estate.Ref) bool {
	var pools []estate.Ref
	v.lock.RLock()
	for _, g := range v.grants[blueprint.Project] {
		pool := estate.Ref{Kind: "Pool", Project: blueprint.Project, Name: g.Spec.Of.Name}
		if g.Spec.Of.Kind == "Pool" && g.Gives(c.Person, c.Groups, estate.Use, pool) {
			pools = append(pools, pool)
		}
	}
	v.lock.RUnlock()
	return slices.ContainsFunc(pools, func(ref estate.Ref) bool {
		p, _ := v.find(ctx, ref).(*estate.Pool)
		return p != nil && p.Spec.Blueprint == blueprint.Name
	})
}

// isAdmin reports whether the person is an administrator.
func (v *view) isAdmin(ctx context.Context, person string) bool {
	p, _ := v.find(ctx, estate.Ref{Kind: "Person", Name: person}).(*estate.Person)
	return p != nil && p.Spec.Admin
}

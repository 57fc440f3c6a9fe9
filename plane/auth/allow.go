package auth

import (
	"context"
	"slices"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// rights is a set of verbs.
type rights uint16

// The verbs.
const (
	get rights = 1 << iota
	create
	update
	remove
	connect
	start
	status

	none   rights = 0
	manage        = get | create | update | remove
	open          = get | connect | start
	all           = manage | connect | start | status
)

// verbs names them. Listing and watching are getting many.
func verbs(name string) (rights, bool) {
	switch name {
	case "get", "list", "watch":
		return get, true
	case "create":
		return create, true
	case "update":
		return update, true
	case "delete":
		return remove, true
	case "connect":
		return connect, true
	case "start":
		return start, true
	case "status":
		return status, true
	}
	return none, false
}

// question is who asks about what. The caller is no administrator.
type question struct {
	ctx    context.Context
	rows   map[estate.Kind]row
	view   *view
	caller Caller
	ref    estate.Ref
	given  estate.Resource // the object itself, newer perhaps than the view; nil when only the view has it
}

// row says what a person and what an agent may do with an object of a kind.
type row struct{ person, agent func(*question) rights }

// rows says for every kind what somebody may do with an object of it. A kind
// without a row is nobody's: adding one without a row fails TestEveryKindHasARow.
func rows() map[estate.Kind]row {
	return map[estate.Kind]row{
		"Project":      {projectOf, nothing},
		"Person":       {personOf, nothing},
		"Group":        {groupOf, nothing},
		"Hypervisor":   {forOperators(get), ownHypervisor},
		"Context":      {part(get), always(get | status)},
		"Network":      {part(none), always(get | status)},
		"Image":        {part(get), always(get | status)},
		"Application":  {granted, always(get | status)},
		"ServiceLevel": {part(none), nothing},
		"Blueprint":    {blueprintOf, nothing},
		"Volume":       {volumeOf, agentsVolume},
		"Pool":         {poolOf, always(get)},
		"Service":      {part(none), nothing},
		"Desktop":      {desktopOf, nothing},
		"Machine":      {machineOf, agentsMachine},
		"Session":      {sessionOf, nothing},
		"Grant":        {grantOf, nothing},
		"Operation":    {about, nothing},
		"Decision":     {about, nothing},
		"Trial":        {forOperators(get), nothing},
		"Event":        {about, always(create)},
	}
}

// Allow returns nil when the caller may do the verb to the object. What they
// may not even see is fault.NotFound, in the words of an absent object; what
// they see but may not do is fault.Denied. Verbs are get, list, watch, create,
// update, delete, connect, start and status. A ref without a name is the whole
// kind, which anybody we know may get: each object is asked about on its own.
func (a *Auth) Allow(ctx context.Context, c Caller, verb string, ref estate.Ref) error {
	want, ok := verbs(verb)
	if !ok {
		return fault.Denied.Errorf("%q is nothing anybody may do", verb)
	}
	v, err := a.view(ctx)
	if err != nil {
		return err
	}
	have := a.question(ctx, v, c, ref, nil).rights()
	switch {
	case have&want != 0:
		return nil
	case have&get == 0:
		return fault.NotFound.Errorf("there is no %s", ref)
	case ref.Project != "":
		return fault.Denied.Errorf("%s %s: you may not; ask who operates project %s", verb, ref, ref.Project)
	}
	return fault.Denied.Errorf("%s %s: you may not; ask an administrator", verb, ref)
}

// Sees reports whether the caller may get the object as given, which may be
// newer than what is known here of it: who follows changes asks this.
func (a *Auth) Sees(ctx context.Context, c Caller, r estate.Resource) bool {
	v, err := a.view(ctx)
	return err == nil && a.question(ctx, v, c, r.Header().Ref(), r).rights()&get != 0
}

func (a *Auth) question(ctx context.Context, v *view, c Caller, ref estate.Ref, given estate.Resource) *question {
	if c.Person != "" {
		c.Groups = v.groupsOf(c.Person) // a watch may be older than a group
	}
	return &question{ctx, a.rows, v, c, ref, given}
}

// rights returns everything the caller may do with the object.
func (q *question) rights() rights {
	row, known := q.rows[q.ref.Kind]
	limit := limits(q.caller.Scopes)
	switch {
	case !known || q.caller.Person == "" && q.caller.Agent == "" && !q.caller.Admin:
		return none
	case q.caller.Agent != "" && !q.caller.Admin:
		if q.ref.Name == "" {
			return get
		}
		return row.agent(q)
	case q.ref.Name == "":
		return get & limit
	case q.caller.Admin, len(q.caller.Scopes) > 0 && q.view.isAdmin(q.ctx, q.caller.Person):
		return all & limit
	}
	return row.person(q) & limit
}

// limits returns what scopes leave of a person's rights.
func limits(scopes []string) rights {
	if len(scopes) == 0 || slices.Contains(scopes, ScopeAdmin) {
		return all
	}
	left := none
	for _, s := range scopes {
		switch s {
		case ScopeRead:
			left |= get
		case ScopeWrite:
			left |= manage
		case ScopeConnect:
			left |= open
		}
	}
	return left
}

func nothing(*question) rights { return none }

func always(r rights) func(*question) rights { return func(*question) rights { return r } }

// operates reports whether the caller operates the object's project.
func (q *question) operates() bool {
	return q.view.gives(q.caller, estate.Operate, estate.Ref{Kind: "Project", Name: q.ref.Project})
}

func (q *question) object() estate.Resource {
	if q.given != nil {
		return q.given
	}
	return q.view.find(q.ctx, q.ref)
}

// forOperators gives r to whoever operates any project.
func forOperators(r rights) func(*question) rights {
	return func(q *question) rights {
		if q.view.operatesAny(q.caller) {
			return r
		}
		return none
	}
}

// part is a part of a project: its operators manage it, and whoever has
// anything in the project may do r.
func part(r rights) func(*question) rights {
	return func(q *question) rights {
		switch {
		case q.operates():
			return manage
		case q.view.belongs(q.caller, q.ref.Project):
			return r
		}
		return none
	}
}

// projectOf: its operators name it; whoever has anything in it sees it.
func projectOf(q *question) rights {
	switch {
	case q.view.gives(q.caller, estate.Operate, q.ref):
		return get | update
	case q.view.belongs(q.caller, q.ref.Name):
		return get
	}
	return none
}

// personOf: people see themselves; operators see whom they may grant things.
func personOf(q *question) rights {
	if q.ref.Name == q.caller.Person {
		return get
	}
	return forOperators(get)(q)
}

func groupOf(q *question) rights {
	if slices.Contains(q.caller.Groups, q.ref.Name) {
		return get
	}
	return forOperators(get)(q)
}

// granted is what grants give by name.
func granted(q *question) rights {
	switch {
	case q.operates():
		return manage
	case q.view.gives(q.caller, estate.Operate, q.ref):
		return get | update | remove
	case q.view.gives(q.caller, estate.Use, q.ref):
		return get
	}
	return none
}

// blueprintOf: as granted, and people see what their desktops are made from, and
// the seats they may have.
func blueprintOf(q *question) rights {
	r := granted(q)
	if r == none && (q.view.worksOn(q.caller, q.ref) || q.view.sits(q.ctx, q.caller, q.ref)) {
		return get
	}
	return r
}

func volumeOf(q *question) rights {
	if q.operates() {
		return manage
	}
	if v, ok := q.object().(*estate.Volume); ok && v.Spec.Person == q.caller.Person {
		return get
	}
	return none
}

// poolOf: who is granted a pool may have a seat of it.
func poolOf(q *question) rights {
	r := granted(q)
	if r&get != 0 {
		r |= connect
	}
	return r
}

// desktopOf: nobody but its person and operators, whatever the grants to use.
func desktopOf(q *question) rights {
	if q.operates() {
		return manage | open
	}
	if d, ok := q.object().(*estate.Desktop); ok && d.Spec.Person == q.caller.Person {
		return open
	}
	return none
}

// machineOf: loops write machines. A person sees those of their desktops.
func machineOf(q *question) rights {
	if q.operates() {
		return get
	}
	m, ok := q.object().(*estate.Machine)
	if !ok || m.Metadata.Owner == nil || m.Metadata.Owner.Kind != "Desktop" {
		return none
	}
	its := &question{q.ctx, q.rows, q.view, q.caller, *m.Metadata.Owner, nil}
	return desktopOf(its) & get
}

func sessionOf(q *question) rights {
	if q.operates() {
		return get | update | remove | connect
	}
	if s, ok := q.object().(*estate.Session); ok && s.Spec.Person == q.caller.Person {
		return get | remove | connect
	}
	return none
}

func grantOf(q *question) rights {
	if q.operates() {
		return manage
	}
	g, ok := q.object().(*estate.Grant)
	if ok && (g.Spec.To.Person == q.caller.Person || slices.Contains(q.caller.Groups, g.Spec.To.Group)) {
		return get
	}
	return none
}

// about: who sees an object sees what happens to it.
func about(q *question) rights {
	if q.operates() {
		return get
	}
	var on estate.Ref
	switch o := q.object().(type) {
	case *estate.Operation:
		on = o.Spec.On
	case *estate.Decision:
		on = o.Spec.On
	case *estate.Event:
		on = o.Spec.On
	}
	if on.Name == "" || on.Kind == "Operation" || on.Kind == "Decision" || on.Kind == "Event" {
		return none
	}
	its := &question{q.ctx, q.rows, q.view, q.caller, on, nil}
	return its.rights() & get
}

// ownHypervisor: an agent says that its host is there, and how it is.
func ownHypervisor(q *question) rights {
	if q.ref.Name == q.caller.Agent {
		return get | create | status
	}
	return none
}

// agentsMachine: an agent knows the machines placed on its host, those still
// there, and those on their way to or from it.
func agentsMachine(q *question) rights {
	if m, ok := q.object().(*estate.Machine); ok && concerns(m, q.caller.Agent) {
		return get | status
	}
	if q.given != nil {
		return none
	}
	// The view may be a moment old, and an agent that does not see a machine any
	// more takes what it has of it for a leftover: so no is said from the store.
	r, err := q.view.store.Load(q.ctx, q.ref)
	if m, ok := r.(*estate.Machine); err == nil && ok && concerns(m, q.caller.Agent) {
		return get | status
	}
	return none
}

// concerns reports whether a machine is the business of a hypervisor's agent.
func concerns(m *estate.Machine, hypervisor string) bool {
	mv := m.Spec.Moving
	return m.Spec.Hypervisor == hypervisor || m.Status.Hypervisor == hypervisor ||
		mv != nil && (mv.From == hypervisor || mv.To == hypervisor)
}

// agentsVolume: an agent reads volumes, and reports those on its host and
// those that are nowhere yet.
func agentsVolume(q *question) rights {
	v, ok := q.object().(*estate.Volume)
	if ok && (v.Status.Hypervisor == "" || v.Status.Hypervisor == q.caller.Agent) {
		return get | status
	}
	return get
}

package service

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/compose"
	"consort.dev/consort/estate"
	"consort.dev/consort/front"
	"consort.dev/consort/plane/store"
)

// mostRevisions are kept, so that one can go back to them.
const mostRevisions = 10

// revise notes what replicas are made from now, where that differs from what
// they were made from. A difference begins a rollout, unless nothing runs yet.
func (v *view) revise() {
	s := &v.service.Status
	if len(compose.Blocked(v.reasons))+len(compose.Waiting(v.reasons)) > 0 {
		return
	}
	slices.Sort(v.plan.Hypervisors) // in an order that lasts: placement has its own
	next := estate.Revision{Number: 1, Made: v.now, Recipe: pinned(v.service.Spec.Recipe(), v.plan), Plan: v.plan}
	if n := len(s.Revisions); n > 0 {
		last := &s.Revisions[n-1]
		if alike(last, &next) {
			last.Plan.Hypervisors = v.plan.Hypervisors
			return
		}
		if now := s.Revision(s.Serving()); last.Refused && now != nil && alike(now, &next) {
			return
		}
		next.Number = last.Number + 1
	}
	from := s.Serving()
	if rolling(s) {
		s.Revision(s.Rollout.To).Refused = true
		s.Revision(s.Rollout.To).Verdict = fmt.Sprintf("revision %d came before it was whole", next.Number)
	}
	s.Revisions = append(s.Revisions, next)
	if n := len(s.Revisions); n > mostRevisions {
		keep := func(r estate.Revision) bool { return r.Number == from }
		if i := slices.IndexFunc(s.Revisions, func(r estate.Revision) bool { return !keep(r) }); i >= 0 {
			s.Revisions = slices.Delete(s.Revisions, i, i+1)
		}
	}
	if from != 0 && len(s.Replicas) > 0 {
		s.Rollout = &estate.Rollout{From: from, To: next.Number, State: estate.RolloutRunning, Began: v.now}
	}
}

// pinned is the recipe with the versions that were chosen, so that going back to
// it means going back.
func pinned(r estate.ReplicaRecipe, p estate.Plan) estate.ReplicaRecipe {
	r.Applications = slices.Clone(r.Applications)
	for i := range r.Applications {
		for _, l := range p.Layers {
			if l.Application == r.Applications[i].Name {
				r.Applications[i].Version = l.Version
			}
		}
	}
	return r
}

// alike reports whether replicas of the two are the same.
func alike(a, b *estate.Revision) bool {
	return a.Plan.Image == b.Plan.Image && slices.Equal(a.Plan.Layers, b.Plan.Layers) && reflect.DeepEqual(a.Plan.Hardware, b.Plan.Hardware) &&
		a.Recipe.Port == b.Recipe.Port && a.Recipe.Applications[0].Name == b.Recipe.Applications[0].Name
}

// count brings the replicas up to what their machines and the front say.
func (v *view) count() {
	s := &v.service.Status
	s.Ready = 0
	s.Replicas = slices.DeleteFunc(s.Replicas, func(r estate.Replica) bool { return v.machines[r.Machine] == nil })
	for i := range s.Replicas {
		r := &s.Replicas[i]
		st, seen := v.standing(r.Machine)
		answers := seen && st.State == front.Ready
		if answers && r.State == estate.ReplicaStarting {
			r.State, r.Ready = estate.ReplicaReady, v.now
			s.Boot = estate.Duration(v.now.Sub(r.Made).Round(time.Millisecond))
		}
		if answers && r.State == estate.ReplicaReady {
			s.Ready++
		}
	}
}

// of returns the replicas of the revision that are to stay; one that another
// stands in for counts until that one answers.
func (v *view) of(revision int) []*estate.Replica {
	s := &v.service.Status
	var all []*estate.Replica
	for i := range s.Replicas {
		r := &s.Replicas[i]
		if r.Revision == revision && r.State != estate.ReplicaLeaving && (r.Instead == "" || !v.stays(r.Instead)) {
			all = append(all, r)
		}
	}
	return all
}

func (v *view) stays(machine string) bool {
	return slices.ContainsFunc(v.service.Status.Replicas, func(r estate.Replica) bool {
		return r.Machine == machine && r.State != estate.ReplicaLeaving
	})
}

// leave has a replica leave.
func (v *view) leave(r *estate.Replica) {
	if r.State != estate.ReplicaLeaving {
		r.State, r.Leaves = estate.ReplicaLeaving, v.now
	}
}

// add orders a replica; work makes its machine.
func (v *view) add(revision int, like estate.Replica) {
	s := &v.service.Status
	s.Made++
	like.Machine = fmt.Sprintf("%s-%d", v.service.Metadata.Name, s.Made)
	like.Revision, like.State, like.Made = revision, estate.ReplicaStarting, v.now
	s.Replicas = append(s.Replicas, like)
}

// settle makes as many replicas of the revision as are wanted stay: it orders
// those that are missing, and of those too many has those leave that do not answer
// yet, then those that are to be replaced anyway, then the youngest.
func (v *view) settle(revision, wanted int) {
	have := v.of(revision)
	for n := len(have); n < wanted; n++ {
		v.add(revision, estate.Replica{})
	}
	slices.SortStableFunc(have, func(a, b *estate.Replica) int {
		return cmp.Or(cmp.Compare(reluctance(b), reluctance(a)), a.Made.Compare(b.Made))
	})
	for i := wanted; i < len(have); i++ {
		v.leave(have[i])
	}
}

// reluctance is how much a replica is missed once it leaves.
func reluctance(r *estate.Replica) int {
	switch {
	case r.State != estate.ReplicaReady:
		return 0
	case r.Replace:
		return 1
	}
	return 2
}

// swap orders a replica in place of each that is to be replaced, and has that
// one leave once the new one answers.
func (v *view) swap() {
	s := &v.service.Status
	for i := range len(s.Replicas) {
		r := s.Replicas[i]
		if !r.Replace || r.State == estate.ReplicaLeaving {
			continue
		}
		j := slices.IndexFunc(s.Replicas, func(n estate.Replica) bool { return n.Instead == r.Machine && n.State != estate.ReplicaLeaving })
		switch {
		case j < 0:
			v.add(r.Revision, estate.Replica{Instead: r.Machine, Avoid: r.Avoid})
		case s.Replicas[j].State == estate.ReplicaReady:
			v.leave(&s.Replicas[i])
			s.Replicas[j].Instead = ""
		}
	}
}

// work returns the edits that make the machines of new replicas, and let go of
// those that have left.
func (v *view) work() []store.Edit {
	s := v.service
	var edits []store.Edit
	for _, r := range s.Status.Replicas {
		m, rev := v.machines[r.Machine], s.Status.Revision(r.Revision)
		switch {
		case m == nil && rev != nil && r.State == estate.ReplicaStarting:
			edits = append(edits, store.Create(v.machine(r, rev)))
		case m != nil && m.Metadata.Deleting.IsZero() && r.State == estate.ReplicaLeaving && v.left(r):
			edits = append(edits, store.Remove(m.Ref(), 0))
		}
	}
	return edits
}

// left reports whether a replica that leaves has answered what it had, or had
// long enough.
func (v *view) left(r estate.Replica) bool {
	st, seen := v.standing(r.Machine)
	return !seen || st.State == front.Draining && st.InFlight == 0 || v.now.Sub(r.Leaves) > parting
}

func (v *view) machine(r estate.Replica, rev *estate.Revision) *estate.Machine {
	owner := v.service.Ref()
	m := &estate.Machine{Spec: estate.MachineSpec{Power: estate.On, Hardware: rev.Plan.Hardware, Layers: rev.Plan.Layers}}
	m.Head = estate.Head{APIVersion: estate.APIVersion, Kind: "Machine", Metadata: estate.Metadata{
		Name: r.Machine, Project: owner.Project, Owner: &owner, Finalizers: []string{estate.AgentFinalizer},
	}}
	return m
}

// tell says in the status how the service is.
func (v *view) tell(shut error) {
	g, s := v.service, &v.service.Status
	s.Observed, s.Waiting = g.Metadata.Generation, ""
	reasons := append(compose.Blocked(v.reasons), compose.Waiting(v.reasons)...)
	switch {
	case len(reasons) > 0:
		s.Waiting = reasons[0].String()
	case shut != nil:
		s.Waiting = shut.Error()
	default:
		s.Waiting = v.starting()
	}
	c := estate.Condition{Type: estate.Ready, Status: estate.True, Since: v.now}
	if s.Ready == 0 {
		c.Status, c.Reason, c.Text = estate.False, "NoReplica", "no replica answers"
		if s.Waiting != "" {
			c.Text += ": " + strings.TrimRight(s.Waiting, ".")
		}
	}
	s.Set(c)
}

// starting says which replica is waited for, and for what.
func (v *view) starting() string {
	for _, r := range v.service.Status.Replicas {
		if r.State != estate.ReplicaStarting {
			continue
		}
		m := v.machines[r.Machine]
		st, seen := v.standing(r.Machine)
		why := "its machine is being made"
		switch {
		case m != nil && v.failed[r.Machine] != nil:
			why = "its application does not start: " + v.failed[r.Machine].Error()
		case m != nil && m.Status.Waiting != "":
			why = m.Status.Waiting
		case m != nil && m.Status.Power != estate.On:
			why = "its machine starts"
		case m != nil && r.Launched == 0:
			why = "its application is being started"
		case seen && st.Because != "":
			why = st.Because
		}
		return fmt.Sprintf("replica %s does not answer yet: %s", r.Machine, why)
	}
	return ""
}

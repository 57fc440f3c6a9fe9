package scale

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/decide"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/store"
)

const (
	again         = 10 * time.Minute // that the same advice is not given again
	mostDecisions = 200              // kept of one service
)

// decisions returns those about the service, the oldest first.
func (k *Scaler) decisions(ctx context.Context, ref estate.Ref) ([]*estate.Decision, error) {
	all, _, err := store.List[estate.Decision](ctx, k.Store, ref.Project)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(d *estate.Decision) bool { return d.Spec.On != ref || !d.Metadata.Deleting.IsZero() })
	slices.SortFunc(all, func(a, b *estate.Decision) int { return a.Spec.At.Compare(b.Spec.At) })
	if n := len(all); n > mostDecisions && !all[0].Status.Open() {
		if err := k.Store.Delete(ctx, all[0].Ref(), 0); err != nil {
			return nil, err
		}
		all = all[1:]
	}
	return all, nil
}

// judge asks decide, notes what came of earlier decisions, and writes a new one
// down. Carrying it out is another step, which begins with what is stored.
func (k *Scaler) judge(ctx context.Context, s *estate.Service, m *memory, all []*estate.Decision, p decide.Policy, seen decide.Measured) error {
	d, state := decide.Decide(p, seen, m.state)
	if err := k.learn(ctx, s.Ref(), all, d.Outcomes, state); err != nil {
		return err
	}
	m.state = state
	if o := s.Status.Rollout; o != nil && o.State == estate.RolloutRunning && d.Act != decide.Out {
		return nil // who is replaced anyway is not judged
	}
	for _, old := range all {
		same := old.Spec.Act == string(d.Act) && old.Spec.To == d.To
		switch {
		case (old.Status.State == estate.Observed || old.Status.State == estate.Proposed) && same && seen.At.Sub(old.Spec.At) < again:
			return nil // said already
		case old.Status.State == estate.Proposed && !same && seen.At.Sub(old.Spec.At) > stale:
			if err := k.withdraw(ctx, old, "what is measured now asks for something else"); err != nil {
				return err
			}
		}
	}
	if d.Act == decide.Wait {
		return nil
	}
	written := write(s.Ref(), d)
	if err := k.Store.Create(ctx, written); err != nil {
		return err
	}
	k.Events.Tell(ctx, control.Happening{On: s.Ref(), Of: "decision", Reason: "Decided", Text: d.Say, Bad: d.Urgent})
	return nil
}

// learn stores the outcomes of decisions and what was learned, together: an
// outcome is told once.
func (k *Scaler) learn(ctx context.Context, ref estate.Ref, all []*estate.Decision, outcomes []decide.Outcome, state decide.State) error {
	if len(outcomes) == 0 {
		return nil
	}
	var edits []store.Edit
	for _, o := range outcomes {
		for _, d := range all {
			if d.Spec.At.Equal(o.Of) && d.Spec.Act == string(o.Act) {
				d.Status.Outcome = &estate.Outcome{At: k.Now().UTC(), Met: o.Met, Say: o.Say}
				edits = append(edits, store.Put(d))
			}
		}
	}
	saved, err := k.save(ref, state)
	if err != nil {
		return err
	}
	return k.Store.Commit(ctx, append(edits, saved)...)
}

// write is the record of a decision. Its name is that of the service and its
// time: a decision is written once.
func write(on estate.Ref, d decide.Decision) *estate.Decision {
	out := &estate.Decision{Spec: estate.DecisionSpec{
		On: on, At: d.At.UTC(), Act: string(d.Act), From: d.From, To: d.To, Avoid: d.Avoid, Mode: estate.Mode(d.Mode), Urgent: d.Urgent,
		Undoes: d.Undoes, Say: d.Say, Objective: d.Why.Objective, Evidence: evidence(d.Why),
		Expected: estate.Expectation{By: d.Expected.By, Say: d.Expected.Say},
	}}
	for _, id := range d.Gone {
		out.Spec.Gone = append(out.Spec.Gone, string(id))
	}
	for _, a := range d.Alternatives {
		out.Spec.Alternatives = append(out.Spec.Alternatives, estate.Alternative{Act: string(a.Act), To: a.To, Not: a.Not})
	}
	name := on.Name + "-" + strings.ToLower(d.At.UTC().Format("20060102T150405"))
	out.Head = estate.Head{APIVersion: estate.APIVersion, Kind: "Decision", Metadata: estate.Metadata{Name: name, Project: on.Project}}
	switch d.Mode {
	case decide.Auto:
		out.Status.State, out.Status.Approved = estate.Approved, "the mode of the service, auto"
	case decide.Approve, decide.Recommend:
		out.Status.State, out.Status.Waiting = estate.Proposed, "somebody to agree: consort decisions approve "+name
	default:
		out.Status.State = estate.Observed
	}
	return out
}

// evidence is what a decision rests on, in an order for people.
func evidence(w decide.Why) []estate.Fact {
	all := []estate.Fact{
		{Name: "rate", Value: w.Rate, Unit: "requests/s"},
		{Name: "forecast", Value: w.Forecast, Unit: "requests/s"},
		{Name: "margin", Value: 100 * w.Margin, Unit: "%"},
		{Name: "borne by one replica", Value: w.Safe, Unit: "requests/s"},
		{Name: "quick response", Value: 1000 * w.Quick, Unit: "ms"},
		{Name: "bad in the last 15 s", Value: 100 * w.BadShort, Unit: "%"},
		{Name: "bad in the last minute", Value: 100 * w.BadLong, Unit: "%"},
		{Name: "wanted", Value: float64(w.Wanted), Unit: "replicas"},
	}
	return all
}

// pursue carries out what was agreed to, takes back what somebody wants undone,
// and notes what is done.
func (k *Scaler) pursue(ctx context.Context, s *estate.Service, m *memory, all []*estate.Decision) error {
	for _, d := range all {
		st := &d.Status
		var err error
		switch {
		case st.State == estate.Approved && k.Now().Sub(d.Spec.At) > stale && st.Waiting == "":
			err = k.withdraw(ctx, d, "it was not carried out in time")
		case st.State == estate.Approved:
			err = k.act(ctx, s, m, d)
		case st.Undo != "" && (st.State == estate.Doing || st.State == estate.Done):
			err = k.undo(ctx, s, d)
		case st.State == estate.Doing && carried(s, d):
			st.State, st.Ended, st.Waiting = estate.Done, k.Now().UTC(), ""
			err = k.Store.Update(ctx, d)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// act carries a decision out: the decision, the service and what was learned
// change in one transaction, which the first two must be unchanged for. So it
// happens once, whoever else tries, and whenever this process dies.
func (k *Scaler) act(ctx context.Context, s *estate.Service, m *memory, d *estate.Decision) error {
	st := &s.Status
	switch decide.Act(d.Spec.Act) {
	case decide.Out:
		st.Wanted = max(st.Wanted, d.Spec.To)
	case decide.In:
		st.Wanted = d.Spec.To
		for i := range st.Replicas {
			if r := &st.Replicas[i]; slices.Contains(d.Spec.Gone, r.Machine) {
				r.State, r.Leaves = estate.ReplicaLeaving, k.Now().UTC()
			}
		}
	case decide.Replace:
		for i := range st.Replicas {
			if r := &st.Replicas[i]; slices.Contains(d.Spec.Gone, r.Machine) {
				r.Replace, r.Avoid = true, d.Spec.Avoid
			}
		}
	default:
		return k.withdraw(ctx, d, "nobody here knows how to do that")
	}
	st.Because, st.Decision = d.Spec.Say, d.Metadata.Name
	state := m.state.Took(taken(d))
	saved, err := k.save(s.Ref(), state)
	if err != nil {
		return err
	}
	d.Status.State, d.Status.Waiting = estate.Doing, ""
	if err := k.Store.Commit(ctx, store.Put(d), store.Put(s), saved); err != nil {
		if !errors.Is(err, fault.Conflict) {
			k.lose(s.Ref()) // it may have happened all the same
		}
		return err
	}
	m.state = state
	return nil
}

// taken is the decision as decide knows it.
func taken(d *estate.Decision) decide.Decision {
	s := &d.Spec
	out := decide.Decision{
		At: s.At, Act: decide.Act(s.Act), From: s.From, To: s.To, Avoid: s.Avoid, Urgent: s.Urgent, Undoes: s.Undoes,
		Expected: decide.Expected{Of: s.At, Act: decide.Act(s.Act), By: s.Expected.By, Say: s.Expected.Say},
	}
	for _, id := range s.Gone {
		out.Gone = append(out.Gone, estate.MachineID(id))
	}
	return out
}

// carried reports whether a decision has been carried out.
func carried(s *estate.Service, d *estate.Decision) bool {
	st := &s.Status
	switch decide.Act(d.Spec.Act) {
	case decide.Out:
		return st.Ready >= min(d.Spec.To, st.Wanted)
	default:
		return !slices.ContainsFunc(st.Replicas, func(r estate.Replica) bool { return slices.Contains(d.Spec.Gone, r.Machine) })
	}
}

// undo takes back how many replicas there are. A machine that was replaced has
// gone, and does not come back.
func (k *Scaler) undo(ctx context.Context, s *estate.Service, d *estate.Decision) error {
	by := d.Status.Undo
	if act := decide.Act(d.Spec.Act); act != decide.Out && act != decide.In {
		d.Status.Undo, d.Status.Waiting = "", "a machine that was replaced has gone: this cannot be undone"
		return k.Store.Update(ctx, d)
	}
	s.Status.Wanted, s.Status.Decision = d.Spec.From, d.Metadata.Name
	s.Status.Because = fmt.Sprintf("%s took decision %s back", by, d.Metadata.Name)
	d.Status.State, d.Status.Ended, d.Status.Waiting = estate.Undone, k.Now().UTC(), ""
	return k.Store.Commit(ctx, store.Put(d), store.Put(s))
}

func (k *Scaler) withdraw(ctx context.Context, d *estate.Decision, why string) error {
	d.Status.State, d.Status.Ended, d.Status.Waiting = estate.Withdrawn, k.Now().UTC(), ""
	d.Status.Outcome = &estate.Outcome{At: k.Now().UTC(), Say: why}
	return k.Store.Update(ctx, d)
}

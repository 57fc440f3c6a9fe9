package level

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/decide"
	"consort.dev/consort/decide/desk"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/store"
)

const (
	mostDecisions = 50 // kept of one desktop
	mostName      = 40 // of a desktop's name, in that of a decision
)

// judge notes what came of earlier decisions, asks desk, and writes a new
// decision down. Carrying it out is another step, which begins with what is
// stored.
func (k *Keeper) judge(ctx context.Context, v *view) error {
	now := k.Now().UTC()
	for _, l := range v.levels {
		p := v.policy(l)
		if err := k.learn(ctx, v, l, p, v.measured(l, now)); err != nil {
			return err
		}
		m := v.measured(l, now) // with what was just learned: regret holds at once
		if v.open() || v.machine.Spec.Moving != nil || v.machine.Spec.Hypervisor == "" {
			return nil
		}
		if !desk.Broken(p, m) {
			continue
		}
		if err := k.obstacles(ctx, v, &m); err != nil {
			return err
		}
		if d := desk.Decide(p, m); d.Act != decide.Wait && !v.said(d, now) {
			return k.write(ctx, v, l, d, now)
		}
	}
	return nil
}

// open reports whether something is being done about the desktop already.
func (v *view) open() bool {
	return slices.ContainsFunc(v.decisions, func(d *estate.Decision) bool {
		return d.Status.State == estate.Approved || d.Status.State == estate.Doing
	})
}

// said reports whether the same was decided a short time ago.
func (v *view) said(d desk.Decision, now time.Time) bool {
	return slices.ContainsFunc(v.decisions, func(old *estate.Decision) bool {
		s := old.Status.State
		idle := s == estate.Observed || s == estate.Proposed || s == estate.Withdrawn
		return idle && old.Spec.Target == d.To && old.Spec.Source == d.From && (s == estate.Proposed || now.Sub(old.Spec.At) < again)
	})
}

// obstacles asks what keeps the desktop from each host.
func (k *Keeper) obstacles(ctx context.Context, v *view, m *desk.Measured) error {
	for i := range m.Hosts {
		h := &m.Hosts[i]
		if h.Name == m.Here {
			continue
		}
		reply, err := k.Moves.Begin(ctx, v.desktop.Ref(), api.MoveRequest{To: h.Name, DryRun: true}, "level")
		if err != nil {
			return err
		}
		h.Against = strings.Join(reply.Obstacles, "; ")
	}
	return nil
}

// write writes a decision down, with its reasons, before anything is done.
func (k *Keeper) write(ctx context.Context, v *view, l *estate.ServiceLevel, d desk.Decision, now time.Time) error {
	ref := v.desktop.Ref()
	name := strings.TrimRight(ref.Name[:min(len(ref.Name), mostName)], "-") + "-" + strings.ToLower(now.Format("20060102T150405"))
	out := &estate.Decision{
		Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Decision", Metadata: estate.Metadata{Name: name, Project: ref.Project}},
		Spec: estate.DecisionSpec{
			On: ref, At: now, Act: string(d.Act), From: 1, To: 1, Gone: []string{v.machine.Metadata.Name}, Source: d.From, Target: d.To, Avoid: []string{d.From},
			Mode: estate.Mode(d.Mode), Urgent: true, Say: d.Say, Objective: d.Objective + " (level " + l.Metadata.Name + ")",
			Evidence: d.Evidence, Alternatives: d.Alternatives, Expected: d.Expected,
		},
	}
	switch d.Mode {
	case decide.Auto:
		out.Status.State, out.Status.Approved = estate.Approved, "the mode of level "+l.Metadata.Name+", auto"
	case decide.Approve, decide.Recommend:
		out.Status.State, out.Status.Waiting = estate.Proposed, "somebody to agree: consort decisions approve "+name
	default:
		out.Status.State = estate.Observed
	}
	if n := len(v.decisions); n >= mostDecisions && !v.decisions[0].Status.Open() {
		if err := k.Store.Delete(ctx, v.decisions[0].Ref(), 0); err != nil {
			return err
		}
	}
	if err := k.Store.Create(ctx, out); err != nil {
		return err
	}
	k.Events.Tell(ctx, control.Happening{On: ref, Of: "decision", Reason: "Decided", Text: d.Say, Bad: true})
	return nil
}

// learn notes what a decision about the level brought, once that is known.
func (k *Keeper) learn(ctx context.Context, v *view, l *estate.ServiceLevel, p desk.Policy, m desk.Measured) error {
	for _, d := range v.decisions {
		st := &d.Status
		if st.State != estate.Done || st.Outcome != nil || !strings.HasSuffix(d.Spec.Objective, "(level "+l.Metadata.Name+")") {
			continue
		}
		o, known := desk.Judge(p, desk.Past{At: st.Ended, From: d.Spec.Source, To: d.Spec.Target}, m)
		if !known {
			continue
		}
		st.Outcome = &o
		if err := k.Store.Update(ctx, d); err != nil {
			return err
		}
		k.Events.Tell(ctx, control.Happening{On: v.desktop.Ref(), Of: "outcome", Reason: "Judged", Bad: !o.Met,
			Text: fmt.Sprintf("decision %s: %s", d.Metadata.Name, o.Say)})
	}
	return nil
}

// pursue carries out what was agreed to, takes back what somebody wants undone,
// and notes what is done.
func (k *Keeper) pursue(ctx context.Context, v *view) error {
	for _, d := range v.decisions {
		st := &d.Status
		var err error
		switch {
		case st.State == estate.Approved:
			err = k.act(ctx, v, d)
		case st.Undo != "" && st.State == estate.Done:
			err = k.undo(ctx, v, d)
		case st.State == estate.Doing:
			err = k.carried(ctx, d)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// by is who a decision's move is begun by. A plane that died between the move and
// the note of it finds the move by that.
func by(d *estate.Decision) string { return "decision " + d.Metadata.Name }

// act begins the move, unless it was begun: it happens once, whenever this
// process dies.
func (k *Keeper) act(ctx context.Context, v *view, d *estate.Decision) error {
	op, err := k.move(ctx, d.Metadata.Project, by(d))
	if err != nil {
		return err
	}
	if op == nil && v.inUse {
		d.Status.Waiting = "somebody works on the desktop; it moves once that session has ended"
		return k.Store.Update(ctx, d) // no write when it says so already
	}
	if op == nil {
		if v.machine.Spec.Hypervisor != d.Spec.Source {
			return k.withdraw(ctx, d, fmt.Sprintf("it is no longer on %s", d.Spec.Source))
		}
		_, err := k.Moves.Begin(ctx, v.desktop.Ref(), api.MoveRequest{To: d.Spec.Target, Why: d.Spec.Say}, by(d))
		if errors.Is(err, fault.Conflict) {
			return k.withdraw(ctx, d, err.Error())
		}
		if err != nil {
			return err
		}
	}
	d.Status.State, d.Status.Waiting = estate.Doing, ""
	return k.Store.Update(ctx, d)
}

// carried notes the end of a decision's move. One that was undone leaves the
// desktop where it was.
func (k *Keeper) carried(ctx context.Context, d *estate.Decision) error {
	op, err := k.move(ctx, d.Metadata.Project, by(d))
	switch {
	case err != nil:
		return err
	case op == nil:
		return k.withdraw(ctx, d, "its move is gone")
	case op.Status.Ended.IsZero():
		return nil
	case op.Status.State != estate.OperationDone:
		return k.withdraw(ctx, d, op.Status.Error)
	}
	d.Status.State, d.Status.Ended, d.Status.Waiting = estate.Done, op.Status.Ended, ""
	return k.Store.Update(ctx, d)
}

// undo moves the desktop back to where it was.
func (k *Keeper) undo(ctx context.Context, v *view, d *estate.Decision) error {
	who := by(d) + ", undone by " + d.Status.Undo
	op, err := k.move(ctx, d.Metadata.Project, who)
	if err != nil {
		return err
	}
	if op == nil {
		_, err := k.Moves.Begin(ctx, v.desktop.Ref(), api.MoveRequest{To: d.Spec.Source, Why: d.Status.Undo + " took decision " + d.Metadata.Name + " back"}, who)
		if errors.Is(err, fault.Conflict) {
			d.Status.Undo, d.Status.Waiting = "", "it cannot be undone: "+err.Error()
			return k.Store.Update(ctx, d)
		}
		if err != nil {
			return err
		}
	}
	d.Status.State, d.Status.Ended, d.Status.Waiting = estate.Undone, k.Now().UTC(), ""
	d.Status.Outcome = &estate.Outcome{At: k.Now().UTC(), Say: d.Status.Undo + " took it back"}
	return k.Store.Update(ctx, d)
}

// move returns the journal of the move that was begun by somebody, or nil.
func (k *Keeper) move(ctx context.Context, project, by string) (*estate.Operation, error) {
	all, _, err := store.List[estate.Operation](ctx, k.Store, project)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(all, func(o *estate.Operation) bool { return o.Spec.By == by }); i >= 0 {
		return all[i], nil
	}
	return nil, nil
}

func (k *Keeper) withdraw(ctx context.Context, d *estate.Decision, why string) error {
	d.Status.State, d.Status.Ended, d.Status.Waiting = estate.Withdrawn, k.Now().UTC(), ""
	d.Status.Outcome = &estate.Outcome{At: k.Now().UTC(), Say: why}
	return k.Store.Update(ctx, d)
}

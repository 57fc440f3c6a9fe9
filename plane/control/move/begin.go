package move

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/store"
)

// readAgain is how often Begin looks anew at a machine that changed while it was
// judged: its agent writes what it does all the time.
const readAgain = 16

// Begin starts the move of a machine, or of the machine of a desktop, and
// returns its journal. Everything that stands against it is one fault.Conflict;
// a dry run returns it instead, and begins nothing.
func (m *Mover) Begin(ctx context.Context, ref estate.Ref, req api.MoveRequest, by string) (*api.MoveReply, error) {
	for range readAgain {
		t, err := m.trip(ctx, ref)
		if err != nil {
			return nil, err
		}
		reply, order := m.decide(t, req)
		if req.DryRun {
			return reply, nil
		}
		if len(reply.Obstacles) > 0 {
			return nil, fault.Conflict.Errorf("move %s to %s: %s", ref, or(reply.To, "another hypervisor"), strings.Join(reply.Obstacles, "; "))
		}
		if err = m.start(ctx, t, order, req, by, reply); !errors.Is(err, fault.Conflict) {
			return reply, err
		}
	}
	return nil, fault.Busy.Errorf("move %s: it changes all the time; try again", ref)
}

// trip is a machine that is to move, and everything there is to know for that.
type trip struct {
	machine *estate.Machine
	desktop *estate.Desktop   // nil when it has no desktop
	plan    *estate.Blueprint // of the desktop; nil when it is gone
	stock   stock
}

// trip reads what concerns the machine, or the desktop's machine.
func (m *Mover) trip(ctx context.Context, ref estate.Ref) (*trip, error) {
	t := &trip{}
	if ref.Kind == "Desktop" {
		d, err := store.Get[estate.Desktop](ctx, m.Store, ref.Project, ref.Name)
		if err != nil {
			return nil, err
		}
		if d.Status.Machine == "" {
			return nil, fault.Conflict.Errorf("move %s: it has no machine yet; it is placed where it fits when it is turned on", ref)
		}
		ref.Kind, ref.Name = "Machine", d.Status.Machine
	}
	var err error
	if t.machine, err = store.Get[estate.Machine](ctx, m.Store, ref.Project, ref.Name); err != nil {
		return nil, err
	}
	if err := m.takeStock(ctx, ref.Project, &t.stock); err != nil {
		return nil, err
	}
	o := t.machine.Metadata.Owner
	if o == nil || o.Kind != "Desktop" {
		return t, nil
	}
	if t.desktop, err = store.Get[estate.Desktop](ctx, m.Store, o.Project, o.Name); err != nil {
		return nil, err
	}
	t.plan, err = store.Get[estate.Blueprint](ctx, m.Store, o.Project, t.desktop.Spec.Blueprint)
	if errors.Is(err, fault.NotFound) {
		err = nil
	}
	return t, err
}

// decide works out where the machine goes and what stands against that.
func (m *Mover) decide(t *trip, req api.MoveRequest) (*api.MoveReply, *estate.MoveOrder) {
	reply := &api.MoveReply{Machine: t.machine.Ref(), From: t.machine.Spec.Hypervisor, To: req.To}
	reply.Obstacles = t.staying(req)
	if req.To != "" {
		h := t.stock.hypervisor(req.To)
		if h == nil {
			reply.Obstacles = append(reply.Obstacles, fmt.Sprintf("there is no hypervisor %s", req.To))
			return reply, nil
		}
		obstacles, notes, order := m.going(t, h, req)
		reply.Obstacles, reply.Notes = append(reply.Obstacles, obstacles...), notes
		return reply, order
	}
	return m.choose(t, req, reply)
}

// choose finds the hypervisor with most room among those that can take the
// machine.
func (m *Mover) choose(t *trip, req api.MoveRequest, reply *api.MoveReply) (*api.MoveReply, *estate.MoveOrder) {
	candidates := slices.Clone(t.stock.Hypervisors)
	slices.SortStableFunc(candidates, func(a, b *estate.Hypervisor) int {
		return int((t.stock.free(b, t.machine) - t.stock.free(a, t.machine)) / estate.MiB)
	})
	var none []string
	for _, h := range candidates {
		if h.Metadata.Name == reply.From {
			continue
		}
		obstacles, notes, order := m.going(t, h, req)
		if len(obstacles) == 0 {
			reply.To, reply.Notes = h.Metadata.Name, notes
			return reply, order
		}
		none = append(none, fmt.Sprintf("hypervisor %s: %s", h.Metadata.Name, strings.Join(obstacles, "; ")))
	}
	if len(none) == 0 {
		none = []string{"there is no other hypervisor; let one join first"}
	}
	reply.Obstacles = append(reply.Obstacles, none...)
	return reply, nil
}

// start writes the move down: the journal, the mark on the machine, and that
// the machine holds its volumes, in one transaction.
func (m *Mover) start(ctx context.Context, t *trip, order *estate.MoveOrder, req api.MoveRequest, by string, reply *api.MoveReply) error {
	md := &t.machine.Metadata
	op := &estate.Operation{
		Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Operation", Metadata: estate.Metadata{
			Project: md.Project, Name: operationName(md.Name),
		}},
		Spec:   estate.OperationSpec{Verb: estate.VerbMove, On: t.machine.Ref(), By: by, Why: req.Why, Move: order},
		Status: estate.OperationStatus{State: estate.OperationRunning},
	}
	t.machine.Spec.Moving = &estate.Moving{Operation: op.Metadata.Name, From: order.From, To: order.To, GuestType: order.GuestType, Live: order.Live}
	edits := []store.Edit{store.Create(op), store.Put(t.machine), control.Takes(order.To)}
	for _, v := range t.volumes() {
		v.Spec.Holder = estate.MachineID(md.UID)
		edits = append(edits, store.Put(v))
	}
	if err := m.Store.Commit(ctx, edits...); err != nil {
		return err
	}
	reply.Operation = op.Metadata.Name
	m.Events.Tell(ctx, control.Happening{On: t.machine.Ref(), Of: op.Metadata.Name, Reason: "Moves",
		Text: fmt.Sprintf("it moves from %s to %s (operation %s)", order.From, order.To, op.Metadata.Name)})
	return nil
}

func operationName(machine string) string {
	const tail = 9
	return "move-" + strings.TrimRight(machine[:min(len(machine), 63-len("move-")-tail)], "-") + "-" + store.UUID()[:tail-1]
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Drain keeps new machines off the hypervisor and begins the moves of all that
// can move; those that cannot are in the reply with their reasons. Undrain takes
// that back, but not the moves.
func (m *Mover) Drain(ctx context.Context, hypervisor string, req api.MoveRequest, by string) (*api.DrainReply, error) {
	if !req.DryRun {
		if err := m.setDrain(ctx, hypervisor, true); err != nil {
			return nil, err
		}
	} else if _, err := store.Get[estate.Hypervisor](ctx, m.Store, "", hypervisor); err != nil {
		return nil, err
	}
	machines, _, err := store.List[estate.Machine](ctx, m.Store, "")
	if err != nil {
		return nil, err
	}
	reply := &api.DrainReply{Moves: []api.MoveReply{}}
	for _, one := range machines {
		if one.Spec.Hypervisor != hypervisor {
			continue
		}
		// One look for both: what stands against it, and the move.
		t, err := m.trip(ctx, one.Ref())
		if err != nil {
			return nil, err
		}
		r, order := m.decide(t, req)
		if len(r.Obstacles) == 0 && !req.DryRun {
			if err := m.start(ctx, t, order, req, by, r); err != nil {
				r.Obstacles = []string{err.Error()}
			}
		}
		reply.Moves = append(reply.Moves, *r)
	}
	return reply, nil
}

// Undrain lets the hypervisor take machines again.
func (m *Mover) Undrain(ctx context.Context, hypervisor string) error {
	return m.setDrain(ctx, hypervisor, false)
}

func (m *Mover) setDrain(ctx context.Context, hypervisor string, drain bool) error {
	_, err := store.Modify(ctx, m.Store, "", hypervisor, func(h *estate.Hypervisor) error {
		h.Spec.Drain = drain
		return nil
	})
	return err
}

// Abort asks for a move to be undone. One that has ended is fault.Conflict.
func (m *Mover) Abort(ctx context.Context, project, operation string) error {
	_, err := store.Modify(ctx, m.Store, project, operation, func(op *estate.Operation) error {
		switch {
		case op.Spec.Verb != estate.VerbMove:
			return fault.Unsupported.Errorf("abort %s: a %s cannot be aborted", op.Ref(), op.Spec.Verb)
		case !op.Status.Ended.IsZero():
			return fault.Conflict.Errorf("abort %s: it has ended (%s)", op.Ref(), op.Status.State)
		}
		op.Spec.Abort = true
		return nil
	})
	return err
}

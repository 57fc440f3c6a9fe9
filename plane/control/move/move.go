// Package move takes machines from one hypervisor to another.
//
// At every moment one host owns a machine, the one that spec.hypervisor names,
// and only its agent may run it. The owner changes in one transaction, with the
// machine off; the new owner is told to turn it on only after the old one said
// that it is undefined there. What the old one had is kept until the guest was
// seen alive. So two copies never run, and there is always one to go back to.
package move

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/calls"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/store"
)

// Calls reaches the agents.
type Calls interface {
	// Dial calls the hypervisor's agent and returns the tunnel it opens.
	Dial(ctx context.Context, hypervisor string, call api.Call) (net.Conn, error)
	// Relay carries what one agent sends to another, which has the last word.
	Relay(ctx context.Context, from, to calls.Leg, carried func(total int64)) error
}

// Mover carries moves out and says what stands against them.
type Mover struct {
	Store         *store.Store
	Calls         Calls
	Presentations []estate.PresentationOffer
	Deliveries    []estate.DeliveryOffer
	Now           func() time.Time
	Log           *slog.Logger
	Events        *control.Recorder // may be nil
	Times         Times
}

// Times are how long a move waits for what.
type Times struct {
	Again    time.Duration // before an agent that does not answer is asked again; 1 s when 0
	Patience time.Duration // for one step before the move is undone, and for a guest to answer; 15 min when 0
	Settle   time.Duration // that a machine whose guest cannot be asked must stay on; 30 s when 0
	Keep     time.Duration // the journal of a move that ended; 30 days when 0
}

func (t Times) filled() Times {
	for _, d := range []struct {
		at        *time.Duration
		otherwise time.Duration
	}{{&t.Again, time.Second}, {&t.Patience, 15 * time.Minute}, {&t.Settle, 30 * time.Second}, {&t.Keep, 30 * 24 * time.Hour}} {
		if *d.at == 0 {
			*d.at = d.otherwise
		}
	}
	return t
}

// Loop returns the mover's loop over operations.
func (m *Mover) Loop() *control.Loop {
	return &control.Loop{
		Name: "move", Store: m.Store, Kinds: []estate.Kind{"Operation", "Machine"},
		Concerns: concerns, Step: m.step, Workers: 4, Log: m.Log,
	}
}

// concerns returns the journal of the move that a change belongs to.
func concerns(_ context.Context, changed estate.Resource) []estate.Ref {
	switch r := changed.(type) {
	case *estate.Operation:
		if r.Spec.Verb == estate.VerbMove {
			return []estate.Ref{r.Ref()}
		}
	case *estate.Machine:
		if mv := r.Spec.Moving; mv != nil {
			return []estate.Ref{{Kind: "Operation", Project: r.Metadata.Project, Name: mv.Operation}}
		}
	}
	return nil
}

// journey is one look at a move on its way.
type journey struct {
	*Mover
	op      *estate.Operation
	order   *estate.MoveOrder
	machine *estate.Machine
	times   Times
}

func (m *Mover) step(ctx context.Context, ref estate.Ref) (time.Duration, error) {
	op, err := store.Get[estate.Operation](ctx, m.Store, ref.Project, ref.Name)
	switch {
	case errors.Is(err, fault.NotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case op.Spec.Verb != estate.VerbMove || op.Spec.Move == nil:
		return 0, nil
	case !op.Status.Ended.IsZero():
		return m.retire(ctx, op)
	}
	machine, err := store.Get[estate.Machine](ctx, m.Store, op.Spec.On.Project, op.Spec.On.Name)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return 0, err
	}
	j := &journey{m, op, op.Spec.Move, machine, m.Times.filled()}
	if machine == nil || machine.Spec.Moving == nil || machine.Spec.Moving.Operation != ref.Name {
		j.close(estate.OperationFailed, "the machine is gone")
		return 0, m.Store.Update(ctx, op)
	}
	again, err := j.advance(ctx)
	if err == nil || ctx.Err() != nil {
		return again, err
	}
	return j.judge(ctx, err)
}

// retire removes the journal of a move that ended long ago, or says when to.
func (m *Mover) retire(ctx context.Context, op *estate.Operation) (time.Duration, error) {
	if left := m.Times.filled().Keep - m.Now().Sub(op.Status.Ended); left > 0 {
		return left, nil
	}
	err := m.Store.Delete(ctx, op.Ref(), 0)
	if errors.Is(err, fault.NotFound) {
		return 0, nil
	}
	return 0, err
}

// advance takes the next step, which follows from where the machine is placed
// and which way it goes.
func (j *journey) advance(ctx context.Context) (time.Duration, error) {
	if j.op.Spec.Abort && j.op.Status.Error == "" && !j.did(stepVerify) {
		return 0, j.fail(ctx, "it was aborted")
	}
	here, undo := j.machine.Spec.Hypervisor, j.op.Status.Error != ""
	switch {
	case j.machine.Spec.Moving.From != j.order.From:
		return j.goBack(ctx)
	case here == j.order.To && !j.machine.Metadata.Deleting.IsZero():
		return 0, j.abandon(ctx)
	case here == j.order.From && undo:
		return j.callOff(ctx)
	case here == j.order.From && j.order.Live:
		return j.carryLive(ctx)
	case here == j.order.From:
		return j.carry(ctx)
	case undo && !j.order.Live:
		return 0, j.turnRound(ctx)
	}
	return j.arrive(ctx)
}

// refused is an agent's error, which does not come from our own store.
type refused struct{ error }

func (r refused) Unwrap() error { return r.error }

// judge decides what an error means for the move: it waits and tries again, or
// it is undone. On the way back there is nothing but trying again.
func (j *journey) judge(ctx context.Context, err error) (time.Duration, error) {
	var r refused
	if !errors.As(err, &r) {
		return 0, err
	}
	switch fault.KindOf(err) {
	case fault.Unavailable, fault.OutcomeUnknown, fault.Busy, fault.RateLimited, fault.Stale, fault.Conflict, fault.Unauthenticated:
		if j.op.Status.Error == "" && j.forward() && j.waited() > j.times.Patience {
			return 0, j.fail(ctx, fmt.Sprintf("%s took longer than %s: %s", j.current().Name, j.times.Patience, err))
		}
	default:
		if j.op.Status.Error == "" && j.forward() {
			return 0, j.fail(ctx, err.Error())
		}
	}
	j.op.Status.Waiting = err.Error()
	return j.times.Again, j.Store.Update(ctx, j.op)
}

// forward reports whether the move can still be undone by itself. A machine
// that moved while it ran has nothing to go back to.
func (j *journey) forward() bool {
	return j.machine.Spec.Moving.From == j.order.From && (!j.order.Live || j.machine.Spec.Hypervisor == j.order.From)
}

// fail has the move undone, for the reason given.
func (j *journey) fail(ctx context.Context, why string) error {
	j.op.Status.Error, j.op.Status.State, j.op.Status.Waiting = why, estate.OperationUndoing, ""
	if err := j.Store.Update(ctx, j.op); err != nil {
		return err
	}
	j.tell(ctx, "MoveFails", fmt.Sprintf("its move to %s is undone: %s", j.order.To, why), true)
	return nil
}

func (j *journey) tell(ctx context.Context, reason, text string, bad bool) {
	j.Events.Tell(ctx, control.Happening{On: j.op.Spec.On, Of: j.op.Metadata.Name, Reason: reason, Text: text, Bad: bad})
}

// Steps of the journal, in order.
const (
	stepStop    = "stop"
	stepPrepare = "prepare"
	stepCopy    = "copy"
	stepPlace   = "place"
	stepShelve  = "shelve"
	stepBoot    = "boot"
	stepVerify  = "verify"
	stepRestore = "restore"
	stepDepart  = "depart"
	stepReturn  = "return"
)

// begin notes that a step begins, unless it did.
func (j *journey) begin(name string) {
	if i := j.index(name); i < 0 {
		j.op.Status.Steps = append(j.op.Status.Steps, estate.OperationStep{Name: name, Effect: fmt.Sprintf("epoch %d", j.machine.Spec.Epoch), Began: j.Now().UTC()})
	}
	j.op.Status.State = estate.OperationRunning
	if j.op.Status.Error != "" {
		j.op.Status.State = estate.OperationUndoing
	}
}

// end notes that a step has ended.
func (j *journey) end(name string) {
	j.begin(name)
	j.op.Status.Steps[j.index(name)].Ended = j.Now().UTC()
	j.op.Status.Waiting = ""
}

func (j *journey) did(name string) bool {
	i := j.index(name)
	return i >= 0 && !j.op.Status.Steps[i].Ended.IsZero()
}

func (j *journey) index(name string) int {
	for i, s := range j.op.Status.Steps {
		if s.Name == name {
			return i
		}
	}
	return -1
}

// current returns the step it is in.
func (j *journey) current() estate.OperationStep {
	if n := len(j.op.Status.Steps); n > 0 {
		return j.op.Status.Steps[n-1]
	}
	return estate.OperationStep{Name: stepStop, Began: j.op.Metadata.Created}
}

// waited is how long the current step has lasted.
func (j *journey) waited() time.Duration { return j.Now().Sub(j.current().Began) }

// enter writes down that a step begins, before anything of it is done.
func (j *journey) enter(ctx context.Context, name string) error {
	if j.index(name) >= 0 {
		return nil
	}
	j.begin(name)
	return j.Store.Update(ctx, j.op)
}

// leave writes down that a step has ended.
func (j *journey) leave(ctx context.Context, name string) error {
	j.end(name)
	return j.Store.Update(ctx, j.op)
}

// close ends the operation, in memory.
func (j *journey) close(state estate.OperationState, why string) {
	s := &j.op.Status
	s.State, s.Ended, s.Waiting = state, j.Now().UTC(), ""
	if s.Error == "" {
		s.Error = why
	}
	ready := estate.Condition{Type: estate.Ready, Status: estate.True, Reason: string(state), Since: j.Now()}
	if state != estate.OperationDone {
		ready.Status, ready.Text = estate.False, s.Error
	}
	s.Set(ready)
}

package move

import (
	"context"
	"fmt"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// carry brings a machine that is off to the target, disk by disk, and places it
// there. Until then it is the source's, and nothing is lost by giving up.
func (j *journey) carry(ctx context.Context) (time.Duration, error) {
	switch {
	case !j.did(stepStop):
		return j.stop(ctx)
	case !j.did(stepPrepare):
		if err := j.enter(ctx, stepPrepare); err != nil {
			return 0, err
		}
		if _, err := j.ask(ctx, j.order.To, api.CallPrepare, api.OnMove{Disks: j.sizes()}); err != nil {
			return 0, err
		}
		return 0, j.leave(ctx, stepPrepare)
	case !j.did(stepCopy):
		return 0, j.copyDisks(ctx)
	}
	return 0, j.place(ctx)
}

// stop turns the machine off and learns its disks.
func (j *journey) stop(ctx context.Context) (time.Duration, error) {
	if j.machine.Spec.Power != estate.Off {
		j.begin(stepStop)
		j.machine.Spec.Power = estate.Off
		if err := j.Store.Commit(ctx, store.Put(j.machine), store.Put(j.op)); err != nil {
			return 0, err
		}
	} else if err := j.enter(ctx, stepStop); err != nil {
		return 0, err
	}
	return 0, j.learnDisks(ctx, stepStop)
}

// learnDisks asks the source for the disks, and ends the step.
func (j *journey) learnDisks(ctx context.Context, step string) error {
	reply, err := j.ask(ctx, j.order.From, api.CallRest, api.OnMove{})
	if err != nil {
		return err
	}
	j.op.Status.Disks = nil
	for _, d := range reply.Disks {
		j.op.Status.Disks = append(j.op.Status.Disks, estate.DiskCopy{Name: d.Name, Size: d.Size})
	}
	return j.leave(ctx, step)
}

func (j *journey) sizes() []api.DiskSize {
	var all []api.DiskSize
	for _, d := range j.op.Status.Disks {
		all = append(all, api.DiskSize{Name: d.Name, Size: d.Size})
	}
	return all
}

// place makes the target the owner: machine, volumes and the way to the
// desktop, together or not at all. Nothing runs it yet.
func (j *journey) place(ctx context.Context) error {
	if !j.order.Live && j.machine.Spec.Power != estate.Off {
		return j.fail(ctx, "somebody turned it on while its disks were carried")
	}
	edits, err := j.owner(ctx, j.order.To, j.order.GuestType, j.order.Presentation)
	if err != nil {
		return err
	}
	j.end(stepPlace)
	if err := j.Store.Commit(ctx, append(edits, store.Put(j.op))...); err != nil {
		return err
	}
	j.tell(ctx, "Placed", fmt.Sprintf("it is placed on %s under epoch %d", j.order.To, j.machine.Spec.Epoch), false)
	return nil
}

// owner returns the edits that give the machine to a hypervisor, with its type
// of guest and the presentation for its desktop there.
func (j *journey) owner(ctx context.Context, hypervisor, guestType, presentation string) ([]store.Edit, error) {
	m := j.machine
	m.Spec.Hypervisor, m.Spec.Because = hypervisor, "" // a move asks nobody's preference
	m.Spec.Hardware.GuestType = guestType
	m.Spec.Epoch++
	m.Status = estate.MachineStatus{Power: m.Status.Power, Starts: m.Status.Starts, Launches: m.Status.Launches}
	m.Status.Waiting = "waiting for the agent of " + hypervisor
	edits := []store.Edit{store.Put(m)}
	for _, d := range m.Spec.Hardware.Disks {
		if d.Volume == "" {
			continue
		}
		v, err := store.Get[estate.Volume](ctx, j.Store, m.Metadata.Project, d.Volume)
		if err != nil {
			return nil, err
		}
		v.Status.Hypervisor = hypervisor
		edits = append(edits, store.Put(v))
	}
	if !j.order.Reselect || j.order.Desktop == "" {
		return edits, nil
	}
	d, err := store.Get[estate.Desktop](ctx, j.Store, m.Metadata.Project, j.order.Desktop)
	if err != nil {
		return nil, err
	}
	d.Spec.Presentation = presentation
	return append(edits, store.Put(d)), nil
}

// arrive has the source let go of the machine, turns it on at the target, and
// ends the move once its guest was seen alive.
func (j *journey) arrive(ctx context.Context) (time.Duration, error) {
	switch {
	case !j.did(stepShelve):
		return 0, j.shelve(ctx)
	case j.order.Unverified && j.order.Power == estate.Off:
		return 0, j.finish(ctx)
	case !j.did(stepBoot):
		return j.boot(ctx)
	case !j.did(stepVerify):
		return j.verify(ctx)
	case j.order.Power == estate.Off:
		return j.restore(ctx)
	}
	return 0, j.finish(ctx)
}

// shelve waits until the source cannot run the machine any more. Only then, and
// in one transaction with that, it is wanted on.
func (j *journey) shelve(ctx context.Context) error {
	if err := j.enter(ctx, stepShelve); err != nil {
		return err
	}
	if _, err := j.ask(ctx, j.order.From, api.CallShelve, api.OnMove{}); err != nil {
		return err
	}
	j.end(stepShelve)
	edits := []store.Edit{store.Put(j.op)}
	if !j.order.Unverified || j.order.Power == estate.On {
		j.begin(stepBoot)
		j.machine.Spec.Power = estate.On
		edits = append(edits, store.Put(j.machine))
	}
	return j.Store.Commit(ctx, edits...)
}

// runsThere reports whether the target says that the machine is on, under the
// epoch that made it the owner.
func (j *journey) runsThere() bool {
	s := &j.machine.Status
	return s.Hypervisor == j.order.To && s.Epoch == j.machine.Spec.Epoch && s.Power == estate.On
}

func (j *journey) boot(ctx context.Context) (time.Duration, error) {
	if j.runsThere() {
		return 0, j.leave(ctx, stepBoot)
	}
	why := j.machine.Status.Waiting
	return 0, refused{fault.Unavailable.Errorf("waiting until it runs on %s: %s", j.order.To, why)}
}

// verify runs a command in the guest or, where none can be run, sees the
// machine stay on for a while.
func (j *journey) verify(ctx context.Context) (time.Duration, error) {
	if err := j.enter(ctx, stepVerify); err != nil {
		return 0, err
	}
	note := ""
	switch {
	case j.order.Unverified:
	case j.order.Untried != "":
		if !j.runsThere() {
			return 0, refused{fault.Unavailable.Errorf("it does not stay on at %s", j.order.To)}
		}
		if left := j.times.Settle - j.waited(); left > 0 {
			return left, nil
		}
		note = fmt.Sprintf("it stayed on for %s; not verified by a command, because %s", j.times.Settle, j.order.Untried)
	default:
		_, err := j.ask(ctx, j.order.To, api.CallTry, api.OnMove{})
		switch {
		case err != nil && j.order.Live && j.waited() > j.times.Patience:
			note = "its guest did not answer: " + err.Error()
		case err != nil:
			return 0, err
		}
	}
	j.op.Status.Note = note
	return 0, j.leave(ctx, stepVerify)
}

// restore gives a machine that was off its power state back.
func (j *journey) restore(ctx context.Context) (time.Duration, error) {
	m := j.machine
	if m.Spec.Power != estate.Off {
		j.begin(stepRestore)
		m.Spec.Power = estate.Off
		return 0, j.Store.Commit(ctx, store.Put(m), store.Put(j.op))
	}
	if m.Status.Power != estate.Off || m.Status.Observed != m.Metadata.Generation {
		return j.times.Again, nil // its agent tells when it is
	}
	j.end(stepRestore)
	return 0, j.finish(ctx)
}

// finish ends the move. The agent of the source sees that and deletes what it
// kept.
func (j *journey) finish(ctx context.Context) error {
	j.machine.Spec.Moving = nil
	j.close(estate.OperationDone, "")
	j.op.Status.Error = ""
	if err := j.Store.Commit(ctx, store.Put(j.machine), store.Put(j.op)); err != nil {
		return err
	}
	j.tell(ctx, "Moved", fmt.Sprintf("it moved from %s to %s", j.order.From, j.order.To), false)
	return nil
}

// callOff gives a move up that has not placed the machine: the source goes on
// as it was. The new epoch tells the target that what it has is a leftover.
func (j *journey) callOff(ctx context.Context) (time.Duration, error) {
	if j.order.Live && j.index(stepDepart) >= 0 {
		if runs, _, err := j.whereabouts(ctx); err != nil || runs == j.order.To {
			if err == nil {
				err = j.place(ctx) // it is there: there is nothing left to undo
			}
			return 0, err
		}
	}
	m := j.machine
	m.Spec.Epoch++
	m.Spec.Moving, m.Spec.Power = nil, j.order.Power
	j.close(estate.OperationFailed, "")
	return 0, j.Store.Commit(ctx, store.Put(m), store.Put(j.op))
}

// turnRound gives a machine that was placed at the target back to the source:
// the same move the other way round, with nothing to carry.
func (j *journey) turnRound(ctx context.Context) error {
	edits, err := j.owner(ctx, j.order.From, j.order.WasType, j.order.Was)
	if err != nil {
		return err
	}
	m := j.machine
	m.Spec.Power = estate.Off
	m.Spec.Moving.From, m.Spec.Moving.To, m.Spec.Moving.GuestType = j.order.To, j.order.From, j.order.WasType
	j.begin(stepReturn)
	return j.Store.Commit(ctx, append(edits, store.Put(j.op))...)
}

// goBack waits until the target cannot run the machine any more, and ends the
// move: the source defines it again from what it kept.
func (j *journey) goBack(ctx context.Context) (time.Duration, error) {
	if _, err := j.ask(ctx, j.order.To, api.CallShelve, api.OnMove{}); err != nil {
		return 0, err
	}
	j.machine.Spec.Moving, j.machine.Spec.Power = nil, j.order.Power
	j.end(stepReturn)
	j.close(estate.OperationFailed, "")
	return 0, j.Store.Commit(ctx, store.Put(j.machine), store.Put(j.op))
}

// abandon ends the move of a machine that is being deleted where it was placed.
// Its agent there waits for that; what the source keeps is a leftover then,
// which goes as every leftover does.
func (j *journey) abandon(ctx context.Context) error {
	if !j.did(stepShelve) {
		if _, err := j.ask(ctx, j.order.From, api.CallShelve, api.OnMove{}); err != nil {
			return err
		}
	}
	j.machine.Spec.Moving = nil
	j.close(estate.OperationFailed, "the machine was deleted")
	return j.Store.Commit(ctx, store.Put(j.machine), store.Put(j.op))
}

package move

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/calls"
	"consort.dev/consort/plane/store"
)

// replyLimit is how long an agent may take for one act of a move: to hash a
// disk, or to send the memory of a running machine.
const replyLimit = 2 * time.Hour

// tellEvery is how often the progress of a disk is written down.
const tellEvery = time.Second

// call returns what an agent is asked about this machine, on this move, under
// its epoch.
func (j *journey) call(verb api.Verb, on api.OnMove) api.Call {
	md := &j.machine.Metadata
	on.Project, on.Name, on.Operation, on.Epoch = md.Project, md.Name, j.op.Metadata.Name, j.machine.Spec.Epoch
	return api.Call{Verb: verb, Machine: estate.MachineID(md.UID), Moving: &on}
}

// ask has an agent do one act of the move.
func (j *journey) ask(ctx context.Context, hypervisor string, verb api.Verb, on api.OnMove) (reply api.MovedReply, err error) {
	conn, err := j.Calls.Dial(ctx, hypervisor, j.call(verb, on))
	if err != nil {
		return reply, refused{err}
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	_ = conn.SetReadDeadline(time.Now().Add(replyLimit))
	if err := json.NewDecoder(io.LimitReader(conn, 1<<20)).Decode(&reply); err != nil {
		return reply, refused{fault.OutcomeUnknown.Errorf("%s machine %s on %s: the answer was lost: %w", verb, j.machine.Metadata.Name, hypervisor, err)}
	}
	if reply.Error != nil {
		return reply, refused{reply.Error}
	}
	return reply, nil
}

// copyDisks carries the disks that are not there yet, one after the other.
func (j *journey) copyDisks(ctx context.Context) error {
	if err := j.enter(ctx, stepCopy); err != nil {
		return err
	}
	for _, d := range j.op.Status.Disks {
		if !d.Ended.IsZero() {
			continue
		}
		if err := j.copyDisk(ctx, d); err != nil {
			return err
		}
		if fresh, err := store.Get[estate.Operation](ctx, j.Store, j.op.Metadata.Project, j.op.Metadata.Name); err != nil {
			return err
		} else if j.op = fresh; fresh.Spec.Abort {
			return nil // the next look undoes it
		}
	}
	return j.leave(ctx, stepCopy)
}

// copyDisk carries one disk, and compares what is there then with what was sent.
func (j *journey) copyDisk(ctx context.Context, d estate.DiskCopy) error {
	err := j.relay(ctx, d.Name)
	if err != nil {
		return j.lookAgain(ctx, err)
	}
	reply, err := j.ask(ctx, j.order.To, api.CallHash, api.OnMove{Disk: d.Name})
	if err == nil && (reply.Sent == "" || reply.Sent != reply.Kept) {
		err = refused{fault.Stuck.Errorf("disk %s is not the same on %s: %s was sent, %s is there", d.Name, j.order.To, reply.Sent.Short(), reply.Kept.Short())}
	}
	if err != nil {
		return j.lookAgain(ctx, err)
	}
	return j.note(ctx, d.Name, func(c *estate.DiskCopy) { c.Digest, c.Ended = reply.Kept, j.Now().UTC() })
}

// lookAgain reads the journal anew, which others wrote to meanwhile, so that
// the error can be written down.
func (j *journey) lookAgain(ctx context.Context, err error) error {
	fresh, lost := store.Get[estate.Operation](ctx, j.Store, j.op.Metadata.Project, j.op.Metadata.Name)
	if lost != nil {
		return lost
	}
	j.op = fresh
	return err
}

// relay carries one disk, telling how far it is, until it is there or somebody
// aborts the move.
func (j *journey) relay(ctx context.Context, disk string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var sent atomic.Int64
	told := make(chan struct{})
	go func() {
		defer close(told)
		tick := time.NewTicker(tellEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if j.note(ctx, disk, func(c *estate.DiskCopy) { c.Carried = estate.Bytes(sent.Load()) }) == nil && j.aborted(ctx) {
				cancel()
			}
		}
	}()
	if err := j.note(ctx, disk, func(c *estate.DiskCopy) { c.Began, c.Carried = j.Now().UTC(), 0 }); err != nil {
		return err
	}
	err := j.Calls.Relay(ctx,
		calls.Leg{Hypervisor: j.order.From, Call: j.call(api.CallExport, api.OnMove{Disk: disk})},
		calls.Leg{Hypervisor: j.order.To, Call: j.call(api.CallImport, api.OnMove{Disk: disk})},
		sent.Store)
	cancel()
	<-told
	if err != nil {
		return refused{fmt.Errorf("carry disk %s: %w", disk, err)}
	}
	return j.note(context.WithoutCancel(ctx), disk, func(c *estate.DiskCopy) { c.Carried = estate.Bytes(sent.Load()) })
}

// note writes down how far a disk is.
func (j *journey) note(ctx context.Context, disk string, change func(*estate.DiskCopy)) error {
	_, err := store.Modify(ctx, j.Store, j.op.Metadata.Project, j.op.Metadata.Name, func(op *estate.Operation) error {
		for i := range op.Status.Disks {
			if op.Status.Disks[i].Name == disk {
				change(&op.Status.Disks[i])
			}
		}
		return nil
	})
	return err
}

func (j *journey) aborted(ctx context.Context) bool {
	op, err := store.Get[estate.Operation](ctx, j.Store, j.op.Metadata.Project, j.op.Metadata.Name)
	return err == nil && op.Spec.Abort
}

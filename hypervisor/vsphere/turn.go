package vsphere

import (
	"context"
	"errors"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/task"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// turn lets one at a time act on a machine. What one began and did not see the
// end of, the next waits for.
type turn struct {
	free    chan struct{}
	pending chan struct{} // closed when the act begun last is over
	unsure  bool          // vSphere may be at something that nobody waits for
}

// take waits for the turn of a machine, or of anything else with a name.
func (h *Host) take(ctx context.Context, name string) (*turn, error) {
	h.mu.Lock()
	t := h.turns[name]
	if t == nil {
		// A process before us may have begun something too.
		t = &turn{free: make(chan struct{}, 1), unsure: true}
		t.free <- struct{}{}
		h.turns[name] = t
	}
	h.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case <-t.free:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if t.pending != nil {
		select {
		case <-t.pending:
			t.pending = nil
		case <-ctx.Done():
			t.give()
			return nil, ctx.Err()
		}
	}
	if t.unsure {
		if err := h.quiet(ctx, name); err != nil {
			t.give()
			return nil, err
		}
		t.unsure = false
	}
	return t, nil
}

// hold takes the turn of a machine, and what find has of it then. Unless there
// is an error, the caller gives the turn back.
func (h *Host) hold(ctx context.Context, id estate.MachineID, find func(context.Context, estate.MachineID) (*vm, error)) (*turn, *vm, error) {
	t, err := h.take(ctx, string(id))
	if err != nil {
		return nil, nil, err
	}
	v, err := find(ctx, id)
	if err != nil {
		t.give()
		return nil, nil, err
	}
	return t, v, nil
}

func (t *turn) give() { t.free <- struct{}{} }

// actLimit is how long one act may take: copies of large disks take hours.
const actLimit = 12 * time.Hour

// act does something to its end, with a reply, even when ctx ends before: then
// it goes on without us, and the next turn waits for it. A vCenter's tasks
// cannot be taken back, so a wait that is cut must not lose them.
func (t *turn) act(ctx context.Context, do func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	over, result := make(chan struct{}), make(chan error, 1)
	t.pending = over
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), actLimit)
		defer cancel()
		result <- do(ctx)
		close(over)
	}()
	select {
	case err := <-result:
		<-over
		t.pending = nil
		var verdict task.Error
		t.unsure = err != nil && !errors.As(err, &verdict)
		return err
	case <-ctx.Done():
		t.unsure = true
		return ctx.Err()
	}
}

// task runs one of vSphere's tasks to its end. A task that we lose sight of may
// come to any.
func (h *Host) task(ctx context.Context, t *turn, begin func(context.Context) (*object.Task, error)) (*types.TaskInfo, error) {
	var info *types.TaskInfo
	err := t.act(ctx, func(ctx context.Context) error {
		begun, err := begin(ctx)
		if err != nil {
			return err
		}
		info, err = begun.WaitForResult(ctx, nil)
		var verdict task.Error
		if err != nil && !errors.As(err, &verdict) {
			// Not wrapped: a fault of the waiting is none of the task's.
			return fault.OutcomeUnknown.Errorf("wait for %s: %v", begun.Reference().Value, err)
		}
		return err
	})
	if err != nil {
		return nil, err // where the wait was cut, info is still written to
	}
	return info, nil
}

// quiet waits until vSphere is at nothing that may be an act of ours on that
// machine: what it does with other machines is no matter.
func (h *Host) quiet(ctx context.Context, name string) error {
	pc := property.DefaultCollector(h.client)
	manager := h.client.ServiceContent.TaskManager
	if manager == nil {
		return nil
	}
	var m mo.TaskManager
	if err := pc.RetrieveOne(ctx, *manager, []string{"recentTask"}, &m); err != nil {
		return asked(err, "look what vSphere is at")
	}
	for _, ref := range m.RecentTask {
		var one mo.Task
		err := pc.RetrieveOne(ctx, ref, []string{"info.state", "info.entity"}, &one)
		if is[*types.ManagedObjectNotFound](err) {
			continue // over, and forgotten
		}
		if err != nil {
			return asked(err, "look at %s", ref.Value)
		}
		if s := one.Info.State; s != types.TaskInfoStateQueued && s != types.TaskInfoStateRunning {
			continue
		}
		concerns, err := h.concerns(ctx, one.Info.Entity, name)
		if err != nil {
			return err
		}
		if !concerns {
			continue
		}
		_, err = object.NewTask(h.client, ref).WaitForResult(ctx, nil)
		var verdict task.Error
		if err != nil && !errors.As(err, &verdict) && !is[*types.ManagedObjectNotFound](err) {
			return asked(err, "wait for %s", ref.Value)
		}
	}
	return nil
}

// concerns reports whether a task on that entity may be about the machine. One
// that makes a machine is about its folder; one about files is about none.
func (h *Host) concerns(ctx context.Context, entity *types.ManagedObjectReference, name string) (bool, error) {
	if entity == nil {
		return true, nil
	}
	switch entity.Type {
	case "VirtualMachine":
		all, err := h.read(ctx, []types.ManagedObjectReference{*entity}, briefly)
		return len(all) == 1 && (all[0].uuid == "" || string(all[0].uuid) == name), err
	case "HostSystem", "ClusterComputeResource", "ComputeResource", "ResourcePool":
		return false, nil
	}
	return true, nil
}

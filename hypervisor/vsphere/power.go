package vsphere

import (
	"context"
	"errors"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/types"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// Start implements driver.Host.
func (h *Host) Start(ctx context.Context, id estate.MachineID) error {
	t, v, err := h.hold(ctx, id, h.existing)
	if err != nil {
		return err
	}
	defer t.give()
	switch v.power() {
	case estate.On:
		return h.settle(ctx, t, v)
	case estate.PowerUnknown:
		return v.unreachable()
	}
	if err := h.unguarded(ctx, v); err != nil {
		return err
	}
	if err := h.dropAttached(ctx, t, v); err != nil {
		return err
	}
	if err := h.begin(ctx, t, v); err != nil {
		return err
	}
	_, err = h.task(ctx, t, func(ctx context.Context) (*object.Task, error) {
		return object.NewVirtualMachine(h.client, v.ref).PowerOn(ctx)
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	now, look := h.existing(ctx, id)
	if look != nil {
		return errors.Join(did(err, "power on machine %s", id), look)
	}
	if now.power() == estate.On {
		return h.settle(ctx, t, now) // whatever the task said: another may have been faster
	}
	if err == nil {
		return fault.OutcomeUnknown.Errorf("power on machine %s: vSphere did, and says it is %s", id, now.state)
	}
	if err = did(err, "power on machine %s", id); !errors.Is(err, fault.OutcomeUnknown) {
		// It did not happen. Where this note is lost, the server's events say so.
		undone := v.starts
		undone.Begun = undone.Done
		h.write(ctx, t, v, undone)
	}
	return err
}

// begin notes that the machine is about to be powered on, once it is settled
// what became of the time before.
func (h *Host) begin(ctx context.Context, t *turn, v *vm) error {
	done, err := h.counted(ctx, v)
	if err != nil {
		return err
	}
	at, err := h.now(ctx)
	if err != nil {
		return err
	}
	v.starts = starts{Done: done, Begun: done + 1, At: at, Boot: v.starts.Boot}
	return h.write(ctx, t, v, v.starts)
}

// settle notes that the machine was powered on, where that is not noted yet.
func (h *Host) settle(ctx context.Context, t *turn, v *vm) error {
	n, err := h.counted(ctx, v)
	if err != nil || n == v.starts.Done && v.starts.Begun == n {
		return err
	}
	return h.write(ctx, t, v, starts{Done: n, Begun: n, At: v.starts.At, Boot: v.boot})
}

// write keeps the count of power-ons with the machine.
func (h *Host) write(ctx context.Context, t *turn, v *vm, s starts) error {
	return h.reconfigure(ctx, t, v, types.VirtualMachineConfigSpec{ExtraConfig: []types.BaseOptionValue{option(startsKey, s)}})
}

// Stop implements driver.Host.
func (h *Host) Stop(ctx context.Context, id estate.MachineID, grace time.Duration) error {
	t, v, err := h.hold(ctx, id, h.existing)
	if err != nil {
		return err
	}
	defer t.give()
	switch v.power() {
	case estate.Off:
		return nil
	case estate.PowerUnknown:
		return v.unreachable()
	}
	if err := h.settle(ctx, t, v); err != nil {
		return err
	}
	if grace > 0 {
		if err := h.ask(ctx, v, grace); err != nil {
			return err
		}
	}
	if err := h.pullPlug(ctx, t, v); err != nil {
		return err
	}
	return h.dropAttached(ctx, t, v)
}

// ask has VMware Tools shut the guest down and waits for that as long as the
// grace lasts. A guest without them does not hear; vSphere has no power button.
func (h *Host) ask(ctx context.Context, v *vm, grace time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	err := object.NewVirtualMachine(h.client, v.ref).ShutdownGuest(limited)
	if err == nil {
		property.Wait(limited, property.DefaultCollector(h.client), v.ref, []string{"runtime.powerState"}, func(changes []types.PropertyChange) bool {
			for _, c := range changes {
				if c.Val == types.VirtualMachinePowerStatePoweredOff {
					return true
				}
			}
			return false
		}) // how it ended shows when the plug is pulled
	}
	return ctx.Err()
}

// pullPlug powers the machine off at once. One that is off is success.
func (h *Host) pullPlug(ctx context.Context, t *turn, v *vm) error {
	if v.state == types.VirtualMachinePowerStatePoweredOff {
		return nil
	}
	_, err := h.task(ctx, t, func(ctx context.Context) (*object.Task, error) {
		return object.NewVirtualMachine(h.client, v.ref).PowerOff(ctx)
	})
	var state *types.InvalidPowerState
	if f, ok := vendorFault(err).(*types.InvalidPowerState); ok {
		state = f
	}
	if state != nil && state.ExistingState == types.VirtualMachinePowerStatePoweredOff || is[*types.ManagedObjectNotFound](err) {
		return nil
	}
	return did(err, "power off machine %s", v.rec.ID)
}

// Save implements driver.Saver: vSphere calls it suspending.
func (h *Host) Save(ctx context.Context, id estate.MachineID) error {
	t, v, err := h.hold(ctx, id, h.existing)
	if err != nil {
		return err
	}
	defer t.give()
	switch v.power() {
	case estate.Off:
		return nil
	case estate.PowerUnknown:
		return v.unreachable()
	}
	if err := h.settle(ctx, t, v); err != nil {
		return err
	}
	_, err = h.task(ctx, t, func(ctx context.Context) (*object.Task, error) {
		return object.NewVirtualMachine(h.client, v.ref).Suspend(ctx)
	})
	return did(err, "suspend machine %s", id)
}

// forgetSaved gives up what was saved of the memory of a machine that is off.
func (h *Host) forgetSaved(ctx context.Context, t *turn, v *vm) error {
	if v.state != types.VirtualMachinePowerStateSuspended {
		return nil
	}
	return h.pullPlug(ctx, t, v)
}

// Resize implements driver.Resizer.
func (h *Host) Resize(ctx context.Context, id estate.MachineID, cpus int, memory estate.Bytes) error {
	t, v, err := h.hold(ctx, id, h.resting)
	if err != nil {
		return err
	}
	defer t.give()
	if err := h.forgetSaved(ctx, t, v); err != nil {
		return err
	}
	rec := v.rec
	rec.Def.CPUs, rec.Def.Memory = cpus, memory
	return h.reconfigure(ctx, t, v, types.VirtualMachineConfigSpec{
		NumCPUs: int32(cpus), MemoryMB: int64(memory / estate.MiB),
		ExtraConfig: []types.BaseOptionValue{option(recordKey, rec)},
	})
}

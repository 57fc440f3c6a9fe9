package lifecycle

import (
	"context"
	"slices"

	"consort.dev/consort/compose"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// keepMachine brings the desktop's machine one step nearer to the plan.
func (k *Keeper) keepMachine(ctx context.Context, v *view) error {
	d, m := v.desktop, v.machine
	on := d.Spec.Power == estate.On
	switch {
	case m != nil && !m.Metadata.Deleting.IsZero():
		return nil // its agent is at it
	case m != nil && m.Spec.Moving != nil:
		return nil // the mover is at it
	case m == nil:
		if d.Status.Resets < d.Spec.Resets {
			d.Status.Resets = d.Spec.Resets
		}
		if err := k.release(ctx, v, ""); err != nil || !v.planned() {
			return err
		}
		d.Status.Plan = &v.plan
		if !on {
			return nil
		}
		return k.make(ctx, v)
	case d.Status.Resets < d.Spec.Resets:
		return k.remove(ctx, v, forReset)
	case v.spent():
		return k.remove(ctx, v, forSession)
	}
	off := m.Status.Power == estate.Off && m.Spec.Power == estate.Off
	d.Status.Plan = planAt(m.Spec.Hypervisor, d.Status.Plan)
	if v.planned() {
		switch need := compose.Most(compose.Diff(*planOf(d), v.plan)); need {
		case compose.Rebuild:
			if off {
				return k.remove(ctx, v, forChange) // the next look makes it anew
			}
		default:
			d.Status.Plan = &v.plan
		}
	}
	if err := k.power(ctx, v, on); err != nil {
		return err
	}
	if off && !on {
		return k.release(ctx, v, estate.MachineID(m.Metadata.UID))
	}
	return nil
}

// planAt is the plan of a machine that was placed: its system disk lies there
// and nowhere else, whichever hypervisors it was planned for. A move changes it.
func planAt(hypervisor string, p *estate.Plan) *estate.Plan {
	if p == nil || hypervisor == "" {
		return p
	}
	at := *p
	at.Hypervisors = []string{hypervisor}
	return &at
}

func planOf(d *estate.Desktop) *estate.Plan {
	if d.Status.Plan == nil {
		return &estate.Plan{}
	}
	return d.Status.Plan
}

// make creates the machine, its home, and the desktop's record of what they are
// made from, together. It is off until power gives it the home's turn.
func (k *Keeper) make(ctx context.Context, v *view) error {
	d := v.desktop
	owner := d.Ref()
	m := &estate.Machine{
		Head: head("Machine", d.Metadata.Project, d.Metadata.Name, &owner),
		Spec: estate.MachineSpec{Power: estate.Off, Hardware: v.plan.Hardware, Layers: v.plan.Layers, Template: v.template(),
			Context: v.plan.Context, Trust: v.plan.Trust, Sealed: v.plan.Disposable},
	}
	d.Status.Plan, d.Status.Machine = &v.plan, m.Metadata.Name
	edits := []store.Edit{store.Create(m), store.Put(d)}
	if v.plan.Home > 0 && v.home == nil {
		v.home = &estate.Volume{Spec: estate.VolumeSpec{Person: d.Spec.Person, Size: v.plan.Home}}
		v.home.Head = head("Volume", d.Metadata.Project, compose.HomeVolume(d.Spec.Person, v.plan.Context), nil)
		edits = append(edits, store.Create(v.home))
	}
	if err := k.Store.Commit(ctx, edits...); err != nil {
		return err
	}
	v.machine = m
	k.made(ctx, v)
	return k.power(ctx, v, true)
}

func head(kind estate.Kind, project, name string, owner *estate.Ref) estate.Head {
	return estate.Head{APIVersion: estate.APIVersion, Kind: kind, Metadata: estate.Metadata{
		Name: name, Project: project, Owner: owner, Finalizers: []string{estate.AgentFinalizer},
	}}
}

// power turns the machine on or off and grants it its layers. A machine that
// is turned on takes its volumes in the same transaction, so that no two
// machines ever hold one.
func (k *Keeper) power(ctx context.Context, v *view, on bool) error {
	m := v.machine
	want := v.wanted(on)
	plan := planOf(v.desktop)
	layers := plan.Layers
	if m.Spec.Power == want && slices.Equal(m.Spec.Layers, layers) && m.Spec.Context == plan.Context && m.Spec.Trust == plan.Trust {
		return nil
	}
	edits := []store.Edit{store.Put(m)}
	id := estate.MachineID(m.Metadata.UID)
	if on && v.home != nil && uses(m, v.home) && v.home.Spec.Holder != id {
		if v.home.Spec.Holder != "" && k.alive(v, v.home.Spec.Holder) {
			return fault.Busy.Errorf("home %s is in use by another desktop; shut that down first", v.home.Metadata.Name)
		}
		v.home.Spec.Holder = id
		edits = append(edits, store.Put(v.home))
	}
	m.Spec.Power, m.Spec.Layers, m.Spec.Context, m.Spec.Trust = want, layers, plan.Context, plan.Trust
	return k.Store.Commit(ctx, edits...)
}

func uses(m *estate.Machine, v *estate.Volume) bool {
	return slices.ContainsFunc(m.Spec.Hardware.Disks, func(d estate.Disk) bool { return d.Volume == v.Metadata.Name })
}

// alive reports whether a machine with the ID still exists.
func (k *Keeper) alive(v *view, id estate.MachineID) bool {
	return slices.ContainsFunc(v.inventory.Machines, func(m *estate.Machine) bool { return m.Metadata.UID == string(id) })
}

// release gives the home back: when the machine that held it is off, or gone
// (holder empty: any that no longer exists).
func (k *Keeper) release(ctx context.Context, v *view, holder estate.MachineID) error {
	h := v.home
	if h == nil || h.Spec.Holder == "" {
		return nil
	}
	if h.Spec.Holder != holder && (holder != "" || k.alive(v, h.Spec.Holder)) {
		return nil
	}
	h.Spec.Holder = ""
	return k.Store.Update(ctx, h)
}

// remove asks for the machine's end, and tells why; its agent carries it out.
func (k *Keeper) remove(ctx context.Context, v *view, why string) error {
	if !v.machine.Metadata.Deleting.IsZero() {
		return nil
	}
	if err := k.Store.Delete(ctx, v.machine.Ref(), 0); err != nil {
		return err
	}
	k.removed(ctx, v, why)
	return nil
}

package vsphere

import (
	"context"
	"encoding/json"
	"io"
	"slices"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// A live move stays within one vCenter: the machine is the same object before
// and after, and its record says which of our places it belongs to.

// berth is where a machine is sent, as Arrive says it.
type berth struct {
	VCenter   string
	Scope     string
	Pool      types.ManagedObjectReference
	Host      *types.ManagedObjectReference
	Datastore types.ManagedObjectReference
	Note      string // file with the definition, for as long as it is awaited
}

// Arrive implements driver.Mover. Its note is all that makes the place ready.
func (h *Host) Arrive(ctx context.Context, def driver.Definition) (string, error) {
	if h.place.vcenter == "" {
		return "", fault.Unsupported.Errorf("a single ESXi host takes no machine that runs")
	}
	t, err := h.take(ctx, string(def.ID))
	if err != nil {
		return "", err
	}
	defer t.give()
	if err := h.unguarded(ctx, nil); err != nil {
		return "", err
	}
	if _, err := h.cards(ctx, def.NICs); err != nil {
		return "", err
	}
	v, err := h.find(ctx, def.ID)
	if err != nil {
		return "", err
	}
	kept, err := h.shelf(ctx, def.ID)
	if err != nil {
		return "", err
	}
	if v != nil || kept != nil {
		return "", fault.Exists.Errorf("machine %s is here already", def.ID)
	}
	note, err := json.Marshal(def)
	if err != nil {
		return "", err
	}
	if err := h.writeNote(ctx, t, h.awaitedOf(def.ID), note); err != nil {
		return "", err
	}
	at, err := json.Marshal(berth{
		VCenter: h.place.vcenter, Scope: h.place.scope, Pool: h.place.pool, Host: h.place.host,
		Datastore: h.place.datastore.Reference(), Note: h.at(h.awaitedOf(def.ID)),
	})
	return string(at), err
}

// awaited reads the definition under which a machine is awaited elsewhere.
func (h *Host) awaited(ctx context.Context, id estate.MachineID, to berth) (def driver.Definition, err error) {
	r, err := h.get(ctx, to.Note)
	if err != nil {
		return def, fault.Unavailable.Errorf("nobody waits for machine %s any more: %w", id, err)
	}
	defer r.Close()
	if err := json.NewDecoder(io.LimitReader(r, maxNote)).Decode(&def); err != nil || def.ID != id {
		return def, fault.Invalid.Errorf("%s is not the note of machine %s", to.Note, id)
	}
	return def, nil
}

// Depart implements driver.Mover. The machine is there once its record says so;
// until then it is here, on whichever host it runs, and may depart again. Its
// disks go along: nothing of it stays here.
func (h *Host) Depart(ctx context.Context, id estate.MachineID, at string) error {
	var to berth
	if err := json.Unmarshal([]byte(at), &to); err != nil || to.VCenter == "" || to.VCenter != h.place.vcenter || to.Scope == h.place.scope {
		return fault.Invalid.Errorf("move machine %s: that is not another place in this vCenter", id)
	}
	t, v, err := h.hold(ctx, id, h.running)
	if err != nil {
		return err
	}
	defer t.give()
	def, err := h.awaited(ctx, id, to)
	if err != nil {
		return err
	}
	if err := h.settle(ctx, t, v); err != nil {
		return err
	}
	spec := types.VirtualMachineRelocateSpec{Pool: &to.Pool, Host: to.Host}
	if to.Datastore != h.place.datastore.Reference() {
		if slices.ContainsFunc(v.rec.Def.Disks, func(d driver.Disk) bool { return d.File != nil }) {
			return fault.Unsupported.Errorf("machine %s has volumes, which stay on datastore %s: stop it and move it", id, h.place.datastore.Name())
		}
		spec.Datastore = &to.Datastore
	}
	if !slices.Equal(v.rec.Def.NICs, def.NICs) {
		return fault.Unsupported.Errorf("machine %s would change networks: stop it and move it", id)
	}
	_, err = h.task(ctx, t, func(ctx context.Context) (*object.Task, error) {
		return object.NewVirtualMachine(h.client, v.ref).Relocate(ctx, spec, types.VirtualMachineMovePriorityHighPriority)
	})
	if err != nil {
		return did(err, "relocate machine %s", id)
	}
	rec := v.rec
	rec.Scope, rec.Def = to.Scope, def
	err = h.reconfigure(ctx, t, v, types.VirtualMachineConfigSpec{ExtraConfig: []types.BaseOptionValue{option(recordKey, rec)}})
	if err != nil {
		return err
	}
	h.remove(ctx, t, to.Note) // a note that stays is of no use to anybody
	return nil
}

package vsphere

import (
	"context"
	"encoding/json"

	"github.com/vmware/govmomi/object"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// shelved is what is noted of a machine that is undefined and has its disks.
type shelved struct {
	Rec       record
	Home      string            // its folder, on our datastore
	Disks     map[string]string // files by the disk's name
	Snapshots []snapshot
}

func (h *Host) shelf(ctx context.Context, id estate.MachineID) (*shelved, error) {
	b, err := h.readNote(ctx, h.shelfOf(id))
	if err != nil || b == nil {
		return nil, err
	}
	var s shelved
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fault.Stuck.Errorf("read what is shelved of machine %s: %w; restore or remove %s", id, err, h.at(h.shelfOf(id)))
	}
	return &s, nil
}

// Shelve implements driver.Transferer. What is needed to define the machine
// again is written first; that it is no longer registered is what counts. Its
// firmware's memory is not kept.
func (h *Host) Shelve(ctx context.Context, id estate.MachineID) error {
	t, err := h.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer t.give()
	v, err := h.find(ctx, id)
	if err != nil || v == nil {
		return err
	}
	if v, err = h.resting(ctx, id); err != nil {
		return err
	}
	if v.rec.Adopted {
		return fault.Unsupported.Errorf("machine %s was adopted: it is not ours to undefine; release it", id)
	}
	if err := h.unchained(ctx, t, v); err != nil {
		return err
	}
	home := homeIn(v)
	if home == "" {
		return fault.Stuck.Errorf("machine %s was moved in vSphere out of our folders: move it back to %s", id, h.at(h.homes(id)[0]))
	}
	var p object.DatastorePath
	p.FromString(home)
	s := shelved{Rec: v.rec, Home: p.Path, Disks: map[string]string{}, Snapshots: v.snapshots}
	for _, d := range v.rec.Def.Disks {
		if d.File != nil {
			continue
		}
		_, device, err := v.disk(d.Name)
		if err != nil {
			return err
		}
		s.Disks[d.Name] = fileOf(device)
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := h.writeNote(ctx, t, h.shelfOf(id), b); err != nil {
		return err
	}
	return h.unregister(ctx, t, v)
}

// sweep removes what is left of a machine that is not defined: the disks of one
// that is shelved, what a call that was cut left, or the note of one that never
// came. Folders in which a machine lies that moved away are its own.
func (h *Host) sweep(ctx context.Context, t *turn, id estate.MachineID) error {
	taken, err := h.taken(ctx, id)
	if err != nil {
		return err
	}
	kept, err := h.shelf(ctx, id)
	if err != nil {
		return err
	}
	var gone []string
	if kept != nil {
		for _, file := range kept.Disks {
			if err := h.removeDisk(ctx, t, file); err != nil {
				return err
			}
		}
		gone = append(gone, h.at(kept.Home), h.at(h.shelfOf(id)))
	}
	for _, home := range h.homes(id) {
		gone = append(gone, h.at(home))
	}
	for _, file := range append(gone, h.at(h.awaitedOf(id))) {
		if taken[file] {
			continue
		}
		if err := h.remove(ctx, t, file); err != nil {
			return err
		}
	}
	return nil
}

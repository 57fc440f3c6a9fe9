package qemu

import (
	"context"
	"maps"
	"path/filepath"
	"slices"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// snapshot is what the private disks were when it was made: stacks whose layers
// do not change any more.
type snapshot struct {
	Name   string
	Copies map[string]copied
}

// Snapshot implements driver.Snapshotter. Every private disk gets a new, empty
// top; then one write of the record makes the snapshot. A crash before leaves
// files that the record does not speak of.
func (h *Host) Snapshot(ctx context.Context, id estate.MachineID, name string) error {
	m, err := h.atRest(ctx, id)
	if err != nil {
		return err
	}
	defer h.done(m)
	r := m.record()
	if r.snapshot(name) >= 0 {
		return fault.Exists.Errorf("machine %s has a snapshot %s", id, name)
	}
	r.Snapshots = append(slices.Clone(r.Snapshots), snapshot{name, r.Copies})
	if r.Copies, err = m.grow(ctx, r, r.Copies); err != nil {
		return err
	}
	return m.save(r)
}

// Revert implements driver.Snapshotter.
func (h *Host) Revert(ctx context.Context, id estate.MachineID, name string) error {
	m, err := h.atRest(ctx, id)
	if err != nil {
		return err
	}
	defer h.done(m)
	r := m.record()
	i := r.snapshot(name)
	if i < 0 {
		return fault.NotFound.Errorf("machine %s has no snapshot %s", id, name)
	}
	if r.Copies, err = m.grow(ctx, r, r.Snapshots[i].Copies); err != nil {
		return err
	}
	r.Saved = nil
	if err := m.save(r); err != nil {
		return err
	}
	return m.sweep()
}

// DropSnapshot implements driver.Snapshotter. Layers that only the snapshot kept
// apart become one, which takes as long as copying the smaller part.
func (h *Host) DropSnapshot(ctx context.Context, id estate.MachineID, name string) error {
	m, err := h.atRest(ctx, id)
	if err != nil {
		return err
	}
	defer h.done(m)
	r := m.record()
	if i := r.snapshot(name); i >= 0 {
		r.Snapshots = slices.Delete(slices.Clone(r.Snapshots), i, i+1)
		if err := m.save(r); err != nil {
			return err
		}
	}
	if err := m.sweep(); err != nil {
		return err
	}
	return m.merge(ctx) // also what an earlier call was cut short in
}

// Snapshots implements driver.Snapshotter.
func (h *Host) Snapshots(ctx context.Context, id estate.MachineID) ([]string, error) {
	m, err := h.existing(ctx, id)
	if err != nil {
		return nil, err
	}
	defer h.done(m)
	var names []string
	for _, s := range m.record().Snapshots {
		names = append(names, s.Name)
	}
	return names, nil
}

func (r record) snapshot(name string) int {
	return slices.IndexFunc(r.Snapshots, func(s snapshot) bool { return s.Name == name })
}

// atRest returns a machine that is off, with its turn taken.
func (h *Host) atRest(ctx context.Context, id estate.MachineID) (*machine, error) {
	m, err := h.existing(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := m.mustBeOff(); err != nil {
		h.done(m)
		return nil, err
	}
	return m, nil
}

// grow puts an empty layer on every one of the disks, and returns them so.
func (m *machine) grow(ctx context.Context, r record, disks map[string]copied) (map[string]copied, error) {
	grown := maps.Clone(disks)
	for _, d := range r.Def.Disks {
		below, private := disks[d.Name]
		if !private {
			continue
		}
		top := layer{File: r.freeName(d.Name, ".qcow2"), Format: estate.QCOW2}
		under := layer{File: filepath.Join(m.dir, below.File), Format: below.Format}
		if err := m.host.overlay(ctx, filepath.Join(m.dir, top.File), &under, diskSize(d)); err != nil {
			return nil, err
		}
		grown[d.Name] = stack(append([]layer{top}, below.layers()...), below.OnBase)
	}
	return grown, nil
}

// stacks returns every stack of a disk: that of now, and those of snapshots.
func (r record) stacks(disk string) []copied {
	all := []copied{r.Copies[disk]}
	for _, s := range r.Snapshots {
		all = append(all, s.Copies[disk])
	}
	return all
}

// merge makes one layer of every two that are in the same stacks. What the upper
// one holds is written into the lower one, which reads the same through the
// upper one all the while; then the record forgets the upper one.
func (m *machine) merge(ctx context.Context) error {
	for _, d := range m.record().Def.Disks {
		for {
			r := m.record()
			upper, below, found := mergeable(r.stacks(d.Name))
			if !found {
				break
			}
			if err := m.commit(ctx, d, upper, below); err != nil {
				return err
			}
			if err := m.save(r.without(d.Name, upper.File)); err != nil {
				return err
			}
		}
	}
	return m.sweep()
}

// mergeable finds a layer that stands on another in every stack that has either,
// and returns it with the stack below it.
func mergeable(stacks []copied) (upper layer, below copied, found bool) {
	in := map[layer]int{} // how many stacks have it
	for _, s := range stacks {
		for _, l := range s.layers() {
			in[l]++
		}
	}
	for _, s := range stacks {
		ls := s.layers()
		for i, l := range ls[:len(ls)-1] {
			// What is shared never changes. Whatever has l has what is under it; so equal counts mean the same stacks.
			if in[l] == in[ls[i+1]] && !ls[i+1].Shared {
				return l, stack(ls[i+1:], s.OnBase), true
			}
		}
	}
	return layer{}, copied{}, false
}

// commit writes what the upper layer holds into the topmost of those below it.
func (m *machine) commit(ctx context.Context, d driver.Disk, upper layer, below copied) error {
	n, err := imageNode(m.paths(d, stack(append([]layer{upper}, below.layers()...), below.OnBase)))
	if err != nil {
		return err
	}
	return m.host.image(ctx, "commit", "-q", "-d", "json:"+marshal(n))
}

// without returns the record with a layer taken out of every stack of a disk.
func (r record) without(disk, file string) record {
	less := func(all map[string]copied) map[string]copied {
		all = maps.Clone(all)
		c := all[disk]
		rest := slices.DeleteFunc(c.layers(), func(l layer) bool { return l.File == file })
		all[disk] = stack(rest, c.OnBase)
		return all
	}
	r.Copies = less(r.Copies)
	r.Snapshots = slices.Clone(r.Snapshots)
	for i := range r.Snapshots {
		r.Snapshots[i].Copies = less(r.Snapshots[i].Copies)
	}
	return r
}

package vsphere

import (
	"context"

	"github.com/vmware/govmomi/performance"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/view"
	"github.com/vmware/govmomi/vim25/types"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

// watched are the properties whose change is told. The version of a machine's
// configuration changes with all that is configured.
var watched = []string{"config.uuid", "name", "runtime.powerState", "runtime.connectionState", "config.changeVersion"}

// Watch implements driver.Watcher.
func (h *Host) Watch(ctx context.Context, changed func(estate.MachineID)) error {
	if ctx.Err() != nil {
		return nil
	}
	v, err := view.NewManager(h.client).CreateContainerView(ctx, h.place.datacenter.Reference(), []string{"VirtualMachine"}, true)
	if err != nil {
		return ended(ctx, asked(err, "watch the machines of %s", h.place.datacenter.Name()))
	}
	defer v.Destroy(context.WithoutCancel(ctx))
	pc, err := property.DefaultCollector(h.client).Create(ctx)
	if err != nil {
		return ended(ctx, asked(err, "watch the machines of %s", h.place.datacenter.Name()))
	}
	defer pc.Destroy(context.WithoutCancel(ctx))
	ids := map[types.ManagedObjectReference]estate.MachineID{}
	filter := new(property.WaitFilter).Add(v.Reference(), "VirtualMachine", watched, v.TraversalSpec())
	err = property.WaitForUpdates(ctx, pc, filter, func(updates []types.ObjectUpdate) bool {
		for _, u := range updates {
			for _, c := range u.ChangeSet {
				if text, is := c.Val.(string); is && c.Name == "config.uuid" {
					ids[u.Obj] = estate.MachineID(text)
				}
			}
			if id := ids[u.Obj]; id != "" {
				changed(id)
			}
			if u.Kind == types.ObjectUpdateKindLeave {
				delete(ids, u.Obj)
			}
		}
		return false
	})
	return ended(ctx, asked(err, "watch the machines of %s", h.place.datacenter.Name()))
}

// ended forgives an error that came of being told to end.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Measure implements driver.Meter. vSphere keeps what a machine used as rates
// of 20 s, for an hour, and never as a sum since power-on: adding those up
// would begin anew with every restart of ours and shrink what was told before.
func (h *Host) Measure(ctx context.Context, id estate.MachineID) (driver.Usage, error) {
	v, err := h.running(ctx, id)
	if err != nil {
		return driver.Usage{}, err
	}
	u := driver.Usage{CPU: -1, Memory: -1, DiskRead: -1, DiskWritten: -1, Received: -1, Sent: -1}
	if v.resident > 0 {
		u.Memory = estate.Bytes(v.resident) * estate.MiB
		return u, nil
	}
	u.Memory, err = h.consumed(ctx, v.ref)
	return u, err
}

// consumed returns the host memory that a machine had at the last sample, or -1.
func (h *Host) consumed(ctx context.Context, ref types.ManagedObjectReference) (estate.Bytes, error) {
	m := performance.NewManager(h.client)
	const counter = "mem.consumed.average" // in KiB
	samples, err := m.SampleByName(ctx, types.PerfQuerySpec{MaxSample: 1, IntervalId: 20}, []string{counter}, []types.ManagedObjectReference{ref})
	if err != nil {
		return -1, asked(err, "sample machine %s", ref.Value)
	}
	series, err := m.ToMetricSeries(ctx, samples)
	if err != nil {
		return -1, asked(err, "sample machine %s", ref.Value)
	}
	for _, s := range series {
		for _, v := range s.Value {
			if v.Name == counter && len(v.Value) > 0 && v.Value[len(v.Value)-1] >= 0 {
				return estate.Bytes(v.Value[len(v.Value)-1]) * estate.KiB, nil
			}
		}
	}
	return -1, nil
}

package remote

import (
	"context"

	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// more serves what only some drivers can do.
func more(h driver.Host, answer answerer) {
	if p, ok := driver.As[driver.Hotplugger](h); ok {
		answer("attach", func(ctx context.Context, c call) (any, error) {
			if c.Disk == nil {
				return nil, fault.Invalid.Errorf("no disk given")
			}
			return nil, p.Attach(ctx, c.ID, *c.Disk)
		})
		answer("detach", func(ctx context.Context, c call) (any, error) { return nil, p.Detach(ctx, c.ID, c.Name) })
		answer("attached", func(ctx context.Context, c call) (any, error) { return p.Attached(ctx, c.ID) })
	}
	if g, ok := driver.As[driver.Guest](h); ok {
		answer("run", func(ctx context.Context, c call) (any, error) {
			if c.Cmd == nil {
				return nil, fault.Invalid.Errorf("no command given")
			}
			return g.Run(ctx, c.ID, *c.Cmd)
		})
	}
	if t, ok := driver.As[driver.Transferer](h); ok {
		answer("shelve", func(ctx context.Context, c call) (any, error) { return nil, t.Shelve(ctx, c.ID) })
	}
	if m, ok := driver.As[driver.Mover](h); ok {
		answer("arrive", func(ctx context.Context, c call) (any, error) {
			if c.Def == nil {
				return nil, fault.Invalid.Errorf("no definition given")
			}
			return m.Arrive(ctx, *c.Def)
		})
		answer("depart", func(ctx context.Context, c call) (any, error) { return nil, m.Depart(ctx, c.ID, c.At) })
	}
	state(h, answer)
	clones(h, answer)
	if s, ok := driver.As[driver.Surveyor](h); ok {
		answer("survey", func(ctx context.Context, c call) (any, error) { return s.Survey(ctx) })
		answer("adopt", func(ctx context.Context, c call) (any, error) { return nil, s.Adopt(ctx, c.ID) })
		answer("release", func(ctx context.Context, c call) (any, error) { return nil, s.Release(ctx, c.ID) })
	}
}

// usage is driver.Usage in nanoseconds and bytes: an amount of bytes as people
// write it has no -1.
type usage struct {
	CPU         int64 `json:"cpu"`
	Memory      int64 `json:"memory"`
	DiskRead    int64 `json:"diskRead"`
	DiskWritten int64 `json:"diskWritten"`
	Received    int64 `json:"received"`
	Sent        int64 `json:"sent"`
}

// state serves what concerns the state and shape of one machine.
func state(h driver.Host, answer answerer) {
	if s, ok := driver.As[driver.Snapshotter](h); ok {
		answer("snapshot", func(ctx context.Context, c call) (any, error) { return nil, s.Snapshot(ctx, c.ID, c.Name) })
		answer("revert", func(ctx context.Context, c call) (any, error) { return nil, s.Revert(ctx, c.ID, c.Name) })
		answer("drop-snapshot", func(ctx context.Context, c call) (any, error) { return nil, s.DropSnapshot(ctx, c.ID, c.Name) })
		answer("snapshots", func(ctx context.Context, c call) (any, error) { return s.Snapshots(ctx, c.ID) })
	}
	if s, ok := driver.As[driver.Saver](h); ok {
		answer("save", func(ctx context.Context, c call) (any, error) { return nil, s.Save(ctx, c.ID) })
	}
	if r, ok := driver.As[driver.Resizer](h); ok {
		answer("resize", func(ctx context.Context, c call) (any, error) { return nil, r.Resize(ctx, c.ID, c.CPUs, c.Memory) })
	}
	if m, ok := driver.As[driver.Meter](h); ok {
		answer("measure", func(ctx context.Context, c call) (any, error) {
			u, err := m.Measure(ctx, c.ID)
			return usage{int64(u.CPU), int64(u.Memory), int64(u.DiskRead), int64(u.DiskWritten), int64(u.Received), int64(u.Sent)}, err
		})
	}
}

// clones serves templates, machines that stand still, and those that are sealed.
func clones(h driver.Host, answer answerer) {
	if t, ok := driver.As[driver.Cloner](h); ok {
		answer("freeze", func(ctx context.Context, c call) (any, error) { return nil, t.Freeze(ctx, c.ID, c.Name) })
		answer("templates", func(ctx context.Context, c call) (any, error) { return t.Templates(ctx) })
		answer("drop-template", func(ctx context.Context, c call) (any, error) { return nil, t.DropTemplate(ctx, c.Name) })
		answer("join", func(ctx context.Context, c call) (any, error) { return nil, t.Join(ctx, c.ID) })
	}
	if p, ok := driver.As[driver.Pauser](h); ok {
		answer("pause", func(ctx context.Context, c call) (any, error) { return nil, p.Pause(ctx, c.ID) })
	}
	if s, ok := driver.As[driver.Sealer](h); ok {
		answer("key", func(ctx context.Context, c call) (any, error) { return s.Key(ctx, c.ID) })
	}
}

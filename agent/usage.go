package agent

import (
	"context"
	"encoding/json"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// sendUsage answers what the machines that run here use. One that is off, or
// goes meanwhile, is left out.
func (a *Agent) sendUsage(ctx context.Context, c api.Call) error {
	if can := a.Host.Can(estate.CanMeasure); !can.Has {
		return fault.Unsupported.Errorf("this host does not tell what machines use: %s", can.Reason)
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	var keepers []*keeper
	a.remember(func() {
		for _, k := range a.machines {
			keepers = append(keepers, k)
		}
	})
	reply := api.UsageReply{Machines: []api.MachineUsage{}}
	for _, k := range keepers {
		m, _ := k.latest()
		u, err := a.Host.Measure(ctx, k.id)
		if err != nil {
			continue
		}
		cpu := u.CPU.Seconds()
		if u.CPU < 0 {
			cpu = -1
		}
		reply.Machines = append(reply.Machines, api.MachineUsage{
			Machine: m.Ref(), CPU: cpu, Memory: int64(u.Memory),
			DiskRead: int64(u.DiskRead), DiskWritten: int64(u.DiskWritten), Received: int64(u.Received), Sent: int64(u.Sent),
		})
	}
	conn, err := a.Plane.OpenCall(ctx, c.ID)
	if err != nil {
		return err
	}
	defer conn.Close()
	return json.NewEncoder(conn).Encode(reply)
}

// Package usage asks agents what machines use of their hosts.
package usage

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/plane/store"
)

const (
	// patience is how long an agent may take to tell.
	patience = 5 * time.Second
	// mostText is how much it may tell: some ten thousand machines.
	mostText = 4 << 20
)

// Collector is a prometheus.Collector of what every machine uses.
type Collector struct {
	Store *store.Store
	// Dial calls the hypervisor's agent and returns the tunnel it opens.
	Dial func(ctx context.Context, hypervisor string, call api.Call) (net.Conn, error)
}

// figure is one number of a machine. One that its host does not tell is below 0.
type figure struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(api.MachineUsage) float64
}

func desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("consort_machine_"+name, help, []string{"project", "machine", "hypervisor"}, nil)
}

var figures = []figure{
	{desc("cpu_seconds_total", "Processor time of guest and emulation together, since the machine was powered on."), prometheus.CounterValue,
		func(u api.MachineUsage) float64 { return u.CPU }},
	{desc("memory_bytes", "Memory that is resident on the host."), prometheus.GaugeValue,
		func(u api.MachineUsage) float64 { return float64(u.Memory) }},
	{desc("disk_read_bytes_total", "Read from disks since the machine was powered on."), prometheus.CounterValue,
		func(u api.MachineUsage) float64 { return float64(u.DiskRead) }},
	{desc("disk_written_bytes_total", "Written to disks since the machine was powered on."), prometheus.CounterValue,
		func(u api.MachineUsage) float64 { return float64(u.DiskWritten) }},
	{desc("network_received_bytes_total", "Received by network cards since the machine was powered on."), prometheus.CounterValue,
		func(u api.MachineUsage) float64 { return float64(u.Received) }},
	{desc("network_sent_bytes_total", "Sent by network cards since the machine was powered on."), prometheus.CounterValue,
		func(u api.MachineUsage) float64 { return float64(u.Sent) }},
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, f := range figures {
		to <- f.desc
	}
}

// Collect implements prometheus.Collector. All hosts that can tell are asked side
// by side; one that does not answer is an error in its place, never a 0.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	hosts, _, err := store.List[estate.Hypervisor](ctx, c.Store, "")
	if err != nil {
		to <- prometheus.NewInvalidMetric(figures[0].desc, err)
		return
	}
	var asked sync.WaitGroup
	defer asked.Wait()
	for _, h := range hosts {
		gone := h.Status.State == estate.HypervisorLost || h.Status.State == ""
		if gone || !h.Status.CanFor("", estate.CanMeasure).Has {
			continue
		}
		asked.Go(func() {
			all, err := c.ask(ctx, h.Metadata.Name)
			if err != nil {
				to <- prometheus.NewInvalidMetric(figures[0].desc, fmt.Errorf("ask %s what its machines use: %w", h.Metadata.Name, err))
			}
			for _, u := range all {
				tell(to, u, h.Metadata.Name)
			}
		})
	}
}

func tell(to chan<- prometheus.Metric, u api.MachineUsage, hypervisor string) {
	for _, f := range figures {
		if v := f.value(u); v >= 0 {
			to <- prometheus.MustNewConstMetric(f.desc, f.kind, v, u.Machine.Project, u.Machine.Name, hypervisor)
		}
	}
}

// ask makes the call and reads the one line that answers it.
func (c *Collector) ask(ctx context.Context, hypervisor string) ([]api.MachineUsage, error) {
	conn, err := c.Dial(ctx, hypervisor, api.Call{Verb: api.CallUsage})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	var reply api.UsageReply
	err = json.NewDecoder(io.LimitReader(conn, mostText)).Decode(&reply)
	return reply.Machines, err
}

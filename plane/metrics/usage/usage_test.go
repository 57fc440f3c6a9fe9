package usage

import (
	"context"
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

func host(name string, state estate.HypervisorState, can bool) *estate.Hypervisor {
	h := &estate.Hypervisor{Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Hypervisor", Metadata: estate.Metadata{Name: name}}}
	h.Status.State = state
	h.Status.Capabilities = []estate.CapabilityReport{{Name: estate.CanMeasure, Has: can}}
	return h
}

// TestHostsThatCanTellAreAsked has one that tells, one that cannot, one that is
// lost, and then one that does not answer.
func TestHostsThatCanTellAreAsked(t *testing.T) {
	s := store.New(mem.Open(mem.Options{}), store.Options{Now: time.Now})
	defer s.Close()
	for _, h := range []*estate.Hypervisor{host("tells", estate.HypervisorReady, true), host("cannot", estate.HypervisorReady, false), host("lost", estate.HypervisorLost, true)} {
		if err := s.Create(t.Context(), h); err != nil {
			t.Fatal(err)
		}
	}
	c := &Collector{Store: s, Dial: func(_ context.Context, name string, call api.Call) (net.Conn, error) {
		if name != "tells" || call.Verb != api.CallUsage {
			return nil, fault.Unavailable.Errorf("%s is not to be asked %s", name, call.Verb)
		}
		mine, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			_ = json.NewEncoder(theirs).Encode(api.UsageReply{Machines: []api.MachineUsage{
				{Machine: estate.Ref{Kind: "Machine", Project: "p", Name: "a"}, CPU: 1.5, Memory: 1024, DiskRead: 512, DiskWritten: 0, Received: -1, Sent: -1},
			}})
		}()
		return mine, nil
	}}
	want := `# HELP consort_machine_cpu_seconds_total Processor time of guest and emulation together, since the machine was powered on.
# TYPE consort_machine_cpu_seconds_total counter
consort_machine_cpu_seconds_total{hypervisor="tells",machine="a",project="p"} 1.5
# HELP consort_machine_disk_read_bytes_total Read from disks since the machine was powered on.
# TYPE consort_machine_disk_read_bytes_total counter
consort_machine_disk_read_bytes_total{hypervisor="tells",machine="a",project="p"} 512
# HELP consort_machine_disk_written_bytes_total Written to disks since the machine was powered on.
# TYPE consort_machine_disk_written_bytes_total counter
consort_machine_disk_written_bytes_total{hypervisor="tells",machine="a",project="p"} 0
# HELP consort_machine_memory_bytes Memory that is resident on the host.
# TYPE consort_machine_memory_bytes gauge
consort_machine_memory_bytes{hypervisor="tells",machine="a",project="p"} 1024
`
	if err := testutil.CollectAndCompare(c, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.CollectAndLint(c); err != nil || len(problems) > 0 {
		t.Errorf("names: %v %v", problems, err)
	}
	if err := s.Create(t.Context(), host("silent", estate.HypervisorReady, true)); err != nil {
		t.Fatal(err)
	}
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err == nil || !strings.Contains(err.Error(), "ask silent what its machines use") || len(families) != 4 {
		t.Errorf("%d metrics and %v, want those of the host that tells, and an error for the other", len(families), err)
	}
}

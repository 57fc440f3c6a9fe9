package census

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"consort.dev/consort/estate"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

func head(kind estate.Kind, name string) estate.Head {
	return estate.Head{APIVersion: estate.APIVersion, Kind: kind, Metadata: estate.Metadata{Name: name, Project: "p"}}
}

// TestWhatTheStoreHoldsIsCounted compares the whole page, and holds it against
// the rules for names.
func TestWhatTheStoreHoldsIsCounted(t *testing.T) {
	s := store.New(mem.Open(mem.Options{}), store.Options{Now: time.Now})
	defer s.Close()
	for _, r := range []estate.Resource{
		&estate.Machine{Head: head("Machine", "a"), Spec: estate.MachineSpec{Hypervisor: "h1"}, Status: estate.MachineStatus{Power: estate.On, Starts: 2, Launches: []estate.Launch{
			{Application: "calc", Hypervisor: "h0", Took: estate.Duration(9 * time.Second)}, {Application: "calc", Hypervisor: "h1", Took: estate.Duration(1500 * time.Millisecond)},
		}}},
		&estate.Machine{Head: head("Machine", "b"), Spec: estate.MachineSpec{Hypervisor: "h1"}, Status: estate.MachineStatus{Power: estate.On, Starts: 1}},
		&estate.Machine{Head: head("Machine", "c")},
		&estate.Session{Head: head("Session", "s1"), Status: estate.SessionStatus{State: estate.SessionOpen}},
		&estate.Session{Head: head("Session", "s2"), Status: estate.SessionStatus{State: estate.SessionEnded}},
		&estate.Pool{Head: head("Pool", "clerks"), Status: estate.PoolStatus{Wanted: 3, Warm: 2, Making: 1, Queue: 4}},
		&estate.Service{Head: head("Service", "shop"), Status: estate.ServiceStatus{
			Wanted: 2, Replicas: []estate.Replica{{State: estate.ReplicaReady}, {State: estate.ReplicaReady}, {State: estate.ReplicaLeaving}},
			Levels: []estate.Standing{{Name: "fast", Good: 98, Total: 100}},
		}},
	} {
		if err := s.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	want := `# HELP consort_machine_starts_total How often a machine was powered on.
# TYPE consort_machine_starts_total counter
consort_machine_starts_total{machine="a",project="p"} 2
consort_machine_starts_total{machine="b",project="p"} 1
consort_machine_starts_total{machine="c",project="p"} 0
# HELP consort_machines Machines, by where they run and whether they do; no hypervisor while none was found.
# TYPE consort_machines gauge
consort_machines{hypervisor="",power="unknown",project="p"} 1
consort_machines{hypervisor="h1",power="on",project="p"} 2
# HELP consort_pool_queue Persons who wait for a seat.
# TYPE consort_pool_queue gauge
consort_pool_queue{pool="clerks",project="p"} 4
# HELP consort_pool_seats Seats of a pool: ready, being made, or taken by a person.
# TYPE consort_pool_seats gauge
consort_pool_seats{pool="clerks",project="p",state="making"} 1
consort_pool_seats{pool="clerks",project="p",state="ready"} 2
consort_pool_seats{pool="clerks",project="p",state="taken"} 0
# HELP consort_pool_seats_wanted Ready seats that are wanted.
# TYPE consort_pool_seats_wanted gauge
consort_pool_seats_wanted{pool="clerks",project="p"} 3
# HELP consort_service_level_requests Requests in the window of a service's level: good ones, and all.
# TYPE consort_service_level_requests gauge
consort_service_level_requests{level="fast",project="p",service="shop",which="all"} 100
consort_service_level_requests{level="fast",project="p",service="shop",which="good"} 98
# HELP consort_service_replicas Replicas of a service, by state.
# TYPE consort_service_replicas gauge
consort_service_replicas{project="p",service="shop",state="leaving"} 1
consort_service_replicas{project="p",service="shop",state="ready"} 2
consort_service_replicas{project="p",service="shop",state="starting"} 0
# HELP consort_service_replicas_wanted Replicas that are wanted.
# TYPE consort_service_replicas_wanted gauge
consort_service_replicas_wanted{project="p",service="shop"} 2
# HELP vdi_session_application_start_seconds The last start of an application on a machine: from when it was asked for until its process ran.
# TYPE vdi_session_application_start_seconds gauge
vdi_session_application_start_seconds{application="calc",hypervisor="h1",machine="a",project="p"} 1.5
# HELP vdi_sessions Sessions that have not ended, by how far they have come.
# TYPE vdi_sessions gauge
vdi_sessions{project="p",state="open"} 1
`
	if err := testutil.CollectAndCompare(New(s), strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	problems, err := testutil.CollectAndLint(New(s))
	if err != nil || len(problems) > 0 {
		t.Errorf("names: %v %v", problems, err)
	}
}

// Package census counts what an estate holds: machines, desktops' seats,
// replicas and sessions.
package census

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"consort.dev/consort/estate"
	"consort.dev/consort/plane/store"
)

// patience is how long the store may take to tell.
const patience = 5 * time.Second

// Collector is a prometheus.Collector of what is in a store.
type Collector struct{ store *store.Store }

// New returns a collector. Each collection reads the store anew.
func New(s *store.Store) *Collector { return &Collector{s} }

var (
	sessions  = prometheus.NewDesc("vdi_sessions", "Sessions that have not ended, by how far they have come.", []string{"project", "state"}, nil)
	machines  = prometheus.NewDesc("consort_machines", "Machines, by where they run and whether they do; no hypervisor while none was found.", []string{"project", "hypervisor", "power"}, nil)
	launches  = prometheus.NewDesc("vdi_session_application_start_seconds", "The last start of an application on a machine: from when it was asked for until its process ran.", []string{"project", "machine", "application", "hypervisor"}, nil)
	starts    = prometheus.NewDesc("consort_machine_starts_total", "How often a machine was powered on.", []string{"project", "machine"}, nil)
	seats     = prometheus.NewDesc("consort_pool_seats", "Seats of a pool: ready, being made, or taken by a person.", []string{"project", "pool", "state"}, nil)
	wantSeats = prometheus.NewDesc("consort_pool_seats_wanted", "Ready seats that are wanted.", []string{"project", "pool"}, nil)
	queue     = prometheus.NewDesc("consort_pool_queue", "Persons who wait for a seat.", []string{"project", "pool"}, nil)
	replicas  = prometheus.NewDesc("consort_service_replicas", "Replicas of a service, by state.", []string{"project", "service", "state"}, nil)
	wanted    = prometheus.NewDesc("consort_service_replicas_wanted", "Replicas that are wanted.", []string{"project", "service"}, nil)
	budget    = prometheus.NewDesc("consort_service_level_requests", "Requests in the window of a service's level: good ones, and all.", []string{"project", "service", "level", "which"}, nil)
)

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sessions, machines, starts, launches, seats, wantSeats, queue, replicas, wanted, budget} {
		to <- d
	}
}

// Collect implements prometheus.Collector. What the store does not tell is an
// error in its place, never a 0.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	each(ctx, c.store, to, sessions, countSessions)
	each(ctx, c.store, to, machines, countMachines)
	each(ctx, c.store, to, seats, countSeats)
	each(ctx, c.store, to, replicas, countReplicas)
}

// each counts all objects of a kind.
func each[T any](ctx context.Context, s *store.Store, to chan<- prometheus.Metric, d *prometheus.Desc, count func([]*T, gauge)) {
	all, _, err := store.List[T](ctx, s, "")
	if err != nil {
		to <- prometheus.NewInvalidMetric(d, err)
		return
	}
	count(all, func(d *prometheus.Desc, v float64, labels ...string) {
		kind := prometheus.GaugeValue
		if d == starts {
			kind = prometheus.CounterValue
		}
		to <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	})
}

// gauge tells one value.
type gauge func(d *prometheus.Desc, v float64, labels ...string)

func countSessions(all []*estate.Session, tell gauge) {
	n := map[[2]string]float64{}
	for _, s := range all {
		if s.Status.State != estate.SessionEnded && s.Status.State != "" {
			n[[2]string{s.Metadata.Project, string(s.Status.State)}]++
		}
	}
	for of, v := range n {
		tell(sessions, v, of[0], of[1])
	}
}

func countMachines(all []*estate.Machine, tell gauge) {
	n := map[[3]string]float64{}
	for _, m := range all {
		power := m.Status.Power
		if power == "" {
			power = estate.PowerUnknown
		}
		n[[3]string{m.Metadata.Project, m.Spec.Hypervisor, string(power)}]++
		tell(starts, float64(m.Status.Starts), m.Metadata.Project, m.Metadata.Name)
		last := map[string]estate.Launch{}
		for _, l := range m.Status.Launches {
			last[l.Application] = l
		}
		for _, l := range last {
			tell(launches, time.Duration(l.Took).Seconds(), m.Metadata.Project, m.Metadata.Name, l.Application, l.Hypervisor)
		}
	}
	for of, v := range n {
		tell(machines, v, of[0], of[1], of[2])
	}
}

func countSeats(all []*estate.Pool, tell gauge) {
	for _, p := range all {
		project, name, s := p.Metadata.Project, p.Metadata.Name, p.Status
		tell(seats, float64(s.Warm), project, name, "ready")
		tell(seats, float64(s.Making), project, name, "making")
		tell(seats, float64(s.Taken), project, name, "taken")
		tell(wantSeats, float64(s.Wanted), project, name)
		tell(queue, float64(s.Queue), project, name)
	}
}

func countReplicas(all []*estate.Service, tell gauge) {
	for _, s := range all {
		project, name := s.Metadata.Project, s.Metadata.Name
		n := map[estate.ReplicaState]float64{estate.ReplicaStarting: 0, estate.ReplicaReady: 0, estate.ReplicaLeaving: 0}
		for _, r := range s.Status.Replicas {
			n[r.State]++
		}
		for state, v := range n {
			tell(replicas, v, project, name, string(state))
		}
		tell(wanted, float64(s.Status.Wanted), project, name)
		for _, l := range s.Status.Levels {
			tell(budget, float64(l.Good), project, name, l.Name, "good")
			tell(budget, float64(l.Total), project, name, l.Name, "all")
		}
	}
}

// Package fronts runs the front of each service in the plane's process.
package fronts

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/front"
)

// Options are what a Row is given.
type Options struct {
	Host string // where fronts listen
	// Dial reaches a port of a machine through the agent of its hypervisor.
	Dial func(ctx context.Context, hypervisor string, machine estate.MachineID, port int) (net.Conn, error)
	Log  *slog.Logger
}

// Row holds the fronts. It is safe for concurrent use.
type Row struct {
	o Options

	mu     sync.Mutex
	all    map[estate.Ref]*gate
	closed bool
}

// Replica is where a replica is.
type Replica struct {
	front.Replica
	ID         estate.MachineID
	Hypervisor string
}

// shape is what a front cannot change without being another one.
type shape struct {
	port       int
	tcp        bool
	probe      estate.Probe
	objectives []front.Objective
}

// gate is one front with its listener.
type gate struct {
	shape
	front   *front.Front
	address string
	began   time.Time
	stop    context.CancelFunc
	ended   chan struct{}

	mu sync.Mutex
	at map[string]Replica
}

// New returns a row without fronts. Close ends it.
func New(o Options) *Row { return &Row{o: o, all: map[estate.Ref]*gate{}} }

// Keep has the service's front bring requests to these replicas, and returns
// where it listens. The first call opens the front. One whose port, probe or
// levels have changed is opened anew, and what the old one has in flight goes
// on until it ends. A port that somebody else has is fault.Conflict.
func (r *Row) Keep(ref estate.Ref, spec *estate.ServiceSpec, replicas []Replica) (address string, err error) {
	g, err := r.gate(ref, spec)
	if err != nil {
		return "", err
	}
	at, set := map[string]Replica{}, []front.Replica{}
	for _, x := range replicas {
		at[x.Name] = x
		set = append(set, x.Replica)
	}
	g.mu.Lock()
	g.at = at
	g.mu.Unlock()
	return g.address, g.front.Set(set)
}

// gate returns the service's gate as it must be, opened when there is none.
func (r *Row) gate(ref estate.Ref, spec *estate.ServiceSpec) (*gate, error) {
	want := shape{spec.Front.Port, spec.Front.TCP, spec.Probe, objectives(spec)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, fault.Unavailable.Errorf("open the front of %s: this plane ends", ref)
	}
	old := r.all[ref]
	if old != nil && reflect.DeepEqual(old.shape, want) {
		return old, nil
	}
	if old != nil {
		old.stop()
		<-old.ended
		delete(r.all, ref)
	}
	g, err := r.open(ref, want)
	if err == nil {
		r.all[ref] = g
	}
	return g, err
}

func (r *Row) open(ref estate.Ref, want shape) (*gate, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(r.o.Host, strconv.Itoa(want.port)))
	if err != nil {
		return nil, fault.Conflict.Errorf("listen for %s: %w; choose another spec.front.port", ref, err)
	}
	g := &gate{shape: want, address: l.Addr().String(), began: time.Now(), ended: make(chan struct{})}
	g.front, err = front.New(front.Options{
		Service: ref.Project + "/" + ref.Name, Objectives: want.objectives, Log: r.o.Log,
		Probe: &front.Probe{Path: want.probe.Path, Interval: time.Duration(want.probe.Interval)},
		Dial: func(ctx context.Context, name string, port int) (net.Conn, error) {
			g.mu.Lock()
			at, ok := g.at[name]
			g.mu.Unlock()
			if !ok {
				return nil, fault.NotFound.Errorf("reach replica %s of %s: it has gone", name, ref)
			}
			return r.o.Dial(ctx, at.Hypervisor, at.ID, port)
		},
	})
	if err != nil {
		l.Close()
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	go func() {
		defer close(g.ended)
		defer g.front.Close()
		serve := func() error { return g.front.Serve(ctx, l, nil) }
		if want.tcp {
			serve = func() error { return g.front.Carry(ctx, l) }
		}
		if err := serve(); err != nil && ctx.Err() == nil {
			r.o.Log.Error("a front ended", "service", ref.String(), "error", err)
		}
	}()
	return g, nil
}

// objectives are the levels that a front can count.
func objectives(spec *estate.ServiceSpec) []front.Objective {
	const ever = 24 * time.Hour // any time is good enough
	var all []front.Objective
	for _, l := range spec.Levels {
		if l.Response == nil || l.Response.Measured != nil {
			continue
		}
		bound := time.Duration(l.Response.Within)
		if bound == 0 {
			bound = ever
		}
		all = append(all, front.Objective{Name: l.Name, Bound: bound})
	}
	return all
}

// Sight is what a front has measured, and since when.
type Sight struct {
	front.Figures
	Began time.Time
}

// Figures returns the measurements of the service's front; false while it has none.
func (r *Row) Figures(ref estate.Ref) (Sight, bool) {
	r.mu.Lock()
	g := r.all[ref]
	r.mu.Unlock()
	if g == nil {
		return Sight{}, false
	}
	return Sight{g.front.Figures(), g.began}, true
}

// Fronts returns all fronts, for whoever publishes their measurements.
func (r *Row) Fronts() []*front.Front {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*front.Front
	for _, g := range r.all {
		all = append(all, g.front)
	}
	return all
}

// End closes the service's front, if there is one, when what is in flight has
// ended, or half a minute later.
func (r *Row) End(ref estate.Ref) {
	r.mu.Lock()
	g := r.all[ref]
	delete(r.all, ref)
	r.mu.Unlock()
	if g != nil {
		g.stop()
		<-g.ended
	}
}

// Close ends all fronts.
func (r *Row) Close() {
	r.mu.Lock()
	r.closed = true
	all := slices.Collect(maps.Values(r.all))
	clear(r.all)
	r.mu.Unlock()
	for _, g := range all {
		g.stop()
	}
	for _, g := range all {
		<-g.ended
	}
}

// Package service keeps the replicas of services as they are wanted.
package service

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/compose"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/front"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/fronts"
	"consort.dev/consort/plane/store"
)

// finalizer holds a service until its machines are gone.
const finalizer = "service"

const (
	lookSoon  = 250 * time.Millisecond // while something is under way: what a front sees is not told to us
	lookAgain = 5 * time.Second        // and otherwise
	tryAgain  = 2 * time.Second        // to start what did not start
	parting   = 30 * time.Second       // that a replica which leaves may take to end what it has in flight
)

// Keeper keeps services.
type Keeper struct {
	Store  *store.Store
	Fronts *fronts.Row
	// Dial calls the hypervisor's agent and returns the tunnel it opens.
	Dial       func(ctx context.Context, hypervisor string, call api.Call) (net.Conn, error)
	Deliveries []estate.DeliveryOffer
	Now        func() time.Time
	Log        *slog.Logger
	Events     *control.Recorder // may be nil

	mu     sync.Mutex
	before map[estate.Ref]map[string]front.Tally // what replicas had answered when a rollout's first one became ready
	failed map[place]failure                     // of starts, until one succeeds or the machine goes
}

// place is one machine of one service.
type place struct {
	service estate.Ref
	machine string
}

// failure is why a replica's application did not start, and when.
type failure struct {
	at  time.Time
	err error
}

// Loop returns the keeper's loop over services.
func (k *Keeper) Loop() *control.Loop {
	return &control.Loop{
		Name: "service", Store: k.Store, Log: k.Log, Step: k.step, Concerns: k.concerns, Workers: 4,
		Kinds: []estate.Kind{"Service", "Machine", "Image", "Application", "Context", "Network", "Hypervisor"},
	}
}

// concerns returns the services a change concerns.
func (k *Keeper) concerns(ctx context.Context, changed estate.Resource) []estate.Ref {
	switch r := changed.(type) {
	case *estate.Service:
		return []estate.Ref{r.Ref()}
	case *estate.Machine:
		if o := r.Metadata.Owner; o != nil && o.Kind == "Service" {
			return []estate.Ref{*o}
		}
		return nil
	}
	all, _, err := store.List[estate.Service](ctx, k.Store, changed.Header().Metadata.Project)
	if err != nil {
		k.Log.Warn("list services", "because", changed.Header().Ref().String(), "error", err)
		return nil
	}
	var refs []estate.Ref
	for _, s := range all {
		refs = append(refs, s.Ref())
	}
	return refs
}

// view is a service and what it is looked at with.
type view struct {
	service   *estate.Service
	machines  map[string]*estate.Machine // of its replicas, by name
	inventory compose.Inventory
	plan      estate.Plan
	reasons   []compose.Reason
	sight     fronts.Sight
	failed    map[string]error // why applications did not start, by machine
	now       time.Time
}

// step brings a service a little nearer to what is wanted. All it changes in the
// store is one transaction, which the service must be unchanged for: a plane
// that dies, and another, never make more machines than there may be.
func (k *Keeper) step(ctx context.Context, ref estate.Ref) (time.Duration, error) {
	v, err := k.look(ctx, ref)
	if err != nil {
		return 0, err
	}
	if v == nil {
		k.Fronts.End(ref)
		return 0, nil
	}
	s := v.service
	if !s.Metadata.Deleting.IsZero() {
		return k.retire(ctx, v)
	}
	if !slices.Contains(s.Metadata.Finalizers, finalizer) {
		s.Metadata.Finalizers = append(s.Metadata.Finalizers, finalizer)
		return 0, k.Store.Update(ctx, s)
	}
	if err := k.wantLayers(ctx, v); err != nil {
		return 0, err
	}
	v.revise()
	k.launch(ctx, v)
	shut := k.open(v)
	v.count()
	news := v.steer(k.baseline(v))
	edits := v.work()
	v.tell(shut)
	if err := k.Store.Commit(ctx, append(edits, store.Put(s))...); err != nil {
		return 0, err
	}
	for _, n := range news {
		n.On, n.Of = ref, "rollout"
		k.Events.Tell(ctx, n)
	}
	if s.Status.Waiting != "" || s.Status.Ready != len(s.Status.Replicas) || rolling(&s.Status) {
		return lookSoon, nil
	}
	return lookAgain, nil
}

func rolling(s *estate.ServiceStatus) bool {
	return s.Rollout != nil && s.Rollout.State == estate.RolloutRunning
}

// look reads what concerns the service; nil when it is gone.
func (k *Keeper) look(ctx context.Context, ref estate.Ref) (*view, error) {
	s, err := store.Get[estate.Service](ctx, k.Store, ref.Project, ref.Name)
	if errors.Is(err, fault.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	v := &view{service: s, machines: map[string]*estate.Machine{}, failed: map[string]error{}, now: k.Now().UTC()}
	in, p := &v.inventory, ref.Project
	in.Deliveries = k.Deliveries
	for _, err := range []error{
		list(ctx, k.Store, "", &in.Hypervisors), list(ctx, k.Store, p, &in.Images), list(ctx, k.Store, p, &in.Applications),
		list(ctx, k.Store, p, &in.Contexts), list(ctx, k.Store, p, &in.Networks), list(ctx, k.Store, p, &in.Machines),
	} {
		if err != nil {
			return nil, err
		}
	}
	for _, m := range in.Machines {
		if o := m.Metadata.Owner; o != nil && *o == ref {
			v.machines[m.Metadata.Name] = m
		}
	}
	v.plan, v.reasons = compose.Replica(v.inventory, s)
	return v, nil
}

func list[T any](ctx context.Context, s *store.Store, project string, into *[]*T) (err error) {
	*into, _, err = store.List[T](ctx, s, project)
	return err
}

// open has the front know the replicas, and looks at what it measured. It
// returns why there is none.
func (k *Keeper) open(v *view) error {
	s := v.service
	var set []fronts.Replica
	for _, r := range s.Status.Replicas {
		m, rev := v.machines[r.Machine], s.Status.Revision(r.Revision)
		if m == nil || rev == nil || m.Status.Power != estate.On || r.Launched == 0 {
			continue
		}
		x := fronts.Replica{ID: estate.MachineID(m.Metadata.UID), Hypervisor: m.Spec.Hypervisor}
		x.Name, x.Port, x.Leaving = r.Machine, rev.Recipe.Port, r.State == estate.ReplicaLeaving
		if o := s.Status.Rollout; rolling(&s.Status) && o.To == r.Revision && o.Judged.IsZero() {
			x.Share = float64(s.Spec.Update.Defaults().Canary) / float64(estate.Whole)
		}
		set = append(set, x)
	}
	address, err := k.Fronts.Keep(s.Ref(), &s.Spec, set)
	s.Status.Address = address
	v.sight, _ = k.Fronts.Figures(s.Ref())
	return err
}

// standing returns how the front sees the replica.
func (v *view) standing(machine string) (front.Standing, bool) {
	for _, st := range v.sight.Replicas {
		if st.Name == machine {
			return st, true
		}
	}
	return front.Standing{}, false
}

// retire ends a service: its front takes nothing more, then its machines go,
// and then itself.
func (k *Keeper) retire(ctx context.Context, v *view) (time.Duration, error) {
	s := v.service
	k.Fronts.End(s.Ref())
	k.tidy(v)
	if len(v.machines) > 0 {
		for _, m := range v.machines {
			if err := k.Store.Delete(ctx, m.Ref(), 0); err != nil {
				return 0, err
			}
		}
		return 0, nil // the last one that goes brings us back
	}
	s.Metadata.Finalizers = slices.DeleteFunc(s.Metadata.Finalizers, func(f string) bool { return f == finalizer })
	return 0, k.Store.Update(ctx, s)
}

// Package scale decides what is done about services by what their users get,
// has it done, and sees what came of it.
package scale

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"consort.dev/consort/decide"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/front"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/fronts"
	"consort.dev/consort/plane/store"
)

// learned is where the keys begin that hold what was learned about services.
const learned = "/consort/learned/"

// every is how often a service is judged; the simulator does it as often.
const every = 5 * time.Second

// stale is how long a decision that nobody has carried out yet makes sense: what
// it rests on is older then than what is measured now.
const stale = time.Minute

// Scaler judges services.
type Scaler struct {
	Store *store.Store
	// Figures returns what a service's front has measured; false while it has none.
	Figures func(service estate.Ref) (fronts.Sight, bool)
	Now     func() time.Time
	Log     *slog.Logger
	Events  *control.Recorder // may be nil

	mu  sync.Mutex
	all map[estate.Ref]*memory
}

// memory is what is known of one service between two looks.
type memory struct {
	state  decide.State
	at     time.Time // of the last look
	sight  fronts.Sight
	seen   bool // sight is one
	levels map[string]*level
	saved  time.Time // when the levels were stored last
}

// Loop returns the scaler's loop over services.
func (k *Scaler) Loop() *control.Loop {
	return &control.Loop{
		Name: "scale", Store: k.Store, Log: k.Log, Step: k.step, Workers: 4,
		Kinds: []estate.Kind{"Service", "Decision"},
		Concerns: func(_ context.Context, r estate.Resource) []estate.Ref {
			switch r := r.(type) {
			case *estate.Service:
				return []estate.Ref{r.Ref()}
			case *estate.Decision:
				return []estate.Ref{r.Spec.On}
			}
			return nil
		},
	}
}

// step carries out what was decided and agreed to, and judges the service when
// it is time.
func (k *Scaler) step(ctx context.Context, ref estate.Ref) (time.Duration, error) {
	s, err := store.Get[estate.Service](ctx, k.Store, ref.Project, ref.Name)
	if errors.Is(err, fault.NotFound) || err == nil && !s.Metadata.Deleting.IsZero() {
		return 0, k.forget(ctx, ref)
	}
	if err != nil {
		return 0, err
	}
	m, err := k.memory(ctx, ref)
	if err != nil {
		return 0, err
	}
	all, err := k.decisions(ctx, ref)
	if err != nil {
		return 0, err
	}
	if err := k.pursue(ctx, s, m, all); err != nil {
		return 0, err
	}
	now := k.Now().UTC()
	if left := every - now.Sub(m.at); left > 0 {
		return left, nil
	}
	promise, promised := s.Spec.Promise()
	if sight, ok := k.Figures(ref); ok && s.Status.Serving() != 0 {
		measured, err := k.measure(ctx, s, m, sight, promise.Name, now)
		if err != nil {
			return 0, err
		}
		if promised {
			if err := k.judge(ctx, s, m, all, policy(s, promise), measured); err != nil {
				return 0, err
			}
		}
		if err := k.count(ctx, s, m, sight, now); err != nil {
			return 0, err
		}
		m.sight, m.seen = sight, true
	}
	m.at = now
	return every, nil
}

// policy is what decide is told of the service.
func policy(s *estate.Service, l estate.NamedLevel) decide.Policy {
	mode := s.Spec.Scale.Mode
	if mode == "" {
		mode = estate.Recommend
	}
	return decide.Policy{
		Service: s.Metadata.Name, Scaling: decide.Replicas, Least: s.Spec.Scale.Least, Most: s.Spec.Scale.Most,
		Level: decide.Level{Bound: time.Duration(l.Response.Within), Share: float64(l.Target) / float64(estate.Whole)},
		Guess: s.Spec.Scale.Guess, Modes: []decide.Mode{decide.Mode(mode)},
	}
}

// usualBoot is how long a replica is believed to take until one was measured.
const usualBoot = time.Minute

// measure is what was seen of the service since the last look.
func (k *Scaler) measure(ctx context.Context, s *estate.Service, m *memory, now fronts.Sight, promise string, at time.Time) (decide.Measured, error) {
	out := decide.Measured{At: at, Span: at.Sub(m.at), Boot: time.Duration(s.Status.Boot), Quick: now.Quick}
	if out.Boot == 0 {
		out.Boot = usualBoot
	}
	out.Seen = m.seen && m.sight.Began.Equal(now.Began)
	if out.Seen {
		out.Arrived = max(0, arrived(now)-arrived(m.sight))
	}
	machines, _, err := store.List[estate.Machine](ctx, k.Store, s.Metadata.Project)
	if err != nil {
		return out, err
	}
	for _, r := range s.Status.Replicas {
		x := decide.Replica{ID: estate.MachineID(r.Machine), Revision: r.Revision, Phase: decide.Starting}
		switch {
		case r.State == estate.ReplicaLeaving || r.Replace:
			x.Phase = decide.Leaving
		case r.State == estate.ReplicaReady:
			x.Phase, x.Out = decide.Ready, leftOut(now, r.Machine)
		}
		if i := slices.IndexFunc(machines, func(m *estate.Machine) bool { return m.Metadata.Name == r.Machine }); i >= 0 {
			x.Host = machines[i].Spec.Hypervisor
			x.Domain, x.VCPUs = x.Host, machines[i].Spec.Hardware.CPUs
		}
		if out.Seen {
			is, was := did(now, r.Machine, promise), did(m.sight, r.Machine, promise)
			x.Answered, x.Bad, x.Time = max(0, is.answered-was.answered), max(0, is.bad-was.bad), max(0, is.time-was.time)
		}
		out.Replicas = append(out.Replicas, x)
	}
	return out, nil
}

// arrived is how many requests had come to a front.
func arrived(s fronts.Sight) int64 {
	n := int64(s.InFlight)
	for _, x := range s.Series {
		n += x.Count
	}
	return n
}

type deeds struct {
	answered, bad int64
	time          time.Duration
}

// did is what a replica had done, bad by the level of the name.
func did(s fronts.Sight, machine, level string) (d deeds) {
	for _, r := range s.Replicas {
		if r.Name != machine {
			continue
		}
		d = deeds{r.Tally.Answered, r.Tally.Failed, r.Tally.Time}
		for _, c := range r.Tally.Counts {
			if c.Objective == level { // who left too late to be content has no answer, and counts
				d.answered, d.bad = c.Total, c.Total-c.Good
			}
		}
	}
	return d
}

// leftOut says why the front gives a replica nothing, or nothing but a trial;
// empty where it gets requests.
func leftOut(s fronts.Sight, machine string) string {
	for _, r := range s.Replicas {
		if r.Name == machine && r.State != front.Ready && r.State != front.Draining {
			return r.Because
		}
	}
	return ""
}

func (k *Scaler) key(ref estate.Ref) string { return learned + ref.Project + "/" + ref.Name }

// memory returns what is known of the service, as it was stored when this
// process knows nothing yet.
func (k *Scaler) memory(ctx context.Context, ref estate.Ref) (*memory, error) {
	k.mu.Lock()
	m := k.all[ref]
	k.mu.Unlock()
	if m != nil {
		return m, nil
	}
	m = &memory{levels: map[string]*level{}}
	e, err := k.Store.KV().Get(ctx, k.key(ref)+"/state")
	switch {
	case errors.Is(err, fault.NotFound):
	case err != nil:
		return nil, err
	default:
		if err := json.Unmarshal(e.Value, &m.state); err != nil {
			k.Log.Warn("what was learned about a service cannot be read; it is learned anew", "service", ref.String(), "error", err)
			m.state = decide.State{}
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.all == nil {
		k.all = map[estate.Ref]*memory{}
	}
	k.all[ref] = m
	return m, nil
}

// lose drops what this process knows: another has written since, or it may have.
func (k *Scaler) lose(ref estate.Ref) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.all, ref)
}

// forget drops everything that was learned about a service that goes.
func (k *Scaler) forget(ctx context.Context, ref estate.Ref) error {
	k.lose(ref)
	page, err := k.Store.KV().List(ctx, k.key(ref)+"/", "", 0)
	if err != nil || len(page.Entries) == 0 {
		return err
	}
	var t store.Txn
	for _, e := range page.Entries {
		t.Then = append(t.Then, store.Write{Key: e.Key, Delete: true})
	}
	return k.Store.Commit(ctx, store.Raw(t))
}

// save is the edit that stores a state.
func (k *Scaler) save(ref estate.Ref, state decide.State) (store.Edit, error) {
	value, err := json.Marshal(state)
	if err != nil {
		return store.Edit{}, fault.Internal.Errorf("store what was learned about %s: %w", ref, err)
	}
	return store.Raw(store.Txn{Then: []store.Write{{Key: k.key(ref) + "/state", Value: value}}}), nil
}

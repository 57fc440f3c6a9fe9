// Package pool keeps seats ready for persons who need any free desktop at once,
// and gives each of them to one person.
package pool

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"
	_ "time/tzdata" // time zones of schedules, on hosts that have none

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/store"
)

// finalizer holds a pool until its seats are gone.
const finalizer = "pool"

// lookAgain is how often a pool is looked at in which nothing happens: shifts
// begin, and rates fade.
const lookAgain = 20 * time.Second

// lookSoon is how often it is looked at while somebody waits: who joined the
// queue meanwhile is told their place, and what happens on the hosts outside
// the pool is not all told to us.
const lookSoon = 250 * time.Millisecond

// Keeper keeps pools as they are wanted. Who wants a seat joins the queue with
// Connect; the loop alone gives seats out, in the order of the queue.
type Keeper struct {
	Store  *store.Store
	Now    func() time.Time
	Random io.Reader
	Log    *slog.Logger
	Events *control.Recorder // may be nil

	mu    sync.Mutex
	zones map[string]*time.Location // read once: who asks for a zone opens a file
	stuck map[estate.Ref]bool       // pools whose queue nobody can leave now
}

// Loop returns the keeper's loop over pools. Pools are looked at one at a time,
// so that two do not count on the same room.
func (k *Keeper) Loop() *control.Loop {
	return &control.Loop{
		Name: "pool", Store: k.Store, Log: k.Log, Step: k.step, Concerns: k.concerns, Workers: 1,
		Kinds: []estate.Kind{"Pool", "Desktop", "Session", "Blueprint", "Hypervisor"},
	}
}

// concerns returns the pools a change concerns.
func (k *Keeper) concerns(ctx context.Context, changed estate.Resource) []estate.Ref {
	project := changed.Header().Metadata.Project
	one := func(name string) []estate.Ref {
		if name == "" {
			return nil
		}
		return []estate.Ref{{Kind: "Pool", Project: project, Name: name}}
	}
	switch r := changed.(type) {
	case *estate.Pool:
		return one(r.Metadata.Name)
	case *estate.Desktop:
		return one(r.Spec.Pool)
	case *estate.Session:
		refs := one(r.Spec.Pool)
		if r.Spec.Desktop == "" && !over(r) && len(refs) > 0 && k.isStuck(refs[0]) {
			return nil // one more behind all the others: there is no hurry
		}
		return refs
	}
	pools, _, err := store.List[estate.Pool](ctx, k.Store, project)
	if err != nil {
		k.Log.Warn("list pools", "because", changed.Header().Ref().String(), "error", err)
		return nil
	}
	var refs []estate.Ref
	for _, p := range pools {
		refs = append(refs, p.Ref())
	}
	return refs
}

// step brings a pool a little nearer to what is wanted.
func (k *Keeper) step(ctx context.Context, ref estate.Ref) (time.Duration, error) {
	v, err := k.look(ctx, ref)
	if v == nil || err != nil {
		return 0, err
	}
	p := v.pool
	if !p.Metadata.Deleting.IsZero() {
		return 0, k.retire(ctx, v)
	}
	if !slices.Contains(p.Metadata.Finalizers, finalizer) {
		p.Metadata.Finalizers = append(p.Metadata.Finalizers, finalizer)
		return 0, k.Store.Update(ctx, p)
	}
	if err := k.endAsked(ctx, v); err != nil {
		return 0, err
	}
	again, err := k.takeBack(ctx, v)
	if err != nil {
		return 0, err
	}
	k.setStuck(ref, false)
	d := want(v.picture)
	if err := k.serve(ctx, v, d); err != nil {
		return 0, err
	}
	if err := k.refill(ctx, v, d); err != nil {
		return 0, err
	}
	if err := k.tellQueue(ctx, v); err != nil {
		return 0, err
	}
	if err := k.report(ctx, v, d); err != nil {
		return 0, err
	}
	if len(v.queue) > 0 || v.starts > 0 {
		again = min(again, lookSoon)
	}
	k.setStuck(ref, len(v.queue) > 0)
	return again, nil
}

// isStuck reports whether nobody could leave the pool's queue at the last look.
// Those who join it then wait for the next look, which comes soon: looking at
// hundreds anew for each of them would keep the plane from answering them.
func (k *Keeper) isStuck(pool estate.Ref) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stuck[pool]
}

func (k *Keeper) setStuck(pool estate.Ref, stuck bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stuck == nil {
		k.stuck = map[estate.Ref]bool{}
	}
	k.stuck[pool] = stuck
	if !stuck {
		delete(k.stuck, pool)
	}
}

// view is what one step sees of the estate.
type view struct {
	pool      *estate.Pool
	blueprint *estate.Blueprint            // nil when it is gone
	warm      []*estate.Desktop            // seats to give, the oldest first
	making    []*estate.Desktop            // seats without a person that are not ready, the oldest first
	taken     []*estate.Desktop            // seats with a person
	leaving   []*estate.Desktop            // seats that are being destroyed
	visits    map[string][]*estate.Session // of each seat
	queue     []*estate.Session            // who waits, the next first
	done      []*estate.Session            // who waits no more, and never got a seat
	template  string                       // that the newest seat goes on from
	newest    time.Time                    // when that was made
	came      []time.Time                  // when those came who wanted a seat, as far as is known still
	picture
}

// look reads what concerns the pool; nil when it is gone. Seats are read before
// sessions: who came meanwhile has changed the seat, and it is not taken back.
func (k *Keeper) look(ctx context.Context, ref estate.Ref) (*view, error) {
	p, err := store.Get[estate.Pool](ctx, k.Store, ref.Project, ref.Name)
	if errors.Is(err, fault.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	v := &view{pool: p, visits: map[string][]*estate.Session{}}
	desktops, _, err := store.List[estate.Desktop](ctx, k.Store, "")
	if err != nil {
		return nil, err
	}
	sessions, _, err := store.List[estate.Session](ctx, k.Store, "")
	if err != nil {
		return nil, err
	}
	v.sortSeats(desktops)
	v.sortSessions(sessions)
	v.blueprint, err = store.Get[estate.Blueprint](ctx, k.Store, ref.Project, p.Spec.Blueprint)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return nil, err
	}
	v.picture = picture{
		spec: &p.Spec, now: k.Now().In(k.zone(p.Spec.TimeZone)), rate: p.Status.Rate,
		make: makeTime(v, time.Duration(p.Status.Make)), stay: time.Duration(p.Status.Stay),
	}
	v.count()
	return v, k.survey(ctx, v, desktops, sessions)
}

// count brings the numbers of the picture up to what the lists hold.
func (v *view) count() {
	v.picture.warm, v.picture.making = len(v.warm), len(v.making)
	v.picture.taken, v.picture.leaving, v.picture.waiting = len(v.taken), len(v.leaving), len(v.queue)
	v.begun = 0
	for _, d := range v.taken {
		if d.Status.Made.IsZero() {
			v.begun++
		}
	}
}

func (v *view) sortSeats(desktops []*estate.Desktop) {
	for _, d := range desktops {
		switch {
		case d.Spec.Pool != v.pool.Metadata.Name || d.Metadata.Project != v.pool.Metadata.Project:
		case !d.Metadata.Deleting.IsZero():
			v.leaving = append(v.leaving, d)
		case d.Spec.Person != "":
			v.taken = append(v.taken, d)
		case d.Status.State == estate.DesktopWarm:
			v.warm = append(v.warm, d)
		default:
			v.making = append(v.making, d)
		}
	}
	for _, seats := range [][]*estate.Desktop{v.warm, v.making} {
		slices.SortStableFunc(seats, func(a, b *estate.Desktop) int { return a.Metadata.Created.Compare(b.Metadata.Created) })
	}
}

// sortSessions finds who is on which seat, and who waits. First come, first
// served; but who has a seat already stands behind those who have none.
func (v *view) sortSessions(sessions []*estate.Session) {
	has, got := map[string]int{}, map[string]time.Time{}
	for _, d := range v.taken {
		has[d.Spec.Person]++
		got[d.Metadata.Name] = d.Status.Taken
	}
	for _, s := range sessions {
		if s.Spec.Pool != v.pool.Metadata.Name || s.Metadata.Project != v.pool.Metadata.Project {
			continue
		}
		if !s.Metadata.Created.After(got[s.Spec.Desktop]) || s.Spec.Desktop == "" { // not who came back to a seat
			v.came = append(v.came, s.Metadata.Created)
		}
		switch {
		case s.Spec.Desktop != "":
			v.visits[s.Spec.Desktop] = append(v.visits[s.Spec.Desktop], s)
		case over(s):
			v.done = append(v.done, s)
		default:
			v.queue = append(v.queue, s)
		}
	}
	slices.SortStableFunc(v.queue, func(a, b *estate.Session) int {
		if x, y := has[a.Spec.Person], has[b.Spec.Person]; x != y {
			return x - y
		}
		return a.Metadata.Created.Compare(b.Metadata.Created)
	})
}

// over reports whether a session has ended, or is to.
func over(s *estate.Session) bool {
	return s.Status.State == estate.SessionEnded || s.Spec.End || !s.Metadata.Deleting.IsZero()
}

// zone returns the time zone of the name; UTC for one that nobody knows.
func (k *Keeper) zone(name string) *time.Location {
	k.mu.Lock()
	defer k.mu.Unlock()
	if at, known := k.zones[name]; known {
		return at
	}
	at, err := time.LoadLocation(name)
	if err != nil {
		at = time.UTC
	}
	if k.zones == nil {
		k.zones = map[string]*time.Location{}
	}
	k.zones[name] = at
	return at
}

// makeTime is how long a seat takes to make: the median of those there are, or
// what was known before when there are none.
func makeTime(v *view, known time.Duration) time.Duration {
	var all []time.Duration
	for _, seats := range [][]*estate.Desktop{v.warm, v.taken} {
		for _, d := range seats {
			if !d.Status.Made.IsZero() {
				all = append(all, d.Status.Made.Sub(d.Metadata.Created))
			}
		}
	}
	if len(all) == 0 {
		return known
	}
	slices.Sort(all)
	return max(time.Millisecond, all[len(all)/2].Round(time.Millisecond))
}

// retire ends a pool: everybody who waits, every seat, and then itself.
func (k *Keeper) retire(ctx context.Context, v *view) error {
	for _, s := range v.queue {
		if err := k.end(ctx, s, "the pool was deleted"); err != nil {
			return err
		}
	}
	for _, seats := range [][]*estate.Desktop{v.warm, v.making, v.taken} {
		for _, d := range seats {
			if err := k.Store.Delete(ctx, d.Ref(), 0); err != nil {
				return err
			}
		}
	}
	if len(v.warm)+len(v.making)+len(v.taken)+len(v.leaving) > 0 {
		return nil // the last one that goes brings us back
	}
	v.pool.Metadata.Finalizers = slices.DeleteFunc(v.pool.Metadata.Finalizers, func(f string) bool { return f == finalizer })
	return k.Store.Update(ctx, v.pool)
}

// end ends a session that has no seat; nobody else would.
func (k *Keeper) end(ctx context.Context, s *estate.Session, because string) error {
	_, err := store.Modify(ctx, k.Store, s.Metadata.Project, s.Metadata.Name, func(s *estate.Session) error {
		if s.Status.State != estate.SessionEnded && s.Spec.Desktop == "" {
			s.Status.State, s.Status.Ended, s.Status.Because = estate.SessionEnded, k.Now(), because
			s.Status.Waiting, s.Status.Queue = "", nil
		}
		return nil
	})
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

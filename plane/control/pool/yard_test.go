package pool_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/control/lifecycle"
	"consort.dev/consort/plane/control/place"
	"consort.dev/consort/plane/control/pool"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon bounds every wait. What is waited for takes seconds; beside fifty other
// programs it has taken two minutes.
const soon = 6 * time.Minute

const digest = estate.Digest("sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")

// yard is a plane whose loops may be killed and revived, over a store and a host
// that outlive it. The host is played: machines come up after a while.
type yard struct {
	*testing.T
	kv    store.KV
	store *store.Store // outlives the plane, as the tests do
	boot  time.Duration

	mu    sync.Mutex
	plane *life
	host  context.CancelFunc
	done  sync.WaitGroup
}

// life is one life of the plane.
type life struct {
	store *store.Store
	kv    *mortal
	pools *pool.Keeper
	end   context.CancelFunc
	done  sync.WaitGroup
}

// mortal is an engine as one life of the plane sees it: once that is struck
// dead nothing it does gets through, and the answer to what just did is lost.
type mortal struct {
	store.KV
	dead   atomic.Bool
	writes atomic.Int64 // left until it dies, when it is to: just before one, or just after
	before bool
	struck chan struct{} // closed when it died of a write
}

var errDead = fault.Unavailable.Errorf("the plane was killed")

// Commit implements store.KV. Whoever else is at work goes first now and then,
// as where reading and writing take their time.
func (m *mortal) Commit(ctx context.Context, t store.Txn) (int64, error) {
	runtime.Gosched()
	last := m.writes.Add(-1) == 0
	if last && m.before {
		m.strike()
	}
	if m.dead.Load() {
		return 0, errDead
	}
	revision, err := m.KV.Commit(ctx, t)
	if last {
		m.strike()
	}
	if m.dead.Load() {
		return 0, errDead
	}
	return revision, err
}

func (m *mortal) strike() {
	if !m.dead.Swap(true) {
		close(m.struck)
	}
}

// doom has the life end at one of its next writes.
func (m *mortal) doom(writes int, before bool) {
	m.before = before
	m.writes.Store(int64(writes))
}

// Get implements store.KV.
func (m *mortal) Get(ctx context.Context, key string) (store.Entry, error) {
	defer runtime.Gosched()
	if m.dead.Load() {
		return store.Entry{}, errDead
	}
	return m.KV.Get(ctx, key)
}

// List implements store.KV.
func (m *mortal) List(ctx context.Context, prefix, after string, limit int) (store.Page, error) {
	defer runtime.Gosched()
	return m.KV.List(ctx, prefix, after, limit)
}

// Close implements store.KV: the engine outlives this life.
func (m *mortal) Close() error { return nil }

func newYard(t *testing.T, boot time.Duration, memory estate.Bytes) *yard {
	t.Helper()
	y := &yard{T: t, kv: mem.Open(mem.Options{}), boot: boot}
	y.store = store.New(y.kv, store.Options{})
	y.create("Project", "", "p", nil)
	y.create("Hypervisor", "", "here", func(r estate.Resource) {
		s := &r.(*estate.Hypervisor).Status
		s.State, s.Capacity = estate.HypervisorReady, estate.Capacity{CPUs: 4, Memory: memory, Disk: estate.TiB}
		s.Free = s.Capacity
		s.Capabilities = []estate.CapabilityReport{{Name: estate.CanDisplay, Has: true, Value: "rfb"}, {Name: estate.CanPause, Has: true}, {Name: estate.CanEncryptDisk, Has: true}}
	})
	y.create("Image", "p", "system", func(r estate.Resource) {
		m := r.(*estate.Image)
		m.Status.Digest, m.Status.Guest = digest, estate.GuestFacts{OS: "debian-12", Agent: true, Screen: true}
	})
	y.create("Context", "p", "work", func(r estate.Resource) { r.(*estate.Context).Spec.Colour = "#112233" })
	y.create("Blueprint", "p", "task", func(r estate.Resource) {
		r.(*estate.Blueprint).Spec = estate.BlueprintSpec{Image: "system", Presentation: "screen", Context: "work", Size: estate.Size{CPUs: 1, Memory: estate.GiB}}
	})
	ctx, cancel := context.WithCancel(context.Background())
	y.host = cancel
	y.done.Go(func() { y.play(ctx) })
	y.revive()
	t.Cleanup(func() {
		y.kill()
		cancel()
		y.done.Wait()
		y.store.Close()
	})
	return y
}

func (y *yard) must(err error) {
	y.Helper()
	if err != nil {
		y.Fatal(err)
	}
}

func (y *yard) create(kind estate.Kind, project, name string, fill func(estate.Resource)) {
	y.Helper()
	info, _ := estate.KindNamed(string(kind))
	r := info.NewNamed(project, name)
	if fill != nil {
		fill(r)
	}
	y.must(y.store.Create(y.Context(), r))
}

func (y *yard) pool(name string, change func(*estate.PoolSpec)) {
	y.Helper()
	y.create("Pool", "p", name, func(r estate.Resource) {
		s := &r.(*estate.Pool).Spec
		s.Blueprint, s.Maximum = "task", 10
		change(s)
	})
}

// revive starts a new life of the plane.
func (y *yard) revive() {
	kv := &mortal{KV: y.kv, struck: make(chan struct{})}
	l := &life{kv: kv, store: store.New(kv, store.Options{})}
	quiet := slog.New(slog.DiscardHandler)
	events := func(by string) *control.Recorder {
		return &control.Recorder{Store: l.store, Now: time.Now, By: by, Log: quiet}
	}
	l.pools = &pool.Keeper{Store: l.store, Now: time.Now, Random: rand.Reader, Log: quiet, Events: events("pool")}
	keeper := &lifecycle.Keeper{
		Store: l.store, Now: time.Now, Log: quiet,
		Presentations: []estate.PresentationOffer{{Name: "screen", Protocol: "rfb", Keeps: true}},
	}
	placer := &place.Placer{Store: l.store, Now: time.Now, Log: quiet, Alive: func(context.Context, string) (bool, error) { return true, nil }}
	ctx, end := context.WithCancel(context.Background())
	l.end = end
	for _, loop := range append(placer.Loops(), keeper.Loop(), l.pools.Loop()) {
		l.done.Go(func() { _ = loop.Run(ctx) })
	}
	y.mu.Lock()
	y.plane = l
	y.mu.Unlock()
}

// kill ends the plane's life in the middle of whatever it does.
func (y *yard) kill() { y.alive().kill() }

func (l *life) kill() {
	l.kv.strike()
	l.end()
	l.done.Wait()
	l.store.Close()
}

func (y *yard) alive() *life {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.plane
}

// play plays the host and its agent: a machine that is wanted comes up, stands
// still when it should, and goes when it is deleted.
func (y *yard) play(ctx context.Context) {
	machines, from, err := store.List[estate.Machine](ctx, y.store, "")
	if err != nil || len(machines) > 0 {
		panic("the host begins with the yard")
	}
	events, err := y.store.Watch(ctx, from, "Machine")
	if err != nil {
		return
	}
	var booting sync.WaitGroup
	defer booting.Wait()
	busy := map[string]bool{}
	for e := range events {
		m := e.Object.(*estate.Machine)
		switch {
		case e.Deleted:
		case !m.Metadata.Deleting.IsZero():
			y.change(ctx, m, func(m *estate.Machine) { m.Metadata.Finalizers = nil })
		case m.Spec.Hypervisor == "" || m.Spec.Power == m.Status.Power || m.Spec.Power == estate.Off:
		case m.Status.Power == "" && !busy[m.Metadata.UID]:
			busy[m.Metadata.UID] = true
			booting.Go(func() {
				select {
				case <-time.After(y.boot):
					y.change(ctx, m, func(m *estate.Machine) {
						m.Status.Power, m.Status.Display, m.Status.Hypervisor = estate.On, "rfb", "here"
						m.Status.Guest = estate.GuestStatus{Agent: true, Desktop: true, Own: true}
					})
				case <-ctx.Done():
				}
			})
		case m.Status.Power != "":
			y.change(ctx, m, func(m *estate.Machine) {
				if m.Status.Power != "" && m.Spec.Power != estate.Off {
					m.Status.Power = m.Spec.Power
				}
			})
		}
	}
}

func (y *yard) change(ctx context.Context, m *estate.Machine, change func(*estate.Machine)) {
	_, err := store.Modify(ctx, y.store, m.Metadata.Project, m.Metadata.Name, func(now *estate.Machine) error {
		if now.Metadata.UID == m.Metadata.UID {
			change(now)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil && !errors.Is(err, fault.NotFound) {
		y.Errorf("the host: %v", err)
	}
}

// connect asks for a seat as a browser does, again when the plane is dead.
func (y *yard) connect(ctx context.Context, poolName, person string) (*estate.Session, error) {
	for {
		s, _, err := y.alive().pools.Connect(ctx, estate.Ref{Kind: "Pool", Project: "p", Name: poolName}, person, api.ConnectRequest{})
		if err == nil || !errors.Is(err, errDead) && !errors.Is(err, fault.Conflict) {
			return s, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// leave ends a session, as its person does.
func (y *yard) leave(session string) {
	y.Helper()
	_, err := store.Modify(y.Context(), y.store, "p", session, func(s *estate.Session) error { s.Spec.End = true; return nil })
	if !errors.Is(err, fault.NotFound) {
		y.must(err)
	}
}

// until waits until something is so.
func (y *yard) until(what string, so func() bool) {
	y.Helper()
	for end := time.Now().Add(soon); !so(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			y.Fatalf("not so after %s: %s\n%s", soon, what, y.tell())
		}
	}
}

// session returns the session as it is now, which must be there.
func (y *yard) session(name string) *estate.Session {
	y.Helper()
	s, err := store.Get[estate.Session](y.Context(), y.store, "p", name)
	y.must(err)
	return s
}

func (y *yard) status(name string) estate.PoolStatus {
	y.Helper()
	p, err := store.Get[estate.Pool](y.Context(), y.store, "p", name)
	y.must(err)
	return p.Status
}

func (y *yard) seats() []*estate.Desktop {
	y.Helper()
	all, _, err := store.List[estate.Desktop](y.Context(), y.store, "p")
	y.must(err)
	return all
}

// Package control is what every loop of the plane is made of: watch, compare,
// take one step that may be repeated, and look again.
package control

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// Step brings the object a little nearer to what is wanted. It may be called
// at any time, for an object that is gone too, and after a crash in the middle
// of itself. A positive again asks for another look after that time.
type Step func(ctx context.Context, ref estate.Ref) (again time.Duration, err error)

// Loop calls Step for the objects that a change concerns: one call at a time
// for one object, several objects side by side.
type Loop struct {
	Name  string
	Store *store.Store
	Kinds []estate.Kind // what is watched
	// Concerns returns the objects to look at because of a changed one.
	Concerns func(ctx context.Context, changed estate.Resource) []estate.Ref
	Step     Step
	Workers  int // 2 when 0
	Log      *slog.Logger
}

// Backoff after a failed step: doubles from first to most.
const (
	firstRetry = 200 * time.Millisecond
	mostRetry  = 15 * time.Second
)

// Run runs the loop until ctx ends. It starts with a look at everything.
func (l *Loop) Run(ctx context.Context) error {
	q := newQueue()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer q.close()
	for range cmp.Or(l.Workers, 2) {
		wg.Go(func() { l.work(ctx, q) })
	}
	for ctx.Err() == nil {
		if err := l.follow(ctx, q); err != nil && ctx.Err() == nil {
			l.Log.Warn("watch broke; listing again", "loop", l.Name, "error", err)
			pause(ctx, time.Second)
		}
	}
	return ctx.Err()
}

// follow lists every watched kind, then follows changes until the watch ends.
func (l *Loop) follow(ctx context.Context, q *queue) error {
	var from int64
	for i, kind := range l.Kinds {
		for after := ""; ; {
			objects, revision, more, err := l.Store.Page(ctx, kind, "", after, 500)
			if err != nil {
				return err
			}
			if i == 0 && after == "" {
				from = revision
			}
			for _, o := range objects {
				q.add(l.Concerns(ctx, o)...)
				after = store.Cursor(o.Header().Ref())
			}
			if !more {
				break
			}
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := l.Store.Watch(ctx, from, l.Kinds...)
	if err != nil {
		return err
	}
	for e := range events {
		q.add(l.Concerns(ctx, e.Object)...)
	}
	return fault.Unavailable.Errorf("watch of loop %s ended", l.Name)
}

// work takes objects from the queue until it is closed.
func (l *Loop) work(ctx context.Context, q *queue) {
	for {
		ref, ok := q.take()
		if !ok {
			return
		}
		again, err := l.Step(ctx, ref)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			q.done(ref, again)
		case errors.Is(err, fault.Conflict):
			q.done(ref, time.Millisecond) // somebody wrote first: look again
		default:
			l.Log.Warn("step", "loop", l.Name, "object", ref.String(), "error", err)
			q.failed(ref)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// queue holds each object at most once, gives one out to one worker at a time,
// and brings failed ones back later and later.
type queue struct {
	mu      sync.Mutex
	wake    *sync.Cond
	waiting []estate.Ref
	queued  map[estate.Ref]bool // in waiting
	busy    map[estate.Ref]bool // with a worker
	dirty   map[estate.Ref]bool // changed while with a worker
	fails   map[estate.Ref]int
	timers  map[estate.Ref]*time.Timer
	closed  bool
}

func newQueue() *queue {
	q := &queue{
		queued: map[estate.Ref]bool{}, busy: map[estate.Ref]bool{}, dirty: map[estate.Ref]bool{},
		fails: map[estate.Ref]int{}, timers: map[estate.Ref]*time.Timer{},
	}
	q.wake = sync.NewCond(&q.mu)
	return q
}

func (q *queue) add(refs ...estate.Ref) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range refs {
		q.addLocked(r)
	}
}

func (q *queue) addLocked(r estate.Ref) {
	switch {
	case q.closed || q.queued[r]:
	case q.busy[r]:
		q.dirty[r] = true
	default:
		q.queued[r] = true
		q.waiting = append(q.waiting, r)
		q.wake.Signal()
	}
}

func (q *queue) take() (estate.Ref, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && !q.closed {
		q.wake.Wait()
	}
	if q.closed {
		return estate.Ref{}, false
	}
	r := q.waiting[0]
	q.waiting = q.waiting[1:]
	delete(q.queued, r)
	q.busy[r] = true
	return r, true
}

// done returns an object that needs another look after again, if positive.
func (q *queue) done(r estate.Ref, again time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.fails, r)
	q.release(r, again)
}

// failed returns an object whose step failed.
func (q *queue) failed(r estate.Ref) {
	q.mu.Lock()
	defer q.mu.Unlock()
	wait := min(firstRetry<<min(q.fails[r], 10), mostRetry)
	q.fails[r]++
	q.release(r, wait)
}

func (q *queue) release(r estate.Ref, again time.Duration) {
	delete(q.busy, r)
	if q.dirty[r] {
		delete(q.dirty, r)
		q.addLocked(r)
		return
	}
	if old := q.timers[r]; old != nil {
		old.Stop()
		delete(q.timers, r)
	}
	if again > 0 && !q.closed {
		q.timers[r] = time.AfterFunc(again, func() { q.add(r) })
	}
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, t := range q.timers {
		t.Stop()
	}
	q.wake.Broadcast()
}

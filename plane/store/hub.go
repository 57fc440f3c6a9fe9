package store

import (
	"context"
	"slices"
	"sync"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// kept is how many events the hub holds for watchers that resume.
const kept = 4096

// Event is a change of one object.
type Event struct {
	Revision int64
	Deleted  bool
	// Object is what was stored, or what was deleted. All watchers share it:
	// read it, never change it. Of an object whose last value the engine no
	// longer keeps, a deletion has kind, project and name only.
	Object estate.Resource
}

// Watch delivers every change of the kinds (all when none is named) after the
// revision, in order. A revision that is no longer kept is fault.Stale. The
// channel is closed when ctx ends, when the watcher fell behind what is kept,
// or when the engine is lost: list again, then watch from there.
//
// One engine watch serves all watchers, so that many of them cost a write
// nothing.
func (s *Store) Watch(ctx context.Context, after int64, kinds ...estate.Kind) (<-chan Event, error) {
	w := &watcher{after: after, wake: make(chan struct{}, 1), out: make(chan Event)}
	for _, k := range kinds {
		info, ok := estate.KindNamed(string(k))
		if !ok {
			return nil, fault.Invalid.Errorf("watch: %q is not a kind", k)
		}
		w.kinds = append(w.kinds, info.Kind)
	}
	if err := s.hub.join(ctx, w); err != nil {
		return nil, fault.KindOf(err).Errorf("watch from revision %d: %w", after, err)
	}
	go s.hub.serve(ctx, w)
	return w.out, nil
}

// hub passes the batches of one engine watch on to its watchers. It starts
// with the first watcher and starts anew after the engine watch was lost.
type hub struct {
	kv     KV
	ctx    context.Context // ends with the store
	cancel context.CancelFunc
	ready  chan struct{} // holds a token while nobody is starting a run

	mu  sync.Mutex
	run *run
}

// run is the life of one engine watch.
type run struct {
	events   []Event // the newest, at most kept
	dropped  int     // events that came before these
	floor    int64   // every event after this revision is still here
	watchers map[*watcher]bool
	ended    chan struct{}
}

type watcher struct {
	kinds []estate.Kind
	after int64
	next  int // number of the next event to look at
	run   *run
	wake  chan struct{}
	out   chan Event
}

func (w *watcher) wants(k estate.Kind) bool {
	return len(w.kinds) == 0 || slices.Contains(w.kinds, k)
}

func newHub(kv KV) *hub {
	h := &hub{kv: kv, ready: make(chan struct{}, 1)}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.ready <- struct{}{}
	return h
}

func (h *hub) close() { h.cancel() }

// join adds the watcher to the run, which it starts when there is none.
func (h *hub) join(ctx context.Context, w *watcher) error {
	select {
	case <-h.ready:
	case <-ctx.Done():
		return fault.Unavailable.Errorf("%w", ctx.Err())
	case <-h.ctx.Done():
		return fault.Unavailable.Errorf("the store is closed")
	}
	defer func() { h.ready <- struct{}{} }()
	h.mu.Lock()
	alive := h.run != nil
	h.mu.Unlock()
	if !alive {
		if err := h.start(ctx, w.after); err != nil {
			return err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.run == nil:
		return fault.Unavailable.Errorf("the engine ended the watch")
	case w.after < h.run.floor:
		return fault.Stale.Errorf("it is no longer kept; list again")
	}
	w.run, w.next = h.run, h.run.dropped
	w.run.watchers[w] = true
	return nil
}

// start opens the engine watch some way back, so that clients which come back
// after a restart can resume.
func (h *hub) start(ctx context.Context, after int64) error {
	page, err := h.kv.List(ctx, root, "", 1)
	if err != nil {
		return err
	}
	floor := max(0, min(after, page.Revision-kept))
	batches, err := h.kv.Watch(h.ctx, root, floor)
	if fault.KindOf(err) == fault.Stale {
		floor = min(after, page.Revision)
		batches, err = h.kv.Watch(h.ctx, root, floor)
	}
	if err != nil {
		return err
	}
	r := &run{floor: floor, watchers: map[*watcher]bool{}, ended: make(chan struct{})}
	h.mu.Lock()
	h.run = r
	h.mu.Unlock()
	go h.pump(r, batches)
	return nil
}

// pump takes batches in and wakes whom they concern.
func (h *hub) pump(r *run, batches <-chan Batch) {
	for b := range batches {
		events := make([]Event, 0, len(b.Changes))
		for _, c := range b.Changes {
			obj, err := decode(c.Entry)
			if err != nil {
				continue // not an object we know: a newer version's kind
			}
			obj.Header().Metadata.Version = b.Revision
			events = append(events, Event{b.Revision, c.Deleted, obj})
		}
		h.mu.Lock()
		r.events = append(r.events, events...)
		if over := len(r.events) - kept; over > kept/4 {
			r.floor = r.events[over-1].Revision
			r.events = slices.Clone(r.events[over:])
			r.dropped += over
		}
		for w := range r.watchers {
			if slices.ContainsFunc(events, func(e Event) bool { return w.wants(e.Object.Header().Kind) }) {
				select {
				case w.wake <- struct{}{}:
				default:
				}
			}
		}
		h.mu.Unlock()
	}
	h.mu.Lock()
	h.run = nil
	h.mu.Unlock()
	close(r.ended)
}

// serve delivers to one watcher until it ends.
func (h *hub) serve(ctx context.Context, w *watcher) {
	defer close(w.out)
	defer func() {
		h.mu.Lock()
		delete(w.run.watchers, w)
		h.mu.Unlock()
	}()
	for {
		events, ok := h.take(w)
		if !ok {
			return
		}
		for _, e := range events {
			select {
			case w.out <- e:
			case <-ctx.Done():
				return
			case <-w.run.ended:
				return
			}
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return
		case <-w.run.ended:
			return
		}
	}
}

// take returns the next events for the watcher; ok is false when it fell
// behind what is kept.
func (h *hub) take(w *watcher) (events []Event, ok bool) {
	const most = 256
	h.mu.Lock()
	defer h.mu.Unlock()
	if w.next < w.run.dropped {
		return nil, false
	}
	for ; w.next-w.run.dropped < len(w.run.events) && len(events) < most; w.next++ {
		e := w.run.events[w.next-w.run.dropped]
		if e.Revision > w.after && w.wants(e.Object.Header().Kind) {
			events = append(events, e)
		}
	}
	return events, true
}

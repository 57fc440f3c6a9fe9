// Package mem is a store engine in memory, for tests and for trying things out.
package mem

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// maxValue is the most bytes a value has.
const maxValue = 1 << 20

// Options are what an engine is given. The zero Options will do.
type Options struct {
	Now  func() time.Time // the clock of leases; time.Now when nil
	Kept int              // how many revisions a watch can go back; 10,000 when 0
}

// KV is the engine.
type KV struct {
	now  func() time.Time
	kept int

	mu       sync.Mutex
	closed   bool
	revision int64
	keys     []string // sorted
	entries  map[string]store.Entry
	history  []store.Batch
	floor    int64 // history begins after this revision
	leases   map[store.LeaseID]*lease
	lastID   store.LeaseID
	timer    *time.Timer
	changed  chan struct{} // closed, and made anew, at every change
	watches  sync.WaitGroup
}

var _ store.KV = (*KV)(nil)

type lease struct {
	ttl  time.Duration
	ends time.Time
	keys map[string]bool
}

// Open returns an empty engine.
func Open(o Options) *KV {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Kept == 0 {
		o.Kept = 10_000
	}
	return &KV{
		now: o.Now, kept: o.Kept, revision: 1,
		entries: map[string]store.Entry{},
		leases:  map[store.LeaseID]*lease{},
		changed: make(chan struct{}),
	}
}

// enter locks the engine, unless it is closed or the caller gave up. Leases
// that have run out are gone afterwards.
func (k *KV) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fault.Unavailable.Errorf("memory store: %w", err)
	}
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return fault.Unavailable.Errorf("memory store: it is closed")
	}
	k.expire()
	return nil
}

// Get implements store.KV.
func (k *KV) Get(ctx context.Context, key string) (store.Entry, error) {
	if err := k.enter(ctx); err != nil {
		return store.Entry{}, err
	}
	defer k.mu.Unlock()
	e, ok := k.entries[key]
	if !ok {
		return store.Entry{}, fault.NotFound.Errorf("no key %s", key)
	}
	e.Value = slices.Clone(e.Value)
	return e, nil
}

// List implements store.KV.
func (k *KV) List(ctx context.Context, prefix, after string, limit int) (store.Page, error) {
	if err := k.enter(ctx); err != nil {
		return store.Page{}, err
	}
	defer k.mu.Unlock()
	page := store.Page{Revision: k.revision}
	i, _ := slices.BinarySearch(k.keys, max(prefix, after))
	for ; i < len(k.keys) && strings.HasPrefix(k.keys[i], prefix); i++ {
		if k.keys[i] <= after {
			continue
		}
		if limit > 0 && len(page.Entries) == limit {
			page.More = true
			break
		}
		e := k.entries[k.keys[i]]
		e.Value = slices.Clone(e.Value)
		page.Entries = append(page.Entries, e)
	}
	return page, nil
}

// Commit implements store.KV.
func (k *KV) Commit(ctx context.Context, t store.Txn) (int64, error) {
	for _, w := range t.Then {
		if len(w.Value) > maxValue {
			return 0, fault.Invalid.Errorf("%s: a value of %d bytes; at most %d", w.Key, len(w.Value), maxValue)
		}
	}
	if err := k.enter(ctx); err != nil {
		return 0, err
	}
	defer k.mu.Unlock()
	for _, c := range t.If {
		if k.entries[c.Key].Revision != c.Revision {
			return 0, fault.Conflict.Errorf("%s is at revision %d, not %d", c.Key, k.entries[c.Key].Revision, c.Revision)
		}
	}
	for _, w := range t.Then {
		if k.leases[w.Lease] == nil && w.Lease != 0 {
			return 0, fault.NotFound.Errorf("no lease %d", w.Lease)
		}
	}
	k.apply(t.Then)
	return k.revision, nil
}

// apply does the writes at a new revision, if they change anything.
func (k *KV) apply(writes []store.Write) {
	b := store.Batch{Revision: k.revision + 1}
	for _, w := range writes {
		old, had := k.entries[w.Key]
		if l := k.leases[old.Lease]; l != nil {
			delete(l.keys, w.Key)
		}
		i, _ := slices.BinarySearch(k.keys, w.Key)
		switch {
		case w.Delete && !had:
			continue
		case w.Delete:
			k.keys = slices.Delete(k.keys, i, i+1)
			delete(k.entries, w.Key)
			b.Changes = append(b.Changes, store.Change{
				Entry:   store.Entry{Key: w.Key, Value: old.Value, Revision: b.Revision},
				Deleted: true,
			})
			continue
		case !had:
			k.keys = slices.Insert(k.keys, i, w.Key)
		}
		e := store.Entry{Key: w.Key, Value: slices.Clone(w.Value), Revision: b.Revision, Lease: w.Lease}
		k.entries[w.Key] = e
		if l := k.leases[w.Lease]; l != nil {
			l.keys[w.Key] = true
		}
		b.Changes = append(b.Changes, store.Change{Entry: e})
	}
	if len(b.Changes) == 0 {
		return
	}
	k.revision = b.Revision
	k.history = append(k.history, b)
	if over := len(k.history) - k.kept; over > k.kept/4 {
		k.forget(k.history[over-1].Revision)
	}
	k.wake()
}

func (k *KV) wake() {
	close(k.changed)
	k.changed = make(chan struct{})
}

// forget drops the history up to the revision.
func (k *KV) forget(revision int64) {
	i, _ := slices.BinarySearchFunc(k.history, revision+1, func(b store.Batch, r int64) int { return int(b.Revision - r) })
	k.history = slices.Clone(k.history[i:])
	k.floor = max(k.floor, revision)
}

// Compact drops the history up to the revision: a watch from before it is stale.
func (k *KV) Compact(ctx context.Context, revision int64) error {
	if err := k.enter(ctx); err != nil {
		return err
	}
	defer k.mu.Unlock()
	k.forget(min(revision, k.revision))
	return nil
}

// Watch implements store.KV.
func (k *KV) Watch(ctx context.Context, prefix string, after int64) (<-chan store.Batch, error) {
	if err := k.enter(ctx); err != nil {
		return nil, err
	}
	defer k.mu.Unlock()
	if after < k.floor {
		return nil, fault.Stale.Errorf("revision %d is no longer kept; the oldest is %d", after, k.floor)
	}
	out := make(chan store.Batch)
	k.watches.Go(func() {
		defer close(out)
		k.follow(ctx, prefix, after, out)
	})
	return out, nil
}

// follow delivers batches until the watch ends.
func (k *KV) follow(ctx context.Context, prefix string, after int64, out chan<- store.Batch) {
	for {
		k.mu.Lock()
		if k.closed || after < k.floor {
			k.mu.Unlock()
			return
		}
		i, _ := slices.BinarySearchFunc(k.history, after+1, func(b store.Batch, r int64) int { return int(b.Revision - r) })
		batches, changed, closed := slices.Clone(k.history[i:min(i+64, len(k.history))]), k.changed, k.closed
		k.mu.Unlock()
		if closed {
			return
		}
		for _, b := range batches {
			after = b.Revision
			if b = only(b, prefix); len(b.Changes) == 0 {
				continue
			}
			if !k.deliver(ctx, b, out) {
				return
			}
		}
		if len(batches) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// deliver hands one batch over; false when ctx or the engine ended first.
func (k *KV) deliver(ctx context.Context, b store.Batch, out chan<- store.Batch) bool {
	for {
		k.mu.Lock()
		changed, closed := k.changed, k.closed
		k.mu.Unlock()
		if closed {
			return false
		}
		select {
		case out <- b:
			return true
		case <-ctx.Done():
			return false
		case <-changed: // perhaps by Close
		}
	}
}

// only returns the part of a batch that is under the prefix.
func only(b store.Batch, prefix string) store.Batch {
	part := store.Batch{Revision: b.Revision}
	for _, c := range b.Changes {
		if strings.HasPrefix(c.Key, prefix) {
			c.Value = slices.Clone(c.Value)
			part.Changes = append(part.Changes, c)
		}
	}
	return part
}

// Close implements store.KV.
func (k *KV) Close() error {
	k.mu.Lock()
	if !k.closed {
		k.closed = true
		if k.timer != nil {
			k.timer.Stop()
		}
		k.wake()
	}
	k.mu.Unlock()
	k.watches.Wait()
	return nil
}

package mem

import (
	"context"
	"slices"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// Lease implements store.KV.
func (k *KV) Lease(ctx context.Context, ttl time.Duration) (store.LeaseID, error) {
	if ttl <= 0 {
		return 0, fault.Invalid.Errorf("a lease of %s", ttl)
	}
	if err := k.enter(ctx); err != nil {
		return 0, err
	}
	defer k.mu.Unlock()
	ttl = (ttl + time.Second - 1).Truncate(time.Second)
	k.lastID++
	k.leases[k.lastID] = &lease{ttl: ttl, ends: k.now().Add(ttl), keys: map[string]bool{}}
	k.arm()
	return k.lastID, nil
}

// KeepAlive implements store.KV.
func (k *KV) KeepAlive(ctx context.Context, id store.LeaseID) error {
	if err := k.enter(ctx); err != nil {
		return err
	}
	defer k.mu.Unlock()
	l := k.leases[id]
	if l == nil {
		return fault.NotFound.Errorf("no lease %d", id)
	}
	l.ends = k.now().Add(l.ttl)
	return nil
}

// Revoke implements store.KV.
func (k *KV) Revoke(ctx context.Context, id store.LeaseID) error {
	if err := k.enter(ctx); err != nil {
		return err
	}
	defer k.mu.Unlock()
	k.end(id)
	return nil
}

// end deletes the lease and its keys in one revision.
func (k *KV) end(id store.LeaseID) {
	l := k.leases[id]
	if l == nil {
		return
	}
	var writes []store.Write
	for key := range l.keys {
		writes = append(writes, store.Write{Key: key, Delete: true})
	}
	slices.SortFunc(writes, func(a, b store.Write) int {
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	k.apply(writes)
	delete(k.leases, id)
}

// expire ends the leases that have run out.
func (k *KV) expire() {
	now := k.now()
	for id, l := range k.leases {
		if !l.ends.After(now) {
			k.end(id)
		}
	}
}

// arm makes the next lease run out by itself, so that watchers learn of it
// while nobody calls.
func (k *KV) arm() {
	if k.timer != nil {
		k.timer.Stop()
	}
	if k.closed || len(k.leases) == 0 {
		return
	}
	var next time.Time
	for _, l := range k.leases {
		if next.IsZero() || l.ends.Before(next) {
			next = l.ends
		}
	}
	// A clock that stands still must not make this spin.
	k.timer = time.AfterFunc(max(next.Sub(k.now()), 10*time.Millisecond), func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if !k.closed {
			k.expire()
			k.arm()
		}
	})
}

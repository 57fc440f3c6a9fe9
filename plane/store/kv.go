// Package store keeps the estate: typed objects over a small contract of keys,
// compare-and-swap, watch and leases.
package store

import (
	"context"
	"time"
)

// KV is what a store engine does. Engines are proved by package storetest.
// Keys are clean slash-separated paths; values are at most 1 MiB. Revisions
// grow with every commit and never repeat. Every method returns promptly when
// its context ends.
type KV interface {
	// Get returns the entry under the key, or fault.NotFound.
	Get(ctx context.Context, key string) (Entry, error)

	// List returns the entries whose keys begin with prefix and sort after
	// after, in key order, at most limit (all when 0), and the revision they
	// were read at. more says that some were left off.
	List(ctx context.Context, prefix, after string, limit int) (page Page, err error)

	// Commit does all writes or none, at one new revision. Any comparison that
	// fails is fault.Conflict and nothing is written. A reply that was lost is
	// fault.OutcomeUnknown: read again. A lease that has run out is fault.NotFound.
	Commit(ctx context.Context, t Txn) (revision int64, err error)

	// Watch delivers every change of the prefix after the revision, in order,
	// each revision whole. It ends by closing the channel: when ctx ends, or
	// when it fell behind what is kept; the watcher then lists again. A revision
	// that is no longer kept is fault.Stale.
	Watch(ctx context.Context, prefix string, after int64) (<-chan Batch, error)

	// Lease grants a lease that runs out after ttl, rounded up to a second,
	// unless kept alive; its keys go with it.
	Lease(ctx context.Context, ttl time.Duration) (LeaseID, error)

	// KeepAlive renews the lease; one that has run out is fault.NotFound.
	KeepAlive(ctx context.Context, id LeaseID) error

	// Revoke ends the lease and deletes its keys. An unknown one is success.
	Revoke(ctx context.Context, id LeaseID) error

	// Close frees what the engine holds. Watches end.
	Close() error
}

// Entry is a value under a key.
type Entry struct {
	Key      string
	Value    []byte
	Revision int64 // of its last change
	Lease    LeaseID
}

// Page is part of a listing.
type Page struct {
	Entries  []Entry
	Revision int64
	More     bool
}

// LeaseID names a lease; 0 is none.
type LeaseID int64

// Txn is a set of writes that happen together if every comparison holds.
type Txn struct {
	If   []Compare
	Then []Write
}

// Compare holds when the key's last revision is Revision; 0 means the key is
// absent.
type Compare struct {
	Key      string
	Revision int64
}

// Write puts a value under a key, or deletes the key.
type Write struct {
	Key    string
	Value  []byte
	Delete bool
	Lease  LeaseID
}

// Batch is what one commit changed under a watched prefix.
type Batch struct {
	Revision int64
	Changes  []Change
}

// Change is a key that was put, or deleted. The value of a deletion is what was
// deleted, or nothing when that is no longer kept.
type Change struct {
	Entry
	Deleted bool
}

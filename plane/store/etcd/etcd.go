// Package etcd is the store engine of production: etcd inside the process, or
// a cluster of your own.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"math"
	"sync"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// maxValue is the most bytes a value has. etcd's own limit is on a whole
// request: 1.5 MiB unless its operator says otherwise.
const maxValue = 1 << 20

// Config is how a cluster is reached.
type Config struct {
	Endpoints []string // as https://10.0.0.1:2379
	TLS       *tls.Config
	User      string
	Password  string
}

// KV is the engine.
type KV struct {
	client  *clientv3.Client
	stop    func() error // ends the embedded server; nil outside it
	done    chan struct{}
	once    sync.Once
	err     error
	watches sync.WaitGroup
}

var _ store.KV = (*KV)(nil)

// Open connects to a cluster and waits until it answers or ctx ends, which is
// fault.Unavailable.
func Open(ctx context.Context, c Config) (*KV, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: c.Endpoints, TLS: c.TLS, Username: c.User, Password: c.Password,
		DialTimeout:       5 * time.Second,
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
		AutoSyncInterval: time.Minute,
		Logger:           quiet(),
	})
	if err != nil {
		return nil, fault.Unavailable.Errorf("connect to etcd at %v: %w", c.Endpoints, err)
	}
	if _, err := client.Get(ctx, "/consort"); err != nil {
		client.Close()
		return nil, fault.Unavailable.Errorf("reach etcd at %v: %w; see that it runs and that the certificates fit", c.Endpoints, err)
	}
	return &KV{client: client, done: make(chan struct{})}, nil
}

// Get implements store.KV.
func (k *KV) Get(ctx context.Context, key string) (store.Entry, error) {
	r, err := k.client.Get(ctx, key)
	if err != nil {
		return store.Entry{}, k.read(ctx, err)
	}
	if len(r.Kvs) == 0 {
		return store.Entry{}, fault.NotFound.Errorf("no key %s", key)
	}
	e := r.Kvs[0]
	return store.Entry{Key: string(e.Key), Value: e.Value, Revision: e.ModRevision, Lease: store.LeaseID(e.Lease)}, nil
}

// List implements store.KV.
func (k *KV) List(ctx context.Context, prefix, after string, limit int) (store.Page, error) {
	from := prefix
	if after >= prefix {
		from = after + "\x00"
	}
	end := clientv3.GetPrefixRangeEnd(prefix)
	if end != "\x00" && from >= end {
		from = end // past the prefix: an empty range, and a revision all the same
	}
	if from == "" {
		from = "\x00"
	}
	if from == end {
		r, err := k.client.Get(ctx, from, clientv3.WithCountOnly())
		if err != nil {
			return store.Page{}, k.read(ctx, err)
		}
		return store.Page{Revision: r.Header.Revision}, nil
	}
	r, err := k.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(int64(limit)))
	if err != nil {
		return store.Page{}, k.read(ctx, err)
	}
	page := store.Page{Revision: r.Header.Revision, More: r.More, Entries: make([]store.Entry, len(r.Kvs))}
	for i, e := range r.Kvs {
		page.Entries[i] = store.Entry{Key: string(e.Key), Value: e.Value, Revision: e.ModRevision, Lease: store.LeaseID(e.Lease)}
	}
	return page, nil
}

// Commit implements store.KV.
func (k *KV) Commit(ctx context.Context, t store.Txn) (int64, error) {
	if err := k.refuse(ctx); err != nil {
		return 0, err
	}
	var cmps []clientv3.Cmp
	for _, c := range t.If {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(c.Key), "=", c.Revision))
	}
	var ops []clientv3.Op
	for _, w := range t.Then {
		switch {
		case len(w.Value) > maxValue:
			return 0, fault.Invalid.Errorf("%s: a value of %d bytes; at most %d", w.Key, len(w.Value), maxValue)
		case w.Delete:
			ops = append(ops, clientv3.OpDelete(w.Key))
		default:
			ops = append(ops, clientv3.OpPut(w.Key, string(w.Value), clientv3.WithLease(clientv3.LeaseID(w.Lease))))
		}
	}
	r, err := k.client.Txn(ctx).If(cmps...).Then(ops...).Commit()
	switch {
	case err != nil:
		return 0, wrote(err)
	case !r.Succeeded:
		return 0, fault.Conflict.Errorf("a key is not at the revision it was read at")
	}
	return r.Header.Revision, nil
}

// Lease implements store.KV. etcd itself makes it no shorter than one and a
// half of its election time-outs, so 2 s with its defaults.
func (k *KV) Lease(ctx context.Context, ttl time.Duration) (store.LeaseID, error) {
	if ttl <= 0 {
		return 0, fault.Invalid.Errorf("a lease of %s", ttl)
	}
	if err := k.refuse(ctx); err != nil {
		return 0, err
	}
	r, err := k.client.Grant(ctx, int64(math.Ceil(ttl.Seconds())))
	if err != nil {
		return 0, wrote(err)
	}
	return store.LeaseID(r.ID), nil
}

// KeepAlive implements store.KV.
func (k *KV) KeepAlive(ctx context.Context, id store.LeaseID) error {
	if err := k.refuse(ctx); err != nil {
		return err
	}
	if _, err := k.client.KeepAliveOnce(ctx, clientv3.LeaseID(id)); err != nil {
		return wrote(err)
	}
	return nil
}

// Revoke implements store.KV.
func (k *KV) Revoke(ctx context.Context, id store.LeaseID) error {
	if err := k.refuse(ctx); err != nil {
		return err
	}
	_, err := k.client.Revoke(ctx, clientv3.LeaseID(id))
	if err == nil || errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return wrote(err)
}

// Compact drops what was before the revision: a watch from there is stale.
func (k *KV) Compact(ctx context.Context, revision int64) error {
	if _, err := k.client.Compact(ctx, revision); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return wrote(err)
	}
	return nil
}

// Close implements store.KV.
func (k *KV) Close() error {
	k.once.Do(func() {
		close(k.done)
		k.err = k.client.Close()
		if errors.Is(k.err, context.Canceled) {
			k.err = nil // the client's own end
		}
		k.watches.Wait()
		if k.stop != nil {
			k.err = errors.Join(k.err, k.stop())
		}
	})
	return k.err
}

// refuse says that nothing can be sent, while it is sure that nothing was.
func (k *KV) refuse(ctx context.Context) error {
	select {
	case <-k.done:
		return fault.Unavailable.Errorf("etcd: the connection is closed")
	default:
	}
	if err := ctx.Err(); err != nil {
		return fault.Unavailable.Errorf("etcd: %w", err)
	}
	return nil
}

// read classifies what went wrong with a read, which did nothing.
func (k *KV) read(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fault.Unavailable.Errorf("etcd: %w", ctx.Err())
	}
	return fault.Unavailable.Errorf("etcd: %w", err)
}

// wrote classifies what went wrong with a request that was sent. Only what
// etcd itself refused is sure not to have happened.
func wrote(err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return fault.NotFound.Errorf("etcd: %w", err)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fault.NoCapacity.Errorf("etcd: %w; compact and defragment it, then disarm the alarm", err)
	case errors.Is(err, rpctypes.ErrTooManyRequests):
		return fault.Busy.Errorf("etcd: %w", err)
	case errors.Is(err, rpctypes.ErrRequestTooLarge), errors.Is(err, rpctypes.ErrTooManyOps), errors.Is(err, rpctypes.ErrDuplicateKey), errors.Is(err, rpctypes.ErrEmptyKey):
		return fault.Invalid.Errorf("etcd: %w", err)
	case errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrAuthFailed):
		return fault.Denied.Errorf("etcd: %w", err)
	}
	return fault.OutcomeUnknown.Errorf("etcd: %w", err)
}

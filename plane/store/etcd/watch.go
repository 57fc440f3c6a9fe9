package etcd

import (
	"context"
	"errors"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Watch implements store.KV.
func (k *KV) Watch(ctx context.Context, prefix string, after int64) (<-chan store.Batch, error) {
	if err := k.refuse(ctx); err != nil {
		return nil, err
	}
	// etcd tells of a compacted revision only on the open watch. Reading at the
	// revision says so at once; one from the future is not compacted.
	_, err := k.client.Get(ctx, "/consort", clientv3.WithRev(max(after, 1)), clientv3.WithCountOnly())
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		return nil, fault.Stale.Errorf("revision %d is no longer kept", after)
	case err != nil && !errors.Is(err, rpctypes.ErrFutureRev):
		return nil, k.read(ctx, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	// No fragments: a revision must come whole.
	in := k.client.Watch(clientv3.WithRequireLeader(ctx), prefix,
		clientv3.WithPrefix(), clientv3.WithRev(after+1), clientv3.WithPrevKV())
	out := make(chan store.Batch)
	k.watches.Go(func() {
		defer cancel()
		defer close(out)
		k.pass(ctx, in, out)
	})
	return out, nil
}

// pass turns answers into batches until either end is gone.
func (k *KV) pass(ctx context.Context, in clientv3.WatchChan, out chan<- store.Batch) {
	for r := range in {
		if r.Err() != nil {
			return // compacted under us, or no leader: the watcher lists again
		}
		for _, b := range batches(r.Events) {
			select {
			case out <- b:
			case <-ctx.Done():
				return
			case <-k.done:
				return
			}
		}
	}
}

// batches groups events, which come in order, by revision.
func batches(events []*clientv3.Event) []store.Batch {
	var bs []store.Batch
	for _, e := range events {
		if len(bs) == 0 || bs[len(bs)-1].Revision != e.Kv.ModRevision {
			bs = append(bs, store.Batch{Revision: e.Kv.ModRevision})
		}
		c := store.Change{Deleted: e.Type == clientv3.EventTypeDelete}
		c.Entry = store.Entry{Key: string(e.Kv.Key), Value: e.Kv.Value, Revision: e.Kv.ModRevision, Lease: store.LeaseID(e.Kv.Lease)}
		if c.Deleted && e.PrevKv != nil {
			c.Value = e.PrevKv.Value
		}
		b := &bs[len(bs)-1]
		b.Changes = append(b.Changes, c)
	}
	return bs
}

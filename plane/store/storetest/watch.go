package storetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// patience is how long a check waits for what must come. What must not come is
// never waited for: something that comes after it is.
const patience = 10 * time.Second

func next(ctx context.Context, batches <-chan store.Batch) (store.Batch, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case b, ok := <-batches:
		if !ok {
			return b, errors.New("the watch ended")
		}
		return b, nil
	case <-ctx.Done():
		return store.Batch{}, fmt.Errorf("no batch came: %w", ctx.Err())
	}
}

// wantNext wants the next batch to be of exactly these keys.
func wantNext(ctx context.Context, batches <-chan store.Batch, keys ...string) error {
	b, err := next(ctx, batches)
	if err != nil {
		return err
	}
	if len(b.Changes) != len(keys) {
		return fmt.Errorf("batch %+v, want one of %v", b, keys)
	}
	for i, c := range b.Changes {
		if c.Key != keys[i] {
			return fmt.Errorf("batch %+v, want one of %v", b, keys)
		}
	}
	return nil
}

// wantEnd wants the watch to be closed, whatever it still delivers first.
func wantEnd(batches <-chan store.Batch) error {
	late := time.After(patience)
	for {
		select {
		case _, ok := <-batches:
			if !ok {
				return nil
			}
		case <-late:
			return errors.New("the watch did not end")
		}
	}
}

// watchNow watches from the present revision: the engine may have had keys.
func watchNow(ctx context.Context, kv store.KV, prefix string) (<-chan store.Batch, context.CancelFunc, error) {
	page, err := kv.List(ctx, prefix, "", 1)
	if err != nil {
		return nil, func() {}, err
	}
	return watch(ctx, kv, prefix, page.Revision)
}

func watch(ctx context.Context, kv store.KV, prefix string, after int64) (<-chan store.Batch, context.CancelFunc, error) {
	ctx, cancel := context.WithCancel(ctx)
	batches, err := kv.Watch(ctx, prefix, after)
	return batches, cancel, err
}

func watchBeginsAfter(ctx context.Context, kv store.KV) error {
	r, err := puts(ctx, kv, "/a")
	if err != nil {
		return err
	}
	batches, cancel, err := watch(ctx, kv, "/", r)
	defer cancel()
	if err != nil {
		return err
	}
	if _, err := puts(ctx, kv, "/b"); err != nil {
		return err
	}
	return wantNext(ctx, batches, "/b")
}

func watchReplaysThePast(ctx context.Context, kv store.KV) error {
	r, err := puts(ctx, kv, "/0")
	if err != nil {
		return err
	}
	if _, err := puts(ctx, kv, "/a"); err != nil {
		return err
	}
	batches, cancel, err := watch(ctx, kv, "/", r)
	defer cancel()
	if err != nil {
		return err
	}
	b, err := next(ctx, batches)
	if err != nil || len(b.Changes) == 0 || string(b.Changes[0].Value) != "/a" || b.Changes[0].Revision != b.Revision {
		return fmt.Errorf("batch %+v, %v; want /a with its value", b, err)
	}
	return nil
}

func watchKeepsToThePrefix(ctx context.Context, kv store.KV) error {
	batches, cancel, err := watchNow(ctx, kv, "/a/")
	defer cancel()
	if err != nil {
		return err
	}
	_, err = kv.Commit(ctx, store.Txn{Then: []store.Write{{Key: "/a/1"}, {Key: "/a0"}, {Key: "/b"}}})
	return errors.Join(err, wantNext(ctx, batches, "/a/1"))
}

func watchIsInOrder(ctx context.Context, kv store.KV) error {
	batches, cancel, err := watchNow(ctx, kv, "/")
	defer cancel()
	if err != nil {
		return err
	}
	for i := range 50 {
		if _, err := puts(ctx, kv, fmt.Sprintf("/%d", i)); err != nil {
			return err
		}
	}
	for i := range 50 {
		if err := wantNext(ctx, batches, fmt.Sprintf("/%d", i)); err != nil {
			return err
		}
	}
	return nil
}

func watchGivesRevisionsWhole(ctx context.Context, kv store.KV) error {
	batches, cancel, err := watchNow(ctx, kv, "/")
	defer cancel()
	if err != nil {
		return err
	}
	r, err := kv.Commit(ctx, store.Txn{Then: []store.Write{{Key: "/a"}, {Key: "/b"}, {Key: "/c"}}})
	if err != nil {
		return err
	}
	b, err := next(ctx, batches)
	if err != nil || len(b.Changes) != 3 || b.Revision != r {
		return fmt.Errorf("batch %+v, %v; want three changes at revision %d", b, err, r)
	}
	return nil
}

// deletion puts a key, deletes it and returns the change a watch tells.
func deletion(ctx context.Context, kv store.KV) (store.Change, error) {
	r, err := puts(ctx, kv, "/a", "/0")
	if err != nil {
		return store.Change{}, err
	}
	batches, cancel, err := watch(ctx, kv, "/", r)
	defer cancel()
	if err != nil {
		return store.Change{}, err
	}
	if _, err = kv.Commit(ctx, store.Txn{Then: []store.Write{{Key: "/a", Delete: true}}}); err != nil {
		return store.Change{}, err
	}
	b, err := next(ctx, batches)
	if err != nil || len(b.Changes) != 1 {
		return store.Change{}, fmt.Errorf("batch %+v, %v; want one change", b, err)
	}
	return b.Changes[0], nil
}

func watchTellsDeletions(ctx context.Context, kv store.KV) error {
	c, err := deletion(ctx, kv)
	if err != nil || !c.Deleted || c.Key != "/a" {
		return fmt.Errorf("change %+v, %v; want the deletion of /a", c, err)
	}
	return nil
}

func watchTellsWhatWasDeleted(ctx context.Context, kv store.KV) error {
	c, err := deletion(ctx, kv)
	if err != nil || string(c.Value) != "/a" {
		return fmt.Errorf("change %+v, %v; want the value that was deleted", c, err)
	}
	return nil
}

func watchEndsWithItsContext(ctx context.Context, kv store.KV) error {
	batches, cancel, err := watchNow(ctx, kv, "/")
	cancel()
	if err != nil {
		return err
	}
	return wantEnd(batches)
}

func watchEndsWithTheEngine(ctx context.Context, kv store.KV) error {
	batches, cancel, err := watchNow(ctx, kv, "/")
	defer cancel()
	if err != nil {
		return err
	}
	return errors.Join(kv.Close(), wantEnd(batches))
}

func watchFromTheForgotten(ctx context.Context, kv store.KV) error {
	first, err := puts(ctx, kv, "/a")
	if err != nil {
		return err
	}
	last, err := puts(ctx, kv, "/a", "/a", "/a")
	if err != nil {
		return err
	}
	if err := kv.(Compacter).Compact(ctx, last); err != nil {
		return err
	}
	_, cancel, err := watch(ctx, kv, "/", first)
	defer cancel()
	return wantKind("Watch from a compacted revision", err, fault.Stale)
}

// watchNeverHasAGap lets a slow watcher be overtaken by a compaction. It must
// get every change, or be told to list again.
func watchNeverHasAGap(ctx context.Context, kv store.KV) error {
	batches, cancel, err := watchNow(ctx, kv, "/")
	defer cancel()
	if err != nil {
		return err
	}
	var last int64
	for i := range 300 {
		if last, err = put(ctx, kv, "/a", fmt.Sprint(i)); err != nil {
			return err
		}
	}
	for i := range 300 {
		if i == 10 {
			if err := kv.(Compacter).Compact(ctx, last); err != nil {
				return err
			}
		}
		b, err := next(ctx, batches)
		if err != nil {
			return wantEnd(batches)
		}
		if got := string(b.Changes[0].Value); got != fmt.Sprint(i) {
			return fmt.Errorf("change %s where %d was due", got, i)
		}
	}
	return nil
}

package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// keysOf lists and returns the keys.
func keysOf(ctx context.Context, kv store.KV, prefix, after string, limit int) ([]string, store.Page, error) {
	page, err := kv.List(ctx, prefix, after, limit)
	var keys []string
	for _, e := range page.Entries {
		keys = append(keys, e.Key)
	}
	return keys, page, err
}

func wantKeys(got []string, err error, want ...string) error {
	if err != nil || !slices.Equal(got, want) {
		return fmt.Errorf("List = %v, %v; want %v", got, err, want)
	}
	return nil
}

func listKeepsToThePrefix(ctx context.Context, kv store.KV) error {
	if _, err := puts(ctx, kv, "/a/1", "/b/1", "/a0", "/"); err != nil {
		return err
	}
	keys, _, err := keysOf(ctx, kv, "/a/", "", 0)
	return wantKeys(keys, err, "/a/1")
}

func listIsInOrder(ctx context.Context, kv store.KV) error {
	if _, err := puts(ctx, kv, "/3", "/1", "/2"); err != nil {
		return err
	}
	keys, _, err := keysOf(ctx, kv, "/", "", 0)
	return wantKeys(keys, err, "/1", "/2", "/3")
}

func listGoesOnAfter(ctx context.Context, kv store.KV) error {
	if _, err := puts(ctx, kv, "/1", "/2", "/3"); err != nil {
		return err
	}
	keys, _, err := keysOf(ctx, kv, "/", "/1", 0)
	return wantKeys(keys, err, "/2", "/3")
}

func listObeysTheLimit(ctx context.Context, kv store.KV) error {
	if _, err := puts(ctx, kv, "/1", "/2", "/3"); err != nil {
		return err
	}
	keys, _, err := keysOf(ctx, kv, "/", "", 2)
	return wantKeys(keys, err, "/1", "/2")
}

func listSaysThereIsMore(ctx context.Context, kv store.KV) error {
	if _, err := puts(ctx, kv, "/1", "/2"); err != nil {
		return err
	}
	for limit, want := range map[int]bool{0: false, 1: true, 2: false, 3: false} {
		if _, page, err := keysOf(ctx, kv, "/", "", limit); err != nil || page.More != want {
			return fmt.Errorf("List of 2, at most %d: more = %v, %v; want %v", limit, page.More, err, want)
		}
	}
	return nil
}

func listTellsItsRevision(ctx context.Context, kv store.KV) error {
	want, err := puts(ctx, kv, "/1", "/other")
	if err != nil {
		return err
	}
	if _, page, err := keysOf(ctx, kv, "/1", "", 0); err != nil || page.Revision != want {
		return fmt.Errorf("List = revision %d, %v; want %d", page.Revision, err, want)
	}
	return nil
}

func revisionsGrow(ctx context.Context, kv store.KV) error {
	var last int64
	for i := range 5 {
		r, err := put(ctx, kv, "/a", "same")
		if err != nil || r <= last {
			return fmt.Errorf("commit %d: revision %d, %v; want more than %d", i, r, err, last)
		}
		last = r
	}
	return nil
}

func commitIsOneRevision(ctx context.Context, kv store.KV) error {
	r, err := kv.Commit(ctx, store.Txn{Then: []store.Write{{Key: "/a"}, {Key: "/b"}}})
	if err != nil {
		return err
	}
	a, err1 := kv.Get(ctx, "/a")
	b, err2 := kv.Get(ctx, "/b")
	if a.Revision != r || b.Revision != r {
		return fmt.Errorf("entries at revisions %d and %d, want %d; %w", a.Revision, b.Revision, r, errors.Join(err1, err2))
	}
	return nil
}

func holdingIsDone(ctx context.Context, kv store.KV) error {
	r, err := puts(ctx, kv, "/a")
	if err != nil {
		return err
	}
	_, err = kv.Commit(ctx, store.Txn{
		If:   []store.Compare{{Key: "/a", Revision: r}, {Key: "/b", Revision: 0}},
		Then: []store.Write{{Key: "/b", Value: []byte("new")}},
	})
	return errors.Join(err, wantValue(ctx, kv, "/b", "new"))
}

func otherRevisionIsConflict(ctx context.Context, kv store.KV) error {
	r, err := puts(ctx, kv, "/a")
	if err != nil {
		return err
	}
	if _, err := put(ctx, kv, "/a", "newer"); err != nil {
		return err
	}
	_, err = kv.Commit(ctx, store.Txn{If: []store.Compare{{Key: "/a", Revision: r}}, Then: []store.Write{{Key: "/b"}}})
	return wantKind("Commit against an old revision", err, fault.Conflict)
}

func zeroMeansAbsent(ctx context.Context, kv store.KV) error {
	if _, err := puts(ctx, kv, "/a"); err != nil {
		return err
	}
	_, err := kv.Commit(ctx, store.Txn{If: []store.Compare{{Key: "/a"}}, Then: []store.Write{{Key: "/b"}}})
	return wantKind("Commit if a present key is absent", err, fault.Conflict)
}

func conflictWritesNothing(ctx context.Context, kv store.KV) error {
	_, _ = kv.Commit(ctx, store.Txn{If: []store.Compare{{Key: "/no", Revision: 7}}, Then: []store.Write{{Key: "/a"}, {Key: "/b"}}})
	return errors.Join(wantAbsent(ctx, kv, "/a"), wantAbsent(ctx, kv, "/b"))
}

func everyComparisonMustHold(ctx context.Context, kv store.KV) error {
	_, err := kv.Commit(ctx, store.Txn{
		If:   []store.Compare{{Key: "/x"}, {Key: "/no", Revision: 7}},
		Then: []store.Write{{Key: "/a"}},
	})
	return wantKind("Commit of which the second comparison fails", err, fault.Conflict)
}

func oneOfManyRacersWins(ctx context.Context, kv store.KV) error {
	r, err := puts(ctx, kv, "/a")
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	won, others := 0, error(nil)
	for range 32 {
		wg.Go(func() {
			_, err := kv.Commit(ctx, store.Txn{
				If:   []store.Compare{{Key: "/a", Revision: r}},
				Then: []store.Write{{Key: "/a", Delete: true}},
			})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if fault.KindOf(err) != fault.Conflict {
				others = errors.Join(others, err)
			}
		})
	}
	wg.Wait()
	if won != 1 || others != nil {
		return fmt.Errorf("%d of 32 racers won, want 1; %w", won, others)
	}
	return nil
}

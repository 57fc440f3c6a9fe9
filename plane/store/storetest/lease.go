package storetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// short is a lease that runs out while a check waits. Engines may round it up.
const short = 2 * time.Second

// leased puts /leased under a new lease, and /free under none.
func leased(ctx context.Context, kv store.KV, ttl time.Duration) (store.LeaseID, error) {
	id, err := kv.Lease(ctx, ttl)
	if err != nil {
		return 0, err
	}
	_, err = kv.Commit(ctx, store.Txn{Then: []store.Write{{Key: "/leased", Value: []byte("1"), Lease: id}, {Key: "/free", Value: []byte("1")}}})
	return id, err
}

// gone polls until the key is absent.
func gone(ctx context.Context, kv store.KV, key string) error {
	late := time.After(patience)
	for {
		if _, err := kv.Get(ctx, key); errors.Is(err, fault.NotFound) {
			return nil
		}
		select {
		case <-late:
			return fmt.Errorf("%s is still there", key)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func leaseTakesItsKeysAlong(ctx context.Context, kv store.KV) error {
	if _, err := leased(ctx, kv, short); err != nil {
		return err
	}
	return gone(ctx, kv, "/leased")
}

func leaseLastsItsTime(ctx context.Context, kv store.KV) error {
	began := time.Now()
	if _, err := leased(ctx, kv, short); err != nil {
		return err
	}
	if err := gone(ctx, kv, "/leased"); err != nil {
		return nil // another promise
	}
	if took := time.Since(began); took < short-100*time.Millisecond {
		return fmt.Errorf("a lease of %v ran out after %v", short, took)
	}
	return nil
}

func leaseLeavesOtherKeys(ctx context.Context, kv store.KV) error {
	id, err := leased(ctx, kv, time.Minute)
	if err != nil {
		return err
	}
	return errors.Join(kv.Revoke(ctx, id), wantValue(ctx, kv, "/free", "1"))
}

func leaseKeptAliveLasts(ctx context.Context, kv store.KV) error {
	kept, err := leased(ctx, kv, short)
	if err != nil {
		return err
	}
	other, err := kv.Lease(ctx, 3*short)
	if err != nil {
		return err
	}
	if _, err := kv.Commit(ctx, store.Txn{Then: []store.Write{{Key: "/clock", Lease: other}}}); err != nil {
		return err
	}
	for { // until a lease three times as long has run out
		if err := kv.KeepAlive(ctx, kept); err != nil {
			return err
		}
		if _, err := kv.Get(ctx, "/clock"); err != nil {
			return wantValue(ctx, kv, "/leased", "1")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(short / 4):
		}
	}
}

func keepAliveOfAnEndedLease(ctx context.Context, kv store.KV) error {
	id, err := leased(ctx, kv, time.Minute)
	if err != nil {
		return err
	}
	if err := kv.Revoke(ctx, id); err != nil {
		return err
	}
	return wantKind("KeepAlive", kv.KeepAlive(ctx, id), fault.NotFound)
}

func revokeDeletesTheKeys(ctx context.Context, kv store.KV) error {
	id, err := leased(ctx, kv, time.Minute)
	if err != nil {
		return err
	}
	return errors.Join(kv.Revoke(ctx, id), wantAbsent(ctx, kv, "/leased"))
}

func revokeOfAnUnknownLease(ctx context.Context, kv store.KV) error {
	return kv.Revoke(ctx, 987654321)
}

func commitUnderAnEndedLease(ctx context.Context, kv store.KV) error {
	_, err := kv.Commit(ctx, store.Txn{Then: []store.Write{{Key: "/a", Lease: 987654321}}})
	return wantKind("Commit under a lease that is not", err, fault.NotFound)
}

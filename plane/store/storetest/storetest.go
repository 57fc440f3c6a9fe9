// Package storetest is what it means to be a store engine, as tests.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// Compacter is an engine that can be told to drop old revisions. One that is
// not is not asked about them.
type Compacter interface {
	// Compact drops what was before the revision.
	Compact(ctx context.Context, revision int64) error
}

// Run tests the engine that open returns. It calls open once per promise; every
// engine must begin with no keys. The engine is closed afterwards.
func Run(t *testing.T, open func(*testing.T) store.KV) {
	for _, p := range promises {
		t.Run(p.name, func(t *testing.T) {
			kv := open(t)
			defer kv.Close()
			if _, ok := kv.(Compacter); p.compacts && !ok {
				t.Skip("the engine cannot be told to compact")
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := p.keeps(ctx, kv); err != nil {
				t.Error(err)
			}
		})
	}
}

// A promise is one sentence of store.KV. It is checked by a function that
// returns an error, so that the checks can be checked: see TestLiars.
type promise struct {
	name     string
	keeps    func(context.Context, store.KV) error
	compacts bool // needs a Compacter
}

var promises = []promise{
	{name: "ValueComesBack", keeps: valueComesBack},
	{name: "EntryTellsItsLastRevision", keeps: entryTellsItsLastRevision},
	{name: "EntryTellsItsLease", keeps: entryTellsItsLease},
	{name: "AbsentIsNotFound", keeps: absentIsNotFound},
	{name: "DeletedIsNotFound", keeps: deletedIsNotFound},
	{name: "MebibyteFits", keeps: mebibyteFits},
	{name: "MoreThanAMebibyteIsInvalid", keeps: moreThanAMebibyteIsInvalid},
	{name: "ListKeepsToThePrefix", keeps: listKeepsToThePrefix},
	{name: "ListIsInOrder", keeps: listIsInOrder},
	{name: "ListGoesOnAfter", keeps: listGoesOnAfter},
	{name: "ListObeysTheLimit", keeps: listObeysTheLimit},
	{name: "ListSaysThereIsMore", keeps: listSaysThereIsMore},
	{name: "ListTellsItsRevision", keeps: listTellsItsRevision},
	{name: "RevisionsGrow", keeps: revisionsGrow},
	{name: "CommitIsOneRevision", keeps: commitIsOneRevision},
	{name: "CommitWhoseComparisonsHoldIsDone", keeps: holdingIsDone},
	{name: "OtherRevisionIsConflict", keeps: otherRevisionIsConflict},
	{name: "ZeroMeansAbsent", keeps: zeroMeansAbsent},
	{name: "ConflictWritesNothing", keeps: conflictWritesNothing},
	{name: "EveryComparisonMustHold", keeps: everyComparisonMustHold},
	{name: "OneOfManyRacersWins", keeps: oneOfManyRacersWins},
	{name: "CommitUnderAnEndedLeaseIsNotFound", keeps: commitUnderAnEndedLease},
	{name: "WatchBeginsAfterTheRevision", keeps: watchBeginsAfter},
	{name: "WatchReplaysThePast", keeps: watchReplaysThePast},
	{name: "WatchKeepsToThePrefix", keeps: watchKeepsToThePrefix},
	{name: "WatchIsInOrder", keeps: watchIsInOrder},
	{name: "WatchGivesRevisionsWhole", keeps: watchGivesRevisionsWhole},
	{name: "WatchTellsDeletions", keeps: watchTellsDeletions},
	{name: "WatchTellsWhatWasDeleted", keeps: watchTellsWhatWasDeleted},
	{name: "WatchEndsWithItsContext", keeps: watchEndsWithItsContext},
	{name: "WatchEndsWithTheEngine", keeps: watchEndsWithTheEngine},
	{name: "WatchFromTheForgottenIsStale", keeps: watchFromTheForgotten, compacts: true},
	{name: "WatchNeverHasAGap", keeps: watchNeverHasAGap, compacts: true},
	{name: "LeaseTakesItsKeysAlong", keeps: leaseTakesItsKeysAlong},
	{name: "LeaseLastsItsTime", keeps: leaseLastsItsTime},
	{name: "LeaseLeavesOtherKeys", keeps: leaseLeavesOtherKeys},
	{name: "LeaseKeptAliveLasts", keeps: leaseKeptAliveLasts},
	{name: "KeepAliveOfAnEndedLeaseIsNotFound", keeps: keepAliveOfAnEndedLease},
	{name: "RevokeDeletesTheKeys", keeps: revokeDeletesTheKeys},
	{name: "RevokeOfAnUnknownLeaseIsSuccess", keeps: revokeOfAnUnknownLease},
	{name: "EndedContextReturns", keeps: endedContextReturns},
}

func put(ctx context.Context, kv store.KV, key, value string) (int64, error) {
	return kv.Commit(ctx, store.Txn{Then: []store.Write{{Key: key, Value: []byte(value)}}})
}

// puts writes the keys one after the other, each with its own name as value.
func puts(ctx context.Context, kv store.KV, keys ...string) (last int64, err error) {
	for _, k := range keys {
		if last, err = put(ctx, kv, k, k); err != nil {
			return 0, err
		}
	}
	return last, nil
}

func wantKind(what string, err error, want fault.Kind) error {
	if err == nil || fault.KindOf(err) != want {
		return fmt.Errorf("%s = %v, want %v", what, err, want)
	}
	return nil
}

func wantValue(ctx context.Context, kv store.KV, key, want string) error {
	e, err := kv.Get(ctx, key)
	if err != nil || string(e.Value) != want {
		return fmt.Errorf("Get(%s) = %q, %v; want %q", key, e.Value, err, want)
	}
	return nil
}

func wantAbsent(ctx context.Context, kv store.KV, key string) error {
	_, err := kv.Get(ctx, key)
	return wantKind("Get("+key+")", err, fault.NotFound)
}

func valueComesBack(ctx context.Context, kv store.KV) error {
	value := "\x00\xff binary"
	if _, err := put(ctx, kv, "/a", value); err != nil {
		return err
	}
	e, err := kv.Get(ctx, "/a")
	if err != nil || e.Key != "/a" || string(e.Value) != value {
		return fmt.Errorf("Get = %+v, %v; want what was put", e, err)
	}
	return nil
}

func entryTellsItsLastRevision(ctx context.Context, kv store.KV) error {
	if _, err := put(ctx, kv, "/a", "1"); err != nil {
		return err
	}
	want, err := put(ctx, kv, "/a", "2")
	if err != nil {
		return err
	}
	if _, err := put(ctx, kv, "/b", "3"); err != nil {
		return err
	}
	e, err := kv.Get(ctx, "/a")
	if err != nil || e.Revision != want {
		return fmt.Errorf("Get = revision %d, %v; want %d", e.Revision, err, want)
	}
	return nil
}

func entryTellsItsLease(ctx context.Context, kv store.KV) error {
	id, err := kv.Lease(ctx, time.Minute)
	if err != nil {
		return err
	}
	if _, err := kv.Commit(ctx, store.Txn{Then: []store.Write{{Key: "/a", Lease: id}}}); err != nil {
		return err
	}
	e, err := kv.Get(ctx, "/a")
	if err != nil || e.Lease != id {
		return fmt.Errorf("Get = lease %d, %v; want %d", e.Lease, err, id)
	}
	return nil
}

func absentIsNotFound(ctx context.Context, kv store.KV) error {
	return wantAbsent(ctx, kv, "/nothing")
}

func deletedIsNotFound(ctx context.Context, kv store.KV) error {
	if _, err := puts(ctx, kv, "/a"); err != nil {
		return err
	}
	if _, err := kv.Commit(ctx, store.Txn{Then: []store.Write{{Key: "/a", Delete: true}}}); err != nil {
		return err
	}
	return wantAbsent(ctx, kv, "/a")
}

func mebibyteFits(ctx context.Context, kv store.KV) error {
	_, err := put(ctx, kv, "/a", string(make([]byte, 1<<20)))
	return err
}

func moreThanAMebibyteIsInvalid(ctx context.Context, kv store.KV) error {
	_, err := put(ctx, kv, "/a", string(make([]byte, 1<<20+1)))
	return wantKind("Commit of a mebibyte and a byte", err, fault.Invalid)
}

func endedContextReturns(ctx context.Context, kv store.KV) error {
	ended, cancel := context.WithCancel(ctx)
	cancel()
	var errs []error
	call := func(name string, err error) {
		if !errors.Is(err, context.Canceled) {
			errs = append(errs, fmt.Errorf("%s = %v, want one that is %v", name, err, context.Canceled))
		}
	}
	_, err := kv.Get(ended, "/a")
	call("Get", err)
	_, err = kv.List(ended, "/", "", 0)
	call("List", err)
	_, err = put(ended, kv, "/a", "1")
	call("Commit", err)
	_, err = kv.Lease(ended, time.Minute)
	call("Lease", err)
	call("KeepAlive", kv.KeepAlive(ended, 1))
	call("Revoke", kv.Revoke(ended, 1))
	return errors.Join(errs...)
}

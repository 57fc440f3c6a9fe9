package storetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

// liar is a good engine with some methods replaced.
type liar struct {
	*mem.KV
	get       func(context.Context, string) (store.Entry, error)
	list      func(ctx context.Context, prefix, after string, limit int) (store.Page, error)
	commit    func(context.Context, store.Txn) (int64, error)
	watch     func(context.Context, string, int64) (<-chan store.Batch, error)
	lease     func(context.Context, time.Duration) (store.LeaseID, error)
	keepAlive func(context.Context, store.LeaseID) error
	revoke    func(context.Context, store.LeaseID) error
	close     func() error
}

// liars break one promise each.
var liars = map[string]func(*liar){
	"ValueComesBack": func(l *liar) {
		l.get = onGet(l, func(e *store.Entry) { e.Value = []byte(strings.ToValidUTF8(string(e.Value), "?")) })
	},
	"EntryTellsItsLastRevision": func(l *liar) {
		l.get = func(ctx context.Context, key string) (store.Entry, error) {
			e, err := l.KV.Get(ctx, key)
			if page, lerr := l.List(ctx, "/", "", 0); err == nil && lerr == nil && len(page.Entries) > 1 {
				if string(e.Value) == "2" {
					e.Revision = page.Revision // the store's, not the entry's
				}
			}
			return e, err
		}
	},
	"EntryTellsItsLease": func(l *liar) { l.get = onGet(l, func(e *store.Entry) { e.Lease = 0 }) },
	"AbsentIsNotFound": func(l *liar) {
		l.get = func(ctx context.Context, key string) (store.Entry, error) {
			e, err := l.KV.Get(ctx, key)
			if key == "/nothing" && err != nil {
				return store.Entry{Key: key}, nil
			}
			return e, err
		}
	},
	"DeletedIsNotFound": func(l *liar) {
		deleted := false
		l.commit = func(ctx context.Context, t store.Txn) (int64, error) {
			if len(t.If) == 0 && len(t.Then) == 1 && t.Then[0].Delete {
				deleted = true
			}
			return l.KV.Commit(ctx, t)
		}
		l.get = func(ctx context.Context, key string) (store.Entry, error) {
			if deleted {
				return store.Entry{Key: key}, nil
			}
			return l.KV.Get(ctx, key)
		}
	},
	"MebibyteFits":               onSize(func(n int) bool { return n == 1<<20 }, fault.NoCapacity),
	"MoreThanAMebibyteIsInvalid": onSize(func(n int) bool { return n > 1<<20 }, fault.Internal),
	"ListKeepsToThePrefix": func(l *liar) {
		l.list = func(ctx context.Context, prefix, after string, limit int) (store.Page, error) {
			return l.KV.List(ctx, strings.TrimSuffix(prefix, "a/")+strings.Repeat("a", strings.Count(prefix, "a/")), after, limit)
		}
	},
	"ListIsInOrder": onList(func(p *store.Page, _ string, limit int) {
		if len(p.Entries) == 3 && p.Entries[0].Revision > p.Entries[2].Revision {
			slices.SortFunc(p.Entries, func(a, b store.Entry) int { return int(a.Revision - b.Revision) })
		}
	}),
	"ListGoesOnAfter": func(l *liar) {
		l.list = func(ctx context.Context, prefix, _ string, limit int) (store.Page, error) {
			return l.KV.List(ctx, prefix, "", limit)
		}
	},
	"ListObeysTheLimit": func(l *liar) {
		l.list = func(ctx context.Context, prefix, after string, limit int) (store.Page, error) {
			p, err := l.KV.List(ctx, prefix, after, limit)
			if p.More {
				more := p.More
				p, err = l.KV.List(ctx, prefix, after, 0)
				p.More = more
			}
			return p, err
		}
	},
	"ListSaysThereIsMore": onList(func(p *store.Page, _ string, limit int) { p.More = limit > 0 && len(p.Entries) == limit }),
	"ListTellsItsRevision": onList(func(p *store.Page, _ string, _ int) {
		p.Revision = 0
		for _, e := range p.Entries {
			p.Revision = max(p.Revision, e.Revision)
		}
	}),
	"RevisionsGrow": func(l *liar) {
		last := map[string]int64{}
		l.commit = func(ctx context.Context, t store.Txn) (int64, error) {
			if len(t.Then) == 1 && string(t.Then[0].Value) == "same" && last["same"] != 0 {
				return last["same"], nil // nothing new, so nothing written
			}
			r, err := l.KV.Commit(ctx, t)
			if len(t.Then) == 1 && err == nil {
				last[string(t.Then[0].Value)] = r
			}
			return r, err
		}
	},
	"CommitIsOneRevision": func(l *liar) {
		l.commit = func(ctx context.Context, t store.Txn) (r int64, err error) {
			if len(t.If) > 0 || len(t.Then) != 2 || t.Then[0].Value != nil || t.Then[1].Key != "/b" {
				return l.KV.Commit(ctx, t)
			}
			for _, w := range t.Then {
				if r, err = l.KV.Commit(ctx, store.Txn{Then: []store.Write{w}}); err != nil {
					return 0, err
				}
			}
			return r, nil
		}
	},
	"CommitWhoseComparisonsHoldIsDone": func(l *liar) {
		l.commit = func(ctx context.Context, t store.Txn) (int64, error) {
			if len(t.If) == 2 && t.If[0].Revision != 0 {
				return 1, nil
			}
			return l.KV.Commit(ctx, t)
		}
	},
	"OtherRevisionIsConflict": func(l *liar) {
		l.commit = func(ctx context.Context, t store.Txn) (int64, error) {
			if len(t.If) == 1 && t.If[0].Revision != 0 && t.Then[0].Key == "/b" {
				t.If = nil // present is good enough
			}
			return l.KV.Commit(ctx, t)
		}
	},
	"ZeroMeansAbsent": func(l *liar) {
		l.commit = func(ctx context.Context, t store.Txn) (int64, error) {
			t.If = slices.DeleteFunc(slices.Clone(t.If), func(c store.Compare) bool { return c.Revision == 0 })
			return l.KV.Commit(ctx, t)
		}
	},
	"ConflictWritesNothing": func(l *liar) {
		l.commit = func(ctx context.Context, t store.Txn) (int64, error) {
			r, err := l.KV.Commit(ctx, t)
			if fault.KindOf(err) == fault.Conflict && len(t.Then) == 2 {
				_, _ = l.KV.Commit(ctx, store.Txn{Then: t.Then[:1]})
			}
			return r, err
		}
	},
	"EveryComparisonMustHold": func(l *liar) {
		l.commit = func(ctx context.Context, t store.Txn) (int64, error) {
			t.If = t.If[:min(1, len(t.If))]
			return l.KV.Commit(ctx, t)
		}
	},
	"OneOfManyRacersWins": func(l *liar) {
		var won sync.Once
		l.commit = func(ctx context.Context, t store.Txn) (int64, error) {
			r, err := l.KV.Commit(ctx, t)
			if fault.KindOf(err) == fault.Conflict && t.Then[0].Delete {
				won.Do(func() { err = nil })
			}
			return r, err
		}
	},
	"CommitUnderAnEndedLeaseIsNotFound": func(l *liar) {
		l.commit = func(ctx context.Context, t store.Txn) (int64, error) {
			r, err := l.KV.Commit(ctx, t)
			if errors.Is(err, fault.NotFound) {
				err = nil
			}
			return r, err
		}
	},
	"WatchBeginsAfterTheRevision": func(l *liar) {
		l.watch = func(ctx context.Context, prefix string, after int64) (<-chan store.Batch, error) {
			if p, err := l.List(ctx, "/a", "", 0); err == nil && len(p.Entries) == 1 && p.Entries[0].Revision == after {
				after--
			}
			return l.KV.Watch(ctx, prefix, after)
		}
	},
	"WatchReplaysThePast": func(l *liar) {
		l.watch = func(ctx context.Context, prefix string, after int64) (<-chan store.Batch, error) {
			if p, err := l.List(ctx, "/", "", 1); err == nil && after > 0 && p.Revision == after+1 {
				after = p.Revision
			}
			return l.KV.Watch(ctx, prefix, after)
		}
	},
	"WatchKeepsToThePrefix": func(l *liar) {
		l.watch = func(ctx context.Context, prefix string, after int64) (<-chan store.Batch, error) {
			return l.KV.Watch(ctx, strings.TrimSuffix(prefix, "a/"), after)
		}
	},
	"WatchIsInOrder": onBatches(func(held, b store.Batch) (store.Batch, []store.Batch) {
		switch {
		case b.Changes[0].Key == "/7":
			return b, nil
		case held.Revision != 0:
			return store.Batch{}, []store.Batch{b, held}
		}
		return held, []store.Batch{b}
	}),
	"WatchGivesRevisionsWhole": onBatches(func(_, b store.Batch) (_ store.Batch, out []store.Batch) {
		for _, c := range b.Changes {
			out = append(out, store.Batch{Revision: b.Revision, Changes: []store.Change{c}})
		}
		return store.Batch{}, out
	}),
	"WatchTellsDeletions": onBatches(func(_, b store.Batch) (store.Batch, []store.Batch) {
		b.Changes[0].Deleted = false
		return store.Batch{}, []store.Batch{b}
	}),
	"WatchTellsWhatWasDeleted": onBatches(func(_, b store.Batch) (store.Batch, []store.Batch) {
		if b.Changes[0].Deleted {
			b.Changes[0].Value = nil
		}
		return store.Batch{}, []store.Batch{b}
	}),
	"WatchEndsWithItsContext": func(l *liar) {
		l.watch = func(ctx context.Context, prefix string, after int64) (<-chan store.Batch, error) {
			return l.KV.Watch(context.WithoutCancel(ctx), prefix, after)
		}
	},
	"WatchEndsWithTheEngine": func(l *liar) { l.close = func() error { return nil } },
	"WatchFromTheForgottenIsStale": func(l *liar) {
		l.watch = func(ctx context.Context, prefix string, after int64) (<-chan store.Batch, error) {
			b, err := l.KV.Watch(ctx, prefix, after)
			if fault.KindOf(err) == fault.Stale && err != nil {
				p, _ := l.List(ctx, prefix, "", 0)
				return l.KV.Watch(ctx, prefix, p.Revision)
			}
			return b, err
		}
	},
	"WatchNeverHasAGap": onBatches(func(_, b store.Batch) (store.Batch, []store.Batch) {
		if string(b.Changes[0].Value) == "5" {
			return store.Batch{}, nil
		}
		return store.Batch{}, []store.Batch{b}
	}),
	"LeaseTakesItsKeysAlong": func(l *liar) {
		l.lease = func(ctx context.Context, ttl time.Duration) (store.LeaseID, error) {
			if ttl == short {
				ttl = time.Hour
			}
			return l.KV.Lease(ctx, ttl)
		}
	},
	"LeaseLastsItsTime": func(l *liar) {
		l.lease = func(ctx context.Context, ttl time.Duration) (store.LeaseID, error) {
			return l.KV.Lease(ctx, ttl/2)
		}
	},
	"LeaseLeavesOtherKeys": func(l *liar) {
		l.revoke = func(ctx context.Context, id store.LeaseID) error {
			_, err := l.KV.Commit(ctx, store.Txn{Then: []store.Write{{Key: "/free", Delete: true}}})
			if err != nil {
				return err
			}
			return l.KV.Revoke(ctx, id)
		}
	},
	"LeaseKeptAliveLasts": func(l *liar) {
		l.keepAlive = func(ctx context.Context, id store.LeaseID) error {
			if _, err := l.KV.Get(ctx, "/clock"); err == nil {
				return nil // said, not done
			}
			return l.KV.KeepAlive(ctx, id)
		}
	},
	"KeepAliveOfAnEndedLeaseIsNotFound": func(l *liar) {
		l.keepAlive = func(ctx context.Context, id store.LeaseID) error {
			if err := l.KV.KeepAlive(ctx, id); fault.KindOf(err) != fault.NotFound {
				return err
			}
			return nil
		}
	},
	"RevokeDeletesTheKeys": func(l *liar) {
		l.revoke = func(ctx context.Context, id store.LeaseID) error {
			_, err := l.KV.Commit(ctx, store.Txn{Then: []store.Write{{Key: "/leased", Value: []byte("1")}}})
			if err != nil {
				return err
			}
			return l.KV.Revoke(ctx, id)
		}
	},
	"RevokeOfAnUnknownLeaseIsSuccess": func(l *liar) {
		l.revoke = func(ctx context.Context, id store.LeaseID) error {
			if id == 987654321 {
				return fault.NotFound.Errorf("no lease")
			}
			return l.KV.Revoke(ctx, id)
		}
	},
	"EndedContextReturns": func(l *liar) {
		l.get = func(ctx context.Context, key string) (store.Entry, error) {
			return l.KV.Get(context.WithoutCancel(ctx), key)
		}
	},
}

// TestLiars breaks each promise in turn and wants the promise's own check, and
// no other, to say so. Inside the bubble leases run out at once.
func TestLiars(t *testing.T) {
	for _, p := range promises {
		t.Run(p.name, func(t *testing.T) {
			lie, found := liars[p.name]
			if !found {
				t.Fatal("no liar breaks this promise; write one")
			}
			for _, judge := range promises {
				synctest.Test(t, func(t *testing.T) {
					l := &liar{KV: mem.Open(mem.Options{})}
					defer l.KV.Close()
					lie(l)
					err := judge.keeps(t.Context(), l)
					switch {
					case judge.name == p.name && err == nil:
						t.Error("its own check let the broken engine pass")
					case judge.name != p.name && err != nil:
						t.Errorf("%s rejects it too: %v", judge.name, err)
					}
				})
			}
		})
	}
}

func onGet(l *liar, change func(*store.Entry)) func(context.Context, string) (store.Entry, error) {
	return func(ctx context.Context, key string) (store.Entry, error) {
		e, err := l.KV.Get(ctx, key)
		change(&e)
		return e, err
	}
}

func onList(change func(p *store.Page, after string, limit int)) func(*liar) {
	return func(l *liar) {
		l.list = func(ctx context.Context, prefix, after string, limit int) (store.Page, error) {
			p, err := l.KV.List(ctx, prefix, after, limit)
			change(&p, after, limit)
			return p, err
		}
	}
}

func onSize(wrong func(int) bool, kind fault.Kind) func(*liar) {
	return func(l *liar) {
		l.commit = func(ctx context.Context, t store.Txn) (int64, error) {
			if len(t.Then) > 0 && wrong(len(t.Then[0].Value)) {
				return 0, kind.Errorf("no")
			}
			return l.KV.Commit(ctx, t)
		}
	}
}

// onBatches passes every batch through change, which may hold one back.
func onBatches(change func(held, b store.Batch) (store.Batch, []store.Batch)) func(*liar) {
	return func(l *liar) {
		l.watch = func(ctx context.Context, prefix string, after int64) (<-chan store.Batch, error) {
			in, err := l.KV.Watch(ctx, prefix, after)
			if err != nil {
				return nil, err
			}
			out := make(chan store.Batch)
			go func() {
				defer close(out)
				var held store.Batch
				for b := range in {
					var bs []store.Batch
					held, bs = change(held, b)
					for _, b := range bs {
						select {
						case out <- b:
						case <-ctx.Done():
						}
					}
				}
			}()
			return out, nil
		}
	}
}

func (l *liar) Get(ctx context.Context, key string) (store.Entry, error) {
	if l.get != nil {
		return l.get(ctx, key)
	}
	return l.KV.Get(ctx, key)
}

func (l *liar) List(ctx context.Context, prefix, after string, limit int) (store.Page, error) {
	if l.list != nil {
		return l.list(ctx, prefix, after, limit)
	}
	return l.KV.List(ctx, prefix, after, limit)
}

func (l *liar) Commit(ctx context.Context, t store.Txn) (int64, error) {
	if l.commit != nil {
		return l.commit(ctx, t)
	}
	return l.KV.Commit(ctx, t)
}

func (l *liar) Watch(ctx context.Context, prefix string, after int64) (<-chan store.Batch, error) {
	if l.watch != nil {
		return l.watch(ctx, prefix, after)
	}
	return l.KV.Watch(ctx, prefix, after)
}

func (l *liar) Lease(ctx context.Context, ttl time.Duration) (store.LeaseID, error) {
	if l.lease != nil {
		return l.lease(ctx, ttl)
	}
	return l.KV.Lease(ctx, ttl)
}

func (l *liar) KeepAlive(ctx context.Context, id store.LeaseID) error {
	if l.keepAlive != nil {
		return l.keepAlive(ctx, id)
	}
	return l.KV.KeepAlive(ctx, id)
}

func (l *liar) Revoke(ctx context.Context, id store.LeaseID) error {
	if l.revoke != nil {
		return l.revoke(ctx, id)
	}
	return l.KV.Revoke(ctx, id)
}

func (l *liar) Close() error {
	if l.close != nil {
		return l.close()
	}
	return l.KV.Close()
}

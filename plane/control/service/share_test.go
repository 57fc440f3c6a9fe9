package service_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/plane/store"
)

// journal is an engine that notes commits.
type journal struct {
	store.KV

	mu   sync.Mutex
	done []store.Txn
}

func (j *journal) Commit(ctx context.Context, t store.Txn) (int64, error) {
	at, err := j.KV.Commit(ctx, t)
	if err == nil {
		j.mu.Lock()
		j.done = append(j.done, t)
		j.mu.Unlock()
	}
	return at, err
}

// TestAReplicaIsMadeWithTheServiceUnchanged: two planes, or one that died, never
// make more machines than there may be, because each is made in the transaction
// that counts it.
func TestAReplicaIsMadeWithTheServiceUnchanged(t *testing.T) {
	y := newYard(t)
	y.compose(nil)
	y.until("two replicas answer", ready(2))
	y.kept.mu.Lock()
	defer y.kept.mu.Unlock()
	const of, machines = "/consort/objects/services/p/shop", "/consort/objects/machines/"
	made := 0
	for _, done := range y.kept.done {
		fresh := 0
		for _, c := range done.If {
			if strings.HasPrefix(c.Key, machines) && c.Revision == 0 {
				fresh++
			}
		}
		made += fresh
		unchanged := slices.ContainsFunc(done.If, func(c store.Compare) bool { return c.Key == of && c.Revision != 0 })
		counted := slices.ContainsFunc(done.Then, func(w store.Write) bool { return w.Key == of })
		if fresh > 0 && (!unchanged || !counted) {
			t.Errorf("a commit makes %d machines: the service must be unchanged %v, and is written %v; want both", fresh, unchanged, counted)
		}
	}
	if made != 2 {
		t.Errorf("%d machines were made, want 2", made)
	}
}

// TestTheFirstNewReplicaGetsItsShare asks while one replica of three is a new
// one that is judged: it gets a tenth, and not a third.
func TestTheFirstNewReplicaGetsItsShare(t *testing.T) {
	y := newYard(t)
	y.compose(func(s *estate.ServiceSpec) {
		s.Update.Canary, s.Update.Watch = estate.Whole/10, estate.Duration(time.Minute)
	})
	y.until("two replicas answer", ready(2))
	y.change(func(s *estate.Service) { s.Spec.Applications[0].Version = "2" })
	y.until("the new one is judged", func(s *estate.Service) bool {
		return s.Status.Ready == 3 && s.Status.Rollout != nil && strings.Contains(s.Status.Rollout.Verdict, "is watched")
	})
	// One that is new gets less at first than its share, and soon all of it.
	asked, fresh := 0, 0
	for end := time.Now().Add(soon); asked < 400 || fresh < 15; asked++ {
		if time.Now().After(end) {
			t.Fatalf("the new replica answered %d of %d requests", fresh, asked)
		}
		res, err := http.Get(y.url)
		y.must(err)
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		y.must(err)
		if strings.HasSuffix(string(text), " 2") {
			fresh++
		}
	}
	// By chance alone a tenth of 400 is more than 70 once in a million times.
	if fresh > asked*70/400 {
		t.Errorf("the new replica answered %d of %d requests, want about a tenth", fresh, asked)
	}
}

func TestAnImageWithoutAnAccountIsRefused(t *testing.T) {
	y := newYard(t)
	_, err := store.Modify(t.Context(), y.store, "p", "system", func(m *estate.Image) error { m.Status.Guest.User = ""; return nil })
	y.must(err)
	y.compose(nil)
	y.until("it says what the image lacks", func(s *estate.Service) bool {
		return strings.Contains(s.Status.Waiting, "image system names no account for the application to run under: give it guest.user") && len(s.Status.Replicas) == 0
	})
}

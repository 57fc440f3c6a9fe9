package control

import (
	"testing"
	"testing/synctest"
	"time"

	"consort.dev/consort/estate"
)

var (
	one = estate.Ref{Kind: "Desktop", Project: "p", Name: "one"}
	two = estate.Ref{Kind: "Desktop", Project: "p", Name: "two"}
)

func TestAnObjectIsWithOneWorkerAtATime(t *testing.T) {
	q := newQueue()
	q.add(one, one, two)
	first, _ := q.take()
	second, _ := q.take()
	if first != one || second != two {
		t.Fatalf("took %v and %v", first, second)
	}
	q.add(one) // changed while a worker has it
	if len(q.waiting) != 0 {
		t.Error("an object with a worker was queued")
	}
	q.done(one, 0)
	if again, _ := q.take(); again != one {
		t.Errorf("took %v, want the object that changed meanwhile", again)
	}
}

func TestAFailedObjectComesBackLaterAndLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		q.add(one)
		var waits []time.Duration
		for range 8 {
			began := time.Now()
			if _, ok := q.take(); !ok {
				t.Fatal("the queue ended")
			}
			waits = append(waits, time.Since(began))
			q.failed(one)
		}
		for i := 2; i < len(waits); i++ {
			if waits[i] < waits[i-1] {
				t.Errorf("waits = %v, want them to grow", waits)
			}
		}
		if waits[0] != 0 || waits[1] != firstRetry || waits[7] > mostRetry {
			t.Errorf("waits = %v", waits)
		}
		q.close()
	})
}

func TestDoneForgetsFailuresAndComesBackWhenAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		q.add(one)
		q.take()
		q.failed(one)
		q.take()
		q.done(one, time.Minute)
		began := time.Now()
		q.take()
		if got := time.Since(began); got != time.Minute {
			t.Errorf("came back after %v, want 1m", got)
		}
		q.failed(one)
		began = time.Now()
		q.take()
		if got := time.Since(began); got != firstRetry {
			t.Errorf("the first failure after success waits %v, want %v", got, firstRetry)
		}
		q.close()
	})
}

func TestCloseWakesEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		done := make(chan bool)
		go func() { _, ok := q.take(); done <- ok }()
		synctest.Wait()
		q.close()
		if <-done {
			t.Error("a closed queue gave out an object")
		}
	})
}

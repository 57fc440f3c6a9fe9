package front

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// pond is a pool whose replicas are only numbers.
func pond(o Options, names ...string) *pool {
	o.Limits = o.Limits.withDefaults()
	if o.Random == nil {
		o.Random = rand.New(rand.NewPCG(1, 2)).IntN
	}
	p := newPool(o)
	p.set(replicas(names...), time.Now(), bare)
	return p
}

func bare(r Replica) *replica {
	return &replica{Replica: r, token: r.Name, leases: map[*lease]struct{}{}, gone: make(chan struct{})}
}

// take acquires, or fails the test.
func take(t *testing.T, p *pool, w wish) *lease {
	t.Helper()
	w.cancel = func(error) {}
	l, err := p.acquire(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serve asks n times, each answered after its replica's time, and returns how
// often each was asked. A time below 0 is a failure.
func ask(t *testing.T, p *pool, n int, times map[string]time.Duration) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range n {
		l := take(t, p, wish{})
		got[l.replica.Name]++
		if d := times[l.replica.Name]; d < 0 {
			l.fail("it breaks off", mostFailures, time.Now())
		} else {
			time.Sleep(d)
			l.answer(200, time.Now())
		}
		l.done(time.Now())
		p.sweep(time.Now())
	}
	return got
}

func TestTheFasterReplicaIsAskedMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pond(Options{}, "a", "b")
		time.Sleep(slowStart)
		got := ask(t, p, 1000, map[string]time.Duration{"a": 10 * time.Millisecond, "b": 18 * time.Millisecond})
		if got["a"] < 700 || got["b"] == 0 {
			t.Errorf("asked %v, want a most of the time, and b now and then", got)
		}
	})
}

func TestANewReplicaGetsItsPartLittleByLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pond(Options{}, "a", "b", "c")
		time.Sleep(slowStart)
		p.set(replicas("a", "b", "c", "new"), time.Now(), bare)
		even := map[string]time.Duration{}
		early := ask(t, p, 1000, even)["new"]
		time.Sleep(slowStart)
		late := ask(t, p, 1000, even)["new"]
		if early > 120 || late < 180 {
			t.Errorf("of 1000 it got %d at first and %d after %s, want about 30 to 100, then 250", early, late, slowStart)
		}
	})
}

func TestAReplicaThatFailsIsLeftOutLongerEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pond(Options{}, "a", "b", "bad")
		time.Sleep(slowStart)
		times := map[string]time.Duration{"a": 0, "b": 0, "bad": -1}
		for _, pause := range []time.Duration{firstPause, 2 * firstPause, 4 * firstPause} {
			ask(t, p, 200, times)
			if n := ask(t, p, 200, times)["bad"]; n != 0 {
				t.Fatalf("left out, and asked %d times", n)
			}
			time.Sleep(pause - time.Second)
			if n := ask(t, p, 200, times)["bad"]; n != 0 {
				t.Fatalf("asked %d times before its pause of %s was over", n, pause)
			}
			time.Sleep(2 * time.Second)
		}
		times["bad"] = 0
		if n := ask(t, p, 500, times)["bad"]; n == 0 {
			t.Error("it is well again, and not asked")
		}
		if s := p.replicas[2].state(time.Now()); s != Ready {
			t.Errorf("it is %s, want ready", s)
		}
	})
}

func TestASlowReplicaIsLeftOutAloneAndAnEvenLoadLeavesNobodyOut(t *testing.T) {
	for _, c := range []struct {
		slow time.Duration
		want int64
	}{{200 * time.Millisecond, 1}, {40 * time.Millisecond, 0}} {
		synctest.Test(t, func(t *testing.T) {
			p := pond(Options{}, "a", "b", "c")
			time.Sleep(slowStart)
			// Each is asked on its own, as by clients that stick to it.
			for range 300 {
				for name, took := range map[string]time.Duration{"a": 40 * time.Millisecond, "b": 44 * time.Millisecond, "c": c.slow} {
					l := take(t, p, wish{sticky: name})
					if l.replica.Name == name {
						l.answer(200, l.began.Add(took))
					}
					l.done(time.Now())
				}
				time.Sleep(50 * time.Millisecond)
				p.sweep(time.Now())
				if p.ejections > 0 {
					break
				}
			}
			if p.ejections != c.want || p.replicas[0].out || p.replicas[1].out {
				t.Errorf("c takes %s: %d left out, want %d and c alone", c.slow, p.ejections, c.want)
			}
		})
	}
}

func TestAReplicaThatHangsIsFoundByWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pond(Options{}, "a", "b", "hung")
		time.Sleep(slowStart)
		for range slowSamples {
			take(t, p, wish{sticky: "hung"})
		}
		for range 12 {
			ask(t, p, 50, map[string]time.Duration{"a": 20 * time.Millisecond, "b": 20 * time.Millisecond})
		}
		if r := p.replicas[2]; !r.out {
			t.Error("it hangs, and is not left out")
		}
	})
}

func TestHalfOfTheReplicasStayHoweverBadTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pond(Options{}, "a", "b", "c", "d")
		time.Sleep(slowStart)
		ask(t, p, 1000, map[string]time.Duration{"a": -1, "b": -1, "c": -1, "d": -1})
		if p.ejections != 2 {
			t.Errorf("%d were left out, want 2 of 4", p.ejections)
		}
	})
}

func TestWhereMostProbesFailAllAreAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pond(Options{Probe: &Probe{}}, "a", "b", "c", "never")
		fails := errors.New("no")
		for _, r := range p.replicas[:3] {
			p.probed(r, nil, 1, time.Now())
		}
		p.probed(p.replicas[0], fails, 1, time.Now())
		time.Sleep(slowStart)
		if n := ask(t, p, 300, nil)["a"]; n != 0 {
			t.Errorf("a is not ready, and was asked %d times", n)
		}
		p.probed(p.replicas[1], fails, 1, time.Now())
		got := ask(t, p, 300, nil)
		if got["a"] == 0 || got["b"] == 0 || got["never"] != 0 {
			t.Errorf("two of three fail: asked %v, want a, b and c, and never one that was never ready", got)
		}
	})
}

func TestACanaryNeverGetsMoreThanItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pond(Options{}, "a", "b")
		time.Sleep(slowStart)
		p.set(append(replicas("a", "b"), Replica{Name: "canary", Port: 80, Share: .05}), time.Now(), bare)
		time.Sleep(slowStart)
		// It is the fastest: without a share it would get most.
		if n := ask(t, p, 1000, map[string]time.Duration{"a": 9e6, "b": 9e6, "canary": 1e6})["canary"]; n < 40 || n > 51 {
			t.Errorf("of 1000 it got %d, want about 50 and at most 51", n)
		}
	})
}

func TestWhoWaitsIsServedInTurnAndTheQueueHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pond(Options{Limits: Limits{PerReplica: 1, Queue: 2, Wait: time.Second}}, "a")
		first := take(t, p, wish{})
		turns := make(chan int, 2)
		for i := range 2 {
			go func() {
				l, err := p.acquire(t.Context(), wish{})
				if err != nil {
					t.Error(err)
					return
				}
				turns <- i
				time.Sleep(10 * time.Millisecond)
				l.done(time.Now())
			}()
			synctest.Wait()
		}
		if _, err := p.acquire(t.Context(), wish{}); err != errQueue {
			t.Errorf("a third that waits: got %v, want %v", err, errQueue)
		}
		first.done(time.Now())
		if a, b := <-turns, <-turns; a != 0 || b != 1 {
			t.Errorf("served %d before %d", a, b)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		again := take(t, p, wish{})
		began := time.Now()
		if _, err := p.acquire(t.Context(), wish{}); err != errWait || time.Since(began) != time.Second {
			t.Errorf("waited %s: got %v, want %v after 1s", time.Since(began), err, errWait)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := p.acquire(ctx, wish{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a client who leaves the queue: got %v", err)
		}
		if again.done(time.Now()); len(p.queue) != 0 || len(p.replicas[0].leases) != 0 {
			t.Errorf("%d wait and %d are in flight, want none", len(p.queue), len(p.replicas[0].leases))
		}
	})
}

func TestRetriesAreAFifthAndTenASecond(t *testing.T) {
	var b budget
	now := time.Now()
	b.spend(now)
	granted := 0
	for range 10_000 {
		b.deposit()
		now = now.Add(time.Millisecond)
		if b.spend(now) {
			granted++
		}
	}
	if granted < 2090 || granted > 2101 {
		t.Errorf("of 10000 requests in 10 s %d may be tried again, want a fifth and ten a second: 2100", granted)
	}
}

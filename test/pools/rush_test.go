package pools

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/fakehost"
)

// stopwatch collects how long calls take.
type stopwatch struct {
	mu  sync.Mutex
	all []time.Duration
}

// time notes how long one call took.
func (w *stopwatch) time(call func() error) error {
	began := time.Now()
	err := call()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, time.Since(began))
	return err
}

func (w *stopwatch) percentile(p int) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(w.all)
	return w.all[max(0, (len(w.all)*p+99)/100-1)].Round(time.Millisecond)
}

// String implements fmt.Stringer.
func (w *stopwatch) String() string {
	return fmt.Sprintf("%d calls, p50 %s, p95 %s, p99 %s, worst %s", len(w.all), w.percentile(50), w.percentile(95), w.percentile(99), w.percentile(100))
}

// responsive is how long 99 of 100 calls may take in a rush, on a machine that
// does nothing else: CONSORT_QUIET says so. Beside other tests it is bounded all
// the same.
func responsive() time.Duration {
	if os.Getenv("CONSORT_QUIET") != "" {
		return 250 * time.Millisecond
	}
	return 3 * time.Second
}

// TestFiveHundredConnectsAtOnce has 500 persons ask for a seat at once on a host
// with memory for 16. Nobody fails: each is served or is told a place and a
// time, the plane answers others meanwhile, and in the end everybody has had a
// seat, in the order in which they came.
func TestFiveHundredConnectsAtOnce(t *testing.T) {
	const crowd, room = 500, 16
	p := newPlane(t, fakehost.Options{Capacity: estate.Capacity{CPUs: 8, Memory: room * estate.GiB, Disk: estate.TiB}}, estate.GuestFacts{})
	persons := p.persons(crowd)
	p.pool("counter", 4, crowd)
	p.until("four seats are ready", func() bool { return p.status("counter").Warm == 4 })

	var connects, others stopwatch
	ctx, rest := context.WithCancel(t.Context())
	defer rest()
	var asking, watching sync.WaitGroup
	watching.Go(func() { p.bystand(ctx, &others) })
	sessions := make([]*estate.Session, crowd)
	for i, person := range persons {
		asking.Go(func() {
			err := connects.time(func() (err error) {
				sessions[i], err = p.client.ConnectPool(t.Context(), "default", "counter", api.ConnectRequest{Person: person})
				return err
			})
			if err != nil {
				t.Errorf("%s: %v", person, err)
			}
		})
	}
	asking.Wait()
	if t.Failed() {
		return
	}
	p.until("everybody is served, or told a place and a time", func() bool {
		served, queued := p.census()
		return served+queued == crowd && served == room
	})
	rest()
	watching.Wait()
	t.Logf("Connect: %v", &connects)
	t.Logf("everything else meanwhile: %v", &others)
	for what, w := range map[string]*stopwatch{"Connect": &connects, "everything else": &others} {
		if got := w.percentile(99); got > responsive() {
			t.Errorf("%s: the slowest of 99 in 100 took %s, want at most %s", what, got, responsive())
		}
	}
	p.serveAll(crowd)
}

// bystand asks the plane for this and that, as portals and operators do, until
// ctx ends.
func (p *plane) bystand(ctx context.Context, w *stopwatch) {
	for ctx.Err() == nil {
		for _, call := range []func() error{
			func() error { _, err := p.client.Me(ctx); return err },
			func() error { _, err := api.Get[estate.Pool](ctx, p.client, "default", "counter"); return err },
			func() error { _, err := api.Get[estate.Hypervisor](ctx, p.client, "", "here"); return err },
		} {
			if err := w.time(call); err != nil && ctx.Err() == nil {
				p.Error(err)
			}
		}
	}
}

// census counts who has a seat, and who was told a place and a time.
func (p *plane) census() (served, queued int) {
	all, _, err := api.List[estate.Session](p.Context(), p.client, api.Filter{Project: "default"})
	p.must(err)
	for _, s := range all {
		switch q := s.Status.Queue; {
		case s.Status.State == estate.SessionEnded:
			p.Errorf("%s's session ended: %s", s.Spec.Person, s.Status.Because)
		case s.Spec.Desktop != "":
			served++
		case q != nil && q.Place > 0 && q.Of >= q.Place && !q.Expected.IsZero():
			queued++
		}
	}
	return served, queued
}

// serveAll has everybody leave as soon as their desktop is up, until all have
// had one. It looks at who is passed over.
func (p *plane) serveAll(crowd int) {
	p.Helper()
	began := time.Now()
	came := map[string]time.Time{}
	had := map[string]bool{}
	var order []time.Time
	ctx, enough := context.WithTimeout(p.Context(), soon)
	defer enough()
	for e := range api.Watch[estate.Session](ctx, p.client, "default") {
		s := e.Object
		if e.Type != api.Is || s == nil {
			continue
		}
		came[s.Spec.Person] = s.Metadata.Created
		if s.Status.State != estate.SessionReady || had[s.Spec.Person] {
			continue
		}
		had[s.Spec.Person] = true
		order = append(order, s.Metadata.Created)
		p.end(s.Metadata.Name)
		if len(had) == crowd {
			break
		}
	}
	if len(had) != crowd {
		p.Fatalf("%d of %d had a seat after %s", len(had), crowd, soon)
	}
	const together = 64 // who is served at about the same time may be ready in any order
	sorted := slices.SortedFunc(slices.Values(order), time.Time.Compare)
	for i, at := range order {
		if late := i - slices.IndexFunc(sorted, at.Equal); late > together {
			p.Errorf("who came as number %d was served as number %d", i-late, i)
		}
	}
	p.Logf("all %d had a seat after %s", crowd, time.Since(began).Round(time.Second))
	p.until("every seat is destroyed", func() bool { s := p.status("counter"); return s.Taken == 0 && s.Queue == 0 })
}

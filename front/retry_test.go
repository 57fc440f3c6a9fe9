package front

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"consort.dev/consort/fault"
)

func TestARequestThatReachedNobodyIsTriedOnAnother(t *testing.T) {
	var w town
	w.start(t, "b", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	f, at := w.open(t, Options{}, "dead", "b")
	for i := range 50 {
		res, err := http.Post("http://"+at, "text/plain", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 200 || string(b) != "body" {
			t.Fatalf("request %d: %s %q, want 200 and the whole body", i, res.Status, b)
		}
	}
	n := f.Figures()
	if n.Retries == 0 || n.Ejections != 1 || n.Replicas[0].State != Out {
		t.Errorf("%d retries, %d ejections, dead is %s; want some, 1 and out", n.Retries, n.Ejections, n.Replicas[0].State)
	}
}

func TestOnlyWhatMayBeAskedTwiceIsAskedTwiceAfterAReset(t *testing.T) {
	var w town
	var asked atomic.Int64
	reset := func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		conn, _, _ := http.NewResponseController(w).Hijack()
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		w.start(t, name, reset)
	}
	f, at := w.open(t, Options{}, "a", "b", "c", "d")
	for _, c := range []struct {
		method, body string
		want         int64
	}{{"GET", "", 3}, {"PUT", "", 3}, {"POST", "", 1}, {"PATCH", "x", 1}, {"PUT", "x", 1}} {
		asked.Store(0)
		req, _ := http.NewRequest(c.method, "http://"+at, strings.NewReader(c.body))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusBadGateway || asked.Load() != c.want {
			t.Errorf("%s with body %q: %s after %d tries, want 502 after %d", c.method, c.body, res.Status, asked.Load(), c.want)
		}
	}
	if n := settled(t, f); n.Retries != 4 {
		t.Errorf("%d retries, want 4", n.Retries)
	}
}

func TestWithoutAReplicaTheAnswerComesInTimeAndSaysWhenToComeBack(t *testing.T) {
	var w town
	f, at := w.open(t, Options{Limits: Limits{Wait: 10 * time.Millisecond}, Objectives: []Objective{{"fast", time.Minute}}})
	res, _ := get(t, "http://"+at)
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") != "1" {
		t.Errorf("got %s, Retry-After %q; want 503 and 1", res.Status, res.Header.Get("Retry-After"))
	}
	if n := settled(t, f); n.Refused != 1 || n.Objectives[0] != (Count{"fast", 0, 1}) {
		t.Errorf("refused %d, objective %+v; want one bad request", n.Refused, n.Objectives[0])
	}
}

// roll replaces all of three replicas one by one under a constant load, half of
// it POST, and returns how many requests were sent and how many failed.
func roll(t *testing.T, drains bool, rate time.Duration, upkeep time.Duration) (sent, failed int64) {
	var w town
	work := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		time.Sleep(20 * time.Millisecond) // what a request takes
		fmt.Fprint(w, "done")
	}
	names := []string{"web-0", "web-1", "web-2"}
	for _, n := range names {
		w.start(t, n, work)
	}
	f, at := w.open(t, Options{Probe: &Probe{Path: "/"}}, names...)
	await(t, f, 3)
	var all, bad atomic.Int64
	var users sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}, Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	stop := make(chan struct{})
	users.Go(func() {
		for tick := time.NewTicker(rate); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
			}
			n := all.Add(1)
			users.Go(func() {
				req, _ := http.NewRequest([]string{"GET", "POST"}[n%2], "http://"+at, strings.NewReader("order"))
				res, err := client.Do(req)
				if err != nil {
					bad.Add(1)
					return
				}
				if b, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 || string(b) != "done" {
					bad.Add(1)
				}
				res.Body.Close()
			})
		}
	})
	for i := range 6 {
		old, next := names[0], fmt.Sprintf("web-%d", i+3)
		w.start(t, next, work)
		names = append(names[1:], next)
		if err := f.Set(replicas(append([]string{old}, names...)...)); err != nil {
			t.Fatal(err)
		}
		await(t, f, 4)
		time.Sleep(upkeep)
		if drains {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if err := f.Drain(ctx, old); err != nil {
				t.Error(err)
			}
			cancel()
		}
		w.mu.Lock()
		gone := w.servers[old]
		delete(w.servers, old)
		w.mu.Unlock()
		gone.Listener.Close()
		gone.CloseClientConnections()
		if err := f.Set(replicas(names...)); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	users.Wait()
	for _, s := range settled(t, f).Series {
		if s.Replica != "" && !slices.Contains(names, s.Replica) {
			t.Errorf("%s has gone and still has series of its own", s.Replica)
		}
	}
	return all.Load(), bad.Load()
}

// await waits until so many replicas are ready.
func await(t *testing.T, f *Front, want int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		ready := 0
		for _, r := range f.Figures().Replicas {
			if r.State == Ready {
				ready++
			}
		}
		if ready == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d replicas are ready, want %d", ready, want)
		}
	}
}

func TestARollingUpdateLosesNoRequest(t *testing.T) {
	if sent, failed := roll(t, true, time.Second/200, 300*time.Millisecond); failed != 0 || sent < 100 {
		t.Errorf("%d of %d requests failed, want none", failed, sent)
	}
}

// The load above is one that can lose requests.
func TestAnUpdateThatDoesNotDrainLosesRequests(t *testing.T) {
	if sent, failed := roll(t, false, time.Second/200, 300*time.Millisecond); failed == 0 {
		t.Errorf("none of %d requests failed", sent)
	}
}

func TestADrainThatTakesTooLongCutsOffWhatIsLeft(t *testing.T) {
	var w town
	working := make(chan struct{}, 1)
	w.start(t, "a", func(_ http.ResponseWriter, r *http.Request) {
		working <- struct{}{}
		<-r.Context().Done()
	})
	f, at := w.open(t, Options{}, "a")
	status := make(chan int)
	go func() {
		res, err := http.Get("http://" + at)
		if err != nil {
			status <- 0
			return
		}
		res.Body.Close()
		status <- res.StatusCode
	}()
	<-working
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := f.Drain(ctx, "a"); !errors.Is(err, fault.Busy) || !strings.Contains(err.Error(), "1 requests") {
		t.Errorf("drain: got %v, want busy with 1 request", err)
	}
	if got := <-status; got != http.StatusServiceUnavailable {
		t.Errorf("the client got %d, want 503", got)
	}
	settled(t, f)
	if err := f.Drain(t.Context(), "a"); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := f.Drain(t.Context(), "nobody"); err != nil {
		t.Errorf("an unknown replica: %v", err)
	}
}

package front

import (
	"context"
	"math"
	"net/http"
	"slices"
	"time"
)

const (
	// peakFades is how fast a peak of latency is forgotten: to 1/e in this time
	// (Finagle's peak-EWMA has 10 s).
	peakFades = 10 * time.Second
	// slowStart is how long a new or returning replica takes to get its full part.
	slowStart = 10 * time.Second
	// leastCost keeps the number in flight in the choice where nothing is known
	// of latency: seconds.
	leastCost = 1e-4
	// sampleLife is how long a latency counts when replicas are compared.
	sampleLife = 30 * time.Second
)

// replica is what the pool knows of a replica. The pool's lock is over all of
// it but for what never changes.
type replica struct {
	Replica
	address   string // of every request to it, for the transport's sake
	token     string // in the sticky cookie
	transport *http.Transport
	gone      chan struct{} // closed when it is no longer among the replicas

	leases   map[*lease]struct{} // in flight
	draining bool
	idle     chan struct{} // closed when a draining replica has nothing in flight

	peak    float64   // seconds, as of sampled
	sampled time.Time // zero: no latency seen yet
	since   time.Time // from when slow start counts
	recent  [64]sample
	next    int // in recent

	taken int64 // requests since shareFrom, for its share
	from  int64 // the pool's count of requests when it came

	health
}

// sample is one latency: until the head of a response, or until a client had
// no more patience.
type sample struct {
	at   time.Time
	took time.Duration
}

// observe takes a latency in.
func (r *replica) observe(took time.Duration, now time.Time) {
	r.recent[r.next] = sample{now, took}
	r.next = (r.next + 1) % len(r.recent)
	rtt := took.Seconds()
	switch faded := r.latency(now); {
	case r.sampled.IsZero(), rtt >= faded:
		r.peak = rtt
	default:
		w := math.Exp(-float64(now.Sub(r.sampled)) / float64(peakFades))
		r.peak = r.peak*w + rtt*(1-w)
	}
	r.sampled = now
}

// latency is the peak as it has faded until now, in seconds.
func (r *replica) latency(now time.Time) float64 {
	return r.peak * math.Exp(-float64(now.Sub(r.sampled))/float64(peakFades))
}

// cost is what one more request on it is expected to wait. Unknown latency
// counts as typical.
func (r *replica) cost(now time.Time, typical float64) float64 {
	l := typical
	if !r.sampled.IsZero() {
		l = r.latency(now)
	}
	return max(l, leastCost) * float64(len(r.leases)+1)
}

// weight is the part of its full share that it gets in slow start.
func (r *replica) weight(now time.Time) float64 {
	if w := float64(now.Sub(r.since)) / float64(slowStart); w < 1 {
		return max(w, .1)
	}
	return 1
}

// median is the middle of its recent latencies, with the ages of what waits for
// an answer among them: a replica that hangs has no others. n is their number.
func (r *replica) median(now time.Time) (m time.Duration, n int) {
	all := make([]time.Duration, 0, len(r.recent)+len(r.leases))
	for _, s := range r.recent {
		if !s.at.IsZero() && now.Sub(s.at) < sampleLife {
			all = append(all, s.took)
		}
	}
	done := len(all)
	for l := range r.leases {
		if !l.answered {
			all = append(all, now.Sub(l.began))
		}
	}
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	m = all[len(all)/2]
	if done == 0 {
		m = all[0] // all that is known is that each takes longer
	}
	return m, len(all)
}

// label is the name under which its requests are counted: none when it has gone,
// or its series would come back and stay.
func (r *replica) label() string {
	select {
	case <-r.gone:
		return ""
	default:
		return r.Name
	}
}

// lease is one request's place on a replica. done gives it back.
type lease struct {
	pool     *pool
	replica  *replica
	began    time.Time
	answered bool
	cancel   context.CancelCauseFunc
}

// answer notes that the replica began its response. status is 0 where there is none.
func (l *lease) answer(status int, now time.Time) {
	p := l.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.answered {
		return
	}
	l.answered = true
	l.replica.observe(now.Sub(l.began), now)
	if status >= http.StatusInternalServerError {
		p.fail(l.replica, "it answers with errors", mostFailures, now)
		return
	}
	p.succeed(l.replica, now)
}

// fail notes that the replica could not be reached, or broke off.
func (l *lease) fail(why string, most int, now time.Time) {
	p := l.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	l.answered = true
	p.fail(l.replica, why, most, now)
}

// leave notes that the client went away: what it waited says how slow the
// replica is at least.
func (l *lease) leave(now time.Time) {
	p := l.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if took := now.Sub(l.began); !l.answered && took.Seconds() > l.replica.latency(now) {
		l.replica.observe(took, now)
	}
	l.answered = true
}

// done gives the place back; the second time does nothing.
func (l *lease) done(now time.Time) {
	p := l.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	p.release(l, now)
}

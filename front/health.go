package front

import (
	"fmt"
	"slices"
	"time"
)

const (
	mostFailures = 5                // in a row, until a replica is left out (Envoy's consecutive_5xx has 5)
	mostRefusals = 2                // of connections in a row
	firstPause   = 10 * time.Second // the next is twice as long, and so on
	longestPause = 5 * time.Minute  // also how long a replica must be well for its past to be forgotten

	// outShare is the part of the replicas that may be left out at once; where
	// more are not ready, all are asked again, for they cannot all be worse
	// than none.
	outShare = .5

	// A replica is slow when its median latency is slowTimes that of its
	// siblings' middle one, and at least slowLeast more, at two sweeps in a row.
	slowTimes   = 3
	slowLeast   = 10 * time.Millisecond
	slowSamples = 8
	sweepEvery  = 5 * time.Second
)

// health is what is known of a replica's state.
type health struct {
	unready  bool // its probe has not passed, or no longer does
	once     bool // it was ready at some time
	misses   int  // probes missed in a row
	failures int  // requests in a row
	slow     int  // sweeps in a row

	out   bool      // left out until until, then tried with one request at a time
	until time.Time //
	outs  int       // times it was left out, for the length of the next
	back  time.Time // when it came back
	why   string
}

// ejection is told to the log.
type ejection struct {
	replica, why string
	pause        time.Duration
}

// fail notes a failure, and leaves the replica out after most of them in a row,
// or at once when it was on trial.
func (p *pool) fail(r *replica, why string, most int, now time.Time) {
	r.failures++
	if r.out && !now.Before(r.until) || !r.out && r.failures >= most {
		p.eject(r, why, now)
	}
}

// succeed notes a good answer, which ends a trial.
func (p *pool) succeed(r *replica, now time.Time) {
	r.failures = 0
	if r.out && !now.Before(r.until) {
		r.out, r.back, r.since = false, now, now
		p.serve(now)
	}
}

// eject leaves a replica out for a while, unless too many are out already.
func (p *pool) eject(r *replica, why string, now time.Time) {
	all, out := 0, 0
	for _, o := range p.replicas {
		if !o.draining {
			all++
			if o != r && (o.out || o.unready) {
				out++
			}
		}
	}
	if float64(out+1) > outShare*float64(all) {
		return
	}
	if !r.out && !r.back.IsZero() && now.Sub(r.back) > longestPause {
		r.outs = 0
	}
	pause := min(firstPause<<min(r.outs, 10), longestPause)
	r.out, r.until, r.why = true, now.Add(pause), why
	r.outs++
	r.failures, r.slow = 0, 0
	r.recent = [64]sample{} // what it did before says nothing of how it comes back
	p.ejections++
	p.told = append(p.told, ejection{r.Name, why, pause})
}

// sweep compares the latencies of replicas, serves who waits, and returns what
// was left out since the last time.
func (p *pool) sweep(now time.Time) []ejection {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.swept) >= sweepEvery {
		p.swept = now
		p.compare(now)
	}
	p.serve(now)
	told := p.told
	p.told = nil
	return told
}

// compare finds replicas that are slow beside their siblings.
func (p *pool) compare(now time.Time) {
	type one struct {
		r *replica
		m time.Duration
	}
	var all []one
	for _, r := range p.replicas {
		if r.draining || r.unready || r.out {
			continue
		}
		if m, n := r.median(now); n >= slowSamples {
			all = append(all, one{r, m})
		} else {
			r.slow = 0
		}
	}
	for i, a := range all {
		var others []time.Duration
		for j, b := range all {
			if j != i {
				others = append(others, b.m)
			}
		}
		if len(others) == 0 {
			a.r.slow = 0
			continue
		}
		slices.Sort(others)
		middle := others[(len(others)-1)/2]
		if a.m < slowTimes*middle || a.m-middle < slowLeast {
			a.r.slow = 0
			continue
		}
		if a.r.slow++; a.r.slow >= 2 {
			p.eject(a.r, fmt.Sprintf("it takes %s where its siblings take %s", a.m.Round(time.Millisecond), middle.Round(time.Millisecond)), now)
		}
	}
}

// probed notes the outcome of a probe, and reports whether the replica was ever
// ready.
func (p *pool) probed(r *replica, err error, most int, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		if r.unready {
			r.unready, r.once, r.since = false, true, now
		}
		r.misses = 0
		p.serve(now)
		return true
	}
	if r.misses++; r.misses >= most && !r.unready {
		r.unready, r.why = true, fmt.Sprintf("its probe fails: %v", err)
	}
	return r.once
}

package front

import (
	"context"
	"slices"
	"sync"
	"time"
)

// pool holds the replicas and who waits for one. Its one lock is held for a
// walk over the replicas at most, never while anything is sent.
type pool struct {
	limits Limits
	random func(int) int
	probes bool

	mu       sync.Mutex
	replicas []*replica
	queue    []*waiter
	budget   budget
	closed   bool
	swept    time.Time
	told     []ejection // since the last sweep

	requests, refused, ejections int64
}

// waiter is a request that waits for a replica.
type waiter struct {
	want wish
	got  chan *lease // holds one
}

// wish is what a request wants of the choice.
type wish struct {
	sticky string     // a replica's token, or none
	tried  []*replica // not again
	cancel context.CancelCauseFunc
}

func newPool(o Options) *pool {
	return &pool{limits: o.Limits, random: o.Random, probes: o.Probe != nil, budget: budget{tokens: retryReserve}}
}

// set makes these the replicas, and returns which came and which went.
func (p *pool) set(want []Replica, now time.Time, make func(Replica) *replica) (came, went []*replica) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var next []*replica
	for _, w := range want {
		i := slices.IndexFunc(p.replicas, func(r *replica) bool { return r.Name == w.Name && r.Port == w.Port })
		if i >= 0 {
			r := p.replicas[i]
			if r.Share != w.Share {
				r.Share, r.taken, r.from = w.Share, 0, p.requests
			}
			if r.draining != w.Leaving {
				r.draining, r.idle = w.Leaving, nil
			}
			next = append(next, r)
			continue
		}
		r := make(w)
		r.since, r.from, r.draining = now, p.requests, w.Leaving
		r.unready, r.once = p.probes, !p.probes
		if p.probes {
			r.why = "its probe has not passed yet"
		}
		next, came = append(next, r), append(came, r)
	}
	for _, r := range p.replicas {
		if !slices.Contains(next, r) {
			went = append(went, r)
			r.draining = true
			close(r.gone)
		}
	}
	p.replicas = next
	p.serve(now)
	return came, went
}

// drain gives the replica nothing new and returns it with a channel that is
// closed when nothing is in flight on it; nil where there is none of that name.
func (p *pool) drain(name string) (*replica, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.replicas {
		if r.Name != name {
			continue
		}
		r.draining = true
		if r.idle == nil {
			r.idle = make(chan struct{})
			if len(r.leases) == 0 {
				close(r.idle)
			}
		}
		return r, r.idle
	}
	return nil, nil
}

// cut ends what is in flight on the replica, and returns how much it was.
func (p *pool) cut(r *replica, why error) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range r.leases {
		l.cancel(why)
	}
	return len(r.leases)
}

// close refuses everything from now on and returns the replicas it had.
func (p *pool) close() []*replica {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, w := range p.queue {
		close(w.got)
	}
	p.queue = nil
	return p.replicas
}

// acquire chooses a replica for a request. When all are full it waits its turn;
// errQueue and errWait say that there was no room or no time. A request that
// was tried before does not wait: without another replica it is errTried.
func (p *pool) acquire(ctx context.Context, want wish) (*lease, error) {
	p.mu.Lock()
	now := time.Now()
	if p.closed {
		p.mu.Unlock()
		return nil, errClosed
	}
	if len(want.tried) > 0 || len(p.queue) == 0 {
		if r := p.choose(want, now); r != nil {
			defer p.mu.Unlock()
			return p.lend(r, want, now), nil
		}
	}
	if len(want.tried) > 0 {
		p.mu.Unlock()
		return nil, errTried
	}
	if len(p.queue) >= p.limits.Queue {
		p.refused++
		p.mu.Unlock()
		return nil, errQueue
	}
	w := &waiter{want, make(chan *lease, 1)}
	p.queue = append(p.queue, w)
	p.mu.Unlock()

	patience := time.NewTimer(p.limits.Wait)
	defer patience.Stop()
	err := errWait
	select {
	case l := <-w.got:
		if l == nil {
			return nil, errClosed
		}
		return l, nil
	case <-patience.C:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return nil, p.giveUp(w, err)
}

// giveUp takes a waiter out of the queue. What it was given meanwhile goes back.
func (p *pool) giveUp(w *waiter, why error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.queue, w); i >= 0 {
		p.queue = slices.Delete(p.queue, i, i+1)
	}
	select {
	case l := <-w.got:
		if l != nil {
			p.release(l, time.Now())
		}
	default:
	}
	if why == errWait {
		p.refused++
	}
	return why
}

// lend makes the lease of a replica that was chosen.
func (p *pool) lend(r *replica, want wish, now time.Time) *lease {
	l := &lease{pool: p, replica: r, began: now, cancel: want.cancel}
	r.leases[l] = struct{}{}
	r.taken++
	if len(want.tried) == 0 {
		p.requests++
		p.budget.deposit()
	}
	return l
}

// release ends a lease and lets the next one in.
func (p *pool) release(l *lease, now time.Time) {
	r := l.replica
	if _, held := r.leases[l]; !held {
		return
	}
	delete(r.leases, l)
	if len(r.leases) == 0 && r.idle != nil {
		close(r.idle)
		r.idle = nil
	}
	p.serve(now)
}

// serve gives replicas to those who wait, in their order.
func (p *pool) serve(now time.Time) {
	for len(p.queue) > 0 {
		w := p.queue[0]
		r := p.choose(w.want, now)
		if r == nil {
			return
		}
		p.queue = p.queue[1:]
		w.got <- p.lend(r, w.want, now)
	}
}

// choose returns the better of two random replicas that may be asked, or the
// one a sticky client was on; nil when none may.
func (p *pool) choose(want wish, now time.Time) *replica {
	able := p.able(want, now)
	if want.sticky != "" {
		for _, r := range able {
			if r.token == want.sticky {
				return r
			}
		}
	}
	able = p.withinShare(able)
	switch len(able) {
	case 0:
		return nil
	case 1:
		return able[0]
	}
	typical, known := 0.0, 0
	for _, r := range able {
		if !r.sampled.IsZero() {
			typical += r.latency(now)
			known++
		}
	}
	typical /= float64(max(known, 1))
	i := p.draw(able, now)
	a := able[i]
	others := slices.Delete(able, i, i+1)
	if b := others[p.draw(others, now)]; b.cost(now, typical) < a.cost(now, typical) {
		return b
	}
	return a
}

// draw picks one at random. One in slow start comes up less often, by its weight.
func (p *pool) draw(able []*replica, now time.Time) (i int) {
	for range 4 { // by then a heavy one came up, or all are light
		i = p.random(len(able))
		if w := able[i].weight(now); w == 1 || float64(p.random(1000)) < 1000*w {
			break
		}
	}
	return i
}

// able returns the replicas that may be asked now: those that are well, or all
// of them when too few are.
func (p *pool) able(want wish, now time.Time) []*replica {
	well, live := 0, 0
	for _, r := range p.replicas {
		if !r.draining && r.once {
			live++
			if r.well(now) {
				well++
			}
		}
	}
	panicking := float64(well) < (1-outShare)*float64(live)
	able := make([]*replica, 0, live)
	for _, r := range p.replicas {
		switch {
		case r.draining || !r.once || slices.Contains(want.tried, r):
		case !panicking && !r.well(now):
		case p.limits.PerReplica > 0 && len(r.leases) >= p.limits.PerReplica:
		case !panicking && r.out && len(r.leases) > 0: // on trial, one at a time
		default:
			able = append(able, r)
		}
	}
	return able
}

// well reports whether the replica may be asked, be it on trial.
func (r *replica) well(now time.Time) bool {
	return !r.unready && (!r.out || !now.Before(r.until))
}

// withinShare leaves out who would get more than its share, unless nobody is left.
func (p *pool) withinShare(able []*replica) []*replica {
	within := able[:0:0]
	for _, r := range able {
		if r.Share > 0 && float64(r.taken+1) > r.Share*float64(p.requests-r.from)+1 {
			continue
		}
		within = append(within, r)
	}
	if len(within) == 0 {
		return able
	}
	return within
}

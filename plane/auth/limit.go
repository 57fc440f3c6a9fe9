package auth

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"consort.dev/consort/fault"
)

// limiter lets each key do something burst times at once, and then once in
// every step.
type limiter struct {
	now   func() time.Time
	burst int
	step  time.Duration

	mu   sync.Mutex
	full map[string]time.Time // when the key has its whole burst again
}

func newLimiter(now func() time.Time, burst int, step time.Duration) *limiter {
	return &limiter{now: now, burst: burst, step: step, full: map[string]time.Time{}}
}

// most is how many keys are remembered before those that are whole again go.
const most = 10_000

// take uses one try of the key, or says when there will be one.
func (l *limiter) take(key string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if len(l.full) > most {
		for k, t := range l.full {
			if t.Before(now) {
				delete(l.full, k)
			}
		}
	}
	full := l.full[key]
	if full.Before(now) {
		full = now
	}
	if wait := full.Add(l.step).Sub(now) - time.Duration(l.burst)*l.step; wait > 0 {
		return &limited{fault.RateLimited.Errorf("too many tries to sign in; wait %s", wait.Round(time.Second)+time.Second), wait}
	}
	l.full[key] = full.Add(l.step)
	return nil
}

// back gives the try back: it was no guess.
func (l *limiter) back(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if full, ok := l.full[key]; ok {
		l.full[key] = full.Add(-l.step)
	}
}

// limited is fault.RateLimited that knows when to come back.
type limited struct {
	error
	after time.Duration
}

// Unwrap lets errors.Is see the kind.
func (e *limited) Unwrap() error { return e.error }

// RetryAfter returns how long to wait.
func (e *limited) RetryAfter() time.Duration { return e.after }

// place returns the address the request came from; of IPv6 its network, since
// one household has 2^64 addresses.
func place(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if addr = addr.Unmap(); addr.Is6() {
		if p, err := addr.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return addr.String()
}

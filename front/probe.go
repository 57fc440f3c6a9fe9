package front

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// Probe asks a replica, apart from its users, whether it can work.
type Probe struct {
	Path     string        // of a GET that answers 200 to 399; empty: to connect is enough
	Interval time.Duration // 5 s
	Timeout  time.Duration // 2 s
	Misses   int           // in a row until it is not ready; 3. One that passes makes it ready
}

func (p Probe) withDefaults() Probe {
	if p.Interval == 0 {
		p.Interval = 5 * time.Second
	}
	if p.Timeout == 0 {
		p.Timeout = 2 * time.Second
	}
	if p.Misses == 0 {
		p.Misses = 3
	}
	return p
}

// newcomer is how often a replica is probed that was never ready: users wait.
const newcomer = 250 * time.Millisecond

// probe asks until the replica or the front is gone.
func (f *Front) probe(r *replica) {
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	go func() {
		select {
		case <-r.gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	for ctx.Err() == nil {
		err := f.probeOnce(ctx, r)
		if ctx.Err() != nil {
			return
		}
		pause := f.o.Probe.Interval
		if !f.pool.probed(r, err, f.o.Probe.Misses, time.Now()) {
			pause = min(pause, newcomer)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// probeOnce asks on a connection of its own: one that users keep open would
// answer where new ones do not come through.
func (f *Front) probeOnce(ctx context.Context, r *replica) error {
	ctx, cancel := context.WithTimeout(ctx, f.o.Probe.Timeout)
	defer cancel()
	if f.o.Probe.Path == "" {
		conn, err := f.dial(ctx, r.Name, r.Port)
		if err == nil {
			conn.Close()
		}
		return err
	}
	t := r.transport.Clone()
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.address+f.o.Probe.Path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "consort-front")
	res, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode >= 400 {
		return fmt.Errorf("GET %s answers %s", f.o.Probe.Path, res.Status)
	}
	return nil
}

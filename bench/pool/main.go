// Command pool measures how long task workers wait for a seat: a ready one, with
// others being made ready meanwhile, and one that is made when they ask, with a
// client of the protocol and in Chromium; and how long somebody who throws a
// desktop away waits for a fresh one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/bench/result"
)

type options struct {
	binary string
	cache  string
	out    string
	visits int
	seats  int
	gap    time.Duration
	stay   time.Duration
	seed   uint64
}

func main() {
	o := options{}
	flag.StringVar(&o.binary, "consort", "bin/consort", "the binary to measure")
	flag.StringVar(&o.cache, "cache", ".cache", "where images are kept")
	flag.StringVar(&o.out, "out", "bench/results/pool.json", "where the result is written")
	flag.IntVar(&o.visits, "visits", 40, "persons who come to each pool")
	flag.IntVar(&o.seats, "seats", 4, "seats that the first pool keeps ready")
	flag.DurationVar(&o.gap, "gap", 4*time.Second, "how long it is between two arrivals, on average")
	flag.DurationVar(&o.stay, "stay", 8*time.Second, "how long everybody stays")
	flag.Uint64Var(&o.seed, "seed", 1, "of the arrivals")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "bench pool:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "cbp")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	p, err := start(ctx, o, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close(context.WithoutCancel(ctx))) }()
	if err := p.persons(ctx, o.visits); err != nil {
		return err
	}
	s := result.Samples{}
	if err := p.warm(ctx, "warm", o.seats); err != nil {
		return err
	}
	if err := p.arrivals(ctx, o, s); err != nil {
		return err
	}
	if err := p.warm(ctx, "warm", 0); err != nil { // those ready would only be in the way
		return err
	}
	if err := p.oneByOne(ctx, o, s); err != nil {
		return err
	}
	if err := p.thrownAway(ctx, o, s); err != nil {
		return err
	}
	if err := p.inChromium(ctx, o, s); err != nil {
		return err
	}
	return report(o, s)
}

// arrivals has persons come at random moments, as task workers do, while the
// pool makes new seats for those they take.
func (p *plane) arrivals(ctx context.Context, o options, s result.Samples) error {
	rnd := rand.New(rand.NewPCG(o.seed, 1))
	var mu sync.Mutex
	var all sync.WaitGroup
	var failed []error
	for i := range o.visits {
		all.Go(func() {
			v, err := p.visit(ctx, "warm", person(i), o.stay)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = append(failed, fmt.Errorf("%s: %w", person(i), err))
				return
			}
			s.Add("seat", ms(v.frame))
			if v.warm {
				s.Add("seat_warm", ms(v.frame))
				s.Add("seat_warm_session_ready", ms(v.ready))
			}
			fmt.Fprintf(os.Stderr, "%s: warm %v, first frame after %s\n", person(i), v.warm, v.frame.Round(time.Millisecond))
		})
		pause(ctx, time.Duration(rnd.ExpFloat64()*float64(o.gap)))
	}
	all.Wait()
	return errors.Join(failed...)
}

// oneByOne has persons come to a pool that keeps nothing ready.
func (p *plane) oneByOne(ctx context.Context, o options, s result.Samples) error {
	for i := range o.visits {
		v, err := p.visit(ctx, "cold", person(i), 0)
		if err != nil {
			return fmt.Errorf("%s: %w", person(i), err)
		}
		if v.warm {
			return fmt.Errorf("%s got a seat that was there in a pool that keeps none", person(i))
		}
		s.Add("seat_cold", ms(v.frame))
		s.Add("seat_cold_session_ready", ms(v.ready))
		s.Add("identity_ready", ms(v.own))
		s.Add("network_ready", ms(v.network))
		pause(ctx, time.Second) // until the seat they left is gone
		fmt.Fprintf(os.Stderr, "%s: made for them, first frame after %s\n", person(i), v.frame.Round(time.Millisecond))
	}
	return nil
}

// thrownAway has one person throw their desktop away again and again, each time
// once another stands ready, which is from seconds on.
func (p *plane) thrownAway(ctx context.Context, o options, s result.Samples) error {
	if err := p.warm(ctx, "fresh", 1); err != nil {
		return err
	}
	session, err := p.client.ConnectPool(ctx, project, "fresh", api.ConnectRequest{Person: person(0)})
	if err != nil {
		return err
	}
	if session, err = p.await(ctx, session, new(visit)); err != nil {
		return err
	}
	for range o.visits {
		if err := p.warm(ctx, "fresh", 1); err != nil {
			return err
		}
		pause(ctx, time.Second)
		before := session.Status.Machine
		began := time.Now()
		if session, err = p.renew(ctx, session); err != nil {
			return err
		}
		took := time.Since(began)
		if session.Status.Machine == before {
			return fmt.Errorf("machine %s was thrown away and is shown again", before)
		}
		s.Add("fresh_desktop", ms(took))
		fmt.Fprintf(os.Stderr, "thrown away: a fresh one is drawn after %s\n", took.Round(time.Millisecond))
	}
	return p.client.Delete(ctx, session.Ref(), api.Write{})
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func report(o options, s result.Samples) error {
	m := map[string]float64{}
	for n := range s {
		for _, p := range []int{50, 95, 99} {
			m[fmt.Sprintf("%s_p%d_ms", n, p)] = s.Percentile(n, p)
		}
	}
	m["arrivals"], m["arrivals_on_warm_seats"] = float64(len(s["seat"])), float64(len(s["seat_warm"]))
	s.Table(os.Stdout)
	return result.Write(o.out, "pool", m, s)
}

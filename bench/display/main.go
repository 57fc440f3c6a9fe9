// Command display measures the way of pixels through the gateway, beside Debian's
// websockify in front of the same guest: key to picture, updates a second by
// distance, and what a session takes.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"consort.dev/consort/bench/result"
)

type options struct {
	binary   string
	out      string
	keys     int           // presses of a round
	rounds   int           // of keys and of each distance
	long     time.Duration // of counting updates
	sessions int           // that are idle
	rivals   int           // idle ones of the rival: each is a process
	settle   time.Duration // for memory
}

func main() {
	o := options{}
	flag.StringVar(&o.binary, "consort", "bin/consort", "the binary to measure")
	flag.StringVar(&o.out, "out", "bench/results/display.json", "where the result is written")
	flag.IntVar(&o.keys, "keys", 50, "keys pressed in a round")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of each")
	flag.DurationVar(&o.long, "long", 5*time.Second, "how long updates are counted")
	flag.IntVar(&o.sessions, "sessions", 30, "idle sessions; QEMU takes 32 viewers")
	flag.IntVar(&o.rivals, "rivals", 30, "idle sessions of the rival")
	flag.DurationVar(&o.settle, "settle", 30*time.Second, "how long memory may take to settle")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench display:", err)
		os.Exit(1)
	}
}

// path is a way to the guest that is measured.
type path struct {
	processes
	name   string // before the names of its samples; empty for ours
	portal string
	dial   func(ctx context.Context, address string) (net.Conn, error)
}

// bench is one run.
type bench struct {
	options
	paths   []path
	samples result.Samples
	random  *rand.Rand
}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "cbd") // short, for sockets
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil { // machines have users of their own
		return err
	}
	disk := filepath.Join(dir, "guest.raw")
	if err := writeGuest(disk); err != nil {
		return err
	}
	a, err := startAlone(ctx, dir, disk)
	if err != nil {
		return err
	}
	defer a.stop()
	r, err := startRival(ctx, a.screen)
	if err != nil {
		return err
	}
	defer r.stop()
	b := &bench{options: o, samples: result.Samples{}, random: rand.New(rand.NewPCG(1, 1))}
	b.paths = []path{{r, "rival_", r.portal, r.dial}}
	for _, part := range []func() error{
		func() error { return b.local(ctx, filepath.Join(dir, "l"), disk) },
		func() error { return b.remote(ctx, filepath.Join(dir, "r"), disk) },
		b.report,
	} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// local measures a consort with everything in one process, beside the rival.
func (b *bench) local(ctx context.Context, dir, disk string) error {
	p, err := startProduct(ctx, b.binary, dir, disk)
	if err != nil {
		return err
	}
	defer p.stop(context.WithoutCancel(ctx))
	b.paths = append([]path{{p, "", p.portal, p.dial}}, b.paths...)
	for _, part := range []func(context.Context) error{b.drawn, b.keysAndRates, b.memory} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// remote measures a desktop on another host, near its plane and far from it.
func (b *bench) remote(ctx context.Context, dir, disk string) error {
	p, err := startRemote(ctx, b.binary, dir, disk)
	if err != nil {
		return err
	}
	defer p.stop(context.WithoutCancel(ctx))
	b.paths = []path{{p, "remote_", p.portal, p.dial}}
	if err := b.drawn(ctx); err != nil {
		return err
	}
	for _, ms := range []int{0, 50, 100} {
		p.far.set(time.Duration(ms) * time.Millisecond)
		err := b.on(ctx, b.paths[0], 0, func(v *viewer) error {
			if ms == 0 {
				if err := v.keys(ctx, b.keys, b.random, b.samples, "remote_key_update"); err != nil {
					return err
				}
			}
			n, err := v.rate(ctx, warm, b.long)
			b.samples.Add(fmt.Sprintf("remote_updates_per_s_agent_rtt%d", ms), n)
			return err
		})
		if err != nil {
			return fmt.Errorf("remote, agent at %d ms: %w", ms, err)
		}
	}
	return nil
}

// drawn waits until both guests have drawn: a key changes the picture.
func (b *bench) drawn(ctx context.Context) error {
	for _, p := range b.paths {
		if err := b.on(ctx, p, 0, func(v *viewer) error {
			for {
				if err := v.press('a'); err != nil {
					return err
				}
				within, cancel := context.WithTimeout(ctx, time.Second)
				_, err := v.next(within)
				cancel()
				if err == nil || ctx.Err() != nil {
					return ctx.Err()
				}
			}
		}); err != nil {
			return fmt.Errorf("%sguest: %w", p.name, err)
		}
	}
	return nil
}

// on opens a viewer on the path, so far away.
func (b *bench) on(ctx context.Context, p path, rtt time.Duration, do func(*viewer) error) error {
	address := p.portal
	if rtt > 0 {
		d, err := farFrom(p.portal, rtt)
		if err != nil {
			return err
		}
		defer d.close()
		address = d.address()
	}
	conn, err := p.dial(ctx, address)
	if err != nil {
		return err
	}
	v, err := look(conn)
	if err != nil {
		conn.Close()
		return err
	}
	defer v.close()
	return do(v)
}

// warm is how long a picture moves before updates are counted.
const warm = 2 * time.Second

// distances are the round trips at which updates are counted, in milliseconds.
var distances = []int{0, 20, 50, 100, 200}

// keysAndRates interleaves the paths, so that whatever else the machine does
// meets both.
func (b *bench) keysAndRates(ctx context.Context) error {
	for i := range b.rounds {
		for _, p := range b.paths {
			if err := b.on(ctx, p, 0, func(v *viewer) error {
				return v.keys(ctx, b.keys, b.random, b.samples, p.name+"key_update")
			}); err != nil {
				return fmt.Errorf("%skeys: %w", p.name, err)
			}
		}
		for _, ms := range distances {
			for _, p := range b.paths {
				if err := b.rate(ctx, p, ms); err != nil {
					return fmt.Errorf("%supdates at %d ms: %w", p.name, ms, err)
				}
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d: key to update %.1f ms, beside %.1f; updates a second at 100 ms %.1f, beside %.1f\n", i+1, b.rounds,
			b.samples.Percentile("key_update", 50), b.samples.Percentile("rival_key_update", 50),
			b.samples.Last("updates_per_s_rtt100"), b.samples.Last("rival_updates_per_s_rtt100"))
	}
	return nil
}

// rate counts updates at a distance, and notes at none what one takes of the
// CPU, besides what the processes take when nothing happens.
func (b *bench) rate(ctx context.Context, p path, ms int) error {
	name := fmt.Sprintf("%supdates_per_s_rtt%d", p.name, ms)
	return b.on(ctx, p, time.Duration(ms)*time.Millisecond, func(v *viewer) error {
		var quiet time.Duration
		if ms == 0 {
			var err error
			if quiet, err = spent(p, func() error { return pause(ctx, b.long) }); err != nil {
				return err
			}
		}
		var n float64
		busy, err := spent(p, func() (err error) { n, err = v.rate(ctx, warm, b.long); return err })
		if err != nil {
			return err
		}
		b.samples.Add(name, n)
		if ms == 0 && n > 0 {
			b.samples.Add(p.name+"cpu_us_per_update", float64((busy-quiet).Microseconds())/n)
		}
		return nil
	})
}

// spent returns the CPU time that the path's processes take a second meanwhile.
func spent(p path, do func() error) (time.Duration, error) {
	before, err := cpu(p)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := do(); err != nil {
		return 0, err
	}
	after, err := cpu(p)
	return time.Duration(float64(after-before) / time.Since(began).Seconds()), err
}

// memory opens idle sessions and notes what each takes. One session before has
// warmed everything that all share.
func (b *bench) memory(ctx context.Context) error {
	for i, p := range b.paths {
		n := []int{b.sessions, b.rivals}[i]
		before, err := idle(ctx, p, b.settle)
		if err != nil {
			return err
		}
		viewers := make([]*viewer, 0, n)
		for i := range n {
			conn, err := p.dial(ctx, p.portal)
			if err != nil {
				return fmt.Errorf("%ssession %d: %w", p.name, i, err)
			}
			v, err := look(conn)
			if err != nil {
				return fmt.Errorf("%ssession %d: %w", p.name, i, err)
			}
			viewers = append(viewers, v)
		}
		after, err := idle(ctx, p, b.settle)
		if err != nil {
			return err
		}
		b.samples.Add(p.name+"session_kib", (after-before)/float64(n))
		for _, v := range viewers {
			v.close()
		}
	}
	return nil
}

func (b *bench) report() error {
	s, m := b.samples, map[string]float64{"sessions": float64(b.sessions), "rival_sessions": float64(b.rivals)}
	for name := range s {
		if strings.HasSuffix(name, "key_update") {
			for _, n := range []int{50, 95, 99} {
				m[fmt.Sprintf("%s_p%d_ms", name, n)] = s.Percentile(name, n)
			}
			continue
		}
		m[name] = s.Percentile(name, 50)
	}
	s.Table(os.Stdout)
	return result.Write(b.out, "display", m, s)
}

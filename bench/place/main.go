// Command place measures how well and how fast machines are placed: on openb, a
// published trace with the results others had on it; in memory, beside a full
// scan and a sampling scheduler; and through the store.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"consort.dev/consort/bench/result"
	"consort.dev/consort/packing"
)

type options struct {
	openb    string
	dir      string
	out      string
	hosts    int
	machines int
	budget   time.Duration
}

func main() {
	o := options{}
	flag.StringVar(&o.openb, "openb", "bench/place/openb", "where the trace is")
	flag.StringVar(&o.dir, "cache", ".cache", "on which disk the store is measured")
	flag.StringVar(&o.out, "out", "bench/results/place.json", "where the result is written")
	flag.IntVar(&o.hosts, "hosts", 100_000, "most hosts to measure with")
	flag.IntVar(&o.machines, "machines", 10000, "machines placed through the store")
	flag.DurationVar(&o.budget, "budget", 3*time.Second, "CPU time of each measurement in memory")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "bench place:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	metrics, s := map[string]float64{}, result.Samples{}
	if err := runTrace(o, metrics, s); err != nil {
		return err
	}
	if err := runMemory(o, metrics, s); err != nil {
		return err
	}
	if err := runStore(ctx, o, metrics, s); err != nil {
		return err
	}
	return result.Write(o.out, "place", metrics, s)
}

// runTrace replays every mix with every seed, in percent of the GPUs allocated.
func runTrace(o options, metrics map[string]float64, s result.Samples) error {
	fmt.Printf("%-14s %10s %10s %10s %10s\n", "openb, % GPUs", "BestFit", "FGD", "consort", "gain")
	var gains []float64
	for _, mix := range mixes {
		t, err := readTrace(o.openb, mix)
		if err != nil {
			return err
		}
		bestFit, err := published(o.openb, "BestFit", mix)
		if err != nil {
			return err
		}
		fgd, err := published(o.openb, "FGD", mix)
		if err != nil {
			return err
		}
		var mine []float64
		for seed := firstSeed; seed < firstSeed+seeds; seed++ {
			p, err := t.ours(packing.Options{Seed: uint64(seed)})
			if err != nil {
				return err
			}
			mine = append(mine, t.allocated(p, t.arrivals(int64(seed))))
		}
		s["openb_"+mix+"_percent"] = mine
		gain := mean(mine) - mean(fgd)
		gains = append(gains, gain)
		metrics["openb_"+mix+"_gain_points"] = hundredths(gain)
		fmt.Printf("%-14s %10.2f %10.2f %10.2f %+10.2f\n", mix, mean(bestFit), mean(fgd), mean(mine), gain)
	}
	slices.Sort(gains)
	metrics["openb_worst_gain_points"] = hundredths(gains[0])
	metrics["openb_median_gain_points"] = hundredths(gains[len(gains)/2])
	fmt.Printf("worst %+.2f, median %+.2f points over the published FGD\n\n", gains[0], gains[len(gains)/2])
	return nil
}

func hundredths(v float64) float64 { return math.Round(100*v) / 100 }

// scales are the numbers of hosts, and what they are called in the metrics.
var scales = []struct {
	hosts int
	name  string
}{{1_000, "1k"}, {10_000, "10k"}, {100_000, "100k"}}

// runMemory has machines come and go, with every policy at every scale.
func runMemory(o options, metrics map[string]float64, s result.Samples) error {
	fmt.Printf("%-24s %14s %10s %8s %12s\n", "in memory", "per CPU-second", "refused %", "empty", "large to fit")
	for _, scale := range scales {
		if scale.hosts > o.hosts {
			break
		}
		w := newWorld(scale.hosts)
		mine, err := w.packed()
		if err != nil {
			return err
		}
		for _, r := range []struct {
			name string
			policy
		}{{"", mine}, {"full_scan", w.fullScan()}, {"sampling", w.sampled()}} {
			// Filling a hundred thousand hosts by full scan takes an hour.
			if r.name == "full_scan" && scale.hosts > 10_000 {
				continue
			}
			c := w.churn(r.policy, o.budget)
			key := "place_per_cpu_s_" + scale.name
			if r.name != "" {
				key = r.name + "_per_cpu_s_" + scale.name
			}
			metrics[key] = math.Round(c.perCPUSecond)
			s.Add(key+"_refused_percent", c.refused)
			s.Add(key+"_empty_hosts", float64(c.empty))
			s.Add(key+"_large_to_fit", float64(c.more))
			fmt.Printf("%-24s %14.0f %10.3f %8d %12d\n", scale.name+" "+cmp.Or(r.name, "consort"), c.perCPUSecond, c.refused, c.empty, c.more)
		}
	}
	fmt.Println()
	return nil
}

// runStore has the product's placer store what it places.
func runStore(ctx context.Context, o options, metrics map[string]float64, s result.Samples) error {
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	for _, scale := range scales {
		if scale.hosts > o.hosts {
			break
		}
		key := "place_durable_per_s_" + scale.name
		v, err := durable(ctx, o.dir, scale.hosts, o.machines)
		if err != nil {
			return fmt.Errorf("%s hosts: %w", scale.name, err)
		}
		s.Add(key, v)
		metrics[key] = math.Round(v)
		fmt.Printf("durable, %s hosts: %.0f a second\n", scale.name, v)
	}
	metrics["place_durable_per_s"] = metrics["place_durable_per_s_10k"]
	return nil
}

// Command contexts tries the walls between contexts: hostile frames, ways out
// of a machine's process, and what a thrown away machine leaves, each beside the
// same without the wall.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"consort.dev/consort/bench/result"
	"consort.dev/consort/test/hostile"
)

type options struct {
	out     string
	each    int
	rounds  int
	lasting time.Duration
}

func main() {
	o := options{}
	flag.StringVar(&o.out, "out", "bench/results/contexts.json", "where the result is written")
	flag.IntVar(&o.each, "each", 320, "frames of each class")
	flag.IntVar(&o.rounds, "rounds", 15, "times the other context's throughput is measured, with and without a flood in turn")
	flag.DurationVar(&o.lasting, "lasting", time.Second, "how long one such measurement lasts")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "bench contexts:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	options
	dir     string
	metrics map[string]float64
	s       result.Samples
}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "cbx")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{options: o, dir: dir, metrics: map[string]float64{}, s: result.Samples{}}
	if err := b.frames(ctx); err != nil {
		return err
	}
	for _, p := range proofs {
		if err := b.prove(ctx, p); err != nil {
			return err
		}
	}
	b.s.Table(os.Stdout)
	for _, name := range names {
		if v, ok := b.metrics[name]; ok {
			fmt.Printf("%-48s %12.1f\n", name, v)
		}
	}
	return result.Write(o.out, "contexts", b.metrics, b.s)
}

// names are the metrics in the order they are printed in.
var names = []string{
	"frames_classes", "frames_tried", "frames_passed", "frames_passed_without_filters",
	"throughput_drop_percent", "throughput_drop_percent_beside_computing",
	"shared_throughput_drop_percent", "shared_throughput_drop_percent_beside_computing",
	"escapes_tried", "escapes_succeeded", "escapes_succeeded_unconfined", "canaries_planted", "canaries_found",
}

// frames fires every class, measures what a flood costs the other context, and
// fires every class again without filters.
func (b *bench) frames(ctx context.Context) (err error) {
	s, err := hostile.Build(ctx, filepath.Join(b.dir, "n"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close(context.WithoutCancel(ctx))) }()
	fire := func() (tried, passed float64, all []hostile.Outcome, err error) {
		all, err = s.Fire(ctx, b.each)
		for _, o := range all {
			tried, passed = tried+float64(o.Tried), passed+float64(o.Passed())
		}
		return tried, passed, all, err
	}
	tried, passed, all, err := fire()
	if err != nil {
		return err
	}
	for _, o := range all {
		if o.Passed() > 0 {
			fmt.Printf("%s: %d reached a sibling, %d the other context, %d the host, %d its end of the network\n", o.Class, o.Sibling, o.Other, o.Host, o.Gateway)
		}
	}
	b.metrics["frames_classes"], b.metrics["frames_tried"], b.metrics["frames_passed"] = float64(len(all)), tried, passed
	if err := b.floods(ctx, s); err != nil {
		return err
	}
	if err := s.Unfilter(ctx); err != nil {
		return err
	}
	_, without, _, err := fire()
	b.metrics["frames_passed_without_filters"] = without
	return err
}

// floods measures the other context's throughput in turn while nothing else goes
// on, while the other core computes, and during a flood, so that what else the
// host does falls on all alike. Once each machine has a core of its own, and once
// they share what there is. Cores may be two halves of one, as those of rented
// machines often are: hence what computing alone costs.
func (b *bench) floods(ctx context.Context, s *hostile.Stage) (err error) {
	stream, err := s.OpenStream(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stream.Close()) }()
	flood := func(ctx context.Context, core int) error {
		began := time.Now()
		n, err := s.Flood(ctx, core)
		b.s.Add("flood_frames_per_second", float64(n)/time.Since(began).Seconds())
		return err
	}
	for _, way := range []struct {
		prefix          string
		beside, streams int // cores
	}{{"", 0, 1}, {"shared_", -1, -1}} {
		for range b.rounds {
			for _, load := range []struct {
				sample string
				load   func(context.Context, int) error
			}{{"calm_mbit", nil}, {"computing_mbit", hostile.Busy}, {"flooded_mbit", flood}} {
				rate, err := beside(ctx, load.load, way.beside, func() (float64, error) { return stream.Measure(b.lasting, way.streams) })
				if err != nil {
					return err
				}
				b.s.Add(way.prefix+load.sample, rate/1e6)
			}
		}
		drop := func(from string) float64 {
			return 100 * (1 - b.s.Percentile(way.prefix+"flooded_mbit", 50)/b.s.Percentile(way.prefix+from, 50))
		}
		b.metrics[way.prefix+"throughput_drop_percent"] = drop("calm_mbit")
		b.metrics[way.prefix+"throughput_drop_percent_beside_computing"] = drop("computing_mbit")
	}
	return nil
}

// beside measures while a load goes on, if there is one.
func beside(ctx context.Context, load func(context.Context, int) error, core int, measure func() (float64, error)) (float64, error) {
	if load == nil {
		return measure()
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- load(ctx, core) }()
	time.Sleep(50 * time.Millisecond) // it has begun
	rate, err := measure()
	stop()
	return rate, errors.Join(err, <-done)
}

// proof is a test that writes its figures, flat JSON, to the file that
// CONSORT_FIGURES names.
type proof struct{ folder, test string }

var proofs = []proof{
	{"./test/confinement", "TestNothingGetsOutOfAMachinesProcess"},
	{"./test/disposable", "TestNothingIsLeftOfWhatWasThrownAway"},
}

// prove runs a test and takes over its figures. One that fails, or has none
// since it was skipped, ends the run.
func (b *bench) prove(ctx context.Context, p proof) error {
	path := filepath.Join(b.dir, p.test+".json")
	cmd := exec.CommandContext(ctx, "go", "test", p.folder, "-run", "^"+p.test+"$", "-count=1", "-timeout", "30m", "-v")
	cmd.Env = append(os.Environ(), "CONSORT_FIGURES="+path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", p.test, err, out)
	}
	said, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("%s has no figures: %w\n%s", p.test, err, out)
	}
	figures := map[string]float64{}
	if err := json.Unmarshal(said, &figures); err != nil {
		return fmt.Errorf("figures of %s: %w", p.test, err)
	}
	maps.Copy(b.metrics, figures)
	return nil
}

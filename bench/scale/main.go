// Command scale plays real traces, request by request, against a service whose
// machines are as unequal as Azure's, with the product's own decision engine and
// its rivals in charge.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"

	"consort.dev/consort/bench/result"
	"consort.dev/consort/decide"
)

type options struct {
	out     string
	traces  string
	seeds   int
	guess   float64
	explain bool
	rivals  bool
}

func main() {
	o := options{}
	flag.StringVar(&o.out, "out", "bench/results/scale.json", "where the result is written; nowhere when empty")
	flag.StringVar(&o.traces, "traces", "", "only those whose names are in this list")
	flag.IntVar(&o.seeds, "seeds", 2, "runs of each, every one with other machines and arrivals")
	flag.Float64Var(&o.guess, "guess", guess, "requests/s that the engine believes a machine bears at first")
	flag.BoolVar(&o.explain, "explain", false, "print what the engine does and why; one run each, no rivals, no result")
	flag.BoolVar(&o.rivals, "rivals", true, "run the rivals too")
	flag.Parse()
	if err := run(o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench scale:", err)
		os.Exit(1)
	}
}

func run(o options, w io.Writer) error {
	c, err := load()
	if err != nil {
		return err
	}
	var cells []*cell
	for _, tr := range c.traces {
		if o.traces != "" && !strings.Contains(o.traces, tr.name) {
			continue
		}
		for _, r := range regimes() {
			if o.explain {
				explain(w, tr, r, c, o.guess)
				continue
			}
			cells = append(cells, newCell(tr, r, c, o))
		}
	}
	if o.explain {
		return nil
	}
	play(cells)
	report(w, cells)
	if o.out == "" || o.traces != "" || !o.rivals {
		return nil
	}
	metrics, samples := figures(cells)
	return result.Write(o.out, "scale", metrics, samples)
}

// cell is one trace in one regime, with everybody in charge by turns.
type cell struct {
	trace  trace
	regime regime
	jobs   []*job // the product first
}

// job is one controller in one cell.
type job struct {
	name string
	play func() outcome
	got  outcome
}

const (
	product = "consort"
	half    = "hpa 50"
	static  = "static"
)

func newCell(tr trace, r regime, c *corpus, o options) *cell {
	one := &cell{trace: tr, regime: r}
	add := func(name string, who func() controller) {
		one.jobs = append(one.jobs, &job{name: name, play: func() outcome {
			var sum outcome
			for seed := range o.seeds {
				sum.add(newWorld(tr, r, c, uint64(seed)+1).run(who()))
			}
			return sum
		}})
	}
	add(product, func() controller { return newEngine(o.guess) })
	if !o.rivals {
		return one
	}
	for percent := 20; percent <= 80; percent += 5 {
		add(fmt.Sprintf("hpa %d", percent), func() controller { return &hpa{target: float64(percent) / 100} })
	}
	add(static, func() controller { return fixed{forPeak(tr)} })
	return one
}

// play runs every job, as many at once as there are processors.
func play(cells []*cell) {
	todo := make(chan *job)
	var done sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		done.Go(func() {
			for j := range todo {
				j.got = j.play()
			}
		})
	}
	for _, c := range cells {
		for _, j := range c.jobs {
			todo <- j
		}
	}
	close(todo)
	done.Wait()
}

// explain prints every decision to act.
func explain(w io.Writer, tr trace, r regime, c *corpus, guess float64) {
	e := newEngine(guess)
	e.trace = func(d decide.Decision) {
		if d.Act != decide.Wait {
			fmt.Fprintf(w, "%s %s %s %-7s %s\n", tr.name, r.name, d.At.Format("15:04:05"), d.Act, d.Say)
		}
	}
	newWorld(tr, r, c, 1).run(e)
}

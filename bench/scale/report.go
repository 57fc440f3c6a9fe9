package main

import (
	"fmt"
	"io"
	"strings"

	"consort.dev/consort/bench/result"
)

// What the service level allows.
const (
	mostBad           = 1.0 // percent of the requests
	mostViolated      = 1.0 // percent of the minutes
	mostViolatedDrift = 3.0 // the same, where every request becomes slower
)

func (o *outcome) add(p outcome) {
	o.requests, o.bad = o.requests+p.requests, o.bad+p.bad
	o.minutes, o.violated = o.minutes+p.minutes, o.violated+p.violated
	o.hours, o.acts, o.length = o.hours+p.hours, o.acts+p.acts, o.length+p.length
}

func (o outcome) badPercent() float64      { return 100 * float64(o.bad) / float64(o.requests) }
func (o outcome) violatedPercent() float64 { return 100 * float64(o.violated) / float64(o.minutes) }

// machines is the mean number of machines.
func (o outcome) machines() float64    { return o.hours / o.length }
func (o outcome) actsPerHour() float64 { return float64(o.acts) / o.length }

// keeps reports whether an outcome keeps the level in the regime.
func (r regime) keeps(o outcome) bool {
	most := mostViolated
	if r.drift > 1 {
		most = mostViolatedDrift
	}
	return o.badPercent() <= mostBad && o.violatedPercent() <= most
}

func (c *cell) job(name string) (outcome, bool) {
	for _, j := range c.jobs {
		if j.name == name {
			return j.got, true
		}
	}
	return outcome{}, false
}

// best is the cheapest Kubernetes target that keeps the level, in hindsight.
func (c *cell) best() (name string, got outcome, ok bool) {
	for _, j := range c.jobs {
		if strings.HasPrefix(j.name, "hpa ") && c.regime.keeps(j.got) && (!ok || j.got.hours < got.hours) {
			name, got, ok = j.name, j.got, true
		}
	}
	return name, got, ok
}

// report writes a line for each that matters in each cell.
func report(w io.Writer, cells []*cell) {
	fmt.Fprintf(w, "%-9s %-6s %-16s %8s %10s %9s %7s %8s\n", "trace", "regime", "who", "bad %", "violated %", "machines", "acts/h", "level")
	for _, c := range cells {
		ours := c.jobs[0].got
		line := func(who string, o outcome) {
			kept := "kept"
			if !c.regime.keeps(o) {
				kept = "BROKEN"
			}
			fmt.Fprintf(w, "%-9s %-6s %-16s %8.2f %10.2f %9.2f %7.1f %8s  %.3f\n", c.trace.name, c.regime.name, who,
				o.badPercent(), o.violatedPercent(), o.machines(), o.actsPerHour(), kept, ours.hours/o.hours)
		}
		line(product, ours)
		if name, o, ok := c.best(); ok {
			line("best: "+name, o)
		} else if len(c.jobs) > 1 {
			fmt.Fprintf(w, "%-9s %-6s no target of the grid keeps the level\n", c.trace.name, c.regime.name)
		}
		for _, name := range []string{half, static} {
			if o, ok := c.job(name); ok {
				line(name, o)
			}
		}
	}
}

// figures are the numbers of the result.
func figures(cells []*cell) (map[string]float64, result.Samples) {
	m, s := map[string]float64{"cells": float64(len(cells))}, result.Samples{}
	most := func(name string, v float64) { m[name] = max(m[name], v) }
	for _, c := range cells {
		ours := c.jobs[0].got
		most("worst_bad_percent", ours.badPercent())
		violated := "worst_violated_minutes_percent"
		if c.regime.drift > 1 {
			violated += "_drift"
		}
		most(violated, ours.violatedPercent())
		most("worst_acts_per_hour", ours.actsPerHour())
		if c.regime.keeps(ours) {
			m["cells_kept"]++
		}
		if _, o, ok := c.best(); ok {
			most("hours_vs_best_hpa_max", ours.hours/o.hours)
			m["cells_kept_best_hpa"]++
		}
		if o, ok := c.job(half); ok && c.regime.keeps(o) {
			most("hours_vs_hpa50_max", ours.hours/o.hours)
			m["cells_kept_hpa50"]++
		}
		for _, j := range c.jobs {
			name := strings.Join([]string{c.trace.name, c.regime.name, j.name}, "/")
			s[name] = []float64{j.got.badPercent(), j.got.violatedPercent(), j.got.machines(), j.got.actsPerHour()}
		}
	}
	return m, s
}

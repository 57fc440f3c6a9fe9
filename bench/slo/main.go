// Command slo measures how exactly error budgets are counted, beside the
// averages of ratios that other tools keep, and what that takes.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"

	"consort.dev/consort/bench/result"
	"consort.dev/consort/plane/slo"
	"consort.dev/consort/plane/slo/slotest"
)

const (
	month  = 30 * 24 * time.Hour
	target = 999_000 // 99.9 %
)

func main() {
	out := flag.String("out", "bench/results/slo.json", "where the result is written")
	runs := flag.Int("runs", 15, "runs of what is timed")
	flag.Parse()
	if err := run(*out, *runs); err != nil {
		fmt.Fprintln(os.Stderr, "bench slo:", err)
		os.Exit(1)
	}
}

func run(out string, runs int) error {
	s := result.Samples{}
	metrics := map[string]float64{}
	if err := exactness(metrics); err != nil {
		return err
	}
	if err := hours(metrics); err != nil {
		return err
	}
	for range runs {
		if err := costs(s); err != nil {
			return err
		}
	}
	for _, name := range []string{"ns_per_event", "ns_per_judge_30d", "ns_per_judge_slices_30d", "ns_per_alerts", "ns_per_snapshot_30d", "bytes_per_objective_30d", "bytes_per_snapshot_30d"} {
		metrics[name] = s.Percentile(name, 50)
	}
	s.Table(os.Stdout)
	fmt.Printf("worst error of a budget: %.0f events; averaging ratios: %.0f events\n",
		metrics["worst_budget_error_events"], metrics["ratio_averaging_worst_budget_error_events"])
	fmt.Printf("one hour of failures: averaging reports %.1f times too much at the quietest, %.1f times too little at the busiest\n",
		metrics["ratio_averaging_times_too_much_quietest_hour"], metrics["ratio_averaging_times_too_little_busiest_hour"])
	return result.Write(out, "slo", metrics, s)
}

// exactness follows the whole trace with errors in it, and compares every
// window with counting by hand: short ones each minute, long ones less often.
func exactness(metrics map[string]float64) error {
	trace, err := slotest.WorldCup()
	if err != nil {
		return err
	}
	trace.Sprinkle(1771)
	quietest, busiest := trace.Hours()
	trace.Fail(quietest, 60)
	trace.Fail(busiest, 60)
	averages := trace.Averages()
	l := slo.NewLedger(trace.Begin, month)
	o := slo.Objective{Target: target}
	var worst, rival float64
	var compared, requests int64
	for i, m := range trace.Minutes {
		l.Advance(trace.At(i))
		if m.Heard {
			if err := l.Add(trace.At(i), slo.Count{Good: m.Total - m.Bad, Total: m.Total}); err != nil {
				return err
			}
		}
		requests += m.Total
		for _, w := range []struct{ minutes, each int }{{5, 1}, {30, 1}, {60, 1}, {120, 1}, {360, 1}, {1440, 7}, {3 * 1440, 13}, {30 * 1440, 61}} {
			if i%w.each != 0 {
				continue
			}
			bad, total := trace.Sum(i+1-w.minutes, i+1)
			left := total*(1_000_000-target)/1_000_000 - bad
			end := trace.At(i + 1)
			v := l.Judge(o, end.Add(-time.Duration(w.minutes)*time.Minute), end)
			worst = max(worst, apart(v.Left(), left), apart(v.Total, total))
			compared++
			if w.minutes == 30*1440 && i >= w.minutes {
				reported := int64(averages.Ratio(i+1-w.minutes, i+1) * float64(total))
				rival = max(rival, apart(reported, bad))
			}
		}
	}
	metrics["requests"] = float64(requests)
	metrics["windows_compared"] = float64(compared)
	metrics["worst_budget_error_events"] = worst
	metrics["ratio_averaging_worst_budget_error_events"] = rival
	return nil
}

func apart(a, b int64) float64 { return float64(max(a-b, b-a)) }

// hours lets one hour of June fail, and compares what is reported with what was
// spent.
func hours(metrics map[string]float64) error {
	for _, name := range []string{"ratio_averaging_times_too_much_quietest_hour", "ratio_averaging_times_too_little_busiest_hour"} {
		whole, err := slotest.WorldCup()
		if err != nil {
			return err
		}
		june := whole.Part(time.Date(1998, 6, 1, 0, 0, 0, 0, time.UTC), time.Date(1998, 7, 1, 0, 0, 0, 0, time.UTC))
		quietest, busiest := june.Hours()
		n := len(june.Minutes)
		if name == "ratio_averaging_times_too_much_quietest_hour" {
			june.Fail(quietest, 60)
			bad, total := june.Sum(0, n)
			metrics[name] = june.Averages().Ratio(0, n) * float64(total) / float64(bad)
			continue
		}
		june.Fail(busiest, 60)
		bad, total := june.Sum(0, n)
		metrics[name] = float64(bad) / float64(total) / june.Averages().Ratio(0, n)
	}
	return nil
}

// costs measures what one level takes once 30 days are full.
func costs(s result.Samples) error {
	var before, after runtime.MemStats
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const levels = 20
	ledgers := make([]*slo.Ledger, levels)
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range ledgers {
		ledgers[i] = slo.NewLedger(begin, month)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	s.Add("bytes_per_objective_30d", float64(after.HeapAlloc-before.HeapAlloc)/levels)
	l, now := ledgers[0], begin
	for i := range int64(31 * 24 * 60) {
		now = begin.Add(time.Duration(i) * time.Minute)
		l.Advance(now)
		if err := l.Add(now, slo.Count{Good: 20_000 + i*7919%5000, Total: 20_010 + i*7919%5000}); err != nil {
			return err
		}
	}
	const events = 1_000_000
	began := time.Now()
	for range events {
		if err := l.Add(now, slo.Count{Good: 1, Total: 1}); err != nil {
			return err
		}
	}
	s.Add("ns_per_event", float64(time.Since(began).Nanoseconds())/events)
	each := func(name string, n int, do func()) {
		began := time.Now()
		for range n {
			do()
		}
		s.Add(name, float64(time.Since(began).Nanoseconds())/float64(n))
	}
	o := slo.Objective{Target: target}
	perMinute := slo.Objective{Target: target, Slice: time.Minute, Good: target}
	each("ns_per_judge_30d", 100_000, func() { l.Judge(o, now.Add(-month), now) })
	each("ns_per_judge_slices_30d", 100, func() { l.Judge(perMinute, now.Add(-month), now) })
	each("ns_per_alerts", 20_000, func() { l.Alerts(o, month, now) })
	var kept []byte
	each("ns_per_snapshot_30d", 20, func() { kept = slo.Snapshot(l, slo.NewMeter(begin)) })
	s.Add("bytes_per_snapshot_30d", float64(len(kept)))
	runtime.KeepAlive(ledgers)
	return nil
}

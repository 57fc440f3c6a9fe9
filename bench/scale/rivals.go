package main

import (
	"math"
	"slices"
)

// hpa is the algorithm that Kubernetes publishes for its HorizontalPodAutoscaler
// ("Algorithm details", and the defaults of kube-controller-manager): every 15 s
// ceil(current x utilisation / target), nothing within a tenth of the target,
// machines that boot counted as idle when adding, at most double or four more in
// 15 s, and the most of the last 300 s when taking away. Its metrics are of the
// last 15 s and not late, which favours it.
type hpa struct {
	target float64
	past   []int // recommendations of the last 300 s
}

func (h *hpa) every() int { return 15 }

func (h *hpa) decide(now int, w *world) orders {
	n := len(w.machines)
	want := min(max(h.want(now, w), 1), mostMachines)
	h.past = append(h.past, want)
	if len(h.past) > 300/h.every() {
		h.past = h.past[1:]
	}
	if want > n {
		return orders{more: min(want-n, max(n, 4)), acts: 1}
	}
	want = min(n, slices.Max(h.past))
	if want == n {
		return orders{}
	}
	return orders{gone: newest(w.machines, n-want), acts: 1}
}

func (h *hpa) want(now int, w *world) int {
	busy, ready := 0.0, 0
	for _, m := range w.machines {
		if m.ready < now {
			ready++
			busy += m.over(now, h.every()).busy * w.regime.cpu / float64(workers*h.every())
		}
	}
	n := len(w.machines)
	if ready == 0 {
		return n
	}
	use := busy / float64(ready) / h.target
	if math.Abs(use-1) <= 0.1 {
		return n
	}
	if ready == n || use < 1 {
		return int(math.Ceil(use * float64(ready)))
	}
	use = busy / float64(n) / h.target
	if use <= 1.1 {
		return n
	}
	return int(math.Ceil(use * float64(n)))
}

func newest(ms []*machine, n int) []int {
	var ids []int
	for _, m := range ms[len(ms)-n:] {
		ids = append(ids, m.id)
	}
	return ids
}

// fixed keeps what a peak needs at the first guess, all the time.
type fixed struct{ n int }

func (f fixed) every() int { return 15 }

func (f fixed) decide(_ int, w *world) orders { return orders{more: f.n - len(w.machines)} }

// forPeak is how many machines the busiest minute of a trace needs at the first
// guess.
func forPeak(tr trace) int {
	sum, peak := 0.0, 0.0
	for t, r := range tr.rates {
		if sum += r; t >= 60 {
			sum -= tr.rates[t-60]
		}
		peak = max(peak, sum/60)
	}
	return int(math.Ceil(peak / guess))
}

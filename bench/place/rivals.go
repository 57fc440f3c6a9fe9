package main

import "consort.dev/consort/packing"

// rival is a policy over plain slices, as both of ours to compare with are: it
// looks at some of the hosts for each machine and scores those that fit.
type rival struct {
	w    *world
	free []packing.Amounts
	on   map[string]where
	// some is how many hosts that fit are enough; all when nil.
	some  func(hosts int) int
	next  int // where the search begins
	score func(free, need, has packing.Amounts) float64
}

type where struct{ host, flavour int }

func (w *world) rival(score func(free, need, has packing.Amounts) float64, some func(int) int) policy {
	r := &rival{w: w, on: map[string]where{}, some: some, score: score}
	for _, h := range w.hosts {
		r.free = append(r.free, h.Has)
	}
	return r
}

// fullScan is best fit over every host.
func (w *world) fullScan() policy {
	return w.rival(func(free, need, has packing.Amounts) (s float64) {
		for d := range free {
			s += float64(free[d]-need[d]) / float64(has[d])
		}
		return s
	}, nil)
}

// sampled is our imitation of the Kubernetes scheduler: it stops at a share of
// the hosts that shrinks with their number, begins where it stopped last, and
// takes the least allocated (NodeResourcesLeastAllocated;
// numFeasibleNodesToFind: 50 % less one for every 125, at least 5 % and 100).
func (w *world) sampled() policy {
	return w.rival(func(free, need, has packing.Amounts) (s float64) {
		for d := range free {
			s -= float64(free[d]-need[d]) / float64(has[d])
		}
		return s
	}, func(hosts int) int {
		return max(100, hosts*max(5, 50-hosts/125)/100)
	})
}

func (r *rival) place(f int, name string) bool {
	need, n := r.w.demands[f].Need, len(r.free)
	enough := n
	if r.some != nil {
		enough = r.some(n)
	}
	best, lowest, found, looked := -1, 0.0, 0, 0
	for ; looked < n && found < enough; looked++ {
		i := (r.next + looked) % n
		free := &r.free[i]
		if free[0] < need[0] || free[1] < need[1] || free[2] < need[2] {
			continue
		}
		found++
		if s := r.score(*free, need, r.w.hosts[i].Has); best < 0 || s < lowest {
			best, lowest = i, s
		}
	}
	if r.some != nil {
		r.next = (r.next + looked) % n
	}
	if best < 0 {
		return false
	}
	for d := range need {
		r.free[best][d] -= need[d]
	}
	r.on[name] = where{best, f}
	return true
}

func (r *rival) remove(name string) {
	at := r.on[name]
	for d, n := range r.w.demands[at.flavour].Need {
		r.free[at.host][d] += n
	}
	delete(r.on, name)
}

func (r *rival) left() []packing.Amounts { return r.free }

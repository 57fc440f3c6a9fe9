package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"syscall"
	"time"

	"consort.dev/consort/packing"
)

// world is hosts of twelve classes and machines of eighteen flavours.
type world struct {
	hosts   []packing.Host
	demands []packing.Demand
	weights []float64 // of the demands: small ones are frequent
}

const (
	gib  = 1 << 30
	fill = 0.85 // of the CPUs, then machines come and go
)

func newWorld(hosts int) *world {
	w := &world{}
	for i := range hosts {
		cpus, ratio := []int64{32, 64, 96, 128}[i%4], []int64{4, 8, 16}[i/4%3]
		w.hosts = append(w.hosts, packing.Host{
			Name: fmt.Sprintf("host-%06d", i), Has: packing.Amounts{cpus, cpus * ratio * gib, cpus * 64 * gib}, Domain: fmt.Sprint("rack-", i/40),
		})
	}
	for _, cpus := range []int64{1, 2, 4, 8, 16, 32} {
		for _, ratio := range []int64{2, 4, 8} {
			w.demands = append(w.demands, packing.Demand{Need: packing.Amounts{cpus, cpus * ratio * gib, 40 * gib}})
			w.weights = append(w.weights, 1/float64(cpus))
		}
	}
	return w
}

func (w *world) expected() (es []packing.Expected) {
	for i, d := range w.demands {
		es = append(es, packing.Expected{Demand: d, Weight: w.weights[i]})
	}
	return es
}

// draw returns one of the flavours.
func (w *world) draw(r *rand.Rand) int {
	sum := 0.0
	for _, x := range w.weights {
		sum += x
	}
	at := r.Float64() * sum
	for i, x := range w.weights {
		if at -= x; at < 0 {
			return i
		}
	}
	return len(w.weights) - 1
}

// policy puts machines of a flavour on hosts and takes them off.
type policy interface {
	place(flavour int, name string) bool
	remove(name string)
	left() []packing.Amounts // of every host
}

// packed is ours.
type packed struct {
	cluster  *packing.Cluster
	flavours []*packing.Flavour
}

func (w *world) packed() (policy, error) {
	p := &packed{cluster: packing.New(packing.Options{Seed: 1, Mixed: true})}
	for _, h := range w.hosts {
		if err := p.cluster.SetHost(h); err != nil {
			return nil, err
		}
	}
	p.cluster.Expect(w.expected())
	for _, d := range w.demands {
		p.flavours = append(p.flavours, p.cluster.Flavour(d))
	}
	return p, nil
}

func (p *packed) place(f int, name string) bool {
	_, ok := p.cluster.Place(p.flavours[f], packing.Item{Name: name})
	return ok
}
func (p *packed) remove(name string) { p.cluster.Remove(name) }

func (p *packed) left() (all []packing.Amounts) {
	for _, name := range p.cluster.Names() {
		l, _, _ := p.cluster.Left(name)
		all = append(all, l)
	}
	return all
}

// churned is what came of machines that came and went.
type churned struct {
	perCPUSecond float64 // placements, with as many departures
	refused      float64 // percent
	empty        int     // hosts with nothing on them
	more         int     // of the largest flavour that still fit: what is stranded shows here
}

// churn fills the hosts and then has a machine leave and another come, until
// the CPU time is used up.
func (w *world) churn(p policy, budget time.Duration) churned {
	r := rand.New(rand.NewPCG(7, 7))
	type machine struct {
		name    string
		flavour int
	}
	var there []machine
	cpus, target := int64(0), int64(0)
	for _, h := range w.hosts {
		target += int64(fill * float64(h.Has[packing.CPU]))
	}
	// A policy that strands what it has may never come so far.
	for misses := 0; cpus < target && misses < 1000; {
		m := machine{strconv.Itoa(len(there)), w.draw(r)}
		if !p.place(m.flavour, m.name) {
			misses++
			continue
		}
		there = append(there, m)
		cpus += w.demands[m.flavour].Need[packing.CPU]
	}
	began, tried, refused := cpuTime(), 0, 0
	for tried == 0 || tried&255 != 0 || cpuTime()-began < budget {
		tried++
		i := r.IntN(len(there))
		if cpus >= target { // else one was refused, and the place is free still
			p.remove(there[i].name)
			cpus -= w.demands[there[i].flavour].Need[packing.CPU]
			there[i] = there[len(there)-1]
			there = there[:len(there)-1]
		}
		m := machine{"n" + strconv.Itoa(tried), w.draw(r)}
		if !p.place(m.flavour, m.name) {
			refused++
			continue
		}
		there = append(there, m)
		cpus += w.demands[m.flavour].Need[packing.CPU]
	}
	c := churned{perCPUSecond: float64(tried-refused) / (cpuTime() - began).Seconds(), refused: 100 * float64(refused) / float64(tried)}
	c.empty, c.more = w.stranded(p.left())
	return c
}

// stranded returns how many hosts are empty and how many more of the largest
// flavour fit. Hosts come in the order of their names, which is that of w.hosts.
func (w *world) stranded(left []packing.Amounts) (empty, more int) {
	need := w.demands[len(w.demands)-2].Need // 32 CPUs, 4 GiB each: every class of host could have it
	for i, l := range left {
		if l == w.hosts[i].Has {
			empty++
		}
		n := l[packing.CPU] / need[packing.CPU]
		for d := range l {
			n = min(n, l[d]/need[d])
		}
		more += int(n)
	}
	return empty, more
}

// cpuTime is the CPU time this process has used, its garbage collector included.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails for no valid argument
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

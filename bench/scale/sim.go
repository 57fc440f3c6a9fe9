package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// The service and its machines.
const (
	workers  = 4
	meanWork = 0.040 // seconds of one request on a machine of speed 1
	spread   = 0.6   // sigma of its lognormal
	patience = 10.0  // seconds after which a client that waits gives up
	bootTime = 30    // seconds from an order to the first request
	bound    = 0.300
	share    = 0.99
	ioShare  = 0.4  // of a busy worker's time that is CPU, where the service waits for others
	drift    = 1.25 // times the work of a request, from half time on
)

// regime is what kind of service it is.
type regime struct {
	name  string
	cpu   float64 // share of a busy worker's time that is CPU
	drift float64 // times the work, from half time on
}

func regimes() []regime {
	return []regime{{"cpu", 1, 1}, {"io", ioShare, 1}, {"drift", 1, drift}}
}

// span is what a machine did in some seconds.
type span struct {
	answered, bad int64
	time          float64 // response times
	busy          float64 // worker-seconds begun
}

// machine serves requests with some workers, in the order they come.
type machine struct {
	id    int
	speed float64
	from  int // second it was ordered
	ready int // second from which it serves
	gone  int // second it left, or -1
	free  [workers]float64
	slots [spans]span // by the second of the end, modulo
}

// spans is how many seconds are kept: what clients may wait, what the slowest
// controller looks back, and a little.
const spans = 32

// orders are what a controller wants: more machines, and some gone.
type orders struct {
	more int
	gone []int
	acts int
}

// controller is whoever decides how many machines there are.
type controller interface {
	// every is how often it is asked, in seconds.
	every() int
	decide(now int, w *world) orders
}

// world is one run.
type world struct {
	rates    []float64
	regime   regime
	speeds   []float64
	work     []float64 // of requests, in random order to be picked from
	rng      *rand.Rand
	fleet    *rand.Rand
	machines []*machine // those that have not gone
	all      []*machine
	serving  []*machine
	next     int
	arrived  int64 // since the controller was last asked
	out      outcome
	quick    [spans]histogram // of all response times, by the second of the end, modulo
}

// histogram counts response times: eight buckets to the octave.
type histogram [128]int32

// bucket is the three first bits after the exponent, from 2^-13 s on.
func bucket(seconds float64) int {
	return min(max(int(math.Float64bits(seconds)>>49)-(1023-13)<<3, 0), len(histogram{})-1)
}

// edge is where a bucket begins.
func edge(b int) float64 { return math.Float64frombits(uint64(b+(1023-13)<<3) << 49) }

// tenth is the response time that a tenth of the requests in the n seconds
// before now did not take.
func (w *world) tenth(now, n int) time.Duration {
	var sum histogram
	all := 0.0
	for t := max(now-n, 0); t < now; t++ {
		for b, c := range w.quick[t%spans] {
			sum[b] += c
			all += float64(c)
		}
	}
	left := all / 10
	for b, c := range sum {
		if c > 0 && left <= float64(c) {
			return time.Duration((edge(b) + (edge(b+1)-edge(b))*left/float64(c)) * float64(time.Second))
		}
		left -= float64(c)
	}
	return 0
}

// outcome is what a run came to.
type outcome struct {
	requests, bad       int64
	minutes, violated   int
	hours               float64
	acts                int
	length              float64 // hours
	perMinute, badInMin []int64
}

func newWorld(tr trace, r regime, c *corpus, seed uint64) *world {
	w := &world{rates: tr.rates, regime: r, speeds: c.speeds, work: c.work,
		rng: rand.New(rand.NewPCG(seed, 1)), fleet: rand.New(rand.NewPCG(seed, 2))}
	first := 0.0
	for _, r := range w.rates[:min(60, len(w.rates))] {
		first += r / float64(min(60, len(w.rates)))
	}
	for range max(1, int(math.Ceil(first/guess))) {
		w.order(-bootTime)
	}
	for _, m := range w.machines {
		m.from = 0
	}
	n := (len(w.rates) + 59) / 60
	w.out.perMinute, w.out.badInMin = make([]int64, n), make([]int64, n)
	return w
}

func (w *world) order(now int) {
	m := &machine{id: w.next, speed: w.speeds[w.fleet.IntN(len(w.speeds))], from: now, ready: now + bootTime, gone: -1}
	w.next++
	for i := range m.free {
		m.free[i] = float64(m.ready)
	}
	w.machines, w.all = append(w.machines, m), append(w.all, m)
}

// run plays the whole trace.
func (w *world) run(c controller) outcome {
	for t := range w.rates {
		if t > 0 && t%c.every() == 0 {
			w.obey(t, c.decide(t, w))
			w.arrived = 0
		}
		w.serving = w.serving[:0]
		for _, m := range w.machines {
			if m.ready <= t {
				w.serving = append(w.serving, m)
			}
			m.slots[(t+spans/2)%spans] = span{}
		}
		w.quick[(t+spans/2)%spans] = histogram{}
		w.second(t)
	}
	return w.sum()
}

func (w *world) obey(now int, o orders) {
	w.out.acts += o.acts
	for range o.more {
		w.order(now)
	}
	for _, id := range o.gone {
		for _, m := range w.machines {
			if m.id == id {
				m.gone = max(now, int(math.Ceil(slices.Max(m.free[:]))))
				if m.ready > now {
					m.gone = now
				}
			}
		}
	}
	w.machines = slices.DeleteFunc(w.machines, func(m *machine) bool { return m.gone >= 0 })
}

// second lets the requests of one second come, each at a moment of its own.
func (w *world) second(t int) {
	rate := w.rates[t]
	if rate <= 0 {
		return
	}
	work := w.work
	slower := 1.0
	if t*2 >= len(w.rates) {
		slower = w.regime.drift
	}
	n, bad := int64(0), int64(0)
	end := float64(t + 1)
	for at := float64(t) + w.rng.ExpFloat64()/rate; at < end; at += w.rng.ExpFloat64() / rate {
		bits := w.rng.Uint64()
		n++
		if len(w.serving) == 0 {
			bad++
			continue
		}
		m := w.serving[(bits>>32)*uint64(len(w.serving))>>32]
		if !w.serve(m, at, work[bits&(tableSize-1)]*slower/m.speed) {
			bad++
		}
	}
	w.arrived += n
	w.out.perMinute[t/60] += n
	w.out.badInMin[t/60] += bad
}

// serve takes one request and says whether it is answered in time.
func (w *world) serve(m *machine, at, work float64) bool {
	first := 0
	for i := 1; i < workers; i++ {
		if m.free[i] < m.free[first] {
			first = i
		}
	}
	start := max(at, m.free[first])
	if start-at > patience {
		s := &m.slots[int(at+patience)%spans]
		s.answered, s.bad, s.time = s.answered+1, s.bad+1, s.time+patience
		return false
	}
	end := start + work
	m.free[first] = end
	m.slots[int(start)%spans].busy += work
	s := &m.slots[int(end)%spans]
	s.answered++
	s.time += end - at
	w.quick[int(end)%spans][bucket(end-at)]++
	if end-at > bound {
		s.bad++
		return false
	}
	return true
}

// over sums what a machine did in the n seconds before now.
func (m *machine) over(now, n int) span {
	var sum span
	for t := max(now-n, 0); t < now; t++ {
		s := m.slots[t%spans]
		sum.answered, sum.bad, sum.time, sum.busy = sum.answered+s.answered, sum.bad+s.bad, sum.time+s.time, sum.busy+s.busy
	}
	return sum
}

func (w *world) sum() outcome {
	o := w.out
	end := len(w.rates)
	for _, m := range w.all {
		until := end
		if m.gone >= 0 {
			until = min(end, m.gone)
		}
		o.hours += float64(until-m.from) / 3600
	}
	o.minutes = len(o.perMinute)
	for i, n := range o.perMinute {
		o.requests, o.bad = o.requests+n, o.bad+o.badInMin[i]
		if float64(o.badInMin[i]) > (1-share)*float64(n) {
			o.violated++
		}
	}
	o.length = float64(end) / 3600
	return o
}

// clock is a second of the run as a time.
func clock(t int) time.Time { return time.Unix(int64(t), 0).UTC() }

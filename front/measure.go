package front

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Bounds are the histograms' upper bounds in seconds: those that the semantic
// conventions of OpenTelemetry 1.44 advise for http.server.request.duration.
// An objective need not lie on one of them, for its requests are counted apart.
var Bounds = [...]float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}

// Histogram counts durations. Counts are not cumulative: each is of the
// durations above the bound before and up to its own; the last is of those
// above all bounds.
type Histogram struct {
	Counts [len(Bounds) + 1]int64
	Count  int64
	Sum    float64 // seconds
}

func (h *Histogram) add(seconds float64) {
	i, _ := slices.BinarySearch(Bounds[:], seconds)
	h.Counts[i]++
	h.Count++
	h.Sum += seconds
}

func (h *Histogram) merge(o *Histogram) {
	for i, n := range o.Counts {
		h.Counts[i] += n
	}
	h.Count += o.Count
	h.Sum += o.Sum
}

// Series is http.server.request.duration for one set of attributes.
type Series struct {
	Key
	Histogram
}

// Key is what requests are told apart by.
type Key struct {
	Replica string // empty: none was reached, or it has gone since
	Method  string // http.request.method; _OTHER when it is none of the known
	Status  int    // http.response.status_code; 499 for a client who left before there was one
}

// Count is how an objective fares, from when the front began: it only grows.
type Count struct {
	Objective   string
	Good, Total int64
}

// Minute is what had been counted when a minute ended: a request belongs to
// the minute in which it ended.
type Minute struct {
	Ended  time.Time // a whole minute, but for the last of a front that closes
	Counts []Count   // in the order of Options.Objectives
}

// Figures are the measurements of a front at one moment. All but InFlight,
// Queued and Replicas only grow.
type Figures struct {
	Service    string
	Series     []Series // of all times; in order
	Objectives []Count
	Replicas   []Standing
	InFlight   int
	Queued     int
	Refused    int64 // by the bounds of the queue
	Retries    int64
	Unretried  int64 // for want of a budget
	Ejections  int64
	Quick      time.Duration // a tenth of the last answers took at most that long; 0 when there were none of late
}

// Standing is how one replica stands.
type Standing struct {
	Name     string
	State    State
	Because  string // of a state other than ready
	InFlight int
	Median   time.Duration // of the last half minute's latencies up to the head of the response, with Samples 0 unknown
	Samples  int
	Tally    Tally
}

// Tally is what one replica has answered since it came. It only grows.
type Tally struct {
	Answered int64
	Failed   int64         // of those: with a status of 500 or more, or not to the end
	Time     time.Duration // of all answers together
	Counts   []Count       // in the order of Options.Objectives
}

// State says whether a replica gets requests.
type State string

// The states of a replica.
const (
	Ready    State = "ready"
	Unready  State = "unready"  // its probe does not pass
	Out      State = "out"      // left out for a while, because it fails or is slow
	Trial    State = "trial"    // was out, and gets one request at a time until one is answered
	Draining State = "draining" // gets nothing new
)

// event is one request that has ended.
type event struct {
	replica, method string
	status          int
	took            time.Duration
	left            bool // the client did, before the end
	broken          bool // the response was not whole
}

// meter counts. A minute's counts are exact because who counts also decides,
// under the same lock, which minute it is.
type meter struct {
	objectives []Objective

	mu       sync.Mutex
	minute   time.Time // that now runs
	ended    []Minute  // not reported yet
	series   map[Key]*Histogram
	counts   []Count
	each     map[string]*Tally // of replicas that are there
	recent   [256]sample       // answers
	next     int               // in recent
	inFlight int
}

func newMeter(objectives []Objective, now time.Time) *meter {
	m := &meter{objectives: objectives, minute: now.Truncate(time.Minute), series: map[Key]*Histogram{}, each: map[string]*Tally{}, counts: make([]Count, len(objectives))}
	for i, o := range objectives {
		m.counts[i].Objective = o.Name
	}
	return m
}

func (m *meter) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inFlight++
}

// end counts a request that began.
func (m *meter) end(e event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inFlight--
	m.advance(time.Now())
	if e.left && e.status == 0 {
		e.status = statusLeft
	}
	k := Key{e.replica, known(e.method), e.status}
	h := m.series[k]
	if h == nil {
		h = new(Histogram)
		m.series[k] = h
	}
	h.add(e.took.Seconds())
	each := m.tally(e)
	for i, o := range m.objectives {
		within := e.took <= o.Bound
		if e.left && within {
			continue // who leaves early says nothing
		}
		good := within && !e.broken && e.status < http.StatusInternalServerError
		m.counts[i].count(good)
		if each != nil {
			each.Counts[i].count(good)
		}
	}
}

func (c *Count) count(good bool) {
	c.Total++
	if good {
		c.Good++
	}
}

// tally counts an answer for its replica and returns what that has answered;
// nil where there was none.
func (m *meter) tally(e event) *Tally {
	if e.replica == "" {
		return nil
	}
	t := m.each[e.replica]
	if t == nil {
		t = &Tally{Counts: make([]Count, len(m.objectives))}
		for i, o := range m.objectives {
			t.Counts[i].Objective = o.Name
		}
		m.each[e.replica] = t
	}
	if e.left {
		return t
	}
	t.Answered++
	t.Time += e.took
	if e.broken || e.status >= http.StatusInternalServerError {
		t.Failed++
		return t
	}
	m.recent[m.next] = sample{time.Now(), e.took}
	m.next = (m.next + 1) % len(m.recent)
	return t
}

// quick is the tenth percentile of the answers of late.
func (m *meter) quick(now time.Time) time.Duration {
	var all []time.Duration
	for _, s := range m.recent {
		if !s.at.IsZero() && now.Sub(s.at) < sampleLife {
			all = append(all, s.took)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/10]
}

// known returns the method, or what stands for one that nobody knows: clients
// must not be able to make up series.
func known(method string) string {
	switch method {
	case "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "QUERY", connection:
		return method
	}
	return "_OTHER"
}

// advance ends the minutes that are over.
func (m *meter) advance(now time.Time) {
	for next := m.minute.Add(time.Minute); !now.Before(next); next = m.minute.Add(time.Minute) {
		m.minute = next
		m.ended = append(m.ended, Minute{next, slices.Clone(m.counts)})
	}
}

// roll returns the minutes that have ended since the last time.
func (m *meter) roll(now time.Time) []Minute {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance(now)
	ended := m.ended
	m.ended = nil
	return ended
}

// last returns the minute that still runs.
func (m *meter) last(now time.Time) Minute {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Minute{now, slices.Clone(m.counts)}
}

// forget keeps what a replica did, but no longer under its name.
func (m *meter) forget(replica string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.each, replica)
	for k, h := range m.series {
		if k.Replica != replica {
			continue
		}
		delete(m.series, k)
		k.Replica = ""
		if m.series[k] == nil {
			m.series[k] = new(Histogram)
		}
		m.series[k].merge(h)
	}
}

// Figures returns the measurements as they are now.
func (f *Front) Figures() Figures {
	now := time.Now()
	out := Figures{Service: f.o.Service}
	f.pool.fill(&out, now)
	m := f.meter
	m.mu.Lock()
	defer m.mu.Unlock()
	out.InFlight, out.Objectives, out.Quick = m.inFlight, slices.Clone(m.counts), m.quick(now)
	for i := range out.Replicas {
		if t := m.each[out.Replicas[i].Name]; t != nil {
			out.Replicas[i].Tally = *t
			out.Replicas[i].Tally.Counts = slices.Clone(t.Counts)
		}
	}
	for k, h := range maps.All(m.series) {
		out.Series = append(out.Series, Series{k, *h})
	}
	slices.SortFunc(out.Series, func(a, b Series) int {
		return cmp.Or(cmp.Compare(a.Replica, b.Replica), cmp.Compare(a.Method, b.Method), cmp.Compare(a.Status, b.Status))
	})
	return out
}

// fill puts in what the pool knows.
func (p *pool) fill(out *Figures, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out.Queued, out.Refused, out.Ejections = len(p.queue), p.refused, p.ejections
	out.Retries, out.Unretried = p.budget.spent, p.budget.denied
	for _, r := range p.replicas {
		s := Standing{Name: r.Name, State: r.state(now), InFlight: len(r.leases)}
		if s.State != Ready && s.State != Draining {
			s.Because = r.why
		}
		s.Median, s.Samples = r.median(now)
		out.Replicas = append(out.Replicas, s)
	}
}

func (r *replica) state(now time.Time) State {
	switch {
	case r.draining:
		return Draining
	case r.unready:
		return Unready
	case r.out && now.Before(r.until):
		return Out
	case r.out:
		return Trial
	}
	return Ready
}

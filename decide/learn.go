package decide

import (
	"math"
	"time"
)

// Constants of the engine. They were chosen on the diurnal, bursty and noisy
// traces of bench/scale; the WorldCup and Twitter traces had no say.
const (
	short = 15 * time.Second // what is believed to be now
	long  = time.Minute      // what is believed to last

	enoughBad  = 10  // bad requests, before a share of them means something
	enoughSeen = 200 // answers, before none bad means something

	calm  = 0.10 // share of the budget below which a replica can bear more
	tense = 0.40 // share of the budget above which it bears too much

	firstRise = 0.02  // per measurement, until it was too much once
	rise      = 0.008 // per measurement, afterwards
	knee      = 1.25  // times the usual share of waiting, from which a little more load is a lot more waiting
	beyond    = 1.15  // times what was borne for a minute is believed to be safe at most
	nearSafe  = 0.7   // share of what is safe that must be borne to learn more
	backOff   = 0.97  // when tense
	backFast  = 0.88  // when the whole budget of the moment burns
	excess    = 1.05  // times what is safe, from which bad requests prove nothing
	slower    = 1.08  // times the usual time of a quick request, at which nothing is learned but caution
	backMost  = 0.80  // at once
	unproven  = 1.5   // times what was ever borne well, from which a belief is a guess

	mostSlower = 1.3  // times the usual time of a quick request that are believed to be work; the rest is waiting
	usually    = 0.02 // per measurement: some four minutes
	forget     = 1.0003

	mostTrend  = 0.10 // share of the rate by which a trend may raise a forecast
	missedStep = 0.03 // rise of the margin when a forecast was exceeded
	metStep    = 0.001
	mostMargin = 0.40

	push = 1.15 // times the replicas while the level is breaking

	leastHold = 60 * time.Second
	mostHold  = 600 * time.Second

	fade = 0.9439 // per measurement of 5 s: half in a minute
)

// learn updates what is believed of the service.
func (s *State) learn(p Policy, m Measured) {
	s.resize(p, m)
	now, minute := s.last(m.At, short), s.last(m.At, long)
	if !m.Seen || now.pace() == 0 {
		return
	}
	if s.Usual == 0 {
		s.Usual, s.Stretch = now.pace(), now.stretch()
	}
	s.Quick = min(now.pace(), mostSlower*s.Usual)
	s.Usual += (s.Quick - s.Usual) * usually
	s.Stretch = min(s.Stretch*forget, minute.stretch())
	s.learnLoad(p, m, now, minute)
	s.learnMargin(m.At, now)
}

// resize has what was learned follow the replicas when all of them have become
// something else: one of twice the size bears twice as much, until it is known
// better, and a new revision is learned as fast as the first.
func (s *State) resize(p Policy, m Measured) {
	var is Make
	for _, r := range m.Replicas {
		switch now := (Make{VCPUs: r.VCPUs, Revision: r.Revision}); {
		case r.Phase != Ready:
		case is == Make{} || is == now:
			is = now
		default:
			return // some are still what all were
		}
	}
	was := s.Like
	if is == was || is == (Make{}) {
		return
	}
	s.Like = is
	if was == (Make{}) {
		return
	}
	s.Stressed = false
	if p.Scaling != Size && was.VCPUs > 0 && is.VCPUs > 0 { // a vCPU bears what a vCPU bore
		s.Load *= float64(is.VCPUs) / float64(was.VCPUs)
	}
}

// learnLoad learns what a replica bears: a little more while few requests are
// bad, less as soon as many are. It is learned as requests/s times the time of a
// quick one: when each takes longer, the safe rate falls at once, whereas those
// that wait for others do not count.
func (s *State) learnLoad(p Policy, m Measured, now, minute window) {
	budget := p.Level.budget()
	if s.Load == 0 {
		if s.Load = p.Guess * now.pace(); p.Guess == 0 {
			s.Load = now.load()
		}
		return
	}
	switch {
	case now.bad >= enoughBad && now.badShare() > tense*budget:
		if m.At.Sub(s.Learned) < m.Boot+short {
			return // what was done about the last one is not there yet
		}
		f := backOff
		if now.badShare() > budget && now.load() < excess*s.Load {
			f = backFast // more than what was believed to be safe would explain it
		}
		least := min(s.Load, s.Borne*unproven) * backMost // what is far beyond anything borne is not held on to
		s.Load, s.Learned, s.Stressed = max(least, min(s.Load, now.load())*f), m.At, true
	case minute.answered >= enoughSeen && minute.badShare() < calm*budget && now.stretch() < knee*s.Stretch && s.Quick < slower*s.Usual:
		borne := s.most()
		s.Borne = max(s.Borne, borne)
		if borne < nearSafe*s.Load {
			return
		}
		step := firstRise
		if s.Stressed {
			step = rise
		}
		s.Load = max(s.Load, min(s.Load*(1+step), borne*beyond*(1+s.Margin)))
	}
}

// most is the most that a replica bore for 15 s within the last minute.
func (s *State) most() (load float64) {
	for _, t := range s.Ticks {
		if w := s.last(t.At, short); w.span >= short.Seconds()*0.9 {
			load = max(load, w.load())
		}
	}
	return load
}

// learnMargin compares what came with what was foretold for now. It moves so
// that about one forecast in twenty is exceeded.
func (s *State) learnMargin(at time.Time, now window) {
	for len(s.Forecasts) > 0 && !s.Forecasts[0].For.After(at) {
		f := s.Forecasts[0]
		s.Forecasts = s.Forecasts[1:]
		if f.Rate == 0 {
			continue // when the first requests come is nothing that could be foretold
		}
		if now.rate() > f.Rate*(1+s.Margin) {
			s.Margin = min(mostMargin, s.Margin+missedStep)
		} else {
			s.Margin = max(0, s.Margin-metStep)
		}
	}
}

// view is what a measurement means.
type view struct {
	p        Policy
	m        Measured
	now      window // the last 15 s
	minute   window
	units    int // replicas that are or will be, or vCPUs of the one
	ready    []Replica
	rate     float64
	forecast float64
	safe     float64 // requests/s a unit
	margin   float64
	blind    bool
	burning  bool
	want     int
	exact    float64 // want before it was rounded
}

// look works out what the measurement means.
func look(p Policy, m Measured, s State) view {
	v := view{p: p, m: m, now: s.last(m.At, short), minute: s.last(m.At, long), margin: s.Margin}
	for _, r := range m.Replicas {
		if r.Phase != Leaving {
			v.units++
		}
		if r.Phase == Ready {
			v.ready = append(v.ready, r)
		}
	}
	if p.Scaling == Size {
		v.units = m.VCPUs
	}
	v.blind = !m.Seen || v.now.span == 0 || v.now.arrived > 0 && v.now.answered == 0
	budget := p.Level.budget()
	v.burning = v.now.bad >= enoughBad && v.now.badShare() > budget && v.minute.badShare() > budget
	if s.Quick > 0 {
		v.safe = s.Load / s.Quick
	}
	v.rate = v.now.rate()
	v.forecast = s.forecast(m)
	v.want = v.units
	if v.safe > 0 && !v.blind {
		v.exact = max(v.rate, v.forecast*(1+v.margin)) / v.safe
		v.want = int(math.Ceil(v.exact))
	}
	if !v.blind && v.now.arrived == 0 {
		v.exact, v.want = 0, 0
	}
	v.want = min(max(v.want, p.Least), p.Most)
	return v
}

// forecast is the rate when a replica that is asked for now is ready: the line
// of least squares through the last minute, which may rise by a tenth and never
// falls. It begins with the first request: that a service was idle before is no
// trend, and a line through both would end above everything that ever came.
func (s *State) forecast(m Measured) float64 {
	var n, x, y, xx, xy float64
	for _, t := range s.Ticks {
		if n == 0 && t.Arrived == 0 {
			continue
		}
		a, r := t.At.Sub(m.At).Seconds(), ratio(float64(t.Arrived), t.Span.Seconds())
		n, x, y, xx, xy = n+1, x+a, y+r, xx+a*a, xy+a*r
	}
	if n < 6 {
		return ratio(y, n)
	}
	slope := ratio(n*xy-x*y, n*xx-x*x)
	level := (y - slope*x) / n
	return max(y/n, level+min(max(0, slope*m.Boot.Seconds()), mostTrend*level))
}

// remember notes what was wanted and foretold, for later.
func (s *State) remember(v view) {
	if v.blind {
		return
	}
	for len(s.Peaks) > 0 && s.Peaks[len(s.Peaks)-1].Want <= v.want {
		s.Peaks = s.Peaks[:len(s.Peaks)-1]
	}
	s.Peaks = append(s.Peaks, Peak{v.m.At, v.want})
	s.Forecasts = append(s.Forecasts, Forecast{v.m.At.Add(v.m.Boot), v.forecast})
}

// peak is the most that was wanted within the hold, and whether so much is
// known of the past at all.
func (s *State) peak(at time.Time) (most int) {
	for _, p := range s.Peaks {
		if at.Sub(p.At) <= s.Hold {
			most = max(most, p.Want)
		}
	}
	return most
}

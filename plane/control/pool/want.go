package pool

import (
	"fmt"
	"math"
	"time"

	"consort.dev/consort/estate"
)

// What is supposed of a pool of which nothing was measured yet.
const (
	usualMake = 30 * time.Second // a cold boot
	usualStay = 30 * time.Minute
)

const (
	// underWay is how much work on seats may be under way for each CPU of the
	// hosts: seats that take long are made one after another, so that the first
	// is ready soon; those that take a moment are made many at once.
	underWay = 10 * time.Second
	// mostAtOnce bounds the seats that one CPU makes at once all the same.
	mostAtOnce = 16
	// surely is how many standard deviations above the mean the number of
	// persons is that comes while a seat is made, in 95 of 100 cases.
	surely = 1.645
)

// picture is a pool as one look shows it.
type picture struct {
	spec *estate.PoolSpec
	now  time.Time // in the time zone of the schedule

	warm, making int  // seats without a person: ready, and not yet
	taken        int  // seats with a person, ready or not
	begun        int  // of those, not ready yet
	leaving      int  // seats that are being destroyed
	waiting      int  // persons who have no seat
	starts       int  // persons anywhere whose start is waiting on the same hosts
	room         int  // seats that the hosts have room for besides
	cpus         int  // of the hosts
	clones       bool // whether one of them has seats go on from a template

	make, stay time.Duration // 0 when not measured
	rate       float64       // persons a minute
}

// decision is what is done about it.
type decision struct {
	target int    // ready seats wanted
	why    string // why that many
	give   int    // persons who get a seat that is there, ready or not
	order  int    // persons who get a seat that is made for them
	refill int    // seats to make for nobody yet
	drop   int    // ready seats to destroy
	held   string // why fewer are made than are wanted, or ""
}

// want decides. It is the same for the live loop and for tests.
func want(p picture) decision {
	d := decision{}
	d.target, d.why = target(p)
	d.give = min(p.waiting, p.warm+p.making)
	left := p.waiting - d.give
	idle := p.warm + p.making - d.give
	total := p.warm + p.making + p.taken + p.leaving
	may := max(0, min(p.room, p.spec.Maximum-total))
	d.order = min(left, may, max(0, p.atOnce()-p.making-p.begun))
	if left > d.order {
		d.held = held(p, may, total)
	}
	switch missing := d.target - idle; {
	case left > 0:
	case missing > 0 && (p.starts > 0 || d.give > 0):
		d.held = "somebody's start comes first"
	case missing > 0 && p.making > 0:
		d.held = "one seat is made at a time while nobody waits"
	case missing > 0 && may == 0:
		d.held = held(p, may, total)
	case missing > 0:
		d.refill = 1
	case missing < 0:
		d.drop = min(-missing, p.warm)
	case p.untried() && may > 0 && p.starts == 0:
		d.refill = 1 // for the sake of its template; it goes once it is ready
	}
	return d
}

// untried reports whether no seat was ever made though seats go on from a
// template: whoever came first would wait until that is made.
func (p *picture) untried() bool {
	return p.clones && p.make == 0 && p.warm+p.making+p.taken+p.leaving == 0
}

func held(p picture, may, total int) string {
	switch {
	case total >= p.spec.Maximum:
		return fmt.Sprintf("all %d seats of the pool are there", p.spec.Maximum)
	case may == 0:
		return "the hosts have no room for another seat"
	}
	return "as many seats are being made as can be at once"
}

// atOnce is how many seats may be in the making together.
func (p *picture) atOnce() int {
	each := int(underWay / max(p.makeTime(), time.Millisecond))
	return max(1, p.cpus) * min(max(1, each), mostAtOnce)
}

func (p *picture) makeTime() time.Duration {
	if p.make == 0 {
		return usualMake
	}
	return p.make
}

func (p *picture) stayTime() time.Duration {
	if p.stay == 0 {
		return usualStay
	}
	return p.stay
}

// target is how many ready seats are wanted now, and why.
func target(p picture) (int, string) {
	n, why := p.spec.Warm, fmt.Sprintf("the pool keeps %d ready", p.spec.Warm)
	if sh, is := p.spec.Shift(p.now); is {
		n, why = sh.Warm, fmt.Sprintf("the shift from %s to %s keeps %d ready", sh.From, sh.To, sh.Warm)
	}
	// Seats of the next shift are there when it begins: they are made one by one.
	for i := range p.spec.Schedule {
		sh := &p.spec.Schedule[i]
		lead := min(p.makeTime()*time.Duration(sh.Warm), 4*time.Hour)
		if soon, is := p.spec.Shift(p.now.Add(lead)); is && soon.From == sh.From && soon.To == sh.To && sh.Warm > n {
			n, why = sh.Warm, fmt.Sprintf("the shift from %s to %s begins soon and keeps %d ready", sh.From, sh.To, sh.Warm)
		}
	}
	if most := p.spec.Autoscale.Most; most > n {
		come := p.rate * p.makeTime().Minutes()
		if need := min(most, int(math.Ceil(come+surely*math.Sqrt(come)))); need > n {
			n = need
			why = fmt.Sprintf("%.1f persons a minute come and a seat takes %s to make: %d ready seats are enough in 95 of 100 cases", p.rate, round(p.makeTime()), n)
			if n == most {
				why = fmt.Sprintf("%.1f persons a minute come and a seat takes %s to make: the %d ready seats that autoscaling may keep", p.rate, round(p.makeTime()), n)
			}
		}
	}
	if n > p.spec.Maximum-p.taken {
		n = max(0, p.spec.Maximum-p.taken)
		why += fmt.Sprintf("; %d of at most %d seats are taken", p.taken, p.spec.Maximum)
	}
	return n, why
}

// round shortens a length of time for people.
func round(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}

// halfLife is how long it takes until who came counts half.
const halfLife = 5 * time.Minute

// decayed is the rate of arrivals a minute after that time, when so many came.
func decayed(rate float64, after time.Duration, came int) float64 {
	rate *= math.Exp2(-float64(after) / float64(halfLife))
	rate += float64(came) * math.Ln2 / halfLife.Minutes()
	if rate < 0.01 {
		return 0
	}
	return math.Round(rate*100) / 100
}

package estate

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Pool is desktops kept ready for persons who need any free one at once. Each
// is a seat: a Desktop that belongs to nobody until it is taken, to one person
// then, and that is destroyed when they leave.
type Pool struct {
	Head
	Spec   PoolSpec   `json:"spec"`
	Status PoolStatus `json:"status,omitzero"`
}

// PoolSpec is what its seats are made from, and how many are kept ready.
type PoolSpec struct {
	Title     string    `json:"title,omitempty" doc:"What people call it."`
	Blueprint string    `json:"blueprint" doc:"What every seat is made from, with all its applications. Seats have no home."`
	Warm      int       `json:"warm" minimum:"0" maximum:"1000" doc:"How many seats are kept ready, when no shift says otherwise."`
	Maximum   int       `json:"maximum" minimum:"1" maximum:"10000" doc:"How many seats there are at most: ready, being made and taken."`
	PerPerson int       `json:"perPerson,omitempty" doc:"How many seats one person may have; 1 when empty."`
	Keep      Duration  `json:"keep,omitempty" doc:"How long a seat waits for its person after their last session ended; destroyed at once when empty, and where the context is disposable."`
	TimeZone  string    `json:"timeZone,omitempty" doc:"In which the shifts are given, as Europe/Berlin; UTC when empty."`
	Schedule  []Shift   `json:"schedule,omitempty" doc:"Other numbers of ready seats at certain times. The first shift that fits decides."`
	Autoscale Autoscale `json:"autoscale,omitzero" doc:"More ready seats while many persons come."`
}

// Shift is a time of the week with its own number of ready seats, which are
// made in time for its beginning.
type Shift struct {
	Days []Weekday `json:"days,omitempty" enum:"mon,tue,wed,thu,fri,sat,sun" doc:"On which days it begins; every day when empty."`
	From string    `json:"from" doc:"As 07:30."`
	To   string    `json:"to" doc:"As 18:00. Not after from: it ends on the next day."`
	Warm int       `json:"warm" minimum:"0" maximum:"1000"`
}

// Weekday is a day of the week, in three letters.
type Weekday string

var weekdays = []Weekday{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} // in the order of time.Weekday

// Autoscale keeps as many seats ready as persons come while one is made, so
// that few of them wait. How busy the hosts are has no say in it.
type Autoscale struct {
	Most int `json:"most,omitempty" minimum:"0" maximum:"1000" doc:"Never more ready seats than this; no autoscaling when empty."`
}

// PoolStatus is how many seats there are, and why.
type PoolStatus struct {
	Progress
	Wanted  int    `json:"wanted,omitempty" doc:"How many ready seats are wanted now."`
	Because string `json:"because,omitempty" doc:"Why that many."`
	Warm    int    `json:"warm,omitempty" doc:"Seats that are ready."`
	Making  int    `json:"making,omitempty" doc:"Seats that are being made."`
	Taken   int    `json:"taken,omitempty" doc:"Seats that have a person."`
	Queue   int    `json:"queue,omitempty" doc:"Persons who wait for a seat."`

	// Template outlives the seats that went on from it.
	Template string `json:"template,omitempty" doc:"What its seats go on from. Hosts that have it keep it as long as the pool names it."`

	// Seats is raised in the transaction that makes a seat, so that two planes
	// never make more together than there may be.
	Seats int64 `json:"seats,omitempty" doc:"How many seats there ever were."`

	Make Duration  `json:"makeTime,omitempty" doc:"How long a seat takes to make: the median of those there are; not measured yet when empty."`
	Stay Duration  `json:"stayTime,omitempty" doc:"How long a person keeps a seat, of late; not measured yet when empty."`
	Rate float64   `json:"arrivalsPerMinute,omitempty" doc:"How many persons come a minute, of late."`
	Seen time.Time `json:"seen,omitzero" doc:"Who came until then is part of the rate."`
	Told time.Time `json:"told,omitzero" doc:"When the rate was last worked out."`
}

// Limit returns how many seats one person may have.
func (s *PoolSpec) Limit() int { return max(1, s.PerPerson) }

// Shift returns the shift that the moment belongs to; the moment is in the time
// zone of the schedule.
func (s *PoolSpec) Shift(at time.Time) (Shift, bool) {
	for _, sh := range s.Schedule {
		if sh.covers(at) {
			return sh, true
		}
	}
	return Shift{}, false
}

func (s *Shift) covers(at time.Time) bool {
	from, _ := clock(s.From)
	to, _ := clock(s.To)
	now := at.Hour()*60 + at.Minute()
	if from < to {
		return s.on(at.Weekday()) && now >= from && now < to
	}
	yesterday := (at.Weekday() + 6) % 7
	return now >= from && s.on(at.Weekday()) || now < to && s.on(yesterday)
}

func (s *Shift) on(d time.Weekday) bool {
	return len(s.Days) == 0 || slices.Contains(s.Days, weekdays[d])
}

// clock returns the minute of the day that "07:30" means.
func clock(text string) (minute int, ok bool) {
	t, err := time.Parse("15:04", text)
	return t.Hour()*60 + t.Minute(), err == nil && len(text) == len("15:04")
}

// Check implements Resource.
func (p *Pool) Check() []Problem {
	var c checks
	s := &p.Spec
	c.name("spec.blueprint", s.Blueprint, true)
	c.between("spec.maximum", s.Maximum, 1, 10000)
	c.between("spec.warm", s.Warm, 0, 1000)
	c.between("spec.autoscale.most", s.Autoscale.Most, 0, 1000)
	c.between("spec.perPerson", s.PerPerson, 0, 100)
	if s.Warm > s.Maximum {
		c.add("spec.warm", "%d are more than the maximum of %d", s.Warm, s.Maximum)
	}
	if s.Autoscale.Most > 0 && s.Autoscale.Most < s.Warm {
		c.add("spec.autoscale.most", "%d are fewer than the %d that are always kept ready", s.Autoscale.Most, s.Warm)
	}
	if s.Keep < 0 {
		c.add("spec.keep", "%s is less than nothing", s.Keep)
	}
	c.timeZone("spec.timeZone", s.TimeZone)
	for i, sh := range s.Schedule {
		at := fmt.Sprintf("spec.schedule[%d]", i)
		for j, d := range sh.Days {
			oneOf(&c, fmt.Sprintf("%s.days[%d]", at, j), d, true, weekdays...)
		}
		c.clock(at+".from", sh.From)
		c.clock(at+".to", sh.To)
		if c.between(at+".warm", sh.Warm, 0, 1000); sh.Warm > s.Maximum {
			c.add(at+".warm", "%d are more than the maximum of %d", sh.Warm, s.Maximum)
		}
	}
	return c
}

// Links implements Resource.
func (p *Pool) Links() []Link {
	return []Link{{"spec.blueprint", Ref{"Blueprint", p.Metadata.Project, p.Spec.Blueprint}}}
}

// Progress implements Resource.
func (p *Pool) Progress() *Progress { return &p.Status.Progress }

// clock adds a problem where a text is not a time of day.
func (c *checks) clock(path, text string) {
	if _, ok := clock(text); !ok {
		c.add(path, "%q is not a time of day; write 07:30", text)
	}
}

// timeZone adds a problem where a text can be no name of a time zone.
func (c *checks) timeZone(path, name string) {
	if strings.ContainsAny(name, ` \:`) || strings.HasPrefix(name, "/") || strings.Contains(name, "..") {
		c.add(path, "%q is not a time zone; write its name in the tz database, as Europe/Berlin", name)
	}
}

// between adds a problem where a number is not within its bounds.
func (c *checks) between(path string, n, least, most int) {
	if n < least || n > most {
		c.add(path, "%d is not between %d and %d", n, least, most)
	}
}

package estate

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ServiceLevel is a promise to those who use an application, with the budget
// of how often it may be broken.
type ServiceLevel struct {
	Head
	Spec   ServiceLevelSpec   `json:"spec"`
	Status ServiceLevelStatus `json:"status,omitzero"`
}

// ServiceLevelSpec is a Level that stands alone, and whose it is.
type ServiceLevelSpec struct {
	Application string `json:"application,omitempty" doc:"Whose promise it is. It need not be an application of ours where a query measures it."`
	Mode        Mode   `json:"mode,omitempty" enum:"observe,recommend,approve,auto" doc:"Of start: how far decisions about a desktop on which it is broken go by themselves; recommend when empty."`
	Level
}

// Level is what is promised. Exactly one of Response, Throughput, Headroom and
// Start is given.
type Level struct {
	Title       string      `json:"title,omitempty" doc:"What people call it."`
	Description string      `json:"description,omitempty" doc:"What it means to those who use the application."`
	Response    *Response   `json:"response,omitempty" doc:"Requests are answered well."`
	Throughput  *Throughput `json:"throughput,omitempty" doc:"So much is served, when so much is asked for."`
	Headroom    *Headroom   `json:"headroom,omitempty" doc:"So much of the capacity stays free."`
	Start       *Startup    `json:"start,omitempty" doc:"On desktops it starts quickly."`
	Target      Share       `json:"target" doc:"How much must be good, as 99.9%: of the requests, or of the slices where there is a slice."`
	Slice       *Slice      `json:"slice,omitempty" doc:"Slices of time are judged, not single requests; throughput and headroom are judged each minute when empty."`
	Window      Window      `json:"window,omitzero" doc:"Over what time the target holds; the last 30 days when empty."`
}

// Response is what makes one request good.
type Response struct {
	Within   Duration   `json:"within,omitempty" doc:"Answered without an error in this time; in any time when empty. A target of 99% then says that the 99th percentile stays under it."`
	Measured *Indicator `json:"measured,omitempty" doc:"Where the numbers come from; the application's own front when empty."`
}

// Throughput is what must be carried when it is asked for: a slice is good when
// that much was served, or all there was.
type Throughput struct {
	PerSecond float64 `json:"perSecond" doc:"Requests a second."`
}

// Headroom is what must stay free: a slice is good when that share of what the
// ready replicas can carry was not used.
type Headroom struct {
	Free Share `json:"free" doc:"As 20%."`
}

// Startup is what makes one start of an application on a desktop good.
type Startup struct {
	Within Duration `json:"within" doc:"From when its person asked for it until its process runs."`
}

// Slice is a short time that is good or bad as a whole.
type Slice struct {
	Length Duration `json:"length" doc:"Whole minutes, at most 1h."`
	Good   Share    `json:"good,omitempty" doc:"A slice is good when this share of its requests was; needed for response. With within: 300ms and 99% here, a minute is good when its 99th percentile is under 300ms."`
}

// Window is the time over which a target holds: the last so many days, or the
// day, week, month or quarter that began last.
type Window struct {
	Last     Duration `json:"last,omitempty" doc:"As 720h: what lies further back does not count."`
	Calendar Calendar `json:"calendar,omitempty" enum:"day,week,month,quarter" doc:"The budget is whole again when a new one begins. Weeks begin on Monday."`
	Begins   string   `json:"begins,omitempty" doc:"A moment at which one of them begins, as 2026-01-03 12:00:00: so weeks run from Saturday noon. Its first day at 00:00 when empty."`
	TimeZone string   `json:"timeZone,omitempty" doc:"In which the calendar is read, as Europe/Berlin; UTC when empty."`
}

// Calendar names a part of the year.
type Calendar string

// The parts of the year.
const (
	Day     Calendar = "day"
	Week    Calendar = "week"
	Month   Calendar = "month"
	Quarter Calendar = "quarter"
)

// Indicator is how good and bad are measured elsewhere: counters of good or bad
// and of all events, or values that are compared with a bound.
type Indicator struct {
	Good  *Query     `json:"good,omitempty" doc:"Counts good events since its source started."`
	Bad   *Query     `json:"bad,omitempty" doc:"Counts bad events since its source started."`
	Total *Query     `json:"total,omitempty" doc:"Counts all events since its source started."`
	Value *Query     `json:"value,omitempty" doc:"Each of its samples is an event, good when it compares so with the bound."`
	Is    Comparison `json:"is,omitempty" enum:"lt,lte,gt,gte" doc:"How a good value compares with the bound."`
	Bound float64    `json:"bound,omitempty" doc:"In the unit of the value."`
}

// Query asks a metrics server.
type Query struct {
	Query  string            `json:"query"`
	Source string            `json:"source,omitempty" doc:"What kind of server understands it; Prometheus when empty."`
	From   string            `json:"from,omitempty" doc:"The name of the server; the plane's own when empty."`
	With   map[string]string `json:"with,omitempty" doc:"What else its source wants to know."`
}

// Comparison is how two numbers compare.
type Comparison string

// The comparisons.
const (
	LT  Comparison = "lt"
	LTE Comparison = "lte"
	GT  Comparison = "gt"
	GTE Comparison = "gte"
)

// ServiceLevelStatus is how it stands. Nothing counted is no-data, which is
// neither kept nor broken.
type ServiceLevelStatus struct {
	Progress
	State    LevelState `json:"state,omitempty" enum:"no-data,kept,broken"`
	Good     int64      `json:"good,omitempty" doc:"Good events or slices in the window."`
	Total    int64      `json:"total,omitempty" doc:"All of them."`
	Left     int64      `json:"left,omitempty" doc:"How many may still be bad; less than 0 when the budget is spent."`
	Measured time.Time  `json:"measured,omitzero"`
}

// LevelState is whether a level is kept.
type LevelState string

// The states of a level.
const (
	NoData LevelState = "no-data"
	Kept   LevelState = "kept"
	Broken LevelState = "broken"
)

const (
	mostWindow   = Duration(92 * 24 * time.Hour) // of minutes kept for each level: a quarter
	mostSlice    = Duration(time.Hour)
	defaultSlice = Duration(time.Minute)
)

// Length returns the longest the window can be: 30 days when nothing is said.
func (w Window) Length() Duration {
	const day = Duration(24 * time.Hour)
	switch w.Calendar {
	case Day:
		return day + Duration(time.Hour) // when clocks are put back
	case Week:
		return 7*day + Duration(time.Hour)
	case Month:
		return 31*day + Duration(time.Hour)
	case Quarter:
		return mostWindow + Duration(time.Hour)
	}
	if w.Last == 0 {
		return 30 * day
	}
	return w.Last
}

// Begin returns a moment, as a clock in the window's time zone shows it, at
// which one of its days, weeks, months or quarters begins.
func (w Window) Begin() time.Time {
	if t, err := time.Parse(time.DateTime, w.Begins); err == nil {
		return t
	}
	return time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC) // a Monday that begins a month and a quarter
}

// Slices returns the slices that are judged, or false when each request counts.
func (l *Level) Slices() (Slice, bool) {
	switch {
	case l.Slice != nil:
		return *l.Slice, true
	case l.Response == nil && l.Start == nil:
		return Slice{Length: defaultSlice}, true
	}
	return Slice{}, false
}

// Check implements Resource.
func (s *ServiceLevel) Check() []Problem {
	var c checks
	c.name("spec.application", s.Spec.Application, false)
	oneOf(&c, "spec.mode", s.Spec.Mode, false, Observe, Recommend, Approve, Auto)
	if s.Spec.Mode != "" && s.Spec.Start == nil {
		c.add("spec.mode", "decisions are made for start only here, and for a service by its scale.mode; remove it")
	}
	if r := s.Spec.Response; s.Spec.Application == "" && (r == nil || r.Measured == nil) {
		c.add("spec.application", "say whose promise it is, or by which queries it is measured in response.measured")
	}
	return append(c, s.Spec.Level.Problems("spec")...)
}

// Links implements Resource. What a query measures may run where we do not see
// it, so only a level measured by our own front leads to an application.
func (s *ServiceLevel) Links() []Link {
	if r := s.Spec.Response; s.Spec.Application == "" || r != nil && r.Measured != nil {
		return nil
	}
	return []Link{{"spec.application", Ref{"Application", s.Metadata.Project, s.Spec.Application}}}
}

// Progress implements Resource.
func (s *ServiceLevel) Progress() *Progress { return &s.Status.Progress }

// Problems returns what is wrong with the level, which stands at the path.
func (l *Level) Problems(path string) []Problem {
	var c checks
	given := 0
	for _, is := range []bool{l.Response != nil, l.Throughput != nil, l.Headroom != nil, l.Start != nil} {
		if is {
			given++
		}
	}
	if given != 1 {
		c.add(path, "exactly one of response, throughput, headroom and start is promised, not %d; write a level for each", given)
	}
	c.share(path+".target", l.Target)
	if t := l.Throughput; t != nil && !(t.PerSecond > 0) {
		c.add(path+".throughput.perSecond", "more than 0 requests a second are needed")
	}
	if l.Headroom != nil {
		c.share(path+".headroom.free", l.Headroom.Free)
	}
	if l.Start != nil && l.Start.Within <= 0 {
		c.add(path+".start.within", "%s is no time; more than 0 is needed", l.Start.Within)
	}
	if r := l.Response; r != nil {
		if r.Within < 0 {
			c.add(path+".response.within", "%s is less than nothing", r.Within)
		}
		if r.Measured != nil {
			if r.Within != 0 {
				c.add(path+".response.within", "the front measures this, not a query; let the query count what was in time, or remove measured")
			}
			r.Measured.check(&c, path+".response.measured")
		}
	}
	l.checkSlice(&c, path+".slice")
	l.Window.check(&c, path+".window")
	return c
}

func (l *Level) checkSlice(c *checks, path string) {
	s := l.Slice
	if s == nil {
		return
	}
	if l.Start != nil {
		c.add(path, "each start counts by itself; remove it")
		return
	}
	if s.Length < Duration(time.Minute) || s.Length > mostSlice || s.Length%Duration(time.Minute) != 0 {
		c.add(path+".length", "%s is not a number of whole minutes from 1m to 1h", s.Length)
	}
	switch {
	case l.Response != nil:
		c.share(path+".good", s.Good)
	case s.Good != 0:
		c.add(path+".good", "a slice is good or bad as a whole here; remove it")
	}
}

func (w Window) check(c *checks, path string) {
	oneOf(c, path+".calendar", w.Calendar, false, Day, Week, Month, Quarter)
	switch {
	case w.Last != 0 && w.Calendar != "":
		c.add(path+".last", "a window is either the last so many days or a part of the calendar; remove one")
	case w.Last < 0 || w.Last%Duration(time.Minute) != 0 || w.Last > mostWindow || w.Last != 0 && w.Last < Duration(time.Hour):
		c.add(path+".last", "%s is not a number of whole minutes from 1h to %s (92 days)", w.Last, mostWindow)
	}
	w.checkBegin(c, path+".begins")
	if w.TimeZone == "" {
		return
	}
	if w.Calendar == "" {
		c.add(path+".timeZone", "only a calendar has a time zone; remove it")
	}
	c.timeZone(path+".timeZone", w.TimeZone)
}

func (w Window) checkBegin(c *checks, path string) {
	if w.Begins == "" {
		return
	}
	long := w.Calendar == Month || w.Calendar == Quarter
	switch t, err := time.Parse(time.DateTime, w.Begins); {
	case w.Calendar == "":
		c.add(path, "only a calendar begins at some moment; remove it")
	case err != nil:
		c.add(path, "%q is not a time; write 2026-01-03 12:00:00, without a zone", w.Begins)
	case t.Second() != 0:
		c.add(path, "%s is within a minute, and whole minutes are counted; write %s", w.Begins, t.Truncate(time.Minute).Format(time.DateTime))
	case long && t.Day() > 28:
		c.add(path, "not every month has a day %d; write a day from 1 to 28", t.Day())
	}
}

func (in *Indicator) check(c *checks, path string) {
	ratio := in.Good != nil || in.Bad != nil || in.Total != nil
	switch {
	case ratio && in.Value != nil:
		c.add(path+".value", "events are counted or values compared, not both; remove value or the counters")
	case in.Value != nil:
		oneOf(c, path+".is", in.Is, true, LT, LTE, GT, GTE)
	case in.Total == nil || (in.Good == nil) == (in.Bad == nil):
		c.add(path, "total is needed with either good or bad, or else value, is and bound")
	}
	if in.Value == nil && (in.Is != "" || in.Bound != 0) {
		c.add(path+".is", "only a value is compared; remove is and bound")
	}
	for _, q := range []struct {
		name  string
		query *Query
	}{{"good", in.Good}, {"bad", in.Bad}, {"total", in.Total}, {"value", in.Value}} {
		if q.query != nil && strings.TrimSpace(q.query.Query) == "" {
			c.add(path+"."+q.name+".query", "is empty; write what to ask")
		}
	}
}

// share adds a problem where a share is not more than nothing and less than all.
func (c *checks) share(path string, s Share) {
	if s <= 0 || s >= Whole {
		c.add(path, "%s is not more than 0%% and less than 100%%", s)
	}
}

// Share is a part of a whole, in millionths, so that budgets are counted
// exactly. It is written "99.95%", with at most four digits after the point.
type Share int64

// Whole is all of it.
const Whole Share = 1_000_000

// String returns the shortest exact form.
func (s Share) String() string {
	sign := ""
	if s < 0 {
		sign, s = "-", -s
	}
	const percent = Whole / 100
	text := fmt.Sprintf("%s%d.%04d", sign, s/percent, s%percent)
	return strings.TrimRight(strings.TrimRight(text, "0"), ".") + "%"
}

// MarshalText implements encoding.TextMarshaler.
func (s Share) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Share) UnmarshalText(text []byte) error {
	wrong := fmt.Errorf("%q is not a share; write 99.9%%, with at most four digits after the point", text)
	number, ok := strings.CutSuffix(string(text), "%")
	whole, part, point := strings.Cut(number, ".")
	if !ok || point && part == "" || len(part) > 4 || len(whole) > 12 || strings.Trim(whole+part, "0123456789") != "" {
		return wrong
	}
	n, err := strconv.ParseInt(whole+part+strings.Repeat("0", 4-len(part)), 10, 64)
	if err != nil || whole == "" {
		return wrong
	}
	*s = Share(n)
	return nil
}

package openslo

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"consort.dev/consort/estate"
)

// Levels returns a service level for each objective of the SLO: one with the
// SLO's name, or several named name-1, name-2. What a level cannot say is a
// problem at its field, never left out in silence; but for annotations and the
// names of indicators, which mean nothing. find returns the SLI with a name, or
// nil; its own problems are told at the SLO.
func Levels(s *SLO, find func(name string) *SLI) ([]*estate.ServiceLevel, []estate.Problem) {
	var ps problems
	if len(s.Spec.AlertPolicies) > 0 {
		ps.add("spec.alertPolicies", "nobody is told by a plane yet; remove them")
	}
	if s.Spec.BudgetingMethod == "RatioTimeslices" {
		ps.add("spec.budgetingMethod", "an average of ratios weighs a quiet minute like a busy one, so it is not counted here; write Occurrences or Timeslices")
	}
	in := ps.measured(s, find)
	window := ps.windowOf(s.Spec.TimeWindow)
	var out []*estate.ServiceLevel
	for i := range s.Spec.Objectives {
		o, at := &s.Spec.Objectives[i], fmt.Sprintf("spec.objectives[%d]", i)
		l := estate.KindOf[estate.ServiceLevel]().NewNamed("", s.Metadata.Name).(*estate.ServiceLevel)
		l.Spec.Application = s.Spec.Service
		l.Spec.Title, l.Spec.Description, l.Spec.Window = s.Metadata.DisplayName, s.Spec.Description, window
		if len(s.Spec.Objectives) > 1 {
			l.Metadata.Name = fmt.Sprintf("%s-%d", s.Metadata.Name, i+1)
		}
		l.Spec.Title = joined(s.Metadata.DisplayName, o.DisplayName)
		l.Metadata.Labels = ps.labels(s.Metadata.Labels)
		if l.Spec.Target = ps.share(at+".target", o.Target, 0); o.TargetPercent != nil {
			l.Spec.Target = ps.share(at+".targetPercent", o.TargetPercent, 2)
		}
		if s.Spec.BudgetingMethod == "Timeslices" {
			l.Spec.Slice = &estate.Slice{Length: ps.span(at+".timeSliceWindow", o.TimeSliceWindow), Good: ps.share(at+".timeSliceTarget", o.TimeSliceTarget, 0)}
		}
		if l.Spec.Response = in(at, o); l.Spec.Response == nil {
			continue
		}
		out = append(out, l)
	}
	return out, slices.CompactFunc(ps, func(a, b estate.Problem) bool { return a == b })
}

// measured returns what makes an objective's measurement.
func (ps *problems) measured(s *SLO, find func(string) *SLI) func(string, *Objective) *estate.Response {
	nothing := func(string, *Objective) *estate.Response { return nil }
	spec, path := (*SLISpec)(nil), "spec.indicator.spec"
	switch {
	case s.Spec.Indicator != nil:
		spec = &s.Spec.Indicator.Spec
	case s.Spec.IndicatorRef == "":
		ps.add("spec.objectives", "a composite is not counted as one; write an SLO for each of its indicators")
		return nothing
	default:
		path = "spec.indicatorRef"
		if sli := find(s.Spec.IndicatorRef); sli != nil {
			spec = &sli.Spec
		} else {
			return nothing // whoever knows the names there are says so
		}
	}
	if m := spec.ThresholdMetric; m != nil {
		q := ps.query(path+".thresholdMetric", m)
		return func(_ string, o *Objective) *estate.Response {
			in := &estate.Indicator{Value: q, Is: estate.Comparison(o.Op)}
			if o.Value != nil {
				in.Bound = *o.Value
			}
			return &estate.Response{Measured: in}
		}
	}
	r := spec.RatioMetric
	path += ".ratioMetric"
	switch {
	case r == nil:
		return nothing
	case r.Raw != nil:
		ps.add(path+".raw", "a ratio that was worked out before has lost its counts; give total with good or bad")
		return nothing
	case r.Counter != nil && !*r.Counter:
		ps.add(path+".counter", "only what counts up is counted here; give counters and write counter: true")
		return nothing
	}
	in := &estate.Indicator{Good: ps.query(path+".good", r.Good), Bad: ps.query(path+".bad", r.Bad), Total: ps.query(path+".total", r.Total)}
	return func(string, *Objective) *estate.Response { return &estate.Response{Measured: in} }
}

// usual is the source whose queries the plane's own metrics answer.
const usual = "Prometheus"

func (ps *problems) query(path string, m *Metric) *estate.Query {
	if m == nil {
		return nil
	}
	src := m.MetricSource
	q := &estate.Query{Source: src.Type, From: src.MetricSourceRef}
	if q.Source == usual && q.From == "" {
		q.Source = ""
	}
	for _, k := range slices.Sorted(maps.Keys(src.Spec)) {
		text, is := src.Spec[k].(string)
		switch {
		case !is:
			ps.add(path+".metricSource.spec."+k, "only text is kept here; put it in quotes, or write the source's own query")
		case k == "query":
			q.Query = text
		default:
			if q.With == nil {
				q.With = map[string]string{}
			}
			q.With[k] = text
		}
	}
	if strings.TrimSpace(q.Query) == "" {
		ps.add(path+".metricSource.spec", "needs query")
	}
	return q
}

// share reads a share from a number that was moved by so many decimal places,
// exactly as it is written.
func (ps *problems) share(path string, v *float64, places int) estate.Share {
	if v == nil {
		return 0
	}
	r, _ := new(big.Rat).SetString(strconv.FormatFloat(*v, 'f', -1, 64))
	scale := []int64{int64(estate.Whole), 0, int64(estate.Whole) / 100}[places]
	r.Mul(r, big.NewRat(scale, 1))
	if !r.IsInt() {
		ps.add(path, "%v is finer than a millionth, which is as fine as budgets are counted", *v)
		return 0
	}
	if r.Sign() <= 0 {
		ps.add(path, "%v promises nothing; more than 0 is needed", *v)
	}
	return estate.Share(r.Num().Int64())
}

// units are lengths that are the same everywhere. Months and what is longer are
// not.
var units = []struct {
	unit string
	is   time.Duration
}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"", time.Minute}}

func (ps *problems) span(path string, l Length) estate.Duration {
	n, unit := l.parts()
	for _, u := range units {
		if u.unit == unit && n < int64(10*366*24*time.Hour/u.is) {
			return estate.Duration(time.Duration(n) * u.is)
		}
	}
	ps.add(path, "%s has no one length here; write it in days, as 30d", string(l))
	return 0
}

func (ps *problems) windowOf(ws []TimeWindow) estate.Window {
	if len(ws) == 0 {
		return estate.Window{}
	}
	w, at := ws[0], "spec.timeWindow[0]"
	if w.Calendar == nil {
		return estate.Window{Last: ps.span(at+".duration", w.Duration)}
	}
	out := estate.Window{TimeZone: w.Calendar.TimeZone}
	if out.TimeZone == "UTC" {
		out.TimeZone = ""
	}
	begin, err := time.Parse(time.DateTime, w.Calendar.StartTime)
	if err != nil {
		return out // said by Check
	}
	first := begin.Equal(begin.Truncate(24 * time.Hour))
	switch w.Duration {
	case "1d":
		out.Calendar = estate.Day
	case "1w":
		out.Calendar, first = estate.Week, first && begin.Weekday() == time.Monday
	case "1M":
		out.Calendar, first = estate.Month, first && begin.Day() == 1
	case "1Q":
		out.Calendar, first = estate.Quarter, first && begin.Day() == 1 && (begin.Month()-1)%3 == 0
	default:
		ps.add(at+".duration", "%s is no part of the calendar that is counted here; write 1d, 1w, 1M or 1Q (a small m is minutes)", string(w.Duration))
		return estate.Window{}
	}
	if !first {
		out.Begins = w.Calendar.StartTime
	}
	return out
}

func (ps *problems) labels(in map[string]Texts) map[string]string {
	var out map[string]string
	for _, k := range slices.Sorted(maps.Keys(in)) {
		if len(in[k]) != 1 {
			ps.add("metadata.labels."+k, "one value is kept of a label here, not %d; write labels of their own", len(in[k]))
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[k] = in[k][0]
	}
	return out
}

// Of returns the SLO that says what a service level says, so that Levels gives
// the level back. Only response that queries measure has a form in OpenSLO: for
// the rest the bool is false.
func Of(l *estate.ServiceLevel) (*SLO, bool) {
	s := &SLO{Head: head("SLO")}
	if l.Spec.Response == nil || l.Spec.Response.Measured == nil {
		return nil, false
	}
	in := l.Spec.Response.Measured
	title, objective := titles(l.Spec.Title)
	s.Metadata = Metadata{Name: l.Metadata.Name, DisplayName: title}
	for k, v := range l.Metadata.Labels {
		if s.Metadata.Labels == nil {
			s.Metadata.Labels = map[string]Texts{}
		}
		s.Metadata.Labels[k] = Texts{v}
	}
	s.Spec = SLOSpec{Description: l.Spec.Description, Service: l.Spec.Application, BudgetingMethod: "Occurrences"}
	yes, sli := true, SLISpec{}
	o := Objective{DisplayName: objective, Target: fraction(l.Spec.Target)}
	if in.Value != nil {
		sli.ThresholdMetric, o.Op, o.Value = metric(in.Value), string(in.Is), &in.Bound
	} else {
		sli.RatioMetric = &Ratio{Counter: &yes, Good: metric(in.Good), Bad: metric(in.Bad), Total: metric(in.Total)}
	}
	s.Spec.Indicator = &Indicator{Metadata: Metadata{Name: l.Metadata.Name}, Spec: sli}
	if l.Spec.Slice != nil {
		s.Spec.BudgetingMethod = "Timeslices"
		o.TimeSliceTarget, o.TimeSliceWindow = fraction(l.Spec.Slice.Good), length(l.Spec.Slice.Length)
	}
	s.Spec.Objectives = []Objective{o}
	if w := l.Spec.Window; w != (estate.Window{}) {
		s.Spec.TimeWindow = []TimeWindow{timeWindow(w)}
	}
	return s, true
}

// joined is the title of a level, from those of an SLO and of its objective.
func joined(title, objective string) string {
	switch {
	case objective == "" || objective == title:
		return title
	case title == "":
		return objective
	}
	return title + ": " + objective
}

// titles takes apart what joined put together.
func titles(joint string) (title, objective string) {
	title, objective, _ = strings.Cut(joint, ": ")
	if joined(title, objective) != joint || title == "" {
		return joint, ""
	}
	return title, objective
}

func metric(q *estate.Query) *Metric {
	if q == nil {
		return nil
	}
	m := &Metric{MetricSource{MetricSourceRef: q.From, Type: q.Source, Spec: Free{"query": q.Query}}}
	if q.Source == "" && q.From == "" {
		m.MetricSource.Type = usual
	}
	for k, v := range q.With {
		m.MetricSource.Spec[k] = v
	}
	return m
}

func fraction(s estate.Share) *float64 {
	f := float64(s) / float64(estate.Whole)
	return &f
}

// length writes a length with the largest unit that is exact.
func length(d estate.Duration) Length {
	for _, u := range units {
		if d != 0 && time.Duration(d)%u.is == 0 {
			return Length(strconv.FormatInt(int64(time.Duration(d)/u.is), 10) + u.unit)
		}
	}
	return ""
}

func timeWindow(w estate.Window) TimeWindow {
	rolling := w.Calendar == ""
	out := TimeWindow{Duration: length(w.Length()), IsRolling: &rolling}
	if rolling {
		return out
	}
	short := map[estate.Calendar]Length{estate.Day: "1d", estate.Week: "1w", estate.Month: "1M", estate.Quarter: "1Q"}
	out.Duration = short[w.Calendar]
	out.Calendar = &Calendar{StartTime: w.Begin().Format(time.DateTime), TimeZone: w.TimeZone}
	if w.TimeZone == "" {
		out.Calendar.TimeZone = "UTC"
	}
	return out
}

package openslo

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"consort.dev/consort/estate"
)

// Length is a length of time as OpenSLO writes it: "4w". Only a slice may be a
// number of minutes alone.
type Length string

var lengthRule = regexp.MustCompile(`^[0-9]{1,9}[mhdwMQY]?$`)

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *Length) UnmarshalText(text []byte) error {
	if !lengthRule.Match(text) {
		return fmt.Errorf("%q is not a length of time; write a whole number and one of m, h, d, w, M, Q, Y, as 4w", text)
	}
	*l = Length(text)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (l Length) MarshalText() ([]byte, error) { return []byte(l), nil }

// parts returns the number and the unit, which may be missing.
func (l Length) parts() (n int64, unit string) {
	digits := strings.TrimRight(string(l), "mhdwMQY")
	n, _ = strconv.ParseInt(digits, 10, 64) // nine digits at most
	return n, string(l)[len(digits):]
}

// problems collects what is wrong.
type problems []estate.Problem

func (ps *problems) add(path, format string, args ...any) {
	*ps = append(*ps, estate.Problem{Path: path, Text: fmt.Sprintf(format, args...)})
}

var (
	nameRule  = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$`)
	labelRule = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?$`)
	hostRule  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
)

func (ps *problems) metadata(path string, m *Metadata) {
	if !nameRule.MatchString(m.Name) {
		ps.add(path+".name", "%q is not a name: use at most 63 letters, digits and dashes, beginning and ending with a letter or digit", m.Name)
	}
	for _, k := range slices.Sorted(maps.Keys(m.Labels)) {
		if !labelRule.MatchString(k) {
			ps.add(path+".labels."+k, "%q is not a label: use at most 63 letters, digits, dashes, underscores and dots, beginning and ending with a letter or digit", k)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(m.Annotations)) {
		prefix, name, cut := strings.Cut(k, "/")
		if !cut {
			prefix, name = "", k
		}
		if !labelRule.MatchString(name) || cut && (len(prefix) > 253 || !hostRule.MatchString(prefix)) {
			ps.add(path+".annotations."+k, "%q is not an annotation; write name, or a domain before it, as example.com/name", k)
		}
	}
}

func (ps *problems) description(path, text string) {
	if n := len([]rune(text)); n > 1050 {
		ps.add(path+".description", "is %d characters long; at most 1050", n)
	}
}

// length adds a problem where a length has no unit, or is nothing.
func (ps *problems) length(path string, l Length) {
	switch n, unit := l.parts(); {
	case l == "":
	case unit == "":
		ps.add(path, "%q has no unit; write %sm for minutes, or h, d, w, M, Q, Y", string(l), string(l))
	case n == 0:
		ps.add(path, "%q is no time; more than 0 is needed", string(l))
	}
}

// either adds a problem unless exactly one of two fields is there.
func (ps *problems) either(path, one, other string, isOne, isOther bool) {
	switch {
	case isOne && isOther:
		ps.add(path+"."+other, "cannot stand beside %s; remove one of them", one)
	case !isOne && !isOther:
		ps.add(path, "needs %s or %s", one, other)
	}
}

func (ps *problems) within(path string, v *float64, least, most float64, open, shut string) {
	if v == nil || *v >= least && *v <= most && (open == "" || *v != least) && (shut == "" || *v != most) {
		return
	}
	from, to := "at least", "at most"
	if open != "" {
		from = "more than"
	}
	if shut != "" {
		to = "less than"
	}
	ps.add(path, "%v is not %s %v and %s %v", *v, from, least, to, most)
}

// Check implements Object.
func (d *DataSource) Check() []estate.Problem {
	var ps problems
	ps.metadata("metadata", &d.Metadata)
	ps.description("spec", d.Spec.Description)
	return ps
}

// Check implements Object.
func (s *Service) Check() []estate.Problem {
	var ps problems
	ps.metadata("metadata", &s.Metadata)
	ps.description("spec", s.Spec.Description)
	return ps
}

// Check implements Object.
func (s *SLI) Check() []estate.Problem {
	var ps problems
	ps.metadata("metadata", &s.Metadata)
	ps.sli("spec", &s.Spec)
	return ps
}

func (ps *problems) sli(path string, s *SLISpec) {
	ps.description(path, s.Description)
	ps.either(path, "thresholdMetric", "ratioMetric", s.ThresholdMetric != nil, s.RatioMetric != nil)
	ps.metric(path+".thresholdMetric", s.ThresholdMetric)
	r := s.RatioMetric
	if r == nil {
		return
	}
	path += ".ratioMetric"
	for _, m := range []struct {
		name   string
		metric *Metric
	}{{"good", r.Good}, {"bad", r.Bad}, {"total", r.Total}, {"raw", r.Raw}} {
		ps.metric(path+"."+m.name, m.metric)
	}
	if r.Raw != nil {
		if r.Good != nil || r.Bad != nil || r.Total != nil {
			ps.add(path+".raw", "is a ratio already and cannot stand beside good, bad or total; remove one or the other")
		}
		if r.RawType == "" {
			ps.add(path+".rawType", "is needed with raw; write success or failure")
		}
		return
	}
	if r.RawType != "" {
		ps.add(path+".rawType", "says nothing without raw; remove it")
	}
	if r.Total == nil {
		ps.add(path, "needs total, or raw")
	}
	ps.either(path, "good", "bad", r.Good != nil, r.Bad != nil)
}

func (ps *problems) metric(path string, m *Metric) {
	if m != nil && m.MetricSource.Type == "" && m.MetricSource.MetricSourceRef == "" {
		ps.add(path+".metricSource", "needs type, or metricSourceRef of a DataSource that has one")
	}
}

// Check implements Object.
func (s *SLO) Check() []estate.Problem {
	var ps problems
	ps.metadata("metadata", &s.Metadata)
	ps.description("spec", s.Spec.Description)
	composite := slices.ContainsFunc(s.Spec.Objectives, func(o Objective) bool { return o.Indicator != nil || o.IndicatorRef != "" })
	switch own := s.Spec.Indicator != nil || s.Spec.IndicatorRef != ""; {
	case !composite:
		ps.either("spec", "indicator", "indicatorRef", s.Spec.Indicator != nil, s.Spec.IndicatorRef != "")
	case own:
		ps.add("spec", "a composite SLO has its indicators in its objectives; remove the one that stands here")
	}
	ps.indicator("spec.indicator", s.Spec.Indicator)
	ps.window(s.Spec.TimeWindow)
	if len(s.Spec.Objectives) == 0 {
		ps.add("spec.objectives", "is empty; give at least one, as - target: 0.99")
	}
	for i := range s.Spec.Objectives {
		ps.objective(fmt.Sprintf("spec.objectives[%d]", i), &s.Spec, i, composite)
	}
	for i, p := range s.Spec.AlertPolicies {
		at := fmt.Sprintf("spec.alertPolicies[%d]", i)
		if ps.inline(at, "alertPolicyRef", p.AlertPolicyRef, p.Metadata, p.Spec != nil) {
			ps.policy(at+".spec", p.Spec)
		}
	}
	return ps
}

func (ps *problems) indicator(path string, in *Indicator) {
	if in != nil {
		ps.metadata(path+".metadata", &in.Metadata)
		ps.sli(path+".spec", &in.Spec)
	}
}

func (ps *problems) window(ws []TimeWindow) {
	if len(ws) > 1 {
		ps.add("spec.timeWindow[1]", "is one too many; an SLO has one time window")
	}
	for i, w := range ws {
		at := fmt.Sprintf("spec.timeWindow[%d]", i)
		ps.length(at+".duration", w.Duration)
		rolling := w.IsRolling != nil && *w.IsRolling
		switch c := w.Calendar; {
		case c == nil && !rolling:
			ps.add(at, "needs isRolling: true, or calendar with startTime and timeZone")
		case c != nil && rolling:
			ps.add(at+".calendar", "cannot stand beside isRolling: true; remove one of them")
		case c != nil:
			if _, err := time.Parse(time.DateTime, c.StartTime); err != nil {
				ps.add(at+".calendar.startTime", "%q is not a time; write 2020-01-21 12:30:00, without a zone", c.StartTime)
			}
			if strings.TrimSpace(c.TimeZone) == "" || strings.ContainsAny(c.TimeZone, ` \:`) {
				ps.add(at+".calendar.timeZone", "%q is not a time zone; write its name in the tz database, as America/New_York", c.TimeZone)
			}
		}
	}
}

func (ps *problems) objective(at string, s *SLOSpec, i int, composite bool) {
	o := &s.Objectives[i]
	ps.either(at, "target", "targetPercent", o.Target != nil, o.TargetPercent != nil)
	ps.within(at+".target", o.Target, 0, 1, "", "open")
	ps.within(at+".targetPercent", o.TargetPercent, 0, 100, "", "open")
	ps.within(at+".timeSliceTarget", o.TimeSliceTarget, 0, 1, "open", "")
	if o.CompositeWeight != nil && !(*o.CompositeWeight > 0) {
		ps.add(at+".compositeWeight", "%v is not more than 0", *o.CompositeWeight)
	}
	in := s.Indicator
	if composite {
		ps.either(at, "indicator", "indicatorRef", o.Indicator != nil, o.IndicatorRef != "")
		ps.indicator(at+".indicator", o.Indicator)
		in = o.Indicator
	}
	if in != nil && in.Spec.ThresholdMetric != nil {
		if o.Op == "" {
			ps.add(at+".op", "is needed with a thresholdMetric; write how a good value compares, as op: lt")
		}
		if o.Value == nil {
			ps.add(at+".value", "is needed with a thresholdMetric; write what values are compared with")
		}
		if i > 0 && !composite {
			ps.add(at, "is one too many; a thresholdMetric has one objective")
		}
	}
	slices, shares := s.BudgetingMethod == "Timeslices" || s.BudgetingMethod == "RatioTimeslices", s.BudgetingMethod == "Timeslices"
	switch n, _ := o.TimeSliceWindow.parts(); {
	case slices && o.TimeSliceWindow == "":
		ps.add(at+".timeSliceWindow", "is needed with budgetingMethod: %s; write how long a slice is, as 1m", s.BudgetingMethod)
	case o.TimeSliceWindow != "" && n == 0:
		ps.add(at+".timeSliceWindow", "%q is no time; more than 0 is needed", string(o.TimeSliceWindow))
	}
	if shares && o.TimeSliceTarget == nil {
		ps.add(at+".timeSliceTarget", "is needed with budgetingMethod: Timeslices; write what makes a slice good, as 0.99")
	}
}

// inline checks what is either a name or a whole object, and reports the latter.
func (ps *problems) inline(at, ref, name string, m *Metadata, spec bool) bool {
	whole := m != nil || spec
	switch {
	case name == "" && !whole:
		ps.add(at, "needs %s, or metadata and spec", ref)
	case name != "" && whole:
		ps.add(at+"."+ref, "cannot stand beside metadata and spec; remove one or the other")
	case whole && !spec:
		ps.add(at+".spec", "is missing")
	case whole && m == nil:
		ps.add(at+".metadata", "is missing; say who this is, as metadata: {name: fast-burn}")
	case whole:
		ps.metadata(at+".metadata", m)
		return true
	}
	return false
}

// Check implements Object.
func (a *AlertPolicy) Check() []estate.Problem {
	var ps problems
	ps.metadata("metadata", &a.Metadata)
	ps.policy("spec", &a.Spec)
	return ps
}

func (ps *problems) policy(path string, s *AlertPolicySpec) {
	ps.description(path, s.Description)
	if len(s.Conditions) == 0 {
		ps.add(path+".conditions", "is empty; give one, as - conditionRef: fast-burn")
	}
	for i, c := range s.Conditions {
		at := fmt.Sprintf("%s.conditions[%d]", path, i)
		if i > 0 {
			ps.add(at, "is one too many; a policy has one condition")
		}
		if ps.inline(at, "conditionRef", c.ConditionRef, c.Metadata, c.Spec != nil) {
			ps.condition(at+".spec", c.Spec)
		}
	}
	if len(s.NotificationTargets) == 0 {
		ps.add(path+".notificationTargets", "is empty; give at least one, as - targetRef: on-call")
	}
	for i, t := range s.NotificationTargets {
		at := fmt.Sprintf("%s.notificationTargets[%d]", path, i)
		if ps.inline(at, "targetRef", t.TargetRef, t.Metadata, t.Spec != nil) {
			ps.description(at+".spec", t.Spec.Description)
		}
	}
}

// Check implements Object.
func (a *AlertCondition) Check() []estate.Problem {
	var ps problems
	ps.metadata("metadata", &a.Metadata)
	ps.condition("spec", &a.Spec)
	return ps
}

func (ps *problems) condition(path string, s *AlertConditionSpec) {
	ps.description(path, s.Description)
	ps.length(path+".condition.lookbackWindow", s.Condition.LookbackWindow)
	if _, unit := s.Condition.AlertAfter.parts(); s.Condition.AlertAfter != "" && unit == "" {
		ps.length(path+".condition.alertAfter", s.Condition.AlertAfter)
	}
}

// Check implements Object.
func (t *AlertNotificationTarget) Check() []estate.Problem {
	var ps problems
	ps.metadata("metadata", &t.Metadata)
	ps.description("spec", t.Spec.Description)
	return ps
}

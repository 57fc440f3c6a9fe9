package estate

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSharesAreExact(t *testing.T) {
	for text, want := range map[string]Share{"99.9%": 999_000, "99.9999%": 999_999, "0.0001%": 1, "5%": 50_000, "100%": Whole, "99.50%": 995_000} {
		var s Share
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s is %d, %v; want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "%", "99.9", "99,9%", "99.99999%", "-1%", "+1%", ".5%", "5.%", "1e2%", " 5%", "5 %", "9999999999999999%"} {
		if s := Share(7); s.UnmarshalText([]byte(text)) == nil || s != 7 {
			t.Errorf("%q is read as %s", text, s)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := Share(rapid.Int64Range(0, 2_000_000).Draw(t, "share"))
		var back Share
		if err := back.UnmarshalText([]byte(s.String())); err != nil || back != s {
			t.Errorf("%d is written %s and read as %d, %v", int64(s), s, int64(back), err)
		}
	})
}

// TestServiceLevelRules breaks one rule a row.
func TestServiceLevelRules(t *testing.T) {
	good := func() *ServiceLevel {
		s := &ServiceLevel{}
		s.Spec.Application = "shop"
		s.Spec.Level = Level{Response: &Response{Within: Duration(300 * time.Millisecond)}, Target: 990_000}
		return s
	}
	measured := func(in Indicator) func(*ServiceLevel) {
		return func(s *ServiceLevel) { s.Spec.Response = &Response{Measured: &in} }
	}
	q := &Query{Query: "x"}
	for _, c := range []struct {
		name  string
		spoil func(*ServiceLevel)
		want  string // "" is no problem
	}{
		{"share of requests in time", func(*ServiceLevel) {}, ""},
		{"percentile of each minute", func(s *ServiceLevel) { s.Spec.Slice = &Slice{Duration(time.Minute), 990_000} }, ""},
		{"throughput", func(s *ServiceLevel) {
			s.Spec.Level = Level{Throughput: &Throughput{PerSecond: 900}, Target: 999_000, Window: Window{Calendar: Month, TimeZone: "Europe/Berlin"}}
		}, ""},
		{"headroom", func(s *ServiceLevel) { s.Spec.Level = Level{Headroom: &Headroom{200_000}, Target: 950_000} }, ""},
		{"counters elsewhere", measured(Indicator{Bad: q, Total: q}), ""},
		{"values elsewhere", measured(Indicator{Value: q, Is: LT, Bound: 0.5}), ""},
		{"start", func(s *ServiceLevel) {
			s.Spec.Level = Level{Start: &Startup{Duration(5 * time.Second)}, Target: 900_000}
			s.Spec.Mode = Auto
		}, ""},
		{"start in no time", func(s *ServiceLevel) { s.Spec.Level = Level{Start: &Startup{}, Target: 900_000} },
			"spec.start.within: 0s is no time; more than 0 is needed"},
		{"slices of starts", func(s *ServiceLevel) {
			s.Spec.Level = Level{Start: &Startup{1}, Target: 900_000, Slice: &Slice{Length: Duration(time.Minute)}}
		}, "spec.slice: each start counts by itself; remove it"},
		{"a mode for what a front measures", func(s *ServiceLevel) { s.Spec.Mode = Auto },
			"spec.mode: decisions are made for start only here, and for a service by its scale.mode; remove it"},
		{"weeks from Saturday noon", func(s *ServiceLevel) { s.Spec.Window = Window{Calendar: Week, Begins: "2022-01-01 12:00:00"} }, ""},
		{"a beginning of no calendar", func(s *ServiceLevel) { s.Spec.Window.Begins = "2022-01-01 12:00:00" },
			"spec.window.begins: only a calendar begins at some moment; remove it"},
		{"a beginning with a zone", func(s *ServiceLevel) { s.Spec.Window = Window{Calendar: Day, Begins: "2022-01-01T12:00:00Z"} },
			`spec.window.begins: "2022-01-01T12:00:00Z" is not a time; write 2026-01-03 12:00:00, without a zone`},
		{"a beginning within a minute", func(s *ServiceLevel) { s.Spec.Window = Window{Calendar: Day, Begins: "2022-01-01 12:00:30"} },
			"spec.window.begins: 2022-01-01 12:00:30 is within a minute, and whole minutes are counted; write 2022-01-01 12:00:00"},
		{"months from a day that not all have", func(s *ServiceLevel) { s.Spec.Window = Window{Calendar: Month, Begins: "2022-01-30 00:00:00"} },
			"spec.window.begins: not every month has a day 30; write a day from 1 to 28"},
		{"nobody's", func(s *ServiceLevel) { s.Spec.Application = "" },
			"spec.application: say whose promise it is, or by which queries it is measured in response.measured"},
		{"nothing promised", func(s *ServiceLevel) { s.Spec.Response = nil },
			"spec: exactly one of response, throughput, headroom and start is promised, not 0; write a level for each"},
		{"two promised", func(s *ServiceLevel) { s.Spec.Headroom = &Headroom{1} },
			"spec: exactly one of response, throughput, headroom and start is promised, not 2; write a level for each"},
		{"all good", func(s *ServiceLevel) { s.Spec.Target = Whole }, "spec.target: 100% is not more than 0% and less than 100%"},
		{"no target", func(s *ServiceLevel) { s.Spec.Target = 0 }, "spec.target: 0% is not more than 0% and less than 100%"},
		{"slice of seconds", func(s *ServiceLevel) { s.Spec.Slice = &Slice{Duration(90 * time.Second), 1} },
			"spec.slice.length: 1m30s is not a number of whole minutes from 1m to 1h"},
		{"slice without a share", func(s *ServiceLevel) { s.Spec.Slice = &Slice{Length: Duration(time.Minute)} },
			"spec.slice.good: 0% is not more than 0% and less than 100%"},
		{"share of a slice of capacity", func(s *ServiceLevel) {
			s.Spec.Level = Level{Headroom: &Headroom{1}, Target: 1, Slice: &Slice{Duration(time.Minute), 1}}
		}, "spec.slice.good: a slice is good or bad as a whole here; remove it"},
		{"no throughput", func(s *ServiceLevel) { s.Spec.Response, s.Spec.Throughput = nil, &Throughput{} },
			"spec.throughput.perSecond: more than 0 requests a second are needed"},
		{"negative time", func(s *ServiceLevel) { s.Spec.Response.Within = -1 }, "spec.response.within: -1ns is less than nothing"},
		{"bound on a query", func(s *ServiceLevel) { s.Spec.Response.Measured = &Indicator{Good: q, Total: q} },
			"spec.response.within: the front measures this, not a query; let the query count what was in time, or remove measured"},
		{"good and bad", measured(Indicator{Good: q, Bad: q, Total: q}),
			"spec.response.measured: total is needed with either good or bad, or else value, is and bound"},
		{"no total", measured(Indicator{Good: q}), "spec.response.measured: total is needed with either good or bad, or else value, is and bound"},
		{"counters and values", measured(Indicator{Good: q, Total: q, Value: q, Is: LT}),
			"spec.response.measured.value: events are counted or values compared, not both; remove value or the counters"},
		{"a bound for counters", measured(Indicator{Good: q, Total: q, Bound: 1}), "spec.response.measured.is: only a value is compared; remove is and bound"},
		{"no comparison", measured(Indicator{Value: q}), `spec.response.measured.is: "" is not one of lt, lte, gt, gte`},
		{"empty query", measured(Indicator{Good: q, Total: &Query{Query: " "}}), "spec.response.measured.total.query: is empty; write what to ask"},
		{"two windows", func(s *ServiceLevel) { s.Spec.Window = Window{Last: Duration(time.Hour), Calendar: Day} },
			"spec.window.last: a window is either the last so many days or a part of the calendar; remove one"},
		{"long window", func(s *ServiceLevel) { s.Spec.Window.Last = Duration(93 * 24 * time.Hour) },
			"spec.window.last: 2232h0m0s is not a number of whole minutes from 1h to 2208h0m0s (92 days)"},
		{"year", func(s *ServiceLevel) { s.Spec.Window.Calendar = "year" }, `spec.window.calendar: "year" is not one of day, week, month, quarter`},
		{"zone without calendar", func(s *ServiceLevel) { s.Spec.Window.TimeZone = "UTC" }, "spec.window.timeZone: only a calendar has a time zone; remove it"},
		{"odd zone", func(s *ServiceLevel) { s.Spec.Window = Window{Calendar: Day, TimeZone: "../etc"} },
			`spec.window.timeZone: "../etc" is not a time zone; write its name in the tz database, as Europe/Berlin`},
	} {
		s := good()
		c.spoil(s)
		got := ""
		for i, p := range s.Check() {
			if got = p.String(); i > 0 {
				t.Errorf("%s: one problem more: %s", c.name, got)
			}
		}
		if got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestALevelOfOurOwnLeadsToItsApplication(t *testing.T) {
	s := &ServiceLevel{}
	s.Metadata.Project, s.Spec.Application = "lab", "shop"
	s.Spec.Level = Level{Response: &Response{}}
	if ls := s.Links(); len(ls) != 1 || ls[0] != (Link{"spec.application", Ref{"Application", "lab", "shop"}}) {
		t.Errorf("Links = %v", ls)
	}
	s.Spec.Response.Measured = &Indicator{}
	if ls := s.Links(); len(ls) != 0 {
		t.Errorf("a level measured elsewhere leads to %v", ls)
	}
}

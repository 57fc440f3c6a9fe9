package slo_test

import (
	"errors"
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/slo"
)

var began = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

func in(minutes int) time.Time { return began.Add(time.Duration(minutes) * minute) }

// TestEveryWindowIsWhatWasCounted draws events in any order, late ones too, with
// pauses, clocks that go back and restarts, and compares with a list of them.
func TestEveryWindowIsWhatWasCounted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keep := rapid.IntRange(1, 90).Draw(t, "keep")
		l, m := slo.NewLedger(began, time.Duration(keep)*minute), slo.NewMeter(began)
		head := 0
		events, heard := map[int]slo.Count{}, map[int]bool{}
		var lost slo.Count
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0, 1, 2:
				to := head + rapid.IntRange(-3, 40).Draw(t, "minutes on")
				l.Advance(in(to))
				head = max(head, to)
			case 3:
				var err error
				if l, m, err = slo.Restore(slo.Snapshot(l, m)); err != nil {
					t.Fatal(err)
				}
			default:
				at := head - rapid.IntRange(-2, keep+5).Draw(t, "minutes late")
				good := rapid.Int64Range(0, 1e9).Draw(t, "good")
				c := slo.Count{Good: good, Total: good + rapid.Int64Range(0, 3).Draw(t, "bad")}
				switch err := l.Add(in(at).Add(17*time.Second), c); {
				case at > head:
					if !errors.Is(err, fault.Invalid) {
						t.Fatalf("Add in the future = %v", err)
					}
				case at < 0 || at <= head-keep:
					if !errors.Is(err, fault.Stale) {
						t.Fatalf("Add %d minutes late = %v", head-at, err)
					}
					lost = slo.Count{Good: lost.Good + c.Good, Total: lost.Total + c.Total}
				case err != nil:
					t.Fatal(err)
				default:
					e := events[at]
					events[at], heard[at] = slo.Count{Good: e.Good + c.Good, Total: e.Total + c.Total}, true
				}
			}
			compare(t, l, keep, head, events, heard)
		}
		if l.Lost() != lost {
			t.Fatalf("lost %v, want %v", l.Lost(), lost)
		}
	})
}

func compare(t *rapid.T, l *slo.Ledger, keep, head int, events map[int]slo.Count, heard map[int]bool) {
	from := rapid.IntRange(-5, head+3).Draw(t, "from")
	to := rapid.IntRange(from, head+3).Draw(t, "to")
	o := slo.Objective{
		Target: estate.Share(rapid.Int64Range(1, 999_999).Draw(t, "target")),
		Slice:  time.Duration(rapid.IntRange(0, 7).Draw(t, "slice")) * minute,
		Good:   estate.Share(rapid.Int64Range(0, 1_000_000).Draw(t, "share")),
	}
	first, end := max(from, 0, head-keep+1), min(to, head+1)
	var want slo.Count
	var ears int64
	for i := first; i < end; i++ {
		want.Good += events[i].Good
		want.Total += events[i].Total
		if heard[i] {
			ears++
		}
	}
	if got := l.Count(in(from), in(to)); got != want {
		t.Fatalf("Count(%d, %d) = %v, want %v", from, to, got, want)
	}
	if n := int(o.Slice / minute); n > 0 {
		want = slo.Count{}
		for i := first; i+n <= min(end, head); i++ {
			if in(i).Unix()/60%int64(n) != 0 {
				continue
			}
			var s slo.Count
			for k := i; k < i+n; k++ {
				s.Good += events[k].Good
				s.Total += events[k].Total
			}
			share := o.Good
			if share == 0 {
				share = estate.Whole
			}
			if s.Total > 0 {
				want.Total++
				if big.NewRat(s.Good, s.Total).Cmp(big.NewRat(int64(share), int64(estate.Whole))) >= 0 {
					want.Good++
				}
			}
		}
	}
	v := l.Judge(o, in(from), in(to))
	allowed := new(big.Int).Mul(big.NewInt(want.Total), big.NewInt(int64(estate.Whole-o.Target)))
	state := estate.Kept
	switch {
	case want.Total == 0:
		state = estate.NoData
	case new(big.Int).Mul(big.NewInt(want.Bad()), big.NewInt(int64(estate.Whole))).Cmp(allowed) > 0:
		state = estate.Broken
	}
	if v.Count != want || v.State != state || v.Heard != ears || v.Minutes != int64(max(0, end-first)) ||
		v.Allowed != allowed.Div(allowed, big.NewInt(int64(estate.Whole))).Int64() {
		t.Fatalf("Judge(%+v, %d, %d) = %+v, want %v %s, heard %d of %d", o, from, to, v, want, state, ears, end-first)
	}
	if v.Blind() != (ears == 0) {
		t.Fatalf("Blind = %v with %d minutes heard", v.Blind(), ears)
	}
}

func TestNoDataIsAStateOfItsOwn(t *testing.T) {
	o := slo.Objective{Target: 999_000}
	l := slo.NewLedger(began, day)
	l.Advance(in(10))
	v := l.Judge(o, in(0), in(11))
	if v.State != estate.NoData || !v.Blind() || v.Left() != 0 {
		t.Errorf("nobody listened: %+v", v)
	}
	if r, ok := v.Rate(o.Target); ok || r != 0 {
		t.Errorf("Rate of nothing = %v, %v; want none", r, ok)
	}
	if err := l.Add(in(10), slo.Count{}); err != nil {
		t.Fatal(err)
	}
	v = l.Judge(o, in(0), in(11))
	if v.State != estate.NoData || v.Blind() || v.Heard != 1 || v.Minutes != 11 {
		t.Errorf("nobody came: %+v", v)
	}
	for _, a := range l.Alerts(o, month, in(10)) {
		if a.Found != slo.Unknown {
			t.Errorf("%s at %d tenths without data: %s", a.Severity, a.Tenths, a.Found)
		}
	}
}

func TestCountsThatCannotBe(t *testing.T) {
	l := slo.NewLedger(began, day)
	for _, c := range []slo.Count{{Good: 2, Total: 1}, {Good: -1, Total: 1}, {Good: 0, Total: -1}} {
		if err := l.Add(began, c); !errors.Is(err, fault.Invalid) {
			t.Errorf("Add(%v) = %v, want Invalid", c, err)
		}
	}
	if got := l.Count(began, in(1)); got != (slo.Count{}) {
		t.Errorf("counted %v", got)
	}
}

// TestMemoryIsBounded puts 20 years into a ledger of 30 days.
func TestMemoryIsBounded(t *testing.T) {
	l, m := slo.NewLedger(began, month), slo.NewMeter(began)
	for i := 0; i < 20*365*24*60; i += 60 {
		l.Advance(in(i))
		if err := l.Add(in(i), slo.Count{Good: 1, Total: 1}); err != nil {
			t.Fatal(err)
		}
	}
	end := in(20*365*24*60 - 59)
	if got := l.Count(end.Add(-month), end); got.Total != 720 || l.Keep() != month {
		t.Errorf("the last 30 days hold %d events, want 720; keeps %s", got.Total, l.Keep())
	}
	if n := len(slo.Snapshot(l, m)); n > 200_000 {
		t.Errorf("a snapshot takes %d bytes", n)
	}
}

func TestAlertsNeedBothWindowsAndTenBadEvents(t *testing.T) {
	o := slo.Objective{Target: 999_000} // 14.4 times is 1.44 %
	for _, c := range []struct {
		name  string
		build func(add func(at int, good, bad int64))
		want  [4]slo.Burning
	}{
		{"well", func(add func(int, int64, int64)) {
			for i := range 4400 {
				add(i, 1000, 0)
			}
		}, [4]slo.Burning{slo.Quiet, slo.Quiet, slo.Quiet, slo.Quiet}},
		{"a bad hour that goes on", func(add func(int, int64, int64)) {
			for i := range 4340 {
				add(i, 1000, 0)
			}
			for i := 4340; i < 4400; i++ {
				add(i, 9856, 144) // exactly 14.4 times
			}
		}, [4]slo.Burning{slo.Burns, slo.Burns, slo.Burns, slo.Burns}},
		{"a bad hour, one event less", func(add func(int, int64, int64)) {
			for i := range 4340 {
				add(i, 1000, 0)
			}
			for i := 4340; i < 4399; i++ {
				add(i, 9856, 144)
			}
			add(4399, 9857, 143)
		}, [4]slo.Burning{slo.Quiet, slo.Burns, slo.Burns, slo.Burns}},
		{"over since ten minutes", func(add func(int, int64, int64)) {
			for i := range 4390 {
				add(i, 900, 100)
			}
			for i := 4390; i < 4400; i++ {
				add(i, 1000, 0)
			}
		}, [4]slo.Burning{slo.Quiet, slo.Burns, slo.Burns, slo.Burns}},
		{"nine of nine at night", func(add func(int, int64, int64)) {
			for i := 4391; i < 4400; i++ {
				add(i, 0, 1)
			}
		}, [4]slo.Burning{slo.Quiet, slo.Quiet, slo.Quiet, slo.Quiet}},
		{"ten of ten at night", func(add func(int, int64, int64)) {
			for i := 4390; i < 4400; i++ {
				add(i, 0, 1)
			}
		}, [4]slo.Burning{slo.Burns, slo.Burns, slo.Burns, slo.Burns}},
		{"silent for six minutes", func(add func(int, int64, int64)) {
			for i := range 4394 {
				add(i, 500, 500)
			}
		}, [4]slo.Burning{slo.Unknown, slo.Burns, slo.Burns, slo.Burns}},
	} {
		l := slo.NewLedger(began, month)
		c.build(func(at int, good, bad int64) {
			l.Advance(in(at))
			if err := l.Add(in(at), slo.Count{Good: good, Total: good + bad}); err != nil {
				t.Fatal(err)
			}
		})
		l.Advance(in(4399))
		alerts := l.Alerts(o, month, in(4399))
		for i, a := range alerts {
			if a.Found != c.want[i] {
				t.Errorf("%s: %d tenths over %s: %s, want %s (%d of %d bad, %d of %d)", c.name, a.Tenths, a.Rule.Long, a.Found, c.want[i],
					a.InLong.Bad(), a.InLong.Total, a.InShort.Bad(), a.InShort.Total)
			}
		}
		if few := l.Alerts(o, day, in(4399)); len(alerts) != 4 || len(few) != 3 {
			t.Errorf("%d rules for 30 days and %d for one, want 4 and 3", len(alerts), len(few))
		}
	}
}

// TestLongSlicesBurnToo has slices that are longer than a short window.
func TestLongSlicesBurnToo(t *testing.T) {
	l := slo.NewLedger(began, month)
	for i := range 400 {
		l.Advance(in(i))
		if err := l.Add(in(i), slo.Count{Good: 5, Total: 10}); err != nil {
			t.Fatal(err)
		}
	}
	o := slo.Objective{Target: 990_000, Slice: time.Hour, Good: 900_000}
	for _, a := range l.Alerts(o, month, in(399)) {
		if a.Found != slo.Burns || a.InShort.Total < 1 {
			t.Errorf("%d tenths: %s with %d slices", a.Tenths, a.Found, a.InShort.Total)
		}
	}
}

func TestWindows(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("no time zones here: ", err)
	}
	now := time.Date(2026, 3, 29, 21, 30, 45, 0, time.UTC) // a Sunday, the day clocks go on; 23:30 there
	for _, c := range []struct {
		window estate.Window
		zone   *time.Location
		want   time.Time
	}{
		{estate.Window{}, nil, now.Truncate(minute).Add(minute - month)},
		{estate.Window{Last: estate.Duration(2 * time.Hour)}, nil, now.Truncate(minute).Add(-119 * minute)},
		{estate.Window{Calendar: estate.Day}, nil, time.Date(2026, 3, 29, 0, 0, 0, 0, time.UTC)},
		{estate.Window{Calendar: estate.Day}, berlin, time.Date(2026, 3, 28, 23, 0, 0, 0, time.UTC)},
		{estate.Window{Calendar: estate.Week}, nil, time.Date(2026, 3, 23, 0, 0, 0, 0, time.UTC)},
		{estate.Window{Calendar: estate.Month}, berlin, time.Date(2026, 2, 28, 23, 0, 0, 0, time.UTC)},
		{estate.Window{Calendar: estate.Quarter}, nil, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)},
		{estate.Window{Calendar: estate.Day, Begins: "2020-05-05 21:30:00"}, nil, time.Date(2026, 3, 29, 21, 30, 0, 0, time.UTC)},
		{estate.Window{Calendar: estate.Day, Begins: "2020-05-05 21:31:00"}, nil, time.Date(2026, 3, 28, 21, 31, 0, 0, time.UTC)},
		{estate.Window{Calendar: estate.Day, Begins: "2020-05-05 23:31:00"}, berlin, time.Date(2026, 3, 28, 22, 31, 0, 0, time.UTC)},
		{estate.Window{Calendar: estate.Week, Begins: "2022-01-01 12:00:00"}, nil, time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC)},
		{estate.Window{Calendar: estate.Week, Begins: "2026-01-04 22:00:00"}, nil, time.Date(2026, 3, 22, 22, 0, 0, 0, time.UTC)},
		{estate.Window{Calendar: estate.Month, Begins: "2026-01-28 00:00:00"}, nil, time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC)},
		{estate.Window{Calendar: estate.Month, Begins: "2027-12-15 06:00:00"}, berlin, time.Date(2026, 3, 15, 5, 0, 0, 0, time.UTC)},
		{estate.Window{Calendar: estate.Quarter, Begins: "2024-12-15 00:00:00"}, nil, time.Date(2026, 3, 15, 0, 0, 0, 0, time.UTC)},
		{estate.Window{Calendar: estate.Quarter, Begins: "2024-12-30 00:00:00"}, nil, time.Date(2025, 12, 30, 0, 0, 0, 0, time.UTC)},
		{estate.Window{Calendar: estate.Quarter, Begins: "2024-11-05 00:00:00"}, nil, time.Date(2026, 2, 5, 0, 0, 0, 0, time.UTC)},
	} {
		from, to := slo.Window(c.window, now, c.zone)
		if !from.Equal(c.want) || !to.Equal(now.Truncate(minute).Add(minute)) {
			t.Errorf("%+v in %v begins %s, want %s; ends %s", c.window, c.zone, from.UTC(), c.want, to)
		}
		if to.Sub(from) > time.Duration(c.window.Length()) {
			t.Errorf("%+v is longer than its Length", c.window)
		}
	}
}

package estate

import (
	"strings"
	"testing"
	"time"
)

func TestShiftsBeginAndEndOnTheirDays(t *testing.T) {
	s := PoolSpec{Schedule: []Shift{
		{Days: []Weekday{"mon", "tue"}, From: "08:00", To: "18:00", Warm: 1},
		{Days: []Weekday{"fri"}, From: "22:00", To: "06:00", Warm: 2},
		{From: "12:00", To: "12:00", Warm: 3},
	}}
	for at, want := range map[string]int{
		"Mon 07:59": 3, "Mon 08:00": 1, "Tue 17:59": 1, "Tue 18:00": 3, "Wed 10:00": 3, "Wed 11:59": 3,
		"Fri 21:59": 3, "Fri 22:00": 2, "Sat 05:59": 2, "Sat 06:00": 3, "Thu 23:00": 3, "Fri 05:00": 3,
	} {
		day := map[string]int{"Mon": 2, "Tue": 3, "Wed": 4, "Thu": 5, "Fri": 6, "Sat": 7}[at[:3]]
		clock, err := time.Parse("15:04", at[4:])
		if err != nil {
			t.Fatal(err)
		}
		sh, _ := s.Shift(time.Date(2026, 11, day, clock.Hour(), clock.Minute(), 30, 0, time.UTC))
		if sh.Warm != want {
			t.Errorf("%s: got the shift that keeps %d, want %d", at, sh.Warm, want)
		}
	}
	if _, is := (&PoolSpec{}).Shift(time.Now()); is {
		t.Error("a pool without shifts is in one")
	}
}

func TestWhatIsWrongWithAPoolIsTold(t *testing.T) {
	good := func() *Pool {
		p := &Pool{Head: Head{APIVersion: APIVersion, Kind: "Pool", Metadata: Metadata{Name: "desk", Project: "p"}}}
		p.Spec = PoolSpec{Blueprint: "task", Warm: 2, Maximum: 5, TimeZone: "Europe/Berlin", Schedule: []Shift{{From: "08:00", To: "18:00", Warm: 5}}}
		return p
	}
	if ps := Check(good()); len(ps) > 0 {
		t.Fatalf("a good pool: %v", ps)
	}
	for want, spoil := range map[string]func(*PoolSpec){
		"spec.blueprint: a name is needed":                         func(s *PoolSpec) { s.Blueprint = "" },
		"spec.warm: 6 are more than the maximum of 5":              func(s *PoolSpec) { s.Warm = 6 },
		"spec.warm: -1 is not between 0 and 1000":                  func(s *PoolSpec) { s.Warm = -1 },
		"spec.maximum: 0 is not between 1 and 10000":               func(s *PoolSpec) { s.Maximum = 0 },
		"spec.autoscale.most: 1 are fewer than the 2":              func(s *PoolSpec) { s.Autoscale.Most = 1 },
		"spec.keep: -1s is less than nothing":                      func(s *PoolSpec) { s.Keep = -Duration(time.Second) },
		`spec.timeZone: "../../etc/passwd" is not a time zone`:     func(s *PoolSpec) { s.TimeZone = "../../etc/passwd" },
		`spec.schedule[0].from: "8:00" is not a time of day`:       func(s *PoolSpec) { s.Schedule[0].From = "8:00" },
		`spec.schedule[0].days[1]: "today" is not one of sun, mon`: func(s *PoolSpec) { s.Schedule[0].Days = []Weekday{"mon", "today"} },
		"spec.schedule[0].warm: 9 are more than the maximum of 5":  func(s *PoolSpec) { s.Schedule[0].Warm = 9 },
		"spec.perPerson: 101 is not between 0 and 100":             func(s *PoolSpec) { s.PerPerson = 101 },
	} {
		p := good()
		spoil(&p.Spec)
		var told []string
		for _, problem := range Check(p) {
			told = append(told, problem.String())
		}
		if !strings.Contains(strings.Join(told, "\n"), want) {
			t.Errorf("got %q, want %q in it", told, want)
		}
	}
}

func TestOnlyASeatMayBeWithoutAPerson(t *testing.T) {
	d := &Desktop{Head: Head{APIVersion: APIVersion, Kind: "Desktop", Metadata: Metadata{Name: "a", Project: "p"}}, Spec: DesktopSpec{Blueprint: "b"}}
	if ps := Check(d); len(ps) != 1 || ps[0].Path != "spec.person" {
		t.Errorf("a desktop for nobody: got %v, want a problem at spec.person", ps)
	}
	d.Spec.Pool = "desk"
	if ps := Check(d); len(ps) > 0 || !d.Free() {
		t.Errorf("a seat for nobody yet: got %v, free %v", ps, d.Free())
	}
	d.Metadata.Deleting = time.Now()
	if d.Free() {
		t.Error("a seat that is being destroyed is free")
	}
}

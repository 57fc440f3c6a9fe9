package decide

import (
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
)

// calmView is a service of ten that needs five, with all that allows a scale-in.
func calmView() (view, *State) {
	at := time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)
	v := view{p: Policy{Level: Level{Bound: 300 * time.Millisecond, Share: 0.99}, Scaling: Replicas, Least: 1, Most: 20},
		m: Measured{At: at, Span: 5 * time.Second, Seen: true, Boot: 30 * time.Second}, units: 10, want: 5, safe: 50,
		now: window{span: 15, arrived: 3000, answered: 3000, units: 150, quick: 48}, minute: window{span: 60, arrived: 12000, answered: 12000, units: 600, quick: 192}}
	for _, id := range []estate.MachineID{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"} {
		v.m.Replicas = append(v.m.Replicas, Replica{ID: id, Host: "host-" + string(id), Domain: "rack-" + string(id), Phase: Ready})
	}
	v.ready = v.m.Replicas
	return v, &State{Hold: 90 * time.Second}
}

// allOut is what is known of replicas that their front has left out for long.
func allOut(v *view) map[estate.MachineID]Behaviour {
	each := map[estate.MachineID]Behaviour{}
	for _, r := range v.ready {
		each[r.ID] = Behaviour{Spans: 100, Out: goneLong}
	}
	return each
}

func TestGuardRails(t *testing.T) {
	in, out := option{act: In, to: 8}, option{act: Out, to: 12}
	one := option{act: Replace, to: 10, gone: []estate.MachineID{"a"}}
	for name, c := range map[string]struct {
		o    option
		set  func(v *view, s *State)
		want string // part of why not; empty: allowed
	}{
		"in, all well":                    {in, func(*view, *State) {}, ""},
		"out, all well":                   {out, func(*view, *State) {}, ""},
		"one, all well":                   {one, func(*view, *State) {}, ""},
		"in while burning":                {in, func(v *view, _ *State) { v.burning = true }, "were bad"},
		"in with bad requests now":        {in, func(v *view, _ *State) { v.now.bad = 60 }, "2 % of the requests were bad"},
		"in while blind":                  {in, func(v *view, _ *State) { v.blind = true }, "nothing is known"},
		"out while blind":                 {out, func(v *view, _ *State) { v.blind = true }, "nothing is known"},
		"one while blind":                 {one, func(v *view, _ *State) { v.blind = true }, "nothing is known"},
		"out while blind with all out":    {out, func(v *view, s *State) { v.blind, s.Each = true, allOut(v) }, "nothing is known"},
		"in while blind with all out":     {in, func(v *view, s *State) { v.blind, s.Each = true, allOut(v) }, "nothing is known"},
		"one while blind with all out":    {one, func(v *view, s *State) { v.blind, s.Each = true, allOut(v) }, ""},
		"one unseen with all out":         {one, func(v *view, s *State) { v.blind, v.m.Seen, s.Each = true, false, allOut(v) }, "nothing is known"},
		"in with little known":            {in, func(v *view, _ *State) { v.minute.span = 30 }, "less than a minute"},
		"in at the least":                 {in, func(v *view, _ *State) { v.p.Least = 10 }, "10 is the least"},
		"in to what was wanted":           {option{act: In, to: 10}, func(_ *view, s *State) { s.Peaks = []Peak{{time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC), 10}} }, "10 were wanted"},
		"in soon after in":                {in, func(v *view, s *State) { s.LastIn = v.m.At.Add(-time.Minute) }, "replicas left 1m0s ago"},
		"in within half a long hold":      {in, func(v *view, s *State) { s.Hold, s.LastIn = mostHold, v.m.At.Add(-4*time.Minute) }, "replicas left 4m0s ago"},
		"in while one starts":             {in, func(v *view, _ *State) { v.ready = v.ready[1:] }, "starting or leaving"},
		"in while one is replaced":        {in, func(v *view, s *State) { s.Singles = v.m.At.Add(-20 * time.Second) }, "being replaced"},
		"in of little when acts are many": {option{act: In, to: 9}, func(v *view, s *State) { s.Acts = make([]time.Time, 25) }, "25 acts in the last hour"},
		"out when acts are too many":      {out, func(v *view, s *State) { s.Acts = make([]time.Time, usualActs) }, "30 acts in the last hour"},
		"out when it is urgent":           {option{act: Out, to: 12, urgent: true}, func(v *view, s *State) { s.Acts = make([]time.Time, usualActs) }, ""},
		"out of own limit of acts":        {out, func(v *view, s *State) { v.p.Acts, s.Acts = 5, make([]time.Time, 5) }, "5 acts in the last hour"},
		"out at the most":                 {option{act: Out, to: 10}, func(v *view, _ *State) { v.want, v.p.Most = 10, 10 }, "10 is the most"},
		"out in vain":                     {option{act: Out, to: 10}, func(v *view, s *State) { v.burning, s.Vain = true, vainPushes }, "did not help"},
		"one soon after another":          {one, func(v *view, s *State) { s.Singles = v.m.At.Add(-2 * time.Minute) }, "one was replaced 2m0s ago"},
		"one that was moved":              {option{act: Move, gone: []estate.MachineID{"a"}}, func(v *view, s *State) { s.Moved = map[estate.MachineID]time.Time{"a": v.m.At.Add(-50 * time.Minute)} }, "once an hour"},
		"one moved long ago":              {option{act: Move, gone: []estate.MachineID{"a"}}, func(v *view, s *State) { s.Moved = map[estate.MachineID]time.Time{"a": v.m.At.Add(-61 * time.Minute)} }, ""},
		"one while another is away":       {one, func(v *view, _ *State) { v.ready = v.ready[1:] }, "1 of 10 are away already"},
		"one beside another in its rack": {one, func(v *view, _ *State) {
			v.units = 40 // a tenth of them may be away
			v.m.Replicas[1].Domain, v.m.Replicas[1].Phase = "rack-a", Starting
		}, "another replica in rack-a is starting"},
	} {
		t.Run(name, func(t *testing.T) {
			v, s := calmView()
			c.set(&v, s)
			got := v.heldBack(c.o, s)
			if c.want == "" && got != "" {
				t.Errorf("held back: %s; want allowed", got)
			}
			if c.want != "" && !strings.Contains(got, c.want) {
				t.Errorf("held back: %q, want %q", got, c.want)
			}
		})
	}
}

func TestAPushWaitsForTheLastOne(t *testing.T) {
	v, s := calmView()
	v.burning = true
	if o := v.out(s); o.to != 12 {
		t.Errorf("to %d, want 12: 15 %% more than 10", o.to)
	}
	s.Pushed = v.m.At.Add(-10 * time.Second)
	if o := v.out(s); o.to > 10 {
		t.Errorf("to %d while those of the last push still boot, want no more than the 5 that are wanted", o.to)
	}
}

func TestTheHoldGrowsByHalfAndEnds(t *testing.T) {
	s := State{Hold: leastHold}
	at := time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)
	for i, want := leastHold, leastHold; i < 2*mostHold; i += time.Minute {
		at = at.Add(time.Minute)
		s = s.Took(Decision{At: at, Act: Out, Undoes: at.Add(-time.Second)})
		if want = min(mostHold, want*3/2); s.Hold != want {
			t.Fatalf("hold %s, want %s", s.Hold, want)
		}
	}
	s.weigh(Outcome{Act: In}, true)
	if s.Hold != mostHold*4/5 {
		t.Errorf("hold %s after a scale-in that was not regretted, want %s", s.Hold, mostHold*4/5)
	}
}

// What the last minute was like is what an outcome says, and what it is judged by,
// though nothing is bad any more.
func TestAnOutcomeIsMetOnlyWhereTheLevelWasKept(t *testing.T) {
	v, _ := calmView()
	v.minute.answered = 1000
	for bad, met := range map[float64]bool{0: true, 9: true, 10: true, 11: false, 82: false} {
		v.minute.bad = bad
		s := State{Open: []Expected{{Of: v.m.At.Add(-time.Minute), Act: Replace, By: v.m.At}}}
		if out := s.verify(v); len(out) != 1 || out[0].Met != met {
			t.Errorf("%.0f of 1000 were bad, where 10 may be: %+v", bad, out)
		}
	}
}

package desk_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/decide"
	"consort.dev/consort/decide/desk"
	"consort.dev/consort/estate"
)

var (
	noon   = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	policy = desk.Policy{Application: "editor", Bound: 5 * time.Second, Share: 900_000, Blueprint: "office", Modes: []decide.Mode{decide.Auto}}
)

// starts were an hour apart, the last an hour ago, and took so many seconds.
func starts(seconds ...int) []desk.Start {
	var all []desk.Start
	for i, s := range seconds {
		all = append(all, desk.Start{At: noon.Add(-time.Duration(len(seconds)-i) * time.Hour), Took: time.Duration(s) * time.Second})
	}
	return all
}

// slow is a desktop that is slow on alder; birch is known to be quick and cedar
// quicker, nothing is known of dogwood.
func slow() desk.Measured {
	return desk.Measured{At: noon, Here: "alder", Starts: starts(2, 8, 9, 8), Hosts: []desk.Host{
		{Name: "alder", Starts: starts(9)}, {Name: "birch", Starts: starts(3, 3, 3, 3)}, {Name: "cedar", Starts: starts(1, 2, 2)}, {Name: "dogwood"},
	}}
}

// why returns what is said against going to a host.
func why(d desk.Decision, on string) string {
	for _, a := range d.Alternatives {
		if a.On == on && a.Act == string(decide.Move) {
			return a.Not
		}
	}
	return ""
}

func TestADesktopMovesWhereItsApplicationIsKnownToStartQuickest(t *testing.T) {
	d := desk.Decide(policy, slow())
	if d.Act != decide.Move || d.From != "alder" || d.To != "cedar" || d.Mode != decide.Auto {
		t.Fatalf("%s from %s to %s (%s): %s; want move from alder to cedar (auto)", d.Act, d.From, d.To, d.Mode, d.Say)
	}
	want := "move from alder to cedar, because 3 of the last 4 starts of editor took longer than 5s (median 8s), and there it starts in 2s (median of 3 on other desktops)"
	if d.Say != want {
		t.Errorf("says %q\nwant %q", d.Say, want)
	}
	for on, part := range map[string]string{"birch": "3s there, and in 2s on cedar", "dogwood": "not known"} {
		if got := why(d, on); !strings.Contains(got, part) {
			t.Errorf("not to %s because %q, want %q in it", on, got, part)
		}
	}
	acts := map[string]bool{}
	for _, a := range d.Alternatives {
		acts[a.Act] = a.Not != ""
	}
	if !acts[string(decide.Resize)] || !acts[string(decide.Wait)] {
		t.Errorf("alternatives are %+v, want resize and wait among them", d.Alternatives)
	}
	if d.Objective != "90% of the starts of editor within 5s" || !d.Expected.By.After(noon) || len(d.Evidence) < 6 {
		t.Errorf("objective %q, expected by %s, %d facts", d.Objective, d.Expected.By, len(d.Evidence))
	}
}

func TestADesktopStays(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*desk.Measured)
		says   string
	}{
		{"that keeps its level", func(m *desk.Measured) { m.Starts = starts(2, 2, 3, 2) }, "0 of the last 4 starts"},
		{"that was slow once", func(m *desk.Measured) { m.Starts = starts(2, 2, 3, 9) }, "1 of the last 4"},
		{"that was started twice", func(m *desk.Measured) { m.Starts = starts(9, 9) }, "2 of the last 2"},
		{"that is quick again", func(m *desk.Measured) { m.Starts = starts(9, 9, 9, 2) }, "3 of the last 4"},
		{"that was slow a week ago", func(m *desk.Measured) { m.At = noon.Add(8 * 24 * time.Hour) }, "0 of the last 0"},
		{"whose neighbours are quick", func(m *desk.Measured) { m.Hosts[0].Starts = starts(2, 2, 2) }, "no other host is known to be better"},
		{"for which no other host is known", func(m *desk.Measured) { m.Hosts = m.Hosts[3:] }, "no other host is known to be better"},
		{"while others are slow too", func(m *desk.Measured) { m.Hosts[1].Starts, m.Hosts[2].Starts = starts(8, 8, 8), starts(9, 2, 9) }, "no other host is known to be better"},
		{"while somebody works on it", func(m *desk.Measured) { m.InUse = true }, "somebody works on it"},
		{"while another leaves its host", func(m *desk.Measured) { m.Hosts[0].Busy = true }, "from or to alder: one at a time"},
		{"while another goes to the best", func(m *desk.Measured) { m.Hosts[2].Busy = true }, "from or to cedar: one at a time"},
		{"that moved an hour ago", func(m *desk.Measured) {
			m.Past = []desk.Past{{At: noon.Add(-time.Hour), From: "elm", To: "alder"}}
		}, "not again before 2 Mar 15:00"},
		{"that moved in vain yesterday", func(m *desk.Measured) {
			m.Past = []desk.Past{{At: noon.Add(-23 * time.Hour), From: "elm", To: "alder", Judged: true}}
		}, "in vain; none until 2 Mar 13:00"},
		{"that moved in vain twice", func(m *desk.Measured) {
			m.Past = []desk.Past{{At: noon.Add(-200 * time.Hour), From: "elm", To: "fir", Judged: true}, {At: noon.Add(-47 * time.Hour), From: "fir", To: "alder", Judged: true}}
		}, "in vain; none until 2 Mar 13:00"},
	} {
		m := slow()
		c.change(&m)
		if d := desk.Decide(policy, m); d.Act != decide.Wait || d.To != "alder" || !strings.Contains(d.Say, c.says) {
			t.Errorf("a desktop %s: %s to %s: %s; want wait and %q", c.name, d.Act, d.To, d.Say, c.says)
		}
	}
}

func TestHoldsEnd(t *testing.T) {
	m := slow()
	m.Past = []desk.Past{{At: noon.Add(-25 * time.Hour), From: "elm", To: "alder", Judged: true}}
	if d := desk.Decide(policy, m); d.Act != decide.Move {
		t.Errorf("a day after a move in vain: %s: %s; want move", d.Act, d.Say)
	}
}

func TestNoReturnToAHostThatWasLeft(t *testing.T) {
	m := slow()
	m.Past = []desk.Past{{At: noon.Add(-10 * 24 * time.Hour), From: "cedar", To: "alder", Judged: true, Met: true}}
	d := desk.Decide(policy, m)
	if d.To != "birch" || why(d, "cedar") != "it left cedar on 20 Feb 2026" {
		t.Errorf("to %s, not to cedar because %q; want birch, since it left cedar", d.To, why(d, "cedar"))
	}
}

func TestWhatStandsAgainstAHostIsTold(t *testing.T) {
	m := slow()
	m.Hosts[2].Against = "cedar is being drained and takes nothing new"
	if d := desk.Decide(policy, m); d.To != "birch" || why(d, "cedar") != m.Hosts[2].Against {
		t.Errorf("to %s, not to cedar because %q", d.To, why(d, "cedar"))
	}
}

func TestTheStrictestModeHolds(t *testing.T) {
	p := policy
	p.Modes = []decide.Mode{decide.Auto, decide.Observe}
	if d := desk.Decide(p, slow()); d.Act != decide.Move || d.Mode != decide.Observe {
		t.Errorf("%s (%s), want move (observe)", d.Act, d.Mode)
	}
}

func TestMovesAreJudgedByWhatIsStartedAfter(t *testing.T) {
	moved := desk.Past{At: noon.Add(-150 * time.Minute), From: "alder", To: "cedar"}
	m := slow()
	m.Here = "cedar"
	for _, c := range []struct {
		starts []desk.Start
		here   string
		after  time.Duration
		known  bool
		met    bool
		says   string
	}{
		{starts(2, 2), "cedar", 0, false, false, ""},
		{starts(9, 9, 2, 2), "cedar", 0, false, false, ""}, // two of them before it moved
		{starts(9, 2, 2, 1), "cedar", 24 * time.Hour, false, false, ""},
		{append(starts(9, 2, 2), desk.Start{At: noon, Took: time.Second}), "cedar", 0, true, true, "0 of the last 3"},
		{append(starts(9, 2, 8), desk.Start{At: noon, Took: 7 * time.Second}), "cedar", 0, true, false, "2 of the last 3"},
		{starts(2, 2), "birch", 0, true, false, "it has left cedar"},
		{nil, "cedar", 8 * 24 * time.Hour, true, false, "was not started on cedar"},
	} {
		m.Starts, m.Here, m.At = c.starts, c.here, noon.Add(c.after)
		o, known := desk.Judge(policy, moved, m)
		if known != c.known || known && (o.Met != c.met || !strings.Contains(o.Say, c.says)) {
			t.Errorf("%v on %s after %s: %+v, %v; want met %v, known %v, %q", c.starts, c.here, c.after, o, known, c.met, c.known, c.says)
		}
	}
}

// TestDecisionsAreAFunctionOfWhatIsMeasured decides twice, with hosts in another
// order.
func TestDecisionsAreAFunctionOfWhatIsMeasured(t *testing.T) {
	a, m := desk.Decide(policy, slow()), slow()
	slices.Reverse(m.Hosts)
	if b := desk.Decide(policy, m); a.To != b.To || a.Say != b.Say {
		t.Errorf("%s, or %s", a.Say, b.Say)
	}
	var none estate.Outcome
	if o, known := desk.Judge(policy, desk.Past{At: noon, To: "alder"}, slow()); known || o.Met != none.Met {
		t.Errorf("judged at once: %+v", o)
	}
}

package matrix

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"consort.dev/consort/estate"
)

func trial(hypervisor, product, figure string, better estate.Better, samples ...float64) *estate.Trial {
	t := &estate.Trial{Spec: estate.TrialSpec{Run: "r", Hypervisor: hypervisor, Product: product, Workload: "packets"}}
	if len(samples) == 0 {
		t.Spec.Note = "it joins no network"
		return t
	}
	t.Spec.Figures = []estate.Figure{{Name: figure, Better: better, Samples: samples}}
	return t
}

func TestTheBestIsApartFromAllOthers(t *testing.T) {
	m := Of([]*estate.Trial{
		trial("b", "B 1", "rtt_us", estate.Lower, 100, 110, 105, 104, 103),
		trial("a", "A 1", "rtt_us", estate.Lower, 40, 42, 41, 43, 44),
		trial("c", "C 1", "rtt_us", estate.Lower, 99, 160, 120, 118, 119),
		trial("d", "D 1", "", ""),
	})
	if len(m.Columns) != 4 || m.Columns[0].Hypervisor != "a" || len(m.Rows) != 1 {
		t.Fatalf("columns %v, rows %v", m.Columns, m.Rows)
	}
	cells := m.Rows[0].Cells
	if !cells[0].Best || cells[1].Best || cells[2].Best || cells[3].Best {
		t.Errorf("best: %v %v %v %v, want a only", cells[0].Best, cells[1].Best, cells[2].Best, cells[3].Best)
	}
	if c := cells[1]; c.Median != 104 || c.Low != 100 || c.High != 110 {
		t.Errorf("b is %v (%v to %v), want 104 (100 to 110)", c.Median, c.Low, c.High)
	}
	if cells[3].Measured() || len(m.Notes) != 1 || m.Notes[0].Column.Hypervisor != "d" {
		t.Errorf("d says %+v with notes %+v, want why nothing was measured", cells[3], m.Notes)
	}
}

func TestNobodyIsBestWhereSpreadsOverlap(t *testing.T) {
	m := Of([]*estate.Trial{
		trial("a", "", "iops", estate.Higher, 100, 200, 150, 140, 160),
		trial("b", "", "iops", estate.Higher, 199, 300, 250, 240, 260),
	})
	for _, c := range m.Rows[0].Cells {
		if c.Best {
			t.Errorf("%s is best of two whose spreads overlap", c.Column.Hypervisor)
		}
	}
	if alone := Of([]*estate.Trial{trial("a", "", "iops", estate.Higher, 1, 2)}); alone.Rows[0].Cells[0].Best {
		t.Error("the only one is best")
	}
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		a, b   []float64
		better estate.Better
		want   Verdict
	}{
		{[]float64{10, 11, 12, 11}, []float64{20, 21, 22, 21}, estate.Higher, Improved},
		{[]float64{10, 11, 12, 11}, []float64{20, 21, 22, 21}, estate.Lower, Worse},
		{[]float64{20, 21, 22, 21}, []float64{10, 11, 12, 11}, estate.Lower, Improved},
		{[]float64{10, 11, 20, 12}, []float64{20, 21, 22, 21}, estate.Higher, Same}, // a sample in common
		{[]float64{100, 101, 102, 101}, []float64{103, 104, 105, 104}, estate.Higher, Same},
		{[]float64{10}, []float64{20}, estate.Higher, TooFew},                 // once in once
		{[]float64{10, 11, 12}, []float64{20, 21, 22}, estate.Higher, TooFew}, // once in ten
		{[]float64{10, 11, 12}, []float64{20, 21, 22, 21, 20}, estate.Higher, Improved},
		{nil, []float64{1}, estate.Lower, Missing},
		{[]float64{1}, nil, estate.Lower, Missing},
	} {
		var a, b Cell
		a.measure(c.a)
		b.measure(c.b)
		if got := Compare(a, b, c.better); got != c.want {
			t.Errorf("%v to %v, %s is better: %q, want %q", c.a, c.b, c.better, got, c.want)
		}
	}
}

func TestDiffSeesARegressionBetweenReleases(t *testing.T) {
	was := Of([]*estate.Trial{trial("a", "A 1", "rtt_us", estate.Lower, 40, 42, 41, 43, 41), trial("b", "B 1", "rtt_us", estate.Lower, 10, 11, 12, 11, 12)})
	is := Of([]*estate.Trial{trial("a", "A 2", "rtt_us", estate.Lower, 80, 82, 81, 80, 83), trial("b", "B 1", "rtt_us", estate.Lower, 11, 10, 12, 11, 12), trial("new", "N", "rtt_us", estate.Lower, 1)})
	got := Diff(was, is)
	if len(got) != 2 || got[0].Verdict != Worse || !got[0].Release || got[1].Verdict != Same || got[1].Release {
		t.Errorf("diff is %+v", got)
	}
}

// TestEqualHostsAreSeldomCalledDifferent draws runs of equal hosts and counts
// the differences that Compare sees: chance allows one in 126, and the least
// difference takes most of those away.
func TestEqualHostsAreSeldomCalledDifferent(t *testing.T) {
	dice := rand.New(rand.NewPCG(7, 7))
	draw := func() (c Cell) {
		s := make([]float64, 5)
		for i := range s {
			s[i] = 100 * math.Exp(0.05*dice.NormFloat64())
		}
		c.measure(s)
		return c
	}
	wrong := 0
	const runs = 5000
	for range runs {
		if Compare(draw(), draw(), estate.Lower) != Same {
			wrong++
		}
	}
	if share := float64(wrong) / runs; share > 1.0/126 {
		t.Errorf("%.2f %% of equal pairs are called different", 100*share)
	}
}

// draw returns a cell of five repeats about a middle that spread by a share.
func draw(dice *rand.Rand, middle, share float64) (c Cell) {
	s := make([]float64, 5)
	for i := range s {
		s[i] = middle * math.Exp(share*dice.NormFloat64())
	}
	c.measure(s)
	return c
}

// run returns a matrix of one hypervisor with so many figures, of which the
// first is so much higher than in others.
func run(dice *rand.Rand, figures int, share, first float64) Matrix {
	at := Column{Hypervisor: "a"}
	m := Matrix{Columns: []Column{at}}
	for i := range figures {
		middle := 100.0
		if i == 0 {
			middle *= first
		}
		c := draw(dice, middle, share)
		c.Column = at
		m.Rows = append(m.Rows, Row{Workload: "w", Figure: fmt.Sprint(i), Better: estate.Higher, Cells: []Cell{c}})
	}
	return m
}

func verdicts(changes []Change) map[Verdict]int {
	n := map[Verdict]int{}
	for _, c := range changes {
		n[c.Verdict]++
	}
	return n
}

// TestDiffOfEqualRunsSaysNoDifference compares runs of 200 figures that differ
// by chance only, and much: some lie apart each time, and of a hundred diffs at
// most a few may call one different.
func TestDiffOfEqualRunsSaysNoDifference(t *testing.T) {
	dice := rand.New(rand.NewPCG(3, 3))
	const runs = 100
	alarms, doubts := 0, 0
	for range runs {
		n := verdicts(Diff(run(dice, 200, 0.2, 1), run(dice, 200, 0.2, 1)))
		if n[Improved]+n[Worse] > 0 {
			alarms++
		}
		doubts += n[Doubtful]
	}
	if alarms > 2*runs*Sure {
		t.Errorf("%d of %d diffs of equal runs call something different, at most %v are to be expected", alarms, runs, runs*Sure)
	}
	// Without the correction each of the doubts were an alarm.
	if doubts < runs {
		t.Errorf("%d doubts in %d diffs: too few to have tried the correction", doubts, runs)
	}
}

func TestDiffSeesOneChangeAmongMany(t *testing.T) {
	dice := rand.New(rand.NewPCG(4, 4))
	const runs = 50
	seen := 0
	for range runs {
		for _, c := range Diff(run(dice, 200, 0.03, 1), run(dice, 200, 0.03, 0.7)) {
			switch {
			case c.Figure == "0" && c.Verdict == Worse:
				seen++
			case c.Verdict == Worse || c.Verdict == Improved:
				t.Errorf("figure %s is %s, and nothing changed: %v to %v", c.Figure, c.Verdict, c.Was.Samples, c.Is.Samples)
			}
		}
	}
	if seen < runs*8/10 {
		t.Errorf("a loss of 30 %% where repeats spread by 3 %% was seen in %d of %d diffs", seen, runs)
	}
}

func TestChances(t *testing.T) {
	for _, c := range []struct {
		what      string
		got, want float64
	}{
		{"one repeat each", apartByChance(1, 1), 1},
		{"four each", apartByChance(4, 4), 1.0 / 35},
		{"five each", apartByChance(5, 5), 1.0 / 126},
		{"three and five", apartByChance(3, 5), 1.0 / 28},
		// Of the tables: t at 5 % and 1 % with 8, 4 and 1 degrees of freedom.
		{"t 2.306, 8", student(2.306, 8), 0.05},
		{"t 4.604, 4", student(4.604, 4), 0.01},
		{"t 12.706, 1", student(12.706, 1), 0.05},
		{"t 0", student(0, 5), 1},
		{"nothing to compare", welch([]float64{1}, []float64{2, 3}), 1},
		{"a figure that is zero", welch([]float64{0, 1}, []float64{2, 3}), 1},
	} {
		if math.Abs(c.got-c.want) > 2e-4 {
			t.Errorf("%s: %.5f, want %.5f", c.what, c.got, c.want)
		}
	}
	if n := ByChance(Diff(run(rand.New(rand.NewPCG(1, 1)), 126, 0.1, 1), run(rand.New(rand.NewPCG(2, 2)), 126, 0.1, 1))); math.Abs(n-1) > 1e-9 {
		t.Errorf("of 126 figures %v lie apart by chance, want 1", n)
	}
}

package matrix

import (
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
		{[]float64{10, 11, 12}, []float64{20, 21, 22}, estate.Higher, Improved},
		{[]float64{10, 11, 12}, []float64{20, 21, 22}, estate.Lower, Worse},
		{[]float64{20, 21, 22}, []float64{10, 11, 12}, estate.Lower, Improved},
		{[]float64{10, 11, 20}, []float64{20, 21, 22}, estate.Higher, Same}, // a sample in common
		{[]float64{100, 101, 102}, []float64{103, 104, 105}, estate.Higher, Same},
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
	was := Of([]*estate.Trial{trial("a", "A 1", "rtt_us", estate.Lower, 40, 42, 41), trial("b", "B 1", "rtt_us", estate.Lower, 10, 11, 12)})
	is := Of([]*estate.Trial{trial("a", "A 2", "rtt_us", estate.Lower, 80, 82, 81), trial("b", "B 1", "rtt_us", estate.Lower, 11, 10, 12), trial("new", "N", "rtt_us", estate.Lower, 1)})
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

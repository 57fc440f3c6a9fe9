// Package matrix turns trials into the competitive matrix: which hypervisor is
// best at what, and what changed between two runs. It is pure.
package matrix

import (
	"cmp"
	"math"
	"slices"

	"consort.dev/consort/estate"
)

// Cell is one figure of one hypervisor.
type Cell struct {
	Column  Column
	Samples []float64
	Median  float64
	Low     float64 // the least sample
	High    float64 // the greatest
	Best    bool    // apart from all others of its row, on the better side
}

// Column is what a column of the matrix measured: a hypervisor at a release.
type Column struct {
	Hypervisor  string
	GuestType   string
	Product     string
	Accelerator string
}

// Row is one figure of every hypervisor.
type Row struct {
	Workload string
	Figure   string
	Better   estate.Better
	Cells    []Cell // one for each column
}

// Matrix is the trials of one run.
type Matrix struct {
	Columns []Column
	Rows    []Row
	Notes   []Note
}

// Note says why a workload was not measured on a hypervisor, or what must be
// known to read what was.
type Note struct {
	Column   Column
	Workload string
	Text     string
}

// Of returns the matrix of trials, which are of one run, with columns and rows
// in the order of their names.
func Of(trials []*estate.Trial) Matrix {
	var m Matrix
	for _, t := range trials {
		c := columnOf(t)
		if !slices.Contains(m.Columns, c) {
			m.Columns = append(m.Columns, c)
		}
		if t.Spec.Note != "" {
			m.Notes = append(m.Notes, Note{c, t.Spec.Workload, t.Spec.Note})
		}
		for _, f := range t.Spec.Figures {
			same := func(r Row) bool { return r.Workload == t.Spec.Workload && r.Figure == f.Name }
			if !slices.ContainsFunc(m.Rows, same) {
				m.Rows = append(m.Rows, Row{Workload: t.Spec.Workload, Figure: f.Name, Better: f.Better})
			}
		}
	}
	slices.SortFunc(m.Columns, func(a, b Column) int {
		return cmp.Or(cmp.Compare(a.Hypervisor, b.Hypervisor), cmp.Compare(a.GuestType, b.GuestType))
	})
	slices.SortFunc(m.Rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Workload, b.Workload), cmp.Compare(a.Figure, b.Figure))
	})
	for i := range m.Rows {
		m.Rows[i].fill(m.Columns, trials)
	}
	return m
}

func columnOf(t *estate.Trial) Column {
	return Column{t.Spec.Hypervisor, t.Spec.GuestType, t.Spec.Product, t.Spec.Accelerator}
}

// fill finds the row's cells and marks the best.
func (r *Row) fill(columns []Column, trials []*estate.Trial) {
	for _, c := range columns {
		cell := Cell{Column: c}
		for _, t := range trials {
			if t.Spec.Workload != r.Workload || columnOf(t) != c {
				continue
			}
			for _, f := range t.Spec.Figures {
				if f.Name == r.Figure {
					cell.measure(f.Samples)
				}
			}
		}
		r.Cells = append(r.Cells, cell)
	}
	for i := range r.Cells {
		r.Cells[i].Best = r.best(i)
	}
}

func (c *Cell) measure(samples []float64) {
	c.Samples = slices.Clone(samples)
	s := slices.Sorted(slices.Values(samples))
	n := len(s)
	if n == 0 {
		return
	}
	c.Low, c.High, c.Median = s[0], s[n-1], (s[(n-1)/2]+s[n/2])/2
}

// Measured reports whether the cell has samples.
func (c Cell) Measured() bool { return len(c.Samples) > 0 }

// best reports whether the cell is apart from all others on the better side; a
// row with one cell has no best.
func (r *Row) best(i int) bool {
	if !r.Cells[i].Measured() {
		return false
	}
	others := 0
	for j, o := range r.Cells {
		if j == i || !o.Measured() {
			continue
		}
		others++
		if Compare(o, r.Cells[i], r.Better) != Improved {
			return false
		}
	}
	return others > 0
}

// Verdict is what a comparison of two cells says.
type Verdict string

// The verdicts.
const (
	Same     Verdict = "no difference"
	Improved Verdict = "better"
	Worse    Verdict = "worse"
	Missing  Verdict = "not measured"
	TooFew   Verdict = "too few repeats"
	Doubtful Verdict = "doubtful" // apart, as some are by chance where many are compared
)

// Least is by how much medians must differ, as a share of the smaller, before a
// difference is called one. Less is within what a host that does other things
// besides does to a run.
const Least = 0.10

// Chance is how likely repeats of one and the same thing may be to lie apart
// before so few of them say nothing: it takes four each, or three and five.
const Chance = 0.05

// Compare says how b is against a. It is different only when no sample of one
// lies among those of the other and the medians are Least apart: of five
// repeats each, that comes by chance once in 126 (Mann-Whitney, two-sided).
// Whoever compares many cells must reckon with that; Diff does.
func Compare(a, b Cell, better estate.Better) Verdict {
	switch {
	case !a.Measured() || !b.Measured():
		return Missing
	case apartByChance(len(a.Samples), len(b.Samples)) > Chance:
		return TooFew
	}
	apart := a.High < b.Low || b.High < a.Low
	if !apart || math.Abs(a.Median-b.Median) < Least*math.Min(math.Abs(a.Median), math.Abs(b.Median)) {
		return Same
	}
	if (b.Median < a.Median) == (better == estate.Lower) {
		return Improved
	}
	return Worse
}

// Change is how one figure of one hypervisor differs between two runs.
type Change struct {
	Workload string
	Figure   string
	Better   estate.Better
	Was, Is  Cell
	Verdict  Verdict
	Chance   float64 // how likely so large a difference is where there is none
	Release  bool    // the product or its accelerator changed
}

// Diff compares two matrices figure by figure. Columns are the same when the
// hypervisor and the type of guest are: their releases may differ. However many
// figures are compared, it is unlikely (Sure) that it calls one different that
// is not.
func Diff(was, is Matrix) []Change {
	var out []Change
	for _, r := range is.Rows {
		for _, c := range r.Cells {
			old, found := was.cell(r, c.Column)
			if !found {
				continue
			}
			out = append(out, Change{
				Workload: r.Workload, Figure: r.Figure, Better: r.Better, Was: old, Is: c,
				Verdict: Compare(old, c, r.Better), Chance: welch(old.Samples, c.Samples),
				Release: old.Column.Product != c.Column.Product || old.Column.Accelerator != c.Column.Accelerator,
			})
		}
	}
	judge(out)
	return out
}

// ByChance is how many of the changes would lie apart by chance alone at most,
// were there no difference at all.
func ByChance(changes []Change) float64 {
	sum := 0.0
	for _, c := range changes {
		if c.Verdict != Missing && c.Verdict != TooFew {
			sum += apartByChance(len(c.Was.Samples), len(c.Is.Samples))
		}
	}
	return sum
}

// Cell returns the cell of a figure on a hypervisor, for its type of guest.
func (m Matrix) Cell(workload, figure, hypervisor, guestType string) (c Cell, better estate.Better, found bool) {
	i := slices.IndexFunc(m.Rows, func(r Row) bool { return r.Workload == workload && r.Figure == figure })
	if i < 0 {
		return Cell{}, "", false
	}
	c, found = m.cell(m.Rows[i], Column{Hypervisor: hypervisor, GuestType: guestType})
	return c, m.Rows[i].Better, found && c.Measured()
}

func (m Matrix) cell(r Row, at Column) (Cell, bool) {
	for _, mine := range m.Rows {
		if mine.Workload != r.Workload || mine.Figure != r.Figure {
			continue
		}
		for _, c := range mine.Cells {
			if c.Column.Hypervisor == at.Hypervisor && c.Column.GuestType == at.GuestType {
				return c, true
			}
		}
	}
	return Cell{}, false
}

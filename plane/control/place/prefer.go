package place

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/matrix"
	"consort.dev/consort/plane/store"
)

// preference returns what the blueprint of the machine's desktop would have its
// hypervisor be good at; the zero Preference where it says nothing.
func (p *Placer) preference(ctx context.Context, m *estate.Machine) (none estate.Preference, err error) {
	o := m.Metadata.Owner
	if o == nil || o.Kind != "Desktop" {
		return none, nil
	}
	d, err := store.Get[estate.Desktop](ctx, p.Store, o.Project, o.Name)
	if err != nil {
		return none, err
	}
	b, err := store.Get[estate.Blueprint](ctx, p.Store, o.Project, d.Spec.Blueprint)
	if errors.Is(err, fault.NotFound) {
		return none, nil // the desktop's plan outlives it
	}
	if err != nil {
		return none, err
	}
	return b.Spec.Prefer, nil
}

// prefer picks one of the hypervisors that fit, which come in the usual order,
// and says why in any case. The first stays the choice unless it was shown to
// be worse than another.
func prefer(want estate.Preference, m *estate.Machine, fit []*estate.Hypervisor, trials []*estate.Trial) (*estate.Hypervisor, string) {
	first, what := fit[0], want.Workload+" "+want.Figure
	if len(fit) == 1 {
		return first, fmt.Sprintf("no other fits, so that its preference for %s had nothing to choose from", what)
	}
	run := newest(want, trials)
	if run == nil {
		return first, fmt.Sprintf("its preference for %s chose nothing: no run has measured that%s; see: consort matrix show", what, others(want.Workload, trials))
	}
	table := matrix.Of(run)
	var measured []entry
	var no []string
	for _, h := range fit {
		e, why := look(table, run, want, h, m.Spec.Hardware.GuestType)
		if why == "" {
			measured = append(measured, e)
		} else {
			no = append(no, h.Metadata.Name+" "+why)
		}
	}
	without := ""
	if len(no) > 0 {
		without = "; " + strings.Join(no, ", ")
	}
	if len(measured) < 2 || measured[0].on != first {
		return first, fmt.Sprintf("its preference for %s chose nothing: there is nothing to compare %s with in run %s%s", what, first.Metadata.Name, run[0].Spec.Run, without)
	}
	return decide(what, measured, without)
}

// entry is a hypervisor with its cell.
type entry struct {
	on     *estate.Hypervisor
	trial  *estate.Trial
	cell   matrix.Cell
	better estate.Better
}

// decide picks the first, in the usual order, that is not worse than the best.
func decide(what string, measured []entry, without string) (*estate.Hypervisor, string) {
	first := measured[0]
	best := slices.MinFunc(measured, func(a, b entry) int {
		if a.better == estate.Higher {
			a, b = b, a
		}
		return cmp.Compare(a.cell.Median, b.cell.Median)
	})
	verdict := matrix.Same
	for _, e := range measured {
		v := matrix.Compare(best.cell, e.cell, e.better)
		if e.on == first.on {
			verdict = v
		}
		if v == matrix.Worse {
			continue
		}
		if e.on == first.on {
			break
		}
		return e.on, fmt.Sprintf("chosen over %s for %s: %s against %s, %.1f times better (trials %s and %s of %s)%s", first.on.Metadata.Name, what,
			number(e.cell.Median), number(first.cell.Median), ratio(e.cell.Median, first.cell.Median), e.trial.Metadata.Name, first.trial.Metadata.Name,
			e.trial.Spec.At.Format("2 Jan 2006"), without)
	}
	if first.on == best.on {
		return first.on, fmt.Sprintf("none is better for %s: %s (trial %s of %s)%s", what, number(first.cell.Median), first.trial.Metadata.Name, first.trial.Spec.At.Format("2 Jan 2006"), without)
	}
	return first.on, fmt.Sprintf("its preference for %s chose nothing: %s between %s and %s, %s against %s (trials %s and %s of %s)%s", what, verdict,
		first.on.Metadata.Name, best.on.Metadata.Name, number(first.cell.Median), number(best.cell.Median), first.trial.Metadata.Name, best.trial.Metadata.Name,
		first.trial.Spec.At.Format("2 Jan 2006"), without)
}

// newest returns the trials of the latest run that measured the figure, or nil.
func newest(want estate.Preference, trials []*estate.Trial) []*estate.Trial {
	var last *estate.Trial
	for _, t := range trials {
		has := slices.ContainsFunc(t.Spec.Figures, func(f estate.Figure) bool { return f.Name == want.Figure })
		if t.Spec.Workload == want.Workload && has && (last == nil || t.Spec.At.After(last.Spec.At)) {
			last = t
		}
	}
	var run []*estate.Trial
	for _, t := range trials {
		if last != nil && t.Spec.Run == last.Spec.Run {
			run = append(run, t)
		}
	}
	return run
}

// others names the figures that were measured of the workload, for whom there
// is a slip of the pen.
func others(workload string, trials []*estate.Trial) string {
	var names []string
	for _, t := range trials {
		for _, f := range t.Spec.Figures {
			if t.Spec.Workload == workload && !slices.Contains(names, f.Name) {
				names = append(names, f.Name)
			}
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return ", only " + strings.Join(names, ", ")
}

// look returns the hypervisor's cell, or why it has none: what was measured of
// another release says nothing of this one.
func look(table matrix.Matrix, run []*estate.Trial, want estate.Preference, h *estate.Hypervisor, guestType string) (e entry, why string) {
	usual := ""
	if len(h.Status.GuestTypes) > 0 {
		usual = h.Status.GuestTypes[0]
	}
	i := slices.IndexFunc(run, func(t *estate.Trial) bool {
		s := t.Spec
		return s.Workload == want.Workload && s.Hypervisor == h.Metadata.Name && cmp.Or(s.GuestType, usual) == cmp.Or(guestType, usual)
	})
	if i < 0 {
		return e, "was not measured"
	}
	t := run[i]
	if was := release(t.Spec.Product, t.Spec.Accelerator); was != release(h.Status.Product, h.Status.Accelerator) {
		return e, fmt.Sprintf("was measured as %s and is %s now", was, release(h.Status.Product, h.Status.Accelerator))
	}
	cell, better, found := table.Cell(want.Workload, want.Figure, h.Metadata.Name, t.Spec.GuestType)
	if !found {
		return e, "was not measured: " + cmp.Or(t.Spec.Note, "it has no such figure")
	}
	return entry{h, t, cell, better}, ""
}

func release(product, accelerator string) string {
	if accelerator == "" {
		return product
	}
	return product + " with " + accelerator
}

// number writes three figures that count.
func number(v float64) string { return fmt.Sprintf("%.3g", v) }

func ratio(a, b float64) float64 {
	if a < b {
		a, b = b, a
	}
	return a / b
}

package place

import (
	"slices"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/plane/store"
)

// iops is what the tests' blueprints prefer; more is better.
var iops = estate.Preference{Workload: "disk", Figure: "iops"}

// record stores a trial of the hypervisor at release R 1, of the day given.
func record(t *testing.T, p *Placer, run, hypervisor string, day int, samples ...float64) {
	t.Helper()
	tr := &estate.Trial{
		Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Trial", Metadata: estate.Metadata{Name: run + "-" + hypervisor + "-disk"}},
		Spec: estate.TrialSpec{Run: run, Hypervisor: hypervisor, Product: "R 1", Workload: "disk", At: time.Date(2026, 11, day, 0, 0, 0, 0, time.UTC)},
	}
	if tr.Spec.Note = "its disk is gone"; len(samples) > 0 {
		tr.Spec.Note = ""
		tr.Spec.Figures = []estate.Figure{{Name: "iops", Better: estate.Higher, Samples: samples}}
	}
	if err := p.Store.Create(t.Context(), tr); err != nil {
		t.Fatal(err)
	}
}

// ready is a hypervisor of release R 1 with room.
func ready(name string) *estate.Hypervisor {
	h := host(name, 8*estate.GiB, estate.HypervisorReady)
	h.Status.Product = "R 1"
	return h
}

// desktop stores a desktop planned for a, b and c, in this order, whose
// blueprint prefers what is given, and places its machine.
func desktop(t *testing.T, p *Placer, want estate.Preference) *estate.Machine {
	t.Helper()
	head := func(kind estate.Kind) estate.Head {
		return estate.Head{APIVersion: estate.APIVersion, Kind: kind, Metadata: estate.Metadata{Name: "office", Project: "p"}}
	}
	d := &estate.Desktop{Head: head("Desktop"), Spec: estate.DesktopSpec{Blueprint: "office", Person: "ana"}}
	d.Status.Plan = &estate.Plan{Hypervisors: []string{"a", "b", "c"}}
	for _, r := range []estate.Resource{&estate.Blueprint{Head: head("Blueprint"), Spec: estate.BlueprintSpec{Prefer: want}}, d} {
		if err := p.Store.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	owner := d.Ref()
	return placed(t, p, "m", estate.GiB, func(m *estate.Machine) { m.Metadata.Owner = &owner })
}

func TestAPreferenceThatTheMatrixBearsOutIsFollowedAndExplained(t *testing.T) {
	p := newPlacer(t, true, ready("a"), ready("b"), ready("c"))
	record(t, p, "r1", "a", 20, 100, 101, 102, 103, 104)
	record(t, p, "r1", "b", 20, 204, 203, 202, 205, 206)
	record(t, p, "r1", "c", 20, 150, 151, 152, 153, 154)
	m := desktop(t, p, iops)
	want := "chosen over a for disk iops: 204 against 102, 2.0 times better (trials r1-b-disk and r1-a-disk of 20 Nov 2026)"
	if m.Spec.Hypervisor != "b" || m.Spec.Because != want {
		t.Errorf("on %s because %q, want b because %q", m.Spec.Hypervisor, m.Spec.Because, want)
	}
	for on, text := range map[estate.Ref]string{
		m.Ref():           "Placed bad=false: it is placed on b under epoch 1: " + want,
		*m.Metadata.Owner: "Placed bad=false: its machine is placed on b: " + want,
	} {
		if got := told(t, p, on); !slices.Equal(got, []string{text}) {
			t.Errorf("of %s is told %q, want %q", on, got, text)
		}
	}
}

// TestAPreferenceIsNeverSilent has it change nothing, in every way there is: the
// usual choice is made, and both the machine and its desktop are told why.
func TestAPreferenceIsNeverSilent(t *testing.T) {
	five := func(v float64) []float64 { return []float64{v, v + 1, v + 2, v + 1, v} }
	for name, c := range map[string]struct {
		before func(*testing.T, *Placer)
		want   string
	}{
		"nothing was measured": {nil, "no run has measured that"},
		"another figure was measured": {func(t *testing.T, p *Placer) {
			tr := &estate.Trial{Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Trial", Metadata: estate.Metadata{Name: "x"}}}
			tr.Spec = estate.TrialSpec{Run: "r", Workload: "disk", Figures: []estate.Figure{{Name: "reads", Samples: five(1)}}}
			if err := p.Store.Create(t.Context(), tr); err != nil {
				t.Fatal(err)
			}
		}, "only reads"},
		"no difference": {func(t *testing.T, p *Placer) {
			record(t, p, "r", "a", 1, 100, 200, 150, 160, 170)
			record(t, p, "r", "b", 1, 190, 210, 220, 180, 200)
		}, "no difference between a and b"},
		"too few repeats": {func(t *testing.T, p *Placer) {
			record(t, p, "r", "a", 1, 100)
			record(t, p, "r", "b", 1, 300)
		}, "too few repeats between a and b"},
		"the usual choice is the best": {func(t *testing.T, p *Placer) {
			record(t, p, "r", "a", 1, five(300)...)
			record(t, p, "r", "b", 1, five(100)...)
		}, "none is better for disk iops: 301 (trial r-a-disk of 1 Nov 2026)"},
		"the usual choice was not measured": {func(t *testing.T, p *Placer) {
			record(t, p, "r", "a", 1)
			record(t, p, "r", "b", 1, five(300)...)
			record(t, p, "r", "c", 1, five(500)...)
		}, "a was not measured: its disk is gone"},
		"another release": {func(t *testing.T, p *Placer) {
			record(t, p, "r", "a", 1, five(100)...)
			record(t, p, "r", "b", 1, five(300)...)
			b, err := store.Get[estate.Hypervisor](t.Context(), p.Store, "", "b")
			if err != nil {
				t.Fatal(err)
			}
			b.Status.Product = "R 2"
			if err := p.Store.Update(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}, "b was measured as R 1 and is R 2 now"},
		"an older run says otherwise": {func(t *testing.T, p *Placer) {
			record(t, p, "old", "a", 1, five(100)...)
			record(t, p, "old", "b", 1, five(300)...)
			record(t, p, "r", "a", 2, five(300)...)
			record(t, p, "r", "b", 2, five(300)...)
		}, "(trial r-a-disk of 2 Nov 2026)"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlacer(t, true, ready("a"), ready("b"), ready("c"))
			if c.before != nil {
				c.before(t, p)
			}
			m := desktop(t, p, iops)
			if m.Spec.Hypervisor != "a" || !strings.Contains(m.Spec.Because, c.want) {
				t.Errorf("on %s because %q, want a because of %q", m.Spec.Hypervisor, m.Spec.Because, c.want)
			}
			for _, on := range []estate.Ref{m.Ref(), *m.Metadata.Owner} {
				if got := told(t, p, on); len(got) != 1 || !strings.Contains(got[0], c.want) {
					t.Errorf("of %s is told %q, want %q", on, got, c.want)
				}
			}
		})
	}
}

func TestAPreferenceOverridesNoConstraint(t *testing.T) {
	full := ready("b")
	full.Status.Capacity.Memory = estate.GiB / 2
	other := ready("d") // the plan does not name it
	p := newPlacer(t, true, ready("a"), full, other)
	for name, v := range map[string]float64{"a": 100, "b": 300, "d": 900} {
		record(t, p, "r", name, 1, v, v+1, v+2, v+1, v)
	}
	if m := desktop(t, p, iops); m.Spec.Hypervisor != "a" || !strings.Contains(m.Spec.Because, "no other fits") {
		t.Errorf("on %s because %q, want a, the only one that fits", m.Spec.Hypervisor, m.Spec.Because)
	}
}

func TestWhoPrefersNothingIsToldNothing(t *testing.T) {
	p := newPlacer(t, true, ready("a"), ready("b"), ready("c"))
	record(t, p, "r", "a", 1, 100, 101, 102, 103, 104)
	record(t, p, "r", "b", 1, 200, 201, 202, 203, 204)
	m := desktop(t, p, estate.Preference{})
	if m.Spec.Hypervisor != "a" || m.Spec.Because != "" || len(told(t, p, *m.Metadata.Owner)) != 0 {
		t.Errorf("on %s because %q", m.Spec.Hypervisor, m.Spec.Because)
	}
}

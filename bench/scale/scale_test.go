package main

import (
	"bytes"
	"go/parser"
	"go/token"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// steady is a world of n equal machines under a steady rate.
func steady(t *testing.T, n int, rate float64, seconds int) *world {
	t.Helper()
	c, err := load()
	if err != nil {
		t.Fatal(err)
	}
	rates := make([]float64, seconds)
	for i := range rates {
		rates[i] = rate
	}
	w := newWorld(trace{rates: rates}, regimes()[0], &corpus{speeds: []float64{1}, work: c.work}, 1)
	w.machines, w.all = nil, nil
	for range n {
		w.order(-bootTime)
	}
	return w
}

// TestTheSimulatorCallsTheProduct keeps the engine that is measured the one that
// is sold: it comes from the decide package, and nothing here learns or guards.
func TestTheSimulatorCallsTheProduct(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "engine.go", nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, im := range f.Imports {
		if im.Path.Value == `"consort.dev/consort/decide"` {
			var _ controller = newEngine(guess)
			if e := newEngine(guess); reflect.TypeOf(e.state).PkgPath() != "consort.dev/consort/decide" {
				t.Errorf("the engine's state is of %s", reflect.TypeOf(e.state).PkgPath())
			}
			return
		}
	}
	t.Error("engine.go does not import decide")
}

// TestWaitingIsWhatErlangSays compares the machine with the formula of Lee and
// Longton for M/G/4 (within a few percent of exact): Erlang's C, and half of one
// plus the squared coefficient of variation.
func TestWaitingIsWhatErlangSays(t *testing.T) {
	w := steady(t, 1, 70, 4*3600)
	w.run(fixed{1})
	got := 0.0
	n := 0.0
	w = steady(t, 1, 70, 4*3600)
	for s := range w.rates {
		w.serving = w.machines
		for _, m := range w.machines {
			m.slots[(s+spans/2)%spans] = span{}
		}
		w.second(s)
		did := w.machines[0].over(s, 1)
		got, n = got+did.time, n+float64(did.answered)
	}
	a := 70 * meanWork
	var sum, term float64 = 0, 1
	for k := range workers {
		sum += term
		term *= a / float64(k+1)
	}
	waits := term / (1 - a/workers) / (sum + term/(1-a/workers))
	cv2 := math.Exp(spread*spread) - 1
	want := meanWork + waits*meanWork/(workers-a)*(1+cv2)/2
	if mean := got / n; math.Abs(mean-want) > 0.03*want {
		t.Errorf("mean response time %.4f s, want %.4f", mean, want)
	}
}

func TestWorksHaveTheMeanTheyShould(t *testing.T) {
	sum := 0.0
	for _, v := range works() {
		sum += v / tableSize
	}
	if math.Abs(sum-meanWork) > 0.002*meanWork {
		t.Errorf("mean %.5f s, want %.5f", sum, meanWork)
	}
}

func TestTheTenthIsTheTenth(t *testing.T) {
	w := steady(t, 40, 400, 30) // hardly any waits
	w.run(fixed{40})
	want := math.Exp(math.Log(meanWork) - spread*spread/2 - 1.2816*spread) // of the lognormal
	if got := w.tenth(30, 10).Seconds(); math.Abs(got-want) > 0.05*want {
		t.Errorf("%.4f s, want %.4f", got, want)
	}
}

// TestHPAFollowsItsPaper checks the published algorithm on the examples of its
// own documentation and defaults.
func TestHPAFollowsItsPaper(t *testing.T) {
	for _, c := range []struct {
		name         string
		ready, fresh int
		use, target  float64
		want         int
	}{
		{"twice the target doubles", 4, 0, 1.0, 0.5, 8},
		{"half the target halves", 4, 0, 0.25, 0.5, 2},
		{"within a tenth nothing", 10, 0, 0.54, 0.5, 10},
		{"those that boot count as idle when adding", 4, 4, 0.8, 0.5, 8},
		{"and do not turn it round", 4, 8, 0.6, 0.5, 12},
	} {
		w := steady(t, c.ready, 0, 60)
		for range c.fresh {
			w.order(50)
		}
		for _, m := range w.machines[:c.ready] {
			for s := 30; s < 45; s++ {
				m.slots[s%spans].busy = c.use * workers
			}
		}
		if got := (&hpa{target: c.target}).want(45, w); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestHPAWaitsFiveMinutesBeforeItTakesAway(t *testing.T) {
	h := &hpa{target: 0.5}
	w := steady(t, 8, 0, 1000)
	h.past = []int{8}
	first := 0
	for now := 15; now < 600 && first == 0; now += 15 {
		if len(h.decide(now, w).gone) > 0 {
			first = now
		}
	}
	if first != 300 {
		t.Errorf("first after %d s, want 300", first)
	}
}

func TestARunCanBeRepeated(t *testing.T) {
	c, err := load()
	if err != nil {
		t.Fatal(err)
	}
	short := trace{"short", c.traces[0].rates[:600], true}
	one := newWorld(short, regimes()[2], c, 7).run(newEngine(guess))
	two := newWorld(short, regimes()[2], c, 7).run(newEngine(guess))
	if !reflect.DeepEqual(one, two) {
		t.Error("the same seed, another outcome")
	}
	if one.requests == 0 || one.hours == 0 {
		t.Errorf("nothing happened: %+v", one)
	}
}

func TestEveryRequestIsCountedOnce(t *testing.T) {
	w := steady(t, 4, 300, 60)
	w.rng = rand.New(rand.NewPCG(3, 3))
	w.arrived = 0
	seen := int64(0)
	for s := range w.rates {
		w.serving = w.machines
		for _, m := range w.machines {
			m.slots[(s+spans/2)%spans] = span{}
		}
		w.second(s)
		for _, m := range w.machines {
			seen += m.over(s, 1).answered
		}
	}
	late := int64(0)
	for _, m := range w.machines {
		for s := 59; s < 59+spans/2; s++ {
			late += m.slots[s%spans].answered
		}
	}
	if seen+late != w.arrived {
		t.Errorf("%d answered and %d still to be, of %d", seen, late, w.arrived)
	}
}

func TestTheReportTellsWhereALevelIsBroken(t *testing.T) {
	good := outcome{requests: 1000, minutes: 100, hours: 10, length: 1}
	broken := outcome{requests: 1000, bad: 20, minutes: 100, hours: 5, length: 1}
	c := &cell{trace: trace{name: "t"}, regime: regimes()[0], jobs: []*job{{name: product, got: good}, {name: half, got: broken}, {name: "hpa 30", got: good}}}
	m, _ := figures([]*cell{c})
	if m["hours_vs_best_hpa_max"] != 1 || m["cells_kept_hpa50"] != 0 || m["hours_vs_hpa50_max"] != 0 {
		t.Errorf("figures %v: a rival that breaks the level is no measure", m)
	}
	var text bytes.Buffer
	if report(&text, []*cell{c}); !strings.Contains(text.String(), "BROKEN") {
		t.Errorf("report does not say so:\n%s", &text)
	}
}

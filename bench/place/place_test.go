package main

import (
	"testing"

	"consort.dev/consort/packing"
)

// TestTheHardestMixesKeepWhatWasPublished replays the two mixes that gain least
// over the published FGD, and the one that gains most.
func TestTheHardestMixesKeepWhatWasPublished(t *testing.T) {
	for mix, atLeast := range map[string]float64{"gpushare100": -0.2, "multigpu40": -0.2, "gpuspec33": 5} {
		tr, err := readTrace("openb", mix)
		if err != nil {
			t.Fatal(err)
		}
		fgd, err := published("openb", "FGD", mix)
		if err != nil {
			t.Fatal(err)
		}
		var mine []float64
		for seed := int64(firstSeed); seed < firstSeed+seeds; seed++ {
			p, err := tr.ours(packing.Options{Seed: uint64(seed)})
			if err != nil {
				t.Fatal(err)
			}
			mine = append(mine, tr.allocated(p, tr.arrivals(seed)))
		}
		if gain := mean(mine) - mean(fgd); gain < atLeast {
			t.Errorf("%s: %.2f %% of the GPUs, %+.2f points over the published FGD, want at least %+.2f", mix, mean(mine), gain, atLeast)
		}
	}
}

func TestEveryMachineIsStoredWhereThereIsRoom(t *testing.T) {
	if _, err := durable(t.Context(), t.TempDir(), 20, 500); err != nil {
		t.Error(err)
	}
}

// TestPoliciesCountAlike has each policy churn for a moment: none may give more
// than there is.
func TestPoliciesCountAlike(t *testing.T) {
	w := newWorld(24)
	mine, err := w.packed()
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]policy{"consort": mine, "full scan": w.fullScan(), "sampling": w.sampled()} {
		c := w.churn(p, 1)
		if c.perCPUSecond <= 0 {
			t.Errorf("%s: %+v", name, c)
		}
		for i, left := range p.left() {
			for d, n := range left {
				if n < 0 {
					t.Errorf("%s: host %d has %d left of dimension %d", name, i, n, d)
				}
			}
		}
	}
}

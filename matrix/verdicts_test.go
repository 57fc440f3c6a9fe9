package matrix

import (
	"encoding/json"
	"flag"
	"math"
	"os"
	"slices"
	"testing"

	"consort.dev/consort/estate"
)

var update = flag.Bool("update", false, "write what is so into the file that the pages' rules are tested with")

// forThePages are the cases that the pages' own rules are tested with.
const forThePages = "../web/test/unit/verdicts.json"

// TestVerdictsAreThoseOfThePages compares two runs of which each pair is one
// figure, by itself and together with all others, so that a picture and "consort
// matrix" never say two things.
func TestVerdictsAreThoseOfThePages(t *testing.T) {
	b, err := os.ReadFile(forThePages)
	if err != nil {
		t.Fatal(err)
	}
	type pair struct {
		Was    []float64     `json:"was"`
		Is     []float64     `json:"is"`
		Better estate.Better `json:"better"`
		Alone  Verdict       `json:"alone"` // as Compare says it
		Among  Verdict       `json:"among"` // as Diff says it
		Chance float64       `json:"chance"`
	}
	var pairs []pair
	if err := json.Unmarshal(b, &pairs); err != nil {
		t.Fatal(err)
	}
	got := slices.Clone(pairs)
	var changes []Change
	for i, p := range pairs {
		var was, is Cell
		was.measure(p.Was)
		is.measure(p.Is)
		got[i].Alone = Compare(was, is, p.Better)
		got[i].Chance = welch(p.Was, p.Is)
		changes = append(changes, Change{Verdict: got[i].Alone, Chance: got[i].Chance})
	}
	judge(changes)
	seen := map[Verdict]bool{}
	for i, c := range changes {
		got[i].Among = c.Verdict
		seen[c.Verdict] = true
		was, is := pairs[i], got[i]
		same := was.Alone == is.Alone && was.Among == is.Among && math.Abs(was.Chance-is.Chance) <= 1e-9*is.Chance
		if !*update && !same {
			t.Errorf("%v to %v is %q, among all %q, by a chance of %g; the pages say %q, %q, %g: go test ./matrix -run Verdicts -update, and have web/src/measured.ts say so",
				was.Was, was.Is, is.Alone, is.Among, is.Chance, was.Alone, was.Among, was.Chance)
		}
	}
	for _, v := range []Verdict{Same, Improved, Worse, Missing, TooFew, Doubtful} {
		if !seen[v] {
			t.Errorf("no pair is %q", v)
		}
	}
	if *update {
		b, err := json.MarshalIndent(got, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(forThePages, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

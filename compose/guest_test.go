package compose_test

import (
	"testing"

	"consort.dev/consort/compose"
	"consort.dev/consort/estate"
)

// TestTheAccountOfARecipeIsThatOfItsGuest composes from an image that was built
// when its record did not say so.
func TestTheAccountOfARecipeIsThatOfItsGuest(t *testing.T) {
	w, _ := load(t, "")
	in := w.inventory()
	b := all[*estate.Blueprint](w)[0]
	for _, m := range in.Images {
		if m.Metadata.Name == b.Spec.Image {
			m.Spec.Recipe, m.Spec.Import = &estate.Recipe{Suite: "bookworm", User: "clerk"}, nil
			m.Status.Guest.User = ""
		}
	}
	plan, reasons := compose.Plan(in, b, nil)
	if plan.Guest.User != "clerk" {
		t.Errorf("the account is %q, want clerk of the recipe; %v", plan.Guest.User, reasons)
	}
}

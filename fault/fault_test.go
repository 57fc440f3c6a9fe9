package fault

import (
	"errors"
	"fmt"
	"testing"
)

func TestKindSurvivesWrapping(t *testing.T) {
	err := fmt.Errorf("place desk-1: %w", NoCapacity.Errorf("host %s is full", "a"))
	if !errors.Is(err, NoCapacity) || KindOf(err) != NoCapacity {
		t.Errorf("KindOf(%v) = %v, want %v", err, KindOf(err), NoCapacity)
	}
	if got, want := err.Error(), "place desk-1: host a is full"; got != want {
		t.Errorf("text = %q, want %q", got, want)
	}
}

func TestOutermostKindWins(t *testing.T) {
	err := Unavailable.Errorf("agent: %w", NotFound.Errorf("no machine"))
	if got := KindOf(err); got != Unavailable {
		t.Errorf("KindOf = %v, want %v", got, Unavailable)
	}
	if !errors.Is(err, NotFound) {
		t.Error("the inner kind is lost")
	}
}

func TestEveryKindHasANameOfItsOwn(t *testing.T) {
	seen := map[string]bool{}
	for k := Internal; k <= OutcomeUnknown; k++ {
		if k.String() == "" || seen[k.String()] {
			t.Errorf("kind %d is named %q", k, k)
		}
		seen[k.String()] = true
		if Named(k.String()) != k {
			t.Errorf("Named(%q) = %v", k, Named(k.String()))
		}
		if k.HTTPStatus() < 400 {
			t.Errorf("%v answers %d", k, k.HTTPStatus())
		}
	}
	if KindOf(errors.New("plain")) != Internal {
		t.Error("an unclassified error is not Internal")
	}
}

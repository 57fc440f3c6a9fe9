package undo

import (
	"slices"
	"testing"
)

func TestRunTakesBackTheLastStepFirstAndOnce(t *testing.T) {
	var s Stack
	var got []int
	for i := range 3 {
		s.Add(func() { got = append(got, i) })
	}
	s.Run()
	s.Run()
	if want := []int{2, 1, 0}; !slices.Equal(got, want) {
		t.Errorf("took back %v, want %v", got, want)
	}
}

func TestKeepTakesNothingBack(t *testing.T) {
	var s Stack
	s.Add(func() { t.Error("a kept step was taken back") })
	s.Keep()
	s.Run()
}

func TestAPanicDoesNotStopTheOtherSteps(t *testing.T) {
	var s Stack
	first := false
	s.Add(func() { first = true })
	s.Add(func() { panic("step") })
	func() {
		defer func() { recover() }()
		s.Run()
	}()
	if !first {
		t.Error("the first step was not taken back after the second one's panic")
	}
}

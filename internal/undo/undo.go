// Package undo takes back the steps of work that did not come to its end.
package undo

import "sync"

// Stack holds how to take back each step done so far. Its zero value is empty.
// It is meant to be run by defer:
//
//	var steps undo.Stack
//	defer steps.Run() // does nothing after steps.Keep
type Stack struct {
	mu    sync.Mutex
	steps []func()
}

// Add records how to take back the step just done.
func (s *Stack) Add(step func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, step)
}

// Keep says that the work came to its end: nothing recorded so far is taken back.
func (s *Stack) Keep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = nil
}

// Run takes back the recorded steps, the last one first, each exactly once:
// a second Run does nothing, and a step that panics does not stop the others.
func (s *Stack) Run() {
	s.mu.Lock()
	steps := s.steps
	s.steps = nil
	s.mu.Unlock()
	for _, step := range steps {
		defer step()
	}
}

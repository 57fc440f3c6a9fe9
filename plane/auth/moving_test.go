package auth_test

import (
	"context"
	"errors"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/auth"
	"consort.dev/consort/plane/store"
)

// TestAnAgentSeesAMachineOnItsWayAtOnce asks in the moment of the change, for
// which what is known in memory may be too old: an agent that is not shown a
// machine takes what it has of it for a leftover.
func TestAnAgentSeesAMachineOnItsWayAtOnce(t *testing.T) {
	w := newWorld(t, cheap)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	until(t, "rights are in memory", w.InMemory)
	ref := office(t, w)["Machine"]
	h2 := auth.Caller{Agent: "h2"}
	for range 200 {
		// What is in memory may still be the move before: a yes may be a moment too
		// old, a no never is.
		until(t, "h2 is not shown it before the move", func() bool { return errors.Is(w.Allow(ctx, h2, "get", ref), fault.NotFound) })
		for _, mv := range []*estate.Moving{{From: "h1", To: "h2"}, nil} {
			m, err := store.Modify(ctx, w.store, ref.Project, ref.Name, func(m *estate.Machine) error { m.Spec.Moving = mv; return nil })
			if err != nil {
				t.Fatal(err)
			}
			if got := w.Sees(ctx, h2, m); got != (mv != nil) {
				t.Fatalf("moving %v: h2 sees it: %v", mv, got)
			}
			if mv == nil {
				continue
			}
			if err := w.Allow(ctx, h2, "get", ref); err != nil {
				t.Fatalf("h2 does not see what moves to it: %v", err)
			}
		}
	}
}

package auth_test

import (
	"fmt"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/plane/auth"
	"golang.org/x/crypto/argon2"
)

func BenchmarkGuess(b *testing.B) {
	c := auth.DefaultCost()
	for b.Loop() {
		argon2.IDKey([]byte("guess"), make([]byte, 16), c.Rounds, c.Memory, c.Threads, 32)
	}
}

// BenchmarkAllow asks about one desktop of 10,000, as a watch does for each event.
func BenchmarkAllow(b *testing.B) {
	w := newWorld(b, cheap)
	for i := range 10_000 {
		d := &estate.Desktop{Head: head("Desktop", "office", fmt.Sprint("d", i)), Spec: estate.DesktopSpec{Person: "bob"}}
		if err := w.store.Create(b.Context(), d); err != nil {
			b.Fatal(err)
		}
	}
	go func() { _ = w.Run(b.Context()) }()
	until(b, "rights are in memory", w.InMemory)
	ref := estate.Ref{Kind: "Desktop", Project: "office", Name: "d77"}
	for b.Loop() {
		if err := w.Allow(b.Context(), auth.Caller{Person: "bob"}, "get", ref); err != nil {
			b.Fatal(err)
		}
	}
}

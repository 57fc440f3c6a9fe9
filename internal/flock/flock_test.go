package flock

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"
)

func TestAHeldFileIsNotTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Take(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Take(t.Context(), path); !errors.Is(err, ErrHeld) {
		t.Errorf("a second Take = %v, want %v", err, ErrHeld)
	}
	first.Close()
	again, err := Take(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestTakeWaitsForAMoment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Take(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() { first.Close() })
	second, err := Take(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}

func TestTakeEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Take(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Take(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("Take = %v, want %v", err, context.Canceled)
	}
}

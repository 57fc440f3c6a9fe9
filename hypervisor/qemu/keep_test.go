package qemu

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
)

// keeperLife is a process that keeps things for its machine, and is killed.
func keeperLife(dir string) error {
	ctx := context.Background()
	var h *Host
	acts := map[string]func() error{
		"open":     func() (err error) { h, err = Open(ctx, placeConfig(dir)); return err },
		"define":   func() error { return h.Define(ctx, killedDefinition(dir)) },
		"snapshot": func() error { return h.Snapshot(ctx, someID, "kept") },
		"start":    func() error { return h.Start(ctx, someID) },
		"save":     func() error { return h.Save(ctx, someID) },
		"go on":    func() error { return h.Start(ctx, someID) },
		"stop":     func() error { return h.Stop(ctx, someID, 0) },
		"revert":   func() error { return h.Revert(ctx, someID, "kept") },
		"drop":     func() error { return h.DropSnapshot(ctx, someID, "kept") },
		"shelve":   func() error { return h.Shelve(ctx, someID) },
		"return":   func() error { return h.Define(ctx, killedDefinition(dir)) },
		"again":    func() error { return h.Shelve(ctx, someID) },
		"delete":   func() error { return h.Delete(ctx, someID) },
	}
	for _, step := range keeperSteps {
		fmt.Println(step)
		if err := acts[step](); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
	}
	fmt.Println("done")
	select {}
}

var keeperSteps = strings.Split("open,define,snapshot,start,save,go on,stop,revert,drop,shelve,return,again,delete", ",")

// TestKilledAnywhereNothingIsLost kills a process that keeps snapshots, memory
// and shelved machines. The next one must find what the disk held and every
// start counted, and must leave nothing behind.
func TestKilledAnywhereNothingIsLost(t *testing.T) {
	atRandomMoments(t, keeperSteps, func(t *testing.T, step string, after time.Duration) {
		cfg := place(t)
		dir := filepath.Dir(cfg.Dir)
		base(t, cfg)
		starts := filepath.Join(dir, "starts")
		counted(t, dir, starts)
		reached := kill(t, "keeper", dir, step, after)

		h, err := Open(t.Context(), placeConfig(dir))
		if err != nil {
			t.Fatalf("open after a kill during %s: %v", reached, err)
		}
		defer h.Close()
		if reached != "delete" && reached != "done" {
			keptEverything(t, h, dir, starts, reached)
		}
		if err := h.Delete(t.Context(), someID); err != nil {
			t.Fatal(err)
		}
		nothingIsLeft(t, dir)
	})
}

func keptEverything(t *testing.T, h *Host, dir, starts, reached string) {
	t.Helper()
	ctx := t.Context()
	if err := h.Define(ctx, killedDefinition(dir)); err != nil {
		t.Fatalf("after a kill during %s: %v", reached, err)
	}
	if err := h.Start(ctx, someID); err != nil {
		t.Fatalf("after a kill during %s: %v", reached, err)
	}
	if state, err := runState(ctx, h.machines[someID].controller()); err != nil || state != "running" {
		t.Errorf("after a kill during %s the guest is %q, %v", reached, state, err)
	}
	all, err := h.List(ctx)
	text, _ := os.ReadFile(starts)
	if want := int64(strings.Count(string(text), "start")); err != nil || len(all) != 1 || all[0].Power != estate.On || all[0].Starts != want {
		t.Errorf("machines = %+v, %v; want one, on, started %d times", all, err, want)
	}
	names, err := h.Snapshots(ctx, someID)
	i := slices.Index(keeperSteps, reached)
	if must := i > slices.Index(keeperSteps, "snapshot") && i < slices.Index(keeperSteps, "drop"); err != nil || must && len(names) != 1 {
		t.Errorf("snapshots = %v, %v after a kill during %s", names, err, reached)
	}
	if err := h.Stop(ctx, someID, 0); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := h.Export(ctx, someID, "root", &got); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, estate.MiB)
	copy(want, bootSector(t))
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("after a kill during %s the disk holds something else", reached)
	}
}

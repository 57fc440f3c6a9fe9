package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"consort.dev/consort/fault"
)

const someID = "0b9c3a52-0000-4000-8000-000000000001"

func TestAnOlderEpochIsRefusedEvenAfterARestart(t *testing.T) {
	dir := t.TempDir()
	r, err := openRecords(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.see(record{ID: someID, Project: "p", Name: "m", Epoch: 7}, nil); err != nil {
		t.Fatal(err)
	}
	if r, err = openRecords(dir); err != nil {
		t.Fatal(err)
	}
	if err := r.see(record{ID: someID, Project: "p", Name: "m", Epoch: 6}, nil); !errors.Is(err, fault.Stale) {
		t.Errorf("epoch 6 after 7: %v, want %v", err, fault.Stale)
	}
	if err := r.see(record{ID: someID, Project: "p", Name: "m", Epoch: 7}, nil); err != nil {
		t.Errorf("the same epoch again: %v", err)
	}
	if err := r.see(record{ID: someID, Project: "p", Name: "m", Epoch: 8}, nil); err != nil {
		t.Errorf("a newer epoch: %v", err)
	}
}

func TestAForgottenMachineIsUnknown(t *testing.T) {
	dir := t.TempDir()
	r, err := openRecords(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.see(record{ID: someID, Epoch: 1}, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.forget(someID); err != nil {
			t.Fatal(err)
		}
	}
	if _, known := r.get(someID); known {
		t.Error("it is still known")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestADamagedRecordStopsTheAgentAndSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, someID+".json"), []byte(`{"id":"some`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := openRecords(dir)
	if !errors.Is(err, fault.Stuck) || !strings.Contains(err.Error(), "restore it from a backup") {
		t.Errorf("open = %v", err)
	}
}

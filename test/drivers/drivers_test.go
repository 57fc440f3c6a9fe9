package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/drivertest"
)

// report writes a report into the folder.
func report(t *testing.T, folder, name string, r drivertest.Report) {
	t.Helper()
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, name+".json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func result(name string, c estate.Capability, v drivertest.Verdict) drivertest.Result {
	return drivertest.Result{Promise: name, Needs: c, Verdict: v}
}

// one returns a report on one product.
func one(results ...drivertest.Result) drivertest.Report {
	return drivertest.Report{Provider: "p", Product: "P 1", Accelerator: "tcg", Promises: results,
		Capabilities: []estate.CapabilityReport{{Name: estate.CanSave, Has: true}, {Name: estate.CanSurvey, Reason: "no registry"}}}
}

func TestACapabilityIsShownByAllOfItsPromises(t *testing.T) {
	const save = estate.CanSave
	for _, c := range []struct {
		name string
		runs [][]drivertest.Result
		want bool
	}{
		{"all kept", [][]drivertest.Result{{result("A", save, drivertest.Kept), result("B", save, drivertest.Kept)}}, true},
		{"one skipped", [][]drivertest.Result{{result("A", save, drivertest.Kept), result("B", save, drivertest.Skipped)}}, false},
		{"one skipped, kept in another run", [][]drivertest.Result{
			{result("A", save, drivertest.Kept), result("B", save, drivertest.Skipped)}, {result("B", save, drivertest.Kept)}}, true},
		{"kept, broken in another run", [][]drivertest.Result{{result("A", save, drivertest.Kept)}, {result("A", save, drivertest.Broken)}}, false},
		{"one void", [][]drivertest.Result{{result("A", save, drivertest.Kept), {Promise: "B", Needs: save, Verdict: drivertest.Skipped, Void: true}}}, true},
		{"none tried", [][]drivertest.Result{{result("A", "", drivertest.Kept)}}, false},
	} {
		folder := t.TempDir()
		for i, results := range c.runs {
			report(t, folder, string(rune('a'+i)), one(results...))
		}
		all, err := read(folder)
		if err != nil || len(all) != 1 {
			t.Fatalf("%s: %d subjects, %v; want one", c.name, len(all), err)
		}
		if got := slices.Contains(all[0].kept(), save); got != c.want {
			t.Errorf("%s: shown = %v, want %v", c.name, got, c.want)
		}
	}
}

func TestABrokenPromiseFails(t *testing.T) {
	folder := t.TempDir()
	report(t, folder, "a", one(result("A", "", drivertest.Broken)))
	var out strings.Builder
	if err := run(&out, folder, false); !errors.Is(err, errBroken) || !strings.Contains(out.String(), "BROKEN A by p") {
		t.Errorf("run = %v, printed %q; want it to fail and name the promise", err, out.String())
	}
	if err := run(io.Discard, t.TempDir(), false); err == nil {
		t.Error("a folder without reports passes")
	}
}

func TestWritingKeepsTheRestOfThePage(t *testing.T) {
	t.Chdir(t.TempDir())
	for path, text := range map[string]string{
		"hypervisor/evidence.json": "[]\n",
		"docs/drivers.md":          "before\n" + beginMark + "\nold\n" + endMark + "\nafter\n",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	simulated := one(result("A", estate.CanSave, drivertest.Kept))
	simulated.Simulated, simulated.GuestType = true, "square"
	report(t, ".", "a", one(result("A", estate.CanSave, drivertest.Kept)))
	report(t, ".", "b", simulated)
	for range 2 { // twice is once
		if err := run(io.Discard, ".", true); err != nil {
			t.Fatal(err)
		}
	}
	page, err := os.ReadFile("docs/drivers.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"before\n" + beginMark, endMark + "\nafter\n", "| save-state | verified | simulated |",
		"| P 1 (simulated) |", "- p, no survey: no registry\n"} {
		if strings.Count(string(page), want) != 1 {
			t.Errorf("the page does not have this once: %q\n%s", want, page)
		}
	}
	if strings.Contains(string(page), "old") {
		t.Error("the page keeps what was there")
	}
	record, err := os.ReadFile("hypervisor/evidence.json")
	if want := `"simulated": true`; err != nil || strings.Count(string(record), want) != 1 || strings.Count(string(record), `"save-state"`) != 2 {
		t.Errorf("record = %s, %v; want two subjects, one of them simulated", record, err)
	}
}

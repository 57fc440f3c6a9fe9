package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	hvdriver "consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/drivertest"
	"consort.dev/consort/hypervisor/fakehost"
)

// always opens the same host.
func always(h hvdriver.Host) opener {
	return func(context.Context, site) (hvdriver.Host, error) { return h, nil }
}

// verified runs verify and returns what it wrote and printed.
func verified(t *testing.T, open opener, o verifyOptions) (drivertest.Report, string, error) {
	t.Helper()
	o.report = filepath.Join(t.TempDir(), "report.json")
	var out bytes.Buffer
	err := verify(t.Context(), o, open, &out)
	var r drivertest.Report
	text, readErr := os.ReadFile(o.report)
	if readErr == nil {
		readErr = json.Unmarshal(text, &r)
	}
	if readErr != nil && !errors.Is(readErr, os.ErrNotExist) {
		t.Fatal(readErr)
	}
	return r, out.String(), err
}

func results(r drivertest.Report) map[string]drivertest.Verdict {
	all := map[string]drivertest.Verdict{}
	for _, p := range r.Promises {
		all[p.Promise] = p.Verdict
	}
	return all
}

func TestVerifyReportsWhatAHostKeeps(t *testing.T) {
	h := fakehost.New(fakehost.Options{Boot: time.Hour}) // the base that verify makes holds no guest
	r, out, err := verified(t, always(h), verifyOptions{provider: "fake", memory: 64, simulated: true})
	if err != nil {
		t.Fatalf("verify = %v\n%s", err, out)
	}
	if got := results(r); got["StartsAreCounted"] != drivertest.Kept || got["ListHasWhatAnEarlierProcessDefined"] != drivertest.Kept || !r.Simulated || r.Product == "" {
		t.Errorf("report = %+v, want promises kept on a simulated product", r)
	}
	if !strings.Contains(out, "kept     StartsAreCounted\n") {
		t.Errorf("printed %q, want a line for each promise", out)
	}
	if all, err := h.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("machines left = %v, %v; want none", all, err)
	}
}

// amnesiac forgets that it started anything.
type amnesiac struct{ hvdriver.Host }

func (a amnesiac) Unwrap() hvdriver.Host { return a.Host }

func (a amnesiac) List(ctx context.Context) ([]hvdriver.Machine, error) {
	all, err := a.Host.List(ctx)
	for i := range all {
		all[i].Starts = 0
	}
	return all, err
}

func TestVerifyFailsWhereAPromiseIsBroken(t *testing.T) {
	r, out, err := verified(t, always(amnesiac{fakehost.New(fakehost.Options{})}), verifyOptions{provider: "fake", memory: 64})
	if !errors.Is(err, fault.Conflict) || results(r)["StartsAreCounted"] != drivertest.Broken || !strings.Contains(out, "broken   StartsAreCounted") {
		t.Errorf("verify = %v with %v, want StartsAreCounted broken", err, results(r)["StartsAreCounted"])
	}
}

func TestVerifyRefusesAHostInUse(t *testing.T) {
	h := fakehost.New(fakehost.Options{})
	for _, id := range []estate.MachineID{drivertest.Scratch()[0], "77777777-7777-4777-8777-777777777777"} {
		def := hvdriver.Definition{ID: id, CPUs: 1, Memory: 64 * estate.MiB, Disks: []hvdriver.Disk{{Name: "root", Size: estate.MiB}}}
		if err := h.Define(t.Context(), def); err != nil {
			t.Fatal(err)
		}
		_, _, err := verified(t, always(h), verifyOptions{provider: "fake"})
		if !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), string(id)) {
			t.Errorf("verify = %v, want a conflict that names %s", err, id)
		}
		if all, err := h.List(t.Context()); err != nil || len(all) != 1 || all[0].ID != id {
			t.Errorf("machines = %v, %v; want %s left alone", all, err, id)
		}
		if err := h.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
}

// interrupting ends the run once a machine was started.
type interrupting struct {
	hvdriver.Host
	stop context.CancelFunc
}

func (i interrupting) Start(ctx context.Context, id estate.MachineID) error {
	err := i.Host.Start(ctx, id)
	i.stop()
	return err
}

func TestAnInterruptedVerifyLeavesNothing(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	h := fakehost.New(fakehost.Options{})
	report := filepath.Join(t.TempDir(), "report.json")
	err := verify(ctx, verifyOptions{provider: "fake", report: report}, always(interrupting{h, stop}), new(bytes.Buffer))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("verify = %v, want %v", err, context.Canceled)
	}
	if all, err := h.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("machines left = %v, %v; want none", all, err)
	}
	if _, err := os.Stat(report); err == nil {
		t.Error("a run that was cut short left a report")
	}
}

func TestVerifyHoldsQEMUToItsPromises(t *testing.T) {
	if testing.Short() {
		t.Skip("starts machines")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("qemu-system-x86_64 is not installed")
	}
	r, out, err := verified(t, hypervisors["qemu"], verifyOptions{provider: "qemu", memory: 32})
	if got := results(r); err != nil || got["ImportReplaces"] != drivertest.Kept || got["ListHasWhatAnEarlierProcessDefined"] != drivertest.Kept {
		t.Errorf("verify = %v, want every promise that can be tried kept\n%s", err, out)
	}
}

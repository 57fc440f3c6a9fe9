package drivertest

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/fakehost"
)

func TestAHostCanBeCheckedOutsideOfATest(t *testing.T) {
	b, _ := bench(t)
	told := 0
	report, err := Check(t.Context(), b, func(r Result) {
		told++
		if r.Verdict != Kept {
			t.Errorf("%s: %s %s", r.Promise, r.Verdict, r.Reason)
		}
	})
	if err != nil || told != len(promises()) || len(report.Promises) != told {
		t.Errorf("Check = %d results, told of %d, %v; want %d", len(report.Promises), told, err, len(promises()))
	}
	if report.Provider != "fake" || len(report.Capabilities) == 0 {
		t.Errorf("report = %+v, want it to name the provider and its capabilities", report)
	}
}

// TestAHostThatCannotBeEmptiedKeepsNothing has a machine on the host that the suite
// does not know, and leaves alone.
func TestAHostThatCannotBeEmptiedKeepsNothing(t *testing.T) {
	b, h := bench(t)
	def := b.def("77000000-0000-4000-8000-000000000007")
	if err := h.Define(t.Context(), def); err != nil {
		t.Fatal(err)
	}
	report, err := Check(t.Context(), b, func(Result) {})
	if err == nil {
		t.Error("a host with a machine that stays passes for an empty one")
	}
	for _, r := range report.Promises {
		if r.Promise == "StartPowersOn" && r.Verdict != Broken {
			t.Errorf("%s on a host that is not empty: %s", r.Promise, r.Verdict)
		}
	}
	if all, err := h.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("List = %+v, %v; want the machine left alone", all, err)
	}
}

func TestARunWritesItsReport(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(Results, dir)
	t.Run("suite", func(t *testing.T) {
		RunShared(t, func(t *testing.T) Bench {
			b, h := bench(t)
			b.Host, b.Simulated, b.Says = fakehost.Lacking(h, estate.CanSurvey), true, ""
			return b
		})
	})
	t.Run("own", func(t *testing.T) {
		b, _ := bench(t)
		Shows(t, b, estate.CanNetwork)
	})
	files, err := filepath.Glob(filepath.Join(dir, "fake-*.json"))
	if err != nil || len(files) != 2 {
		t.Fatalf("reports = %q, %v; want two", files, err)
	}
	got := map[string]Result{}
	simulated := 0
	for _, file := range files {
		var r Report
		data, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(data, &r)
		}
		if err != nil {
			t.Fatal(err)
		}
		if r.Simulated {
			simulated++
		}
		for _, p := range r.Promises {
			got[p.Promise] = p
		}
	}
	if simulated != 1 || len(got) != len(promises())+1 {
		t.Errorf("%d results, %d runs simulated; want %d and one", len(got), simulated, len(promises())+1)
	}
	for name, want := range map[string]Result{
		"StartPowersOn":               {Promise: "StartPowersOn", Verdict: Kept},
		"SurveyIsInOrderOfID":         {Promise: "SurveyIsInOrderOfID", Needs: estate.CanSurvey, Verdict: Skipped, Reason: `the host does not declare "survey": taken away by a test`},
		"ConsoleHasWhatTheGuestSays":  {Promise: "ConsoleHasWhatTheGuestSays", Needs: estate.CanConsole, Verdict: Skipped, Reason: "it is not known what the base says on its console"},
		"TestARunWritesItsReport/own": {Promise: "TestARunWritesItsReport/own", Needs: estate.CanNetwork, Verdict: Kept},
	} {
		if got[name] != want {
			t.Errorf("%s = %+v, want %+v", name, got[name], want)
		}
	}
}

// sticky cannot delete a machine that was started on it.
type sticky struct{ *fakehost.Host }

func (s sticky) Delete(ctx context.Context, id estate.MachineID) error {
	if all, _ := s.List(ctx); len(all) > 0 && all[0].Starts > 0 {
		return fault.Stuck.Errorf("machine %s cannot be deleted", id)
	}
	return s.Host.Delete(ctx, id)
}

func TestASharedHostThatCannotBeEmptiedIsReplaced(t *testing.T) {
	t.Setenv(Results, "") // these two are no promises of drivers
	opened := 0
	asks := promise{name: "asks", asks: true, keeps: func(ctx context.Context, b Bench) error { return steps(b.define(ctx, first), b.start(ctx, first)) }}
	acts := promise{name: "acts", keeps: func(ctx context.Context, b Bench) error {
		return steps(b.define(ctx, first), b.is(ctx, first, estate.Off, 0))
	}}
	shared(t, func(t *testing.T) Bench {
		opened++
		b, h := bench(t)
		b.Host = sticky{h}
		b.Reopen = func() (driver.Host, error) { return b.Host, nil }
		return b
	}, []promise{acts, asks, acts})
	if opened != 2 {
		t.Errorf("%d hosts were opened, want 2", opened)
	}
}

func TestAPromiseSaysNothingOfSomeHosts(t *testing.T) {
	b, h := bench(t)
	p := promise{name: "p", also: estate.CanSurvey, keeps: func(context.Context, Bench) error { return nil }}
	if r := p.try(t.Context(), b); r.Verdict != Kept || r.Void {
		t.Errorf("of a host that has it: %+v, want it kept", r)
	}
	b.Host = fakehost.Lacking(h, estate.CanSurvey)
	if r := p.try(t.Context(), b); r.Verdict != Skipped || !r.Void {
		t.Errorf("of a host without: %+v, want it skipped and void", r)
	}
	p.with, p.also = []estate.Capability{estate.CanSurvey}, ""
	if r := p.try(t.Context(), b); r.Verdict != Skipped || r.Void {
		t.Errorf("that takes it to be seen: %+v, want it skipped and not void", r)
	}
}

// A machine whose emulator crashed is tried once more, and never a third time.
func TestAMachineThatWentOffByItselfIsTriedTwice(t *testing.T) {
	b, h := bench(t)
	b.Boot = time.Minute
	crashes, tries := 0, 0
	p := promise{name: "BootsAGuest", keeps: func(ctx context.Context, b Bench) error {
		tries++
		err := steps(b.define(ctx, first), b.start(ctx, first))
		if err == nil && tries <= crashes {
			err = h.Stop(ctx, first, 0) // nobody asked for that
		}
		if err == nil {
			err = b.booted(ctx, first)()
		}
		return err
	}}
	for crashes = range 3 {
		if err := b.clean(t.Context()); err != nil {
			t.Fatal(err)
		}
		tries = 0
		r := p.try(t.Context(), b)
		want, verdict := min(crashes+1, 2), Kept
		if crashes == 2 {
			verdict = Broken
		}
		if r.Verdict != verdict || tries != want || (crashes == 0) != (r.Reason == "") {
			t.Errorf("%d crashes: %d tries, %+v; want %d tries, %s", crashes, tries, r, want, verdict)
		}
	}
}

package flaky_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/drivertest"
	"consort.dev/consort/hypervisor/fakehost"
	"consort.dev/consort/hypervisor/flaky"
)

func bench(t *testing.T, opt flaky.Options, lacks ...estate.Capability) drivertest.Bench {
	dir := t.TempDir()
	path := filepath.Join(dir, "base")
	if err := os.WriteFile(path, []byte("a base"), 0o444); err != nil {
		t.Fatal(err)
	}
	site := new(fakehost.Site)
	inner := fakehost.New(fakehost.Options{Site: site})
	h := flaky.New(fakehost.Lacking(inner, lacks...), opt)
	return drivertest.Bench{
		Host: h, Base: driver.Content{Path: path, Format: estate.Raw, Size: 512}, Raw: []byte("a base"), Dir: dir,
		OS: true, Simulated: true, Says: fakehost.Greeting, Blind: inner.Blind, Stranger: inner.Strangers(dir),
		NIC:    func() (driver.NIC, error) { return driver.NIC{MAC: "02:00:00:00:00:01", Name: "lan"}, nil },
		Other:  flaky.New(fakehost.New(fakehost.Options{Site: site}), opt),
		Reopen: func() (driver.Host, error) { return h, nil },
	}
}

func TestConformanceWhenNothingIsLost(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Bench { return bench(t, flaky.Options{Delay: time.Millisecond}) })
}

func TestAbilitiesAreThoseOfTheDriverInside(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Bench { return bench(t, flaky.Options{}, estate.CanDisplay) })
}

// TestCallersConverge has the concrete host, which looks up lost replies and
// asks busy drivers again, and a caller that repeats what is unavailable, bring
// a machine through its life on a driver that goes wrong in half of all calls.
// However much is lost, the machine is started as often as was asked for.
func TestCallersConverge(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { life(t, seed) })
		})
	}
}

func life(t *testing.T, seed uint64) {
	ctx := t.Context()
	inner := fakehost.New(fakehost.Options{})
	drv := flaky.New(inner, flaky.Options{Seed: seed, Fails: 15, Loses: 20, Busy: 15, Delay: 50 * time.Millisecond})
	h, err := hypervisor.Open(ctx, "shaky", drv)
	if err != nil {
		t.Fatal(err)
	}
	id := estate.MachineID("0c9e3c54-1111-4222-8333-444455556666")
	def := driver.Definition{ID: id, Name: "m", CPUs: 1, Memory: 16 * estate.MiB,
		Disks: []driver.Disk{{Name: "root", Base: &driver.Content{Path: "/base", Format: estate.Raw, Size: 512}}}}
	extra := driver.Disk{Name: "extra", ReadOnly: true, File: &driver.Content{Path: "/extra", Format: estate.Raw, Size: 512}}
	until := func(what string, do func() error) {
		for range 100 {
			err := do()
			if err == nil {
				return
			}
			if !fault.KindOf(err).Temporary() {
				t.Fatalf("%s: %v", what, err)
			}
		}
		t.Fatalf("%s does not converge", what)
	}

	for round := range int64(2) {
		snapshot, outcomeLost := fmt.Sprint("s", round), false
		until("define", func() error { return h.Define(ctx, def) })
		until("start", func() error { return h.Start(ctx, id) })
		until("attach", func() error { return h.Attach(ctx, id, extra) })
		until("detach", func() error { return h.Detach(ctx, id, "extra") })
		until("save", func() error { return h.Save(ctx, id) })
		until("stop", func() error { return h.Stop(ctx, id, time.Second) })
		until("snapshot", func() error {
			err := h.Snapshot(ctx, id, snapshot)
			if errors.Is(err, fault.Exists) && outcomeLost {
				return nil // the one before it, of which we could not learn
			}
			outcomeLost = outcomeLost || errors.Is(err, fault.OutcomeUnknown)
			return err
		})
		until("revert", func() error { return h.Revert(ctx, id, snapshot) })
		until("shelve", func() error { return h.Shelve(ctx, id) })
		until("define again", func() error { return h.Define(ctx, def) })
		all, err := inner.List(ctx)
		if err != nil || len(all) != 1 || all[0].Power != estate.Off || all[0].Starts != round+1 {
			t.Fatalf("round %d: %+v, %v; want one machine, off, after %d starts", round, all, err, round+1)
		}
		if names, err := inner.Snapshots(ctx, id); err != nil || len(names) != int(round)+1 {
			t.Fatalf("round %d: snapshots %q, %v; want %d", round, names, err, round+1)
		}
	}
	until("delete", func() error { return h.Delete(ctx, id) })
	if all, err := inner.List(ctx); err != nil || len(all) != 0 {
		t.Errorf("after delete: %+v, %v; want nothing", all, err)
	}
}

func TestALostReplyFollowsItsEffect(t *testing.T) {
	inner := fakehost.New(fakehost.Options{})
	h := flaky.New(inner, flaky.Options{Loses: 100})
	err := h.Define(context.Background(), driver.Definition{ID: "m"})
	all, _ := inner.List(context.Background())
	if !errors.Is(err, fault.OutcomeUnknown) || len(all) != 1 {
		t.Errorf("Define = %v with %d machines, want %v with one", err, len(all), fault.OutcomeUnknown)
	}
}

func TestAFailedCallHasNoEffect(t *testing.T) {
	inner := fakehost.New(fakehost.Options{})
	h := flaky.New(inner, flaky.Options{Fails: 100})
	err := h.Define(context.Background(), driver.Definition{ID: "m"})
	all, _ := inner.List(context.Background())
	if !errors.Is(err, fault.Unavailable) || len(all) != 0 {
		t.Errorf("Define = %v with %d machines, want %v with none", err, len(all), fault.Unavailable)
	}
}

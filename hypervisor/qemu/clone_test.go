package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

const cloneID = estate.MachineID("0c9e3c54-1111-4222-8333-444455556677")

// cloneOf is a clone of a machine with that definition.
func cloneOf(def driver.Definition) driver.Definition {
	def.ID, def.Name, def.Template = cloneID, "a clone", "a"
	return def
}

// frozen makes template a and starts a clone of it.
func frozen(t *testing.T, h *Host, def driver.Definition) {
	t.Helper()
	ctx := t.Context()
	begin := time.Now()
	if err := errors.Join(h.Define(ctx, def), h.Start(ctx, def.ID), h.Freeze(ctx, def.ID, "a")); err != nil {
		t.Fatal(err)
	}
	froze := time.Now()
	if err := h.Define(ctx, cloneOf(def)); err != nil {
		t.Fatal(err)
	}
	defined := time.Now()
	if err := h.Start(ctx, cloneID); err != nil {
		t.Fatal(err)
	}
	t.Logf("template in %v, clone defined in %v, running in %v", froze.Sub(begin), defined.Sub(froze), time.Since(defined))
}

func TestAClonesProcessIsConfinedAsAnyOther(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives machines users of their own")
	}
	cfg := place(t)
	h := open(t, cfg)
	frozen(t, h, definition(base(t, cfg)))
	pid, err := h.machines[cloneID].pid()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{fmt.Sprintf("Uid:\t%d\t", 1<<30), "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("status of the process lacks %q:\n%s", want, b)
		}
	}
	for _, name := range []string{"memory", "state", "root.qcow2"} {
		info, err := os.Stat(filepath.Join(h.templateDir("a"), name))
		if err != nil || info.Mode().Perm()&0o222 != 0 {
			t.Errorf("%s of the template is %v, %v; nobody may write to it", name, info.Mode(), err)
		}
	}
}

func TestATemplateOfAnotherQEMUIsRefused(t *testing.T) {
	cfg := place(t)
	h := open(t, cfg)
	def := definition(base(t, cfg))
	frozen(t, h, def)
	if err := h.Delete(t.Context(), cloneID); err != nil {
		t.Fatal(err)
	}
	before := cloneOf(def)
	if err := h.Define(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	h.desc.Product = "QEMU emulator version 99"
	all, err := h.Templates(t.Context())
	if err != nil || len(all) != 1 || !strings.Contains(all[0].Stale, "version 99") {
		t.Errorf("Templates = %+v, %v; want one that says why it is stale", all, err)
	}
	after := before
	after.ID = someID
	if err := h.Define(t.Context(), after); !errors.Is(err, fault.Unsupported) {
		t.Errorf("Define = %v, want %v", err, fault.Unsupported)
	}
	if err := h.Start(t.Context(), cloneID); !errors.Is(err, fault.Unsupported) {
		t.Errorf("Start of one defined before = %v, want %v", err, fault.Unsupported)
	}
}

// TestACloneIsSavedAndGoesOn has a clone saved as any machine is, since its
// memory is another's in part.
func TestACloneIsSavedAndGoesOn(t *testing.T) {
	cfg := place(t)
	h := open(t, cfg)
	frozen(t, h, definition(base(t, cfg)))
	ctx := t.Context()
	if err := errors.Join(h.DropTemplate(ctx, "a"), h.Save(ctx, cloneID), h.Start(ctx, cloneID)); err != nil {
		t.Fatal(err)
	}
	if state, err := runState(ctx, h.machines[cloneID].controller()); err != nil || state != "running" {
		t.Errorf("the guest is %q, %v; want it running", state, err)
	}
	for _, name := range []string{"memory", "state"} {
		if _, err := os.Stat(filepath.Join(h.machines[cloneID].dir, name)); err == nil {
			t.Errorf("%s is kept, and nothing needs it any more", name)
		}
	}
}

var clonerSteps = strings.Split("open,define,start,freeze,clone,begin,pause,go on,drop,stop,delete", ",")

// clonerLife is a process that makes a template and a clone, and is killed.
func clonerLife(dir string) error {
	ctx := context.Background()
	var h *Host
	def := killedDefinition(dir)
	acts := map[string]func() error{
		"open":   func() (err error) { h, err = Open(ctx, placeConfig(dir)); return err },
		"define": func() error { return h.Define(ctx, def) },
		"start":  func() error { return h.Start(ctx, someID) },
		"freeze": func() error { return h.Freeze(ctx, someID, "a") },
		"clone":  func() error { return h.Define(ctx, cloneOf(def)) },
		"begin":  func() error { return h.Start(ctx, cloneID) },
		"pause":  func() error { return h.Pause(ctx, cloneID) },
		"go on":  func() error { return h.Start(ctx, cloneID) },
		"drop":   func() error { return h.DropTemplate(ctx, "a") },
		"stop":   func() error { return h.Stop(ctx, cloneID, 0) },
		"delete": func() error { return h.Delete(ctx, cloneID) },
	}
	for _, step := range clonerSteps {
		fmt.Println(step)
		if err := acts[step](); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
	}
	fmt.Println("done")
	select {}
}

// TestKilledAnywhereTemplatesAndClonesAreWhole kills a process that makes them.
// The next one must find a machine, or a template from which a clone goes on,
// and must leave nothing behind.
func TestKilledAnywhereTemplatesAndClonesAreWhole(t *testing.T) {
	atRandomMoments(t, clonerSteps, func(t *testing.T, step string, after time.Duration) {
		cfg := place(t)
		dir := filepath.Dir(cfg.Dir)
		base(t, cfg)
		starts := filepath.Join(dir, "starts")
		counted(t, dir, starts)
		reached := kill(t, "cloner", dir, step, after)

		h, err := Open(t.Context(), placeConfig(dir))
		if err != nil {
			t.Fatalf("open after a kill during %s: %v", reached, err)
		}
		defer h.Close()
		if at := slices.Index(clonerSteps, reached); at >= 0 && at < slices.Index(clonerSteps, "drop") {
			clonesAgain(t, h, dir, reached)
		}
		ctx := t.Context()
		if err := errors.Join(h.Delete(ctx, someID), h.Delete(ctx, cloneID), h.DropTemplate(ctx, "a")); err != nil {
			t.Fatal(err)
		}
		nothingIsLeft(t, dir)
	})
}

// clonesAgain brings whatever is there to where a clone runs.
func clonesAgain(t *testing.T, h *Host, dir, reached string) {
	t.Helper()
	ctx, def := t.Context(), killedDefinition(dir)
	all, err := h.Templates(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		if err := errors.Join(h.Define(ctx, def), h.Start(ctx, someID), h.Freeze(ctx, someID, "a")); err != nil {
			t.Fatalf("make the template after a kill during %s: %v", reached, err)
		}
	}
	if err := errors.Join(h.Define(ctx, cloneOf(def)), h.Start(ctx, cloneID)); err != nil {
		t.Fatalf("clone after a kill during %s: %v", reached, err)
	}
	if state, err := runState(ctx, h.machines[cloneID].controller()); err != nil || state != "running" {
		t.Errorf("after a kill during %s the clone is %q, %v", reached, state, err)
	}
	ms, err := h.List(ctx)
	if err != nil || len(ms) != 1 || ms[0].ID != cloneID || ms[0].Power != estate.On || ms[0].Starts != 1 {
		t.Errorf("after a kill during %s: %+v, %v; want one clone, on, started once", reached, ms, err)
	}
}

// TestNothingIsFoldedIntoATemplatesLayer looks at what dropping snapshots of a
// clone would fold together.
func TestNothingIsFoldedIntoATemplatesLayer(t *testing.T) {
	top, own, theirs := layer{File: "top"}, layer{File: "own"}, layer{File: "theirs", Shared: true}
	upper, below, found := mergeable([]copied{stack([]layer{top, own, theirs}, true)})
	if !found || upper != top || below.File != "own" {
		t.Errorf("fold %v into %v, %v; want the clone's own layers folded", upper, below, found)
	}
	if upper, below, found := mergeable([]copied{stack([]layer{own, theirs}, true)}); found {
		t.Errorf("fold %v into %v, which other clones stand on", upper, below)
	}
}

// TestACloneGetsItsCardWhenItJoins looks from QEMU's side: there is no card
// before, there is one after, and a clone that was saved goes on with it.
func TestACloneGetsItsCardWhenItJoins(t *testing.T) {
	cfg := place(t)
	h := open(t, cfg)
	ctx, def := t.Context(), definition(base(t, cfg))
	if err := errors.Join(h.Define(ctx, def), h.Start(ctx, def.ID), h.Freeze(ctx, def.ID, "a")); err != nil {
		t.Fatal(err)
	}
	nic, err := socketCard(t, filepath.Dir(cfg.Dir))
	if err != nil {
		t.Fatal(err)
	}
	clone := cloneOf(def)
	clone.NICs = []driver.NIC{nic}
	if err := errors.Join(h.Define(ctx, clone), h.Start(ctx, cloneID)); err != nil {
		t.Fatal(err)
	}
	has := func(want bool, when string) {
		t.Helper()
		got, err := hasDevice(ctx, h.machines[cloneID].controller(), cardName(0))
		if err != nil || got != want {
			t.Errorf("%s it has a card: %v, %v; want %v", when, got, err, want)
		}
	}
	has(false, "before it joins")
	if err := errors.Join(h.Join(ctx, cloneID), h.Join(ctx, cloneID)); err != nil {
		t.Fatal(err)
	}
	has(true, "after it joined")
	extra := driver.Disk{Name: "extra", File: &driver.Content{Path: def.Disks[0].Base.Path, Format: estate.Raw, Size: 512}, ReadOnly: true}
	if err := errors.Join(h.Attach(ctx, cloneID, extra), h.Save(ctx, cloneID), h.Start(ctx, cloneID)); err != nil {
		t.Fatal(err)
	}
	has(true, "after it was saved and started")
	if err := errors.Join(h.Stop(ctx, cloneID, 0), h.Start(ctx, cloneID)); err != nil {
		t.Fatal(err)
	}
	if r := h.machines[cloneID].record(); r.Apart || r.Joined != nil {
		t.Errorf("booted, it is said to be without its card: %+v", r)
	}
}

// TestACloneHasTheCardOfItsTemplate looks from QEMU's side: the first card is the
// template's, which nothing plugs in, and the second comes when it joins. Of the
// first one's link only a guest can tell (drivertest).
func TestACloneHasTheCardOfItsTemplate(t *testing.T) {
	cfg := place(t)
	h := open(t, cfg)
	ctx, def := t.Context(), definition(base(t, cfg))
	def.NICs = []driver.NIC{{MAC: "02:00:00:00:00:99", Unplugged: true}}
	if err := errors.Join(h.Define(ctx, def), h.Start(ctx, def.ID), h.Freeze(ctx, def.ID, "a")); err != nil {
		t.Fatal(err)
	}
	one, err := socketCard(t, filepath.Dir(cfg.Dir))
	if err != nil {
		t.Fatal(err)
	}
	two := one
	two.MAC = "02:00:00:00:00:98"
	clone := cloneOf(def)
	clone.NICs = []driver.NIC{one, two}
	fewer := cloneOf(def)
	fewer.NICs = nil
	if err := h.Define(ctx, fewer); !errors.Is(err, fault.Invalid) {
		t.Errorf("a clone with a card less is defined: %v", err)
	}
	if err := errors.Join(h.Define(ctx, clone), h.Start(ctx, cloneID)); err != nil {
		t.Fatal(err)
	}
	has := func(card int, want bool, when string) {
		t.Helper()
		got, err := hasDevice(ctx, h.machines[cloneID].controller(), cardName(card))
		if err != nil || got != want {
			t.Errorf("%s card %d is plugged in: %v, %v; want %v", when, card, got, err, want)
		}
	}
	has(1, false, "before it joins")
	if err := errors.Join(h.Join(ctx, cloneID), h.Join(ctx, cloneID)); err != nil {
		t.Fatal(err)
	}
	has(0, false, "after it joined")
	has(1, true, "after it joined")
	if err := errors.Join(h.Save(ctx, cloneID), h.Start(ctx, cloneID)); err != nil {
		t.Fatal(err)
	}
	has(1, true, "after it was saved and started")
}

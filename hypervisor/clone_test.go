package hypervisor_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/fakehost"
)

func TestOnlyAHostThatClonesTakesATemplate(t *testing.T) {
	def := good()
	def.Template = "office"
	cold := open(t, fakehost.Lacking(fakehost.New(fakehost.Options{}), estate.CanInstant))
	if err := cold.Define(t.Context(), def); !errors.Is(err, fault.Unsupported) {
		t.Errorf("Define on a host without templates = %v, want %v", err, fault.Unsupported)
	}
	h := open(t, fakehost.New(fakehost.Options{}))
	if err := h.Define(t.Context(), def); !errors.Is(err, fault.NotFound) {
		t.Errorf("Define from a template that is not there = %v, want %v", err, fault.NotFound)
	}
	def.Template = "../office"
	if err := h.Define(t.Context(), def); !errors.Is(err, fault.Invalid) {
		t.Errorf("Define from %q = %v, want %v", def.Template, err, fault.Invalid)
	}
}

func TestATemplateIsMadeFoundAndDropped(t *testing.T) {
	h, ctx := open(t, fakehost.New(fakehost.Options{})), t.Context()
	if err := errors.Join(h.Define(ctx, good()), h.Start(ctx, id)); err != nil {
		t.Fatal(err)
	}
	if err := h.Freeze(ctx, id, "Office 1"); !errors.Is(err, fault.Invalid) {
		t.Errorf("Freeze under a name with a space = %v, want %v", err, fault.Invalid)
	}
	if err := h.Freeze(ctx, id, "office"); err != nil {
		t.Fatal(err)
	}
	if found, err := h.Template(ctx, "office"); err != nil || !found.Def.Equal(good()) {
		t.Errorf("Template = %+v, %v; want that of the machine", found, err)
	}
	if err := h.DropTemplate(ctx, "office"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Template(ctx, "office"); !errors.Is(err, fault.NotFound) {
		t.Errorf("Template after it was dropped = %v, want %v", err, fault.NotFound)
	}
}

// pauses is a host that loses the reply to each Pause.
type pauses struct{ *fakehost.Host }

func (p pauses) Pause(ctx context.Context, id estate.MachineID) error {
	if err := p.Host.Pause(ctx, id); err != nil {
		return err
	}
	return fault.OutcomeUnknown.Errorf("the reply was lost")
}

func TestALostPauseIsLookedUp(t *testing.T) {
	h, ctx := open(t, pauses{fakehost.New(fakehost.Options{})}), t.Context()
	if err := errors.Join(h.Define(ctx, good()), h.Start(ctx, id), h.Pause(ctx, id)); err != nil {
		t.Fatal(err)
	}
	m, err := h.Get(ctx, id)
	if err != nil || m.Power != estate.Paused {
		t.Errorf("it is %s, %v; want %s", m.Power, err, estate.Paused)
	}
	if err := h.Start(ctx, id); err != nil {
		t.Fatal(err)
	}
	if m, err = h.Get(ctx, id); err != nil || m.Power != estate.On || m.Starts != 1 {
		t.Errorf("it is %s after %d starts, %v; want it to go on, uncounted", m.Power, m.Starts, err)
	}
}

// TestHardwareIsWhatACloneShares goes through what makes a definition another.
func TestHardwareIsWhatACloneShares(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*driver.Definition)
		want   bool
	}{
		"who it is":    {func(d *driver.Definition) { d.ID, d.Name, d.Template = "x", "other", "office" }, true},
		"its networks": {func(d *driver.Definition) { d.NICs = []driver.NIC{{MAC: "02:00:00:00:00:01", Tap: "t"}} }, true},
		"a card less":  {func(d *driver.Definition) { d.NICs = nil }, false},
		"its memory":   {func(d *driver.Definition) { d.Memory *= 2 }, false},
		"its screen":   {func(d *driver.Definition) { d.Screen = estate.Screen{Width: 800, Height: 600} }, false},
		"its disks":    {func(d *driver.Definition) { d.Disks = append(d.Disks, driver.Disk{Name: "data", Size: 512}) }, false},
	} {
		d, template := good(), good()
		template.NICs = []driver.NIC{{MAC: "02:00:00:00:00:09", Unplugged: true}}
		d.NICs = slices.Clone(template.NICs)
		c.change(&d)
		if got := d.Clones(template); got != c.want {
			t.Errorf("a machine that differs by %s clones: %v, want %v", what, got, c.want)
		}
	}
}

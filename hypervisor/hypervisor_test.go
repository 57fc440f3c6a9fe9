package hypervisor_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/fakehost"
)

const id = estate.MachineID("0c9e3c54-1111-4222-8333-444455556666")

func good() driver.Definition {
	return driver.Definition{ID: id, Name: "desk", CPUs: 1, Memory: 32 * estate.MiB,
		Disks: []driver.Disk{{Name: "root", Base: &driver.Content{Path: "/base", Format: estate.Raw, Size: 512}}}}
}

func open(t *testing.T, drv driver.Host) *hypervisor.Host {
	t.Helper()
	h, err := hypervisor.Open(t.Context(), "h1", drv)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestADefinitionThatCanMakeNoMachineIsInvalid(t *testing.T) {
	h := open(t, fakehost.New(fakehost.Options{}))
	content := good().Disks[0].Base
	for _, c := range []struct {
		want  string
		spoil func(*driver.Definition)
	}{
		{"must be a UUID", func(d *driver.Definition) { d.ID = "../../etc" }},
		{"control characters", func(d *driver.Definition) { d.Name = "a\x00b" }},
		{"0 CPUs", func(d *driver.Definition) { d.CPUs = 0 }},
		{"memory of 8Mi", func(d *driver.Definition) { d.Memory = 8 * estate.MiB }},
		{"neither bios nor uefi", func(d *driver.Definition) { d.Firmware = "coreboot" }},
		{"screen of 1x1", func(d *driver.Definition) { d.Screen = estate.Screen{Width: 1, Height: 1} }},
		{"a disk to boot from", func(d *driver.Definition) { d.Disks = nil }},
		{"two disks are named", func(d *driver.Definition) { d.Disks = append(d.Disks, d.Disks[0]) }},
		{"does not name a disk", func(d *driver.Definition) { d.Disks[0].Name = "root,readonly=on" }},
		{"does not name a disk", func(d *driver.Definition) { d.Disks[0].Name = strings.Repeat("a", 21) }},
		{"both a base and a file", func(d *driver.Definition) { d.Disks[0].File = content }},
		{"is empty and has no size", func(d *driver.Definition) { d.Disks[0].Base = nil }},
		{"whole number of sectors", func(d *driver.Definition) { d.Disks[0].Size = 1000 }},
		{"not a clean absolute path", func(d *driver.Definition) {
			d.Disks[0].Base = &driver.Content{Path: "json:{}", Format: estate.Raw, Size: 512}
		}},
		{"not a disk format", func(d *driver.Definition) { d.Disks[0].Base = &driver.Content{Path: "/b", Format: "vvfat", Size: 512} }},
		{"is not recorded", func(d *driver.Definition) { d.Disks[0].Base = &driver.Content{Path: "/b", Format: estate.Raw} }},
		{"is not a MAC address", func(d *driver.Definition) { d.NICs = []driver.NIC{{MAC: "02", Tap: "t"}} }},
		{"multicast", func(d *driver.Definition) { d.NICs = []driver.NIC{{MAC: "03:00:00:00:00:01", Tap: "t"}} }},
		{"exactly one of tap, bridge, name and socket", func(d *driver.Definition) { d.NICs = []driver.NIC{{MAC: "02:00:00:00:00:01"}} }},
	} {
		def := good()
		c.spoil(&def)
		err := h.Define(t.Context(), def)
		if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Define = %v, want one that is invalid and says %q", err, c.want)
		}
	}
	if all, err := h.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("machines = %v, %v; want none", all, err)
	}
}

func TestAnErrorSaysWhatWasTriedWhere(t *testing.T) {
	h := open(t, fakehost.New(fakehost.Options{}))
	if err := errors.Join(h.Define(t.Context(), good())); err != nil {
		t.Fatal(err)
	}
	_, err := h.Display(t.Context(), id)
	want := "hypervisor h1: open the display of machine " + string(id) + ": machine " + string(id) + " is off; start it first"
	if !errors.Is(err, fault.Conflict) || err.Error() != want {
		t.Errorf("error = %v\nwant    %v", err, want)
	}
}

func TestAnAbilityThatIsNotThereIsUnsupported(t *testing.T) {
	h := open(t, fakehost.Lacking(fakehost.New(fakehost.Options{}), estate.CanDisplay))
	_, err := h.Display(t.Context(), id)
	if !errors.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "taken away by a test") {
		t.Errorf("error = %v, want one that is unsupported and gives the reason", err)
	}
}

// slow is busy for some calls, then answers.
type slow struct {
	driver.Host
	busy int
}

func (s *slow) Define(ctx context.Context, def driver.Definition) error {
	if s.busy--; s.busy >= 0 {
		return fault.Busy.Errorf("busy")
	}
	return s.Host.Define(ctx, def)
}

func TestBusyDriversAreAskedAgain(t *testing.T) {
	for _, c := range []struct {
		busy int
		want bool
	}{{0, true}, {3, true}, {6, true}, {7, false}} {
		synctest.Test(t, func(t *testing.T) {
			h := open(t, &slow{fakehost.New(fakehost.Options{}), c.busy})
			err := h.Define(t.Context(), good())
			if (err == nil) != c.want || err != nil && !errors.Is(err, fault.Busy) {
				t.Errorf("busy %d times: Define = %v, want success %v", c.busy, err, c.want)
			}
		})
	}
}

// stuck never answers.
type stuck struct{ driver.Host }

func (stuck) Define(ctx context.Context, _ driver.Definition) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestADriverThatNeverAnswersLeavesTheOutcomeUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t, stuck{fakehost.New(fakehost.Options{})})
		if err := h.Define(t.Context(), good()); !errors.Is(err, fault.OutcomeUnknown) {
			t.Errorf("Define = %v, want %v", err, fault.OutcomeUnknown)
		}
	})
}

// forgetful starts machines and loses every reply.
type forgetful struct {
	driver.Host
	starts int
}

func (f *forgetful) Start(ctx context.Context, id estate.MachineID) error {
	f.starts++
	return errors.Join(fault.OutcomeUnknown.Errorf("lost"), f.Host.Start(ctx, id))
}

func TestALostReplyIsLookedUpBeforeAnythingIsRepeated(t *testing.T) {
	drv := &forgetful{Host: fakehost.New(fakehost.Options{})}
	h := open(t, drv)
	if err := errors.Join(h.Define(t.Context(), good()), h.Start(t.Context(), id)); err != nil {
		t.Fatal(err)
	}
	if drv.starts != 1 {
		t.Errorf("the driver was told to start %d times, want once", drv.starts)
	}
}

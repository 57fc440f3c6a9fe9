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
		{"exactly one of tap, bridge, name and socket, or to be unplugged", func(d *driver.Definition) { d.NICs = []driver.NIC{{MAC: "02:00:00:00:00:01"}} }},
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

// lost loses the replies of some calls after they were done, and the look-ups
// that follow a few times.
type lost struct {
	*fakehost.Host
	calls   map[string]int
	replies int // to lose
	lists   int // to fail once a reply was lost
}

func (l *lost) lose(name string, err error) error {
	l.calls[name]++
	if l.replies--; l.replies >= 0 && err == nil {
		return fault.OutcomeUnknown.Errorf("lost")
	}
	return err
}

func (l *lost) List(ctx context.Context) ([]driver.Machine, error) {
	if len(l.calls) > 0 {
		if l.lists--; l.lists >= 0 {
			return nil, fault.Unavailable.Errorf("not now")
		}
	}
	return l.Host.List(ctx)
}

func (l *lost) Snapshots(ctx context.Context, id estate.MachineID) ([]string, error) {
	if l.lists--; l.lists >= 0 {
		return nil, fault.Unavailable.Errorf("not now")
	}
	return l.Host.Snapshots(ctx, id)
}

func (l *lost) Shelve(ctx context.Context, id estate.MachineID) error {
	return l.lose("Shelve", l.Host.Shelve(ctx, id))
}

func (l *lost) Depart(ctx context.Context, id estate.MachineID, at string) error {
	return l.lose("Depart", l.Host.Depart(ctx, id, at))
}

func (l *lost) Snapshot(ctx context.Context, id estate.MachineID, name string) error {
	return l.lose("Snapshot", l.Host.Snapshot(ctx, id, name))
}

func (l *lost) Save(ctx context.Context, id estate.MachineID) error {
	return l.lose("Save", l.Host.Save(ctx, id))
}

// losing returns a host with one machine, whose driver loses replies.
func losing(t *testing.T, opt fakehost.Options, replies, lists int) (*hypervisor.Host, *lost) {
	t.Helper()
	drv := &lost{Host: fakehost.New(opt), calls: map[string]int{}}
	h := open(t, drv)
	if err := h.Define(t.Context(), good()); err != nil {
		t.Fatal(err)
	}
	drv.replies, drv.lists = replies, lists
	return h, drv
}

func TestADepartureIsNeverRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site := new(fakehost.Site)
		h, drv := losing(t, fakehost.Options{Site: site}, 1, 0)
		there := open(t, fakehost.New(fakehost.Options{Site: site}))
		at, err := there.Arrive(t.Context(), good())
		if err := errors.Join(err, h.Start(t.Context(), id)); err != nil {
			t.Fatal(err)
		}
		if err := h.Depart(t.Context(), id, at); !errors.Is(err, fault.OutcomeUnknown) || drv.calls["Depart"] != 1 {
			t.Errorf("Depart = %v after %d calls, want %v after one", err, drv.calls["Depart"], fault.OutcomeUnknown)
		}
		if m, err := there.Get(t.Context(), id); err != nil || m.Power != estate.On {
			t.Errorf("machine there = %+v, %v; want it running", m, err)
		}
		if err := there.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
	})
}

// TestALostReplyIsReadAgain has look-ups fail too: nothing is repeated before
// one of them has an answer.
func TestALostReplyIsReadAgain(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(context.Context, *hypervisor.Host) error
	}{
		{"Shelve", func(ctx context.Context, h *hypervisor.Host) error { return h.Shelve(ctx, id) }},
		{"Snapshot", func(ctx context.Context, h *hypervisor.Host) error { return h.Snapshot(ctx, id, "a") }},
	} {
		for _, lists := range []int{0, 1, 3} {
			synctest.Test(t, func(t *testing.T) {
				h, drv := losing(t, fakehost.Options{}, 1, lists)
				if err := c.do(t.Context(), h); err != nil || drv.calls[c.name] != 1 {
					t.Errorf("%s with %d failing look-ups = %v after %d calls, want success after one", c.name, lists, err, drv.calls[c.name])
				}
			})
		}
	}
}

func TestWhatCannotBeReadIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, drv := losing(t, fakehost.Options{}, 1, 0)
		err := errors.Join(h.Start(t.Context(), id), h.Save(t.Context(), id))
		m, got := h.Get(t.Context(), id)
		if err := errors.Join(err, got); err != nil || m.Power != estate.Off || drv.calls["Save"] != 2 {
			t.Errorf("machine = %+v, %v after %d calls of Save; want it off after two", m, err, drv.calls["Save"])
		}
	})
}

// TestAnAbilityBelongsToTypesOfGuest has a host of which one type of guest has
// no screen and does not move.
func TestAnAbilityBelongsToTypesOfGuest(t *testing.T) {
	h := open(t, fakehost.New(fakehost.Options{
		GuestTypes: []string{"seeing", "blind"},
		Only:       map[estate.Capability][]string{estate.CanDisplay: {"seeing"}, estate.CanMoveLive: {"seeing"}, estate.CanSave: {"seeing"}},
	}))
	seeing, blind := good(), good()
	seeing.ID, blind.GuestType = "0c9e3c54-1111-4222-8333-444455556667", "blind"
	for _, def := range []driver.Definition{seeing, blind} {
		if err := errors.Join(h.Define(t.Context(), def), h.Start(t.Context(), def.ID)); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := h.Display(t.Context(), seeing.ID)
	if err != nil {
		t.Fatalf("the display of a machine of the usual type: %v", err)
	}
	conn.Close()
	refused := map[string]error{"Save": h.Save(t.Context(), blind.ID), "Depart": h.Depart(t.Context(), blind.ID, "there")}
	_, refused["Display"] = h.Display(t.Context(), blind.ID)
	_, refused["Arrive"] = h.Arrive(t.Context(), blind)
	for name, err := range refused {
		if !errors.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "a guest of type blind has none") {
			t.Errorf("%s = %v, want one that is unsupported and gives the reason", name, err)
		}
	}
	if _, err := h.Display(t.Context(), "0c9e3c54-1111-4222-8333-00000000dead"); !errors.Is(err, fault.NotFound) {
		t.Errorf("the display of a machine that is unknown: %v, want %v", err, fault.NotFound)
	}
	deaf := good()
	deaf.GuestType = "deaf"
	if err := h.Define(t.Context(), deaf); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `no guests of type "deaf"`) {
		t.Errorf("Define = %v, want one that is invalid and names the type", err)
	}
}

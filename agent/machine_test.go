package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"consort.dev/consort/api"
	appdriver "consort.dev/consort/application/driver"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/image"
	"consort.dev/consort/plane/store"
)

func TestAMachineIsMadeStartedReportedStoppedAndDestroyed(t *testing.T) {
	h := newHouse(t)
	h.employ()
	m := h.order(nil)
	h.running()
	s := h.status()
	if s.Hypervisor != "here" || s.Epoch != 5 || s.Starts != 1 || s.Display == "" || s.Guest.Hostname != "ana-office" {
		t.Errorf("reported %+v", s)
	}
	have, _ := h.held(m)
	if len(have.Def.Disks) != 1 || have.Def.Disks[0].Base == nil || have.Def.Memory != estate.GiB {
		t.Errorf("made %+v", have.Def)
	}
	h.want(func(s *estate.MachineSpec) { s.Power = estate.Off })
	h.until("it is off", func() bool { return h.status().Power == estate.Off && !h.status().Guest.Agent })
	h.want(func(s *estate.MachineSpec) { s.Power = estate.On })
	h.until("it was started again", func() bool { return h.status().Starts == 2 && h.status().Power == estate.On })
	h.must(h.store.Delete(t.Context(), m.Ref(), 0))
	h.until("it is gone", func() bool {
		_, err := h.store.Load(t.Context(), m.Ref())
		return errors.Is(err, fault.NotFound)
	})
	if _, here := h.held(m); here {
		t.Error("the plane was told that it is gone while the host had it")
	}
}

func TestAMachineThatIsOffIsNotMade(t *testing.T) {
	h := newHouse(t)
	h.employ()
	m := h.order(func(m *estate.Machine) { m.Spec.Power = estate.Off })
	h.until("it is reported off", func() bool { return h.status().Power == estate.Off && h.status().Is(estate.Ready) })
	if _, here := h.held(m); here {
		t.Error("the host has it")
	}
}

func TestAMachineWhoseGuestWentOffIsStartedAgain(t *testing.T) {
	h := newHouse(t)
	h.employ()
	m := h.order(nil)
	h.running()
	h.memory.PowerOff(estate.MachineID(m.Metadata.UID))
	h.until("it was started again", func() bool { return h.status().Starts == 2 })
}

func TestANewAgentTakesRunningMachinesOverAndStartsNothing(t *testing.T) {
	h := newHouse(t)
	kill := h.employ()
	m := h.order(nil)
	h.running()
	began, _ := h.held(m)
	kill()
	// The plane forgot what it was told; only the agent can say it again.
	_, err := store.Modify(t.Context(), h.store, "p", "ana-office", func(m *estate.Machine) error {
		m.Status = estate.MachineStatus{}
		return nil
	})
	h.must(err)
	h.employ()
	h.running()
	if now, _ := h.held(m); now.Starts != 1 || !now.Started.Equal(began.Started) {
		t.Errorf("started %d times, last at %s; want once, at %s", now.Starts, now.Started, began.Started)
	}
}

func TestWhatWasWantedWhileNoAgentRanIsDoneByTheNext(t *testing.T) {
	h := newHouse(t)
	kill := h.employ()
	m := h.order(nil)
	h.running()
	kill()
	h.must(h.store.Delete(t.Context(), m.Ref(), 0))
	h.employ()
	h.until("it is gone", func() bool {
		_, err := h.store.Load(t.Context(), m.Ref())
		_, here := h.held(m)
		return errors.Is(err, fault.NotFound) && !here
	})
}

func TestAnOrderOfAnOlderEpochIsRefused(t *testing.T) {
	h := newHouse(t)
	kill := h.employ()
	m := h.order(nil)
	h.running()
	kill() // the next agent knows the epoch from its record
	h.want(func(s *estate.MachineSpec) { s.Epoch, s.Power = 4, estate.Off })
	h.employ()
	h.until("the refusal is told", func() bool { return strings.Contains(h.status().Waiting, "epoch 5 was seen") })
	if have, _ := h.held(m); have.Power != estate.On {
		t.Errorf("power is %s, want on", have.Power)
	}
	h.want(func(s *estate.MachineSpec) { s.Epoch = 6 })
	h.until("a newer epoch is obeyed", func() bool { have, _ := h.held(m); return have.Power == estate.Off })
}

func TestAMachinePlacedElsewhereIsDestroyedHere(t *testing.T) {
	for _, asleep := range []bool{false, true} {
		h := newHouse(t)
		kill := h.employ()
		m := h.order(nil)
		h.running()
		if asleep {
			kill()
		}
		h.want(func(s *estate.MachineSpec) { s.Hypervisor, s.Epoch = "there", 6 })
		if asleep {
			h.employ()
		}
		h.until("it is gone from here", func() bool { _, here := h.held(m); return !here })
		if s := h.status(); s.Hypervisor != "here" || s.Epoch != 5 {
			t.Errorf("told of a machine that is another's: %+v", s)
		}
		// It may come back, as a machine made anew.
		h.want(func(s *estate.MachineSpec) { s.Hypervisor, s.Epoch = "here", 7 })
		h.until("it runs here again", func() bool { have, _ := h.held(m); return have.Power == estate.On && have.Starts == 1 })
	}
}

func TestAMachinePlacedElsewhereUnderTheSameEpochIsLeftAlone(t *testing.T) {
	h := newHouse(t)
	h.employ()
	m := h.order(nil)
	h.running()
	// No placement writes this: a new place has a new epoch.
	h.want(func(s *estate.MachineSpec) { s.Hypervisor = "there" })
	h.until("the agent has let it be", func() bool {
		conn, err := h.calls.Dial(t.Context(), "here", api.Call{Verb: api.CallDisplay, Machine: estate.MachineID(m.Metadata.UID)})
		if err == nil {
			conn.Close()
		}
		return errors.Is(err, fault.NotFound)
	})
	h.want(func(s *estate.MachineSpec) { s.Hypervisor = "here" })
	h.running()
	if have, here := h.held(m); !here || have.Starts != 1 {
		t.Errorf("the host has %+v", have)
	}
}

// fog is a host that cannot tell whether its machines run while it is thick.
type fog struct {
	driver.Host
	thick atomic.Bool
	acts  atomic.Int32
}

func (f *fog) Unwrap() driver.Host { return f.Host }

func (f *fog) List(ctx context.Context) ([]driver.Machine, error) {
	all, err := f.Host.List(ctx)
	for i := range all {
		if f.thick.Load() {
			all[i].Power = estate.PowerUnknown
		}
	}
	return all, err
}

func (f *fog) Start(ctx context.Context, id estate.MachineID) error {
	f.acts.Add(1)
	return f.Host.Start(ctx, id)
}

func (f *fog) Stop(ctx context.Context, id estate.MachineID, grace time.Duration) error {
	f.acts.Add(1)
	return f.Host.Stop(ctx, id, grace)
}

func TestAnUnknownPowerTriggersNothing(t *testing.T) {
	h := newHouse(t)
	f := &fog{Host: h.memory}
	h.host = f
	h.employ()
	m := h.order(nil)
	h.running()
	f.thick.Store(true)
	for _, power := range []estate.Power{estate.Off, estate.On} {
		h.want(func(s *estate.MachineSpec) { s.Power = power })
		now, err := store.Get[estate.Machine](t.Context(), h.store, "p", "ana-office")
		h.must(err)
		h.until("it is told", func() bool {
			s := h.status()
			return s.Power == estate.PowerUnknown && s.Observed == now.Metadata.Generation && strings.Contains(s.Waiting, "cannot tell")
		})
	}
	if n := f.acts.Load(); n != 1 {
		t.Errorf("%d acts, want the first start alone", n)
	}
	f.thick.Store(false)
	h.running()
	if have, _ := h.held(m); have.Starts != 1 {
		t.Errorf("started %d times, want once", have.Starts)
	}
}

func TestAVolumeOfAnotherMachineIsNotUsed(t *testing.T) {
	h := newHouse(t)
	h.must(h.store.Create(t.Context(), &estate.Volume{
		Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Volume", Metadata: estate.Metadata{Name: "home", Project: "p"}},
		Spec: estate.VolumeSpec{Size: estate.GiB, Holder: "0b9c3a52-0000-4000-8000-00000000000f"},
	}))
	h.employ()
	m := h.order(func(m *estate.Machine) {
		m.Spec.Hardware.Disks = append(m.Spec.Hardware.Disks, estate.Disk{Name: "home", Volume: "home"})
	})
	h.until("it waits for the volume", func() bool { return strings.Contains(h.status().Waiting, "volume home is not this machine's to use") })
	if _, here := h.held(m); here {
		t.Error("it was made with another machine's volume")
	}
}

// smuggler attaches, beside the layer it is asked for, another one's disk.
type smuggler struct {
	appdriver.Provider
	disk appdriver.Disk
	told atomic.Pointer[error]
}

func (s *smuggler) Unwrap() appdriver.Provider { return s.Provider }

func (s *smuggler) Attach(ctx context.Context, m appdriver.Machine, l appdriver.Layer) error {
	err := m.AttachDisk(ctx, s.disk)
	s.told.Store(&err)
	return s.Provider.Attach(ctx, m, l)
}

// layer is content that was cut for an application.
func (h *house) layer(name string) estate.Layer {
	return estate.Layer{Application: name, Version: "1", Digest: h.content(image.KindLayer, name), Delivery: "fakeapps"}
}

func TestOnlyAGrantedLayerIsAttached(t *testing.T) {
	h := newHouse(t)
	writer, secret := h.layer("writer"), h.layer("secret")
	e, err := h.images.Get(secret.Digest)
	h.must(err)
	s := &smuggler{Provider: h.apps, disk: appdriver.Disk{Name: "l-secret", Path: e.Path, Size: e.Size}}
	h.give = s
	h.employ()
	m := h.order(func(m *estate.Machine) { m.Spec.Layers = []estate.Layer{writer} })
	attached := func() []string {
		names, err := h.memory.Attached(t.Context(), estate.MachineID(m.Metadata.UID))
		h.must(err)
		return names
	}
	want := []string{"l-" + writer.Digest.Hex()[:16]}
	h.until("the granted layer is attached", func() bool {
		ls := h.status().Layers
		return len(ls) == 1 && ls[0].Attached
	})
	if got := attached(); !slices.Equal(got, want) {
		t.Errorf("attached %v, want %v", got, want)
	}
	if told := s.told.Load(); told == nil || !errors.Is(*told, fault.Denied) {
		t.Errorf("the provider attached a layer that was not granted: told %v", told)
	}
	if err := h.start(m, secret); !errors.Is(err, fault.Denied) {
		t.Errorf("start of a layer that was not granted: %v, want %v", err, fault.Denied)
	}
	if err := h.start(m, writer); err != nil {
		t.Errorf("start of the granted one: %v", err)
	}
	// The grant goes, and the layer with it.
	h.want(func(s *estate.MachineSpec) { s.Layers = nil })
	h.until("the layer is gone", func() bool { return len(attached()) == 0 && len(h.status().Layers) == 0 })
	if err := h.start(m, writer); !errors.Is(err, fault.Denied) {
		t.Errorf("start after the grant went: %v, want %v", err, fault.Denied)
	}
}

func TestANewAgentDetachesWhatIsNoLongerGranted(t *testing.T) {
	h := newHouse(t)
	kill := h.employ()
	m := h.order(nil)
	h.want(func(s *estate.MachineSpec) { s.Layers = []estate.Layer{h.layer("writer")} })
	h.until("it is attached", func() bool { ls := h.status().Layers; return len(ls) == 1 && ls[0].Attached })
	kill()
	h.want(func(s *estate.MachineSpec) { s.Layers = nil })
	h.employ()
	h.until("it is detached", func() bool {
		names, err := h.memory.Attached(t.Context(), estate.MachineID(m.Metadata.UID))
		return err == nil && len(names) == 0
	})
}

// start asks the agent, as the plane does, to start a layer's application.
func (h *house) start(m *estate.Machine, l estate.Layer) error {
	h.t.Helper()
	var conn net.Conn
	var err error
	call := api.Call{
		Verb: api.CallStart, Machine: estate.MachineID(m.Metadata.UID),
		Start: &api.Start{Layer: l, Command: []string{"/usr/bin/" + l.Application}, User: "user", Home: "/home/user"},
	}
	h.until("the agent answers", func() bool { // one that was killed may not be missed yet
		conn, err = h.calls.Dial(h.t.Context(), "here", call)
		return !errors.Is(err, fault.Unavailable)
	})
	h.must(err)
	defer conn.Close()
	var reply api.StartReply
	h.must(json.NewDecoder(conn).Decode(&reply))
	if reply.Error == nil {
		return nil
	}
	return reply.Error
}

func TestADisplayIsReachedThroughACall(t *testing.T) {
	h := newHouse(t)
	h.employ()
	m := h.order(nil)
	h.running()
	h.until("the agent listens", func() bool { return h.calls.Listening("here") })
	conn, err := h.calls.Dial(t.Context(), "here", api.Call{Verb: api.CallDisplay, Machine: estate.MachineID(m.Metadata.UID)})
	h.must(err)
	defer conn.Close()
	hello := make([]byte, 12)
	if _, err := conn.Read(hello); err != nil || string(hello) != "RFB 003.008\n" {
		t.Errorf("the screen says %q, %v", hello, err)
	}
	_, err = h.calls.Dial(t.Context(), "here", api.Call{Verb: api.CallDisplay, Machine: "another"})
	if !errors.Is(err, fault.NotFound) {
		t.Errorf("a machine that is not here: %v, want %v", err, fault.NotFound)
	}
}

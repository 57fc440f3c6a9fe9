package place

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

func newPlacer(t *testing.T, alive bool, hypervisors ...*estate.Hypervisor) *Placer {
	s := store.New(mem.Open(mem.Options{}), store.Options{})
	t.Cleanup(func() { s.Close() })
	for _, h := range hypervisors {
		if err := s.Create(t.Context(), h); err != nil {
			t.Fatal(err)
		}
	}
	return &Placer{
		Store: s, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Alive: func(context.Context, string) (bool, error) { return alive, nil },
	}
}

func host(name string, memory estate.Bytes, state estate.HypervisorState) *estate.Hypervisor {
	h := &estate.Hypervisor{Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Hypervisor", Metadata: estate.Metadata{Name: name}}}
	h.Status.State, h.Status.Capacity.Memory = state, memory
	return h
}

// placed creates the machine, lets the placer take one step, and returns it.
func placed(t *testing.T, p *Placer, name string, memory estate.Bytes, change func(*estate.Machine)) *estate.Machine {
	t.Helper()
	m := &estate.Machine{Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Machine", Metadata: estate.Metadata{Name: name, Project: "p"}}}
	m.Spec.Hardware.Memory = memory
	if change != nil {
		change(m)
	}
	if err := p.Store.Create(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if _, err := p.place(t.Context(), m.Ref()); err != nil {
		t.Fatal(err)
	}
	m, err := store.Get[estate.Machine](t.Context(), p.Store, "p", name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAMachineGoesWhereThereIsRoomUnderANewEpoch(t *testing.T) {
	p := newPlacer(t, true, host("a", estate.GiB, estate.HypervisorReady), host("b", 4*estate.GiB, estate.HypervisorReady))
	m := placed(t, p, "m", 2*estate.GiB, nil)
	if m.Spec.Hypervisor != "b" || m.Spec.Epoch != 1 {
		t.Errorf("placed on %q under epoch %d, want b under 1", m.Spec.Hypervisor, m.Spec.Epoch)
	}
}

func TestRoomIsNotGivenTwice(t *testing.T) {
	p := newPlacer(t, true, host("a", 3*estate.GiB, estate.HypervisorReady))
	if m := placed(t, p, "first", 2*estate.GiB, nil); m.Spec.Hypervisor != "a" {
		t.Fatalf("first is on %q: %s", m.Spec.Hypervisor, m.Status.Waiting)
	}
	m := placed(t, p, "second", 2*estate.GiB, nil)
	if m.Spec.Hypervisor != "" || !strings.Contains(m.Status.Waiting, "a: 1024 MiB of memory free, 2Gi needed") {
		t.Errorf("second is on %q, waiting %q", m.Spec.Hypervisor, m.Status.Waiting)
	}
}

func TestNothingIsPlacedOnAHostThatIsLeaving(t *testing.T) {
	drained := host("a", 8*estate.GiB, estate.HypervisorReady)
	drained.Spec.Drain = true
	p := newPlacer(t, true, drained, host("b", 8*estate.GiB, estate.HypervisorLost))
	if m := placed(t, p, "m", estate.GiB, nil); m.Spec.Hypervisor != "" {
		t.Errorf("placed on %q", m.Spec.Hypervisor)
	}
}

func TestAMachineNobodyHadGoesAtOnce(t *testing.T) {
	p := newPlacer(t, true)
	m := placed(t, p, "m", estate.GiB, func(m *estate.Machine) { m.Metadata.Finalizers = []string{estate.AgentFinalizer} })
	if err := p.Store.Delete(t.Context(), m.Ref(), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := p.place(t.Context(), m.Ref()); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Get[estate.Machine](t.Context(), p.Store, "p", "m"); err == nil {
		t.Error("it is still there")
	}
}

func TestALostLeaseSaysSoAndTouchesNoMachine(t *testing.T) {
	p := newPlacer(t, true, host("a", 8*estate.GiB, estate.HypervisorReady))
	before := placed(t, p, "m", estate.GiB, nil)
	p.Alive = func(context.Context, string) (bool, error) { return false, nil }
	ref := estate.Ref{Kind: "Hypervisor", Name: "a"}
	if _, err := p.watchOver(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	h, _ := store.Get[estate.Hypervisor](t.Context(), p.Store, "", "a")
	if h.Status.State != estate.HypervisorLost || h.Status.Is(estate.Ready) {
		t.Errorf("state = %s, conditions %+v", h.Status.State, h.Status.Conditions)
	}
	after, _ := store.Get[estate.Machine](t.Context(), p.Store, "p", "m")
	if after.Metadata.Version != before.Metadata.Version {
		t.Error("a machine of the lost host was written")
	}
	p.Alive = func(context.Context, string) (bool, error) { return true, nil }
	p.watchOver(t.Context(), ref)
	if h, _ = store.Get[estate.Hypervisor](t.Context(), p.Store, "", "a"); h.Status.State != estate.HypervisorReady {
		t.Errorf("back again: state = %s", h.Status.State)
	}
}

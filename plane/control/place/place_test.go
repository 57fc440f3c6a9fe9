package place

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/plane/control"
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
		Alive:  func(context.Context, string) (bool, error) { return alive, nil },
		Events: &control.Recorder{Store: s, Now: time.Now, By: "place", Log: slog.New(slog.DiscardHandler)},
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

// told returns the reasons and texts of the events on the object, oldest first.
func told(t *testing.T, p *Placer, on estate.Ref) []string {
	t.Helper()
	all, _, err := store.List[estate.Event](t.Context(), p.Store, "")
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b *estate.Event) int { return a.Spec.At.Compare(b.Spec.At) })
	var out []string
	for _, e := range all {
		if e.Spec.On == on {
			out = append(out, fmt.Sprintf("%s bad=%v: %s", e.Spec.Reason, e.Spec.Bad, e.Spec.Text))
		}
	}
	return out
}

func TestAPlaceAndNoPlaceAreTold(t *testing.T) {
	p := newPlacer(t, true, host("a", 3*estate.GiB, estate.HypervisorReady))
	m := placed(t, p, "first", 2*estate.GiB, nil)
	if got, want := told(t, p, m.Ref()), []string{"Placed bad=false: it is placed on a under epoch 1"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	m = placed(t, p, "second", 2*estate.GiB, nil)
	for range 3 { // looking again tells nothing new
		if _, err := p.place(t.Context(), m.Ref()); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := told(t, p, m.Ref()), []string{"NoPlace bad=true: waiting for room: a: 1024 MiB of memory free, 2Gi needed"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestAnAgentLostAndBackIsToldEachTimeOnce(t *testing.T) {
	alive := true
	p := newPlacer(t, true, host("a", 8*estate.GiB, estate.HypervisorReady))
	p.Alive = func(context.Context, string) (bool, error) { return alive, nil }
	ref := estate.Ref{Kind: "Hypervisor", Name: "a"}
	look := func() {
		t.Helper()
		for range 2 {
			if _, err := p.watchOver(t.Context(), ref); err != nil {
				t.Fatal(err)
			}
		}
	}
	look()
	alive = false
	look()
	// An agent that joins again says itself that its host is ready.
	alive = true
	_, err := store.Modify(t.Context(), p.Store, "", "a", func(h *estate.Hypervisor) error {
		h.Status.State = estate.HypervisorReady
		h.Status.Set(estate.Condition{Type: estate.Ready, Status: estate.True, Text: "its agent answers"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	look()
	alive = false
	look()
	lost := "AgentLost bad=true: its agent does not answer; its machines may still run: start the agent again on that host"
	want := []string{lost, "AgentBack bad=false: its agent answers again", lost}
	if got := told(t, p, ref); !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestAMachineMeantForOneHypervisorGoesNowhereElse(t *testing.T) {
	p := newPlacer(t, true, host("roomy", 64*estate.GiB, estate.HypervisorReady), host("small", estate.GiB, estate.HypervisorReady))
	only := func(m *estate.Machine) { m.Spec.Only = "small" }
	if m := placed(t, p, "fits", estate.GiB/2, only); m.Spec.Hypervisor != "small" {
		t.Errorf("placed on %q, want small", m.Spec.Hypervisor)
	}
	if m := placed(t, p, "large", 2*estate.GiB, only); m.Spec.Hypervisor != "" || !strings.Contains(m.Status.Waiting, "small") {
		t.Errorf("placed on %q, waiting %q; want to wait for small", m.Spec.Hypervisor, m.Status.Waiting)
	}
}

func TestRoomIsKeptForAMachineOnItsWay(t *testing.T) {
	p := newPlacer(t, true, host("a", 3*estate.GiB, estate.HypervisorReady), host("b", 3*estate.GiB, estate.HypervisorReady))
	placed(t, p, "first", 2*estate.GiB, func(m *estate.Machine) {
		m.Spec.Hypervisor, m.Spec.Moving = "b", &estate.Moving{From: "b", To: "a"}
	})
	if m := placed(t, p, "second", 2*estate.GiB, nil); m.Spec.Hypervisor != "" {
		t.Errorf("placed on %s, where nothing is left or will be", m.Spec.Hypervisor)
	}
}

// TestStrangersAreNeverPlacedTogether places a machine of each trust where one of
// each other is, and there is no other host.
func TestStrangersAreNeverPlacedTogether(t *testing.T) {
	for first := range 4 {
		for second := range 4 {
			p := newPlacer(t, true, host("alpha", 8*estate.GiB, estate.HypervisorReady))
			of := func(trust int) func(*estate.Machine) {
				return func(m *estate.Machine) { m.Spec.Context, m.Spec.Trust = "some", trust }
			}
			if m := placed(t, p, "one", estate.GiB, of(first)); m.Spec.Hypervisor != "alpha" {
				t.Fatalf("trust %d is not placed on an empty host", first)
			}
			got := placed(t, p, "two", estate.GiB, of(second)).Spec.Hypervisor == "alpha"
			if want := first+second != 3 || first*second != 0; got != want {
				t.Errorf("trust %d beside trust %d: placed = %v, want %v", second, first, got, want)
			}
		}
	}
}

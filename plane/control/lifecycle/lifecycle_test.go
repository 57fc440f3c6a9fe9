package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

const digestA, digestB = estate.Digest("sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
	estate.Digest("sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")

// world is an estate with the loop running over it and a test that plays the agent.
type world struct {
	*testing.T
	s *store.Store
}

func newWorld(t *testing.T) *world {
	s := store.New(mem.Open(mem.Options{}), store.Options{})
	t.Cleanup(func() { s.Close() })
	w := &world{t, s}
	w.create("Hypervisor", "", "here", func(r estate.Resource) {
		h := r.(*estate.Hypervisor)
		h.Status.State = estate.HypervisorReady
		h.Status.Capacity = estate.Capacity{CPUs: 4, Memory: 8 * estate.GiB}
		h.Status.Free = h.Status.Capacity
		h.Status.Capabilities = []estate.CapabilityReport{
			{Name: estate.CanDisplay, Has: true, Value: "rfb"}, {Name: estate.CanHotplug, Has: true}, {Name: estate.CanGuest, Has: true},
		}
	})
	w.create("Person", "", "ana", nil)
	for name, d := range map[string]estate.Digest{"one": digestA, "two": digestB} {
		w.create("Image", "p", name, func(r estate.Resource) {
			m := r.(*estate.Image)
			m.Status.Digest = d
			m.Status.Guest = estate.GuestFacts{OS: "debian-12", Agent: true, Screen: true, Home: "/home/user", User: "user"}
		})
	}
	w.create("Context", "p", "work", func(r estate.Resource) { r.(*estate.Context).Spec.Colour = "#112233" })
	w.create("Application", "p", "calc", func(r estate.Resource) {
		a := r.(*estate.Application)
		a.Spec = estate.ApplicationSpec{Title: "Calc", Delivery: "brought", Command: []string{"calc"}, Versions: []estate.ApplicationVersion{{Name: "1", Packages: []string{"calc"}}}}
	})
	w.create("Grant", "p", "calc", func(r estate.Resource) {
		r.(*estate.Grant).Spec = estate.GrantSpec{To: estate.Grantee{Person: "ana"}, Of: estate.Granted{Kind: "Application", Name: "calc"}, Role: estate.Use}
	})
	w.create("Blueprint", "p", "office", func(r estate.Resource) {
		r.(*estate.Blueprint).Spec = estate.BlueprintSpec{Image: "one", Presentation: "screen", Context: "work", Home: estate.GiB}
	})
	k := &Keeper{
		Store: s, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Presentations: []estate.PresentationOffer{{Name: "screen", Protocol: "rfb", Keeps: true}},
		Deliveries:    []estate.DeliveryOffer{{Name: "brought", Needs: []estate.Capability{estate.CanHotplug}, Agent: true}},
		Events:        &control.Recorder{Store: s, Now: time.Now, By: "lifecycle", Log: slog.New(slog.DiscardHandler)},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); k.Loop().Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func (w *world) create(kind estate.Kind, project, name string, fill func(estate.Resource)) {
	w.Helper()
	info, _ := estate.KindNamed(string(kind))
	r := info.NewNamed(project, name)
	if fill != nil {
		fill(r)
	}
	if err := w.s.Create(w.Context(), r); err != nil {
		w.Fatal(err)
	}
}

func (w *world) desktop(name string) {
	w.create("Desktop", "p", name, func(r estate.Resource) {
		r.(*estate.Desktop).Spec = estate.DesktopSpec{Blueprint: "office", Person: "ana", Power: estate.On}
	})
}

// until waits for the condition to hold for the object.
func until[T any](w *world, name, what string, holds func(*T) bool) *T {
	w.Helper()
	project := "p"
	if estate.KindOf[T]().Global {
		project = ""
	}
	ctx, cancel := context.WithTimeout(w.Context(), 10*time.Second)
	defer cancel()
	var last *T
	for ctx.Err() == nil {
		v, err := store.Get[T](ctx, w.s, project, name)
		if err == nil && holds(v) {
			return v
		}
		if err == nil {
			last = v
		}
		pauseForLoop(ctx)
	}
	w.Fatalf("%s %s never came to %s; it is %+v", estate.KindOf[T]().Kind, name, what, last)
	return nil
}

// pauseForLoop lets the loop's goroutines run between two looks.
func pauseForLoop(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(2 * time.Millisecond):
	}
}

func change[T any](w *world, name string, change func(*T)) {
	w.Helper()
	if _, err := store.Modify(w.Context(), w.s, "p", name, func(v *T) error { change(v); return nil }); err != nil {
		w.Fatal(err)
	}
}

// runs plays the agent: the machine is placed, on and drawn.
func (w *world) runs(machine string) *estate.Machine {
	w.Helper()
	until(w, machine, "wanting power", func(m *estate.Machine) bool { return m.Spec.Power == estate.On })
	change(w, machine, func(m *estate.Machine) {
		m.Spec.Hypervisor, m.Spec.Epoch = "here", m.Spec.Epoch+1
		m.Status.Power, m.Status.Display = estate.On, "rfb"
		m.Status.Guest = estate.GuestStatus{Agent: true, Desktop: true}
	})
	until(w, machine, "running", func(d *estate.Desktop) bool { return d.Status.State == estate.DesktopRunning })
	m, err := store.Get[estate.Machine](w.Context(), w.s, "p", machine)
	if err != nil {
		w.Fatal(err)
	}
	return m
}

// stops plays the agent: the machine is off.
func (w *world) stops(machine string) {
	w.Helper()
	until(w, machine, "wanting no power", func(m *estate.Machine) bool { return m.Spec.Power == estate.Off })
	change(w, machine, func(m *estate.Machine) { m.Status.Power, m.Status.Guest = estate.Off, estate.GuestStatus{} })
}

// letGo plays the agent: what is being deleted is cleaned up.
func (w *world) letGo(machine string) {
	w.Helper()
	m := until(w, machine, "deletion", func(m *estate.Machine) bool { return !m.Metadata.Deleting.IsZero() })
	m.Metadata.Finalizers = nil
	if err := w.s.Update(w.Context(), m); err != nil {
		w.Fatal(err)
	}
}

func TestADesktopThatIsWantedGetsAMachineWithItsHome(t *testing.T) {
	w := newWorld(t)
	w.desktop("d")
	m := w.runs("d")
	v := until(w, "home-ana-work", "having a holder", func(v *estate.Volume) bool { return v.Spec.Holder != "" })
	if string(v.Spec.Holder) != m.Metadata.UID {
		t.Errorf("home is held by %s, want machine %s", v.Spec.Holder, m.Metadata.UID)
	}
	if got := m.Spec.Hardware.Disks; len(got) != 2 || got[0].Image != digestA || got[1].Volume != "home-ana-work" {
		t.Errorf("disks = %+v", got)
	}
}

func TestTwoDesktopsTakeTurnsWithAHome(t *testing.T) {
	w := newWorld(t)
	w.desktop("d")
	w.runs("d")
	w.desktop("e")
	e := until(w, "e", "waiting", func(d *estate.Desktop) bool { return strings.Contains(d.Status.Waiting, "in use") })
	if e.Status.Machine != "" {
		t.Errorf("the second desktop has machine %s while the first runs", e.Status.Machine)
	}
	change(w, "d", func(d *estate.Desktop) { d.Spec.Power = estate.Off })
	w.stops("d")
	m := w.runs("e")
	v := until(w, "home-ana-work", "changing hands", func(v *estate.Volume) bool { return string(v.Spec.Holder) == m.Metadata.UID })
	if v == nil {
		t.Error("the home did not change hands")
	}
}

func TestAnotherImageMeansAnotherSystemDiskAndTheSameHome(t *testing.T) {
	w := newWorld(t)
	w.desktop("d")
	first := w.runs("d")
	change(w, "office", func(b *estate.Blueprint) { b.Spec.Image = "two" })
	// Somebody works on it: nothing happens but that the change is announced.
	d := until(w, "d", "announcing the change", func(d *estate.Desktop) bool { return d.Status.Next != nil })
	if d.Status.State != estate.DesktopRunning || d.Status.Plan.Image != digestA {
		t.Errorf("the running desktop is %s with image %s", d.Status.State, d.Status.Plan.Image.Short())
	}
	change(w, "d", func(d *estate.Desktop) { d.Spec.Power = estate.Off })
	w.stops("d")
	w.letGo("d")
	change(w, "d", func(d *estate.Desktop) { d.Spec.Power = estate.On })
	second := w.runs("d")
	if second.Metadata.UID == first.Metadata.UID || second.Spec.Hardware.Disks[0].Image != digestB {
		t.Errorf("machine %s with disks %+v; want another with image %s", second.Metadata.UID, second.Spec.Hardware.Disks, digestB.Short())
	}
	if got, want := second.Spec.Hardware.Disks[1], first.Spec.Hardware.Disks[1]; got != want {
		t.Errorf("home = %+v, want %+v", got, want)
	}
}

func TestAResetMakesTheMachineAnew(t *testing.T) {
	w := newWorld(t)
	w.desktop("d")
	first := w.runs("d")
	change(w, "d", func(d *estate.Desktop) { d.Spec.Resets++ })
	w.letGo("d")
	until(w, "d", "another machine", func(m *estate.Machine) bool { return m.Metadata.UID != first.Metadata.UID })
	w.runs("d")
	until(w, "d", "counting the reset", func(d *estate.Desktop) bool { return d.Status.Resets == 1 })
}

func TestALayerIsOrderedThenGrantedToTheRunningMachine(t *testing.T) {
	w := newWorld(t)
	w.desktop("d")
	w.runs("d")
	change(w, "office", func(b *estate.Blueprint) { b.Spec.Applications = []estate.ApplicationChoice{{Name: "calc"}} })
	until(w, "calc", "an order", func(a *estate.Application) bool { _, ok := a.Status.Layer("1", digestA); return ok })
	change(w, "calc", func(a *estate.Application) { a.Status.Layers[0].Digest = digestB })
	m := until(w, "d", "the layer", func(m *estate.Machine) bool { return len(m.Spec.Layers) == 1 })
	if got := m.Spec.Layers[0]; got.Digest != digestB || got.Delivery != "brought" {
		t.Errorf("granted %+v", got)
	}
	// Taking the grant back takes the layer away.
	if err := w.s.Delete(t.Context(), estate.Ref{Kind: "Grant", Project: "p", Name: "calc"}, 0); err != nil {
		t.Fatal(err)
	}
	until(w, "d", "no layer", func(m *estate.Machine) bool { return len(m.Spec.Layers) == 0 })
}

func TestASessionFollowsItsDesktopPhaseByPhase(t *testing.T) {
	w := newWorld(t)
	w.desktop("d")
	w.create("Session", "p", "s", func(r estate.Resource) {
		r.(*estate.Session).Spec = estate.SessionSpec{Desktop: "d", Person: "ana"}
	})
	s := until(w, "s", "waiting", func(s *estate.Session) bool { return s.Status.State == estate.SessionWaiting && s.Status.Machine != "" })
	if s.Status.Waiting == "" {
		t.Error("a waiting session does not say what for")
	}
	w.runs("d")
	s = until(w, "s", "ready", func(s *estate.Session) bool { return s.Status.State == estate.SessionReady })
	var names []string
	for i, p := range s.Status.Phases {
		names = append(names, p.Name)
		if p.Ended.IsZero() || p.Ended.Before(p.Began) || i > 0 && p.Began.Before(s.Status.Phases[i-1].Began) {
			t.Errorf("phase %s began %v, ended %v", p.Name, p.Began, p.Ended)
		}
	}
	if got, want := fmt.Sprint(names), "[compose place start boot desktop]"; got != want {
		t.Errorf("phases = %s, want %s", got, want)
	}
	if s.Status.Way.Protocol != "rfb" {
		t.Errorf("way = %+v", s.Status.Way)
	}
}

func TestAResetTakesASessionBackToWaiting(t *testing.T) {
	w := newWorld(t)
	w.desktop("d")
	w.runs("d")
	w.create("Session", "p", "s", func(r estate.Resource) {
		r.(*estate.Session).Spec = estate.SessionSpec{Desktop: "d", Person: "ana"}
	})
	until(w, "s", "ready", func(s *estate.Session) bool { return s.Status.State == estate.SessionReady })
	change(w, "d", func(d *estate.Desktop) { d.Spec.Resets++ })
	w.letGo("d")
	s := until(w, "s", "waiting again", func(s *estate.Session) bool { return s.Status.State == estate.SessionWaiting })
	if last := s.Status.Phases[len(s.Status.Phases)-1]; !last.Ended.IsZero() {
		t.Errorf("it waits in phase %s, which has ended", last.Name)
	}
	w.runs("d")
	until(w, "s", "ready again", func(s *estate.Session) bool { return s.Status.State == estate.SessionReady })
}

func TestTurningADesktopOffEndsItsSessions(t *testing.T) {
	w := newWorld(t)
	w.desktop("d")
	w.runs("d")
	w.create("Session", "p", "s", func(r estate.Resource) {
		r.(*estate.Session).Spec = estate.SessionSpec{Desktop: "d", Person: "ana"}
	})
	until(w, "s", "ready", func(s *estate.Session) bool { return s.Status.State == estate.SessionReady })
	change(w, "d", func(d *estate.Desktop) { d.Spec.Power = estate.Off })
	s := until(w, "s", "ended", func(s *estate.Session) bool { return s.Status.State == estate.SessionEnded })
	if want := "the desktop was turned off"; s.Status.Because != want {
		t.Errorf("because %q, want %q", s.Status.Because, want)
	}
}

func TestADeletedDesktopLeavesOnlyItsHome(t *testing.T) {
	w := newWorld(t)
	w.desktop("d")
	w.runs("d")
	if err := w.s.Delete(t.Context(), estate.Ref{Kind: "Desktop", Project: "p", Name: "d"}, 0); err != nil {
		t.Fatal(err)
	}
	w.letGo("d")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		_, err := store.Get[estate.Desktop](ctx, w.s, "p", "d")
		if errors.Is(err, fault.NotFound) {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("the desktop is still there")
		}
		pauseForLoop(ctx)
	}
	v := until(w, "home-ana-work", "being free", func(v *estate.Volume) bool { return v.Spec.Holder == "" })
	if !v.Metadata.Deleting.IsZero() {
		t.Error("the home goes with the desktop")
	}
}

func TestABlueprintThatCannotBeComposedSaysWhy(t *testing.T) {
	w := newWorld(t)
	change(w, "office", func(b *estate.Blueprint) { b.Spec.Presentation = "telepathy" })
	w.desktop("d")
	d := until(w, "d", "blocked", func(d *estate.Desktop) bool { return d.Status.State == estate.DesktopBlocked })
	if want := "there is no presentation telepathy"; !strings.Contains(d.Status.Waiting, want) {
		t.Errorf("waiting = %q, want %q in it", d.Status.Waiting, want)
	}
}

// TestADesktopThatMovedStaysWhatItIs has a machine and its home on another
// hypervisor, where it was not planned: it is not made anew.
func TestADesktopThatMovedStaysWhatItIs(t *testing.T) {
	w := newWorld(t)
	w.desktop("d")
	first := w.runs("d")
	here, err := store.Get[estate.Hypervisor](t.Context(), w.s, "", "here")
	if err != nil {
		t.Fatal(err)
	}
	w.create("Hypervisor", "", "there", func(r estate.Resource) { r.(*estate.Hypervisor).Status = here.Status })
	change(w, "home-ana-work", func(v *estate.Volume) { v.Status.Hypervisor = "there" })
	change(w, "d", func(m *estate.Machine) { m.Spec.Hypervisor, m.Spec.Epoch = "there", 2 })
	d := until(w, "d", "being planned there", func(d *estate.Desktop) bool { return slices.Equal(d.Status.Plan.Hypervisors, []string{"there"}) })
	if d.Status.Next != nil {
		t.Errorf("a change is announced: %+v", d.Status.Next)
	}
	change(w, "d", func(d *estate.Desktop) { d.Spec.Power = estate.Off })
	w.stops("d")
	until(w, "d", "off", func(d *estate.Desktop) bool { return d.Status.State == estate.DesktopOff })
	m := until(w, "d", "there", func(*estate.Machine) bool { return true })
	if m.Metadata.UID != first.Metadata.UID || !m.Metadata.Deleting.IsZero() {
		t.Errorf("the machine that moved is made anew: %+v", m.Metadata)
	}
}

func TestAMachineOnItsWayIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.desktop("d")
	w.runs("d")
	change(w, "d", func(m *estate.Machine) {
		m.Spec.Moving, m.Spec.Power = &estate.Moving{Operation: "move-d", From: "here", To: "there"}, estate.Off
	})
	d := until(w, "d", "moving", func(d *estate.Desktop) bool { return d.Status.State == estate.DesktopMoving })
	if !strings.Contains(d.Status.Waiting, "moving from here to there (operation move-d)") {
		t.Errorf("it waits for %q", d.Status.Waiting)
	}
	// A reset is for later, and a turned-off desktop turns nothing off.
	change(w, "d", func(d *estate.Desktop) { d.Spec.Resets, d.Spec.Title = 1, "looked at" })
	until(w, "d", "seen", func(d *estate.Desktop) bool { return d.Status.Observed == d.Metadata.Generation })
	if m := until(w, "d", "there", func(*estate.Machine) bool { return true }); m.Spec.Power != estate.Off || !m.Metadata.Deleting.IsZero() {
		t.Errorf("power %s, deleting %v", m.Spec.Power, m.Metadata.Deleting)
	}
	change(w, "d", func(m *estate.Machine) { m.Spec.Moving = nil })
	w.letGo("d") // now the reset
}

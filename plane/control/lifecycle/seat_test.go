package lifecycle

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/plane/store"
)

// seat makes a seat of a pool whose blueprint has a home and an application, on
// a host that can have machines stand still.
func (w *world) seat(name string) *estate.Machine {
	w.Helper()
	change(w, "calc", func(a *estate.Application) {
		a.Status.Layers = []estate.LayerBuild{{Version: "1", Image: digestA, Digest: digestB}}
	})
	change(w, "office", func(b *estate.Blueprint) { b.Spec.Applications = []estate.ApplicationChoice{{Name: "calc"}} })
	_, err := store.Modify(w.Context(), w.s, "", "here", func(h *estate.Hypervisor) error {
		h.Status.Capabilities = append(h.Status.Capabilities, estate.CapabilityReport{Name: estate.CanPause, Has: true})
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
	w.create("Desktop", "p", name, func(r estate.Resource) {
		r.(*estate.Desktop).Spec = estate.DesktopSpec{Blueprint: "office", Pool: "counter", Power: estate.On}
	})
	return until(w, name, "wanting power", func(m *estate.Machine) bool { return m.Spec.Power == estate.On })
}

func TestASeatIsMadeForNobody(t *testing.T) {
	w := newWorld(t)
	m := w.seat("s")
	if m.Spec.Template == "" {
		t.Error("a seat's machine names no template")
	}
	if len(m.Spec.Layers) != 1 {
		t.Errorf("layers %+v: want the blueprint's application, granted to somebody or not", m.Spec.Layers)
	}
	if d := m.Spec.Hardware.Disks; len(d) != 1 || d[0].Grow == 0 {
		t.Errorf("disks %+v: want the system's alone, with what it may grow by", d)
	}
	w.desktop("d")
	if own := until(w, "d", "being made", func(*estate.Machine) bool { return true }); own.Spec.Template != "" {
		t.Errorf("ana's own desktop goes on from template %s", own.Spec.Template)
	}
}

func TestAGuestWithoutAnAgentBootsCold(t *testing.T) {
	v := &view{desktop: &estate.Desktop{Spec: estate.DesktopSpec{Pool: "counter"}}}
	for _, g := range []estate.GuestFacts{{}, {Agent: true}, {Screen: true}} {
		v.plan = estate.Plan{Guest: g}
		if got := v.template(); got != "" {
			t.Errorf("a guest with %+v goes on from template %s, which nobody could make its own", g, got)
		}
	}
}

func TestASeatIsWarmOnceEverythingOfItIsThereAndThenStandsStill(t *testing.T) {
	w := newWorld(t)
	w.seat("s")
	for i, step := range []func(*estate.MachineStatus){
		func(s *estate.MachineStatus) { s.Power, s.Display = estate.On, "rfb" },
		func(s *estate.MachineStatus) { s.Guest.Agent, s.Guest.Desktop = true, true },
		func(s *estate.MachineStatus) { s.Guest.Own = true },
	} {
		change(w, "s", func(m *estate.Machine) {
			m.Spec.Hypervisor, m.Spec.Epoch = "here", 1
			step(&m.Status)
		})
		for range 20 { // warm too early shows within a few looks
			d, err := store.Get[estate.Desktop](t.Context(), w.s, "p", "s")
			if err != nil {
				t.Fatal(err)
			}
			if d.Status.State == estate.DesktopWarm {
				t.Fatalf("after step %d the seat is warm", i)
			}
			pauseForLoop(t.Context())
		}
	}
	change(w, "s", func(m *estate.Machine) {
		m.Status.Layers = []estate.LayerState{{Application: "calc", Digest: digestB, Attached: true}}
	})
	d := until(w, "s", "being warm", func(d *estate.Desktop) bool { return d.Status.State == estate.DesktopWarm })
	if d.Status.Made.IsZero() || !d.Status.Is(estate.Ready) {
		t.Errorf("a warm seat was made at %s, ready %v", d.Status.Made, d.Status.Is(estate.Ready))
	}
	until(w, "s", "wanted to stand still", func(m *estate.Machine) bool { return m.Spec.Power == estate.Paused })
	change(w, "s", func(m *estate.Machine) { m.Status.Power = estate.Paused })
	until(w, "s", "warm still", func(d *estate.Desktop) bool { return d.Status.State == estate.DesktopWarm })

	// Taken, it goes on, and is its person's.
	change(w, "s", func(d *estate.Desktop) { d.Spec.Person = "ana" })
	until(w, "s", "wanted on", func(m *estate.Machine) bool { return m.Spec.Power == estate.On })
	until(w, "s", "starting", func(d *estate.Desktop) bool { return d.Status.State == estate.DesktopStarting })
	change(w, "s", func(m *estate.Machine) { m.Status.Power = estate.On })
	d = until(w, "s", "running", func(d *estate.Desktop) bool { return d.Status.State == estate.DesktopRunning })
	if d.Status.Home != "" {
		t.Errorf("a seat has home %q", d.Status.Home)
	}
}

func TestASeatWaitsForItsAddressButNotOnAVendorsNetwork(t *testing.T) {
	for form, want := range map[string]bool{estate.NetworkByTap: false, estate.NetworkByName: true} {
		h := &estate.Hypervisor{Head: estate.Head{Metadata: estate.Metadata{Name: "here"}}}
		h.Status.Capabilities = []estate.CapabilityReport{{Name: estate.CanNetwork, Has: true, Value: form}}
		m := &estate.Machine{}
		m.Spec.Hypervisor, m.Spec.Hardware.NICs = "here", []estate.NIC{{Network: "lan"}}
		m.Status.Power, m.Status.Guest = estate.On, estate.GuestStatus{Agent: true, Desktop: true, Own: true}
		v := &view{machine: m, desktop: &estate.Desktop{}}
		v.desktop.Status.Plan = &estate.Plan{Guest: estate.GuestFacts{Agent: true, Screen: true}}
		v.inventory.Hypervisors = []*estate.Hypervisor{h}
		if got := v.warm(); got != want {
			t.Errorf("on a network by %s, without an address: warm %v, want %v", form, got, want)
		}
		m.Status.Guest.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 1, 2})}
		if !v.warm() {
			t.Errorf("on a network by %s, with an address: not warm", form)
		}
	}
}

func TestSessionsOfASeatBeginWithTheSeatAndStayWithIt(t *testing.T) {
	w := newWorld(t)
	w.seat("s")
	change(w, "s", func(d *estate.Desktop) { d.Spec.Person = "ana" })
	w.create("Session", "p", "v", func(r estate.Resource) {
		s := r.(*estate.Session)
		s.Spec = estate.SessionSpec{Desktop: "s", Pool: "counter", Person: "ana"}
		s.Status.State, s.Status.Ended = estate.SessionEnded, time.Now().Add(-time.Hour)
	})
	w.create("Session", "p", "u", func(r estate.Resource) {
		r.(*estate.Session).Spec = estate.SessionSpec{Desktop: "s", Pool: "counter", Person: "ana"}
	})
	s := until(w, "u", "having phases", func(s *estate.Session) bool { return len(s.Status.Phases) > 1 })
	if s.Status.Phases[0].Name != "seat" || s.Status.Phases[0].Ended.IsZero() {
		t.Errorf("phases %+v: want the seat's first, and over", s.Status.Phases)
	}
	if _, err := store.Get[estate.Session](t.Context(), w.s, "p", "v"); err != nil {
		t.Errorf("an ended session of a seat: %v, want it kept as long as the seat", err)
	}
}

func TestACloneIsShownBeforeItIsItsOwn(t *testing.T) {
	w := newWorld(t)
	w.seat("s")
	change(w, "s", func(d *estate.Desktop) { d.Spec.Person = "ana" })
	w.create("Session", "p", "v", func(r estate.Resource) {
		r.(*estate.Session).Spec = estate.SessionSpec{Desktop: "s", Pool: "counter", Person: "ana"}
	})
	change(w, "s", func(m *estate.Machine) {
		m.Spec.Hypervisor, m.Spec.Epoch = "here", 1
		m.Spec.Hardware.NICs = []estate.NIC{{Network: "lan"}}
		m.Status.Power, m.Status.Display = estate.On, "rfb"
		m.Status.Guest.Desktop = true
	})
	open := func(s *estate.Session) (names []string) {
		for _, p := range s.Status.Phases {
			if p.Ended.IsZero() {
				names = append(names, p.Name)
			}
		}
		return names
	}
	s := until(w, "v", "ready before it is its own", func(s *estate.Session) bool { return s.Status.State == estate.SessionReady })
	if got := open(s); !slices.Equal(got, []string{estate.IdentityReady, estate.NetworkReady}) {
		t.Errorf("phases %v go on, want those beside Connect", got)
	}
	d := until(w, "s", "waiting for its identity", func(d *estate.Desktop) bool {
		return d.Status.State == estate.DesktopStarting && strings.Contains(d.Status.Waiting, "identity")
	})
	if !d.Status.Made.IsZero() {
		t.Errorf("the desktop is made, %s, and has no identity yet", d.Status.Made)
	}
	change(w, "s", func(m *estate.Machine) { m.Status.Guest.Agent, m.Status.Guest.Own = true, true })
	s = until(w, "v", "having its identity", func(s *estate.Session) bool { return len(open(s)) == 1 })
	if got := open(s); got[0] != estate.NetworkReady || s.Status.State != estate.SessionReady {
		t.Errorf("phases %v go on in a session that is %s, want the network's in one that is ready", got, s.Status.State)
	}
	change(w, "s", func(m *estate.Machine) {
		m.Status.Guest.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 1, 2})}
	})
	until(w, "v", "having its network", func(s *estate.Session) bool { return len(open(s)) == 0 })
	until(w, "s", "running", func(d *estate.Desktop) bool { return d.Status.State == estate.DesktopRunning })
}

// TestAScreenInTheGuestWaitsForTheIdentity has a guest that serves its screen
// itself: to be reached it must have its identity, whatever addresses are told.
func TestAScreenInTheGuestWaitsForTheIdentity(t *testing.T) {
	m := &estate.Machine{Spec: estate.MachineSpec{Template: "t"}}
	m.Status.Guest = estate.GuestStatus{Agent: true, Desktop: true, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 1, 2})}}
	v := &view{machine: m, desktop: &estate.Desktop{}}
	v.desktop.Status.Plan = &estate.Plan{Guest: estate.GuestFacts{Agent: true, Screen: true}}
	all := phases(&estate.Session{})
	drawing := all[len(all)-1]
	for port, want := range map[int]bool{0: true, 3389: false} {
		if got := drawing.over(v, estate.Presentation{Port: port}); got != want {
			t.Errorf("by port %d before it is its own: %v, want %v", port, got, want)
		}
	}
	m.Status.Guest.Own = true
	if !drawing.over(v, estate.Presentation{Port: 3389}) {
		t.Error("by port 3389, its own: it still waits")
	}
}

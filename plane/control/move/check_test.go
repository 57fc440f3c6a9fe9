package move_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/control/move"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

// paper is an estate on paper: a desktop on alpha, and beta to go to.
type paper struct {
	*testing.T
	s *store.Store
	m *move.Mover
}

const digest = estate.Digest("sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")

func able(has ...estate.CapabilityReport) []estate.CapabilityReport {
	all := []estate.CapabilityReport{
		{Name: estate.CanTransfer, Has: true}, {Name: estate.CanHotplug, Has: true}, {Name: estate.CanGuest, Has: true},
		{Name: estate.CanNetwork, Has: true, Value: "tap"}, {Name: estate.CanMoveLive, Has: true, Value: "one site"},
		{Name: estate.CanDisplay, Has: true, Value: "rfb"}, {Name: estate.NeedsDrivers, Has: true, Value: "virtio"},
	}
	for _, h := range has {
		i := slices.IndexFunc(all, func(c estate.CapabilityReport) bool { return c.Name == h.Name })
		all[i] = h
	}
	return all
}

func newPaper(t *testing.T) *paper {
	s := store.New(mem.Open(mem.Options{}), store.Options{})
	t.Cleanup(func() { s.Close() })
	p := &paper{t, s, &move.Mover{
		Store: s, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Presentations: []estate.PresentationOffer{{Name: "screen", Protocol: "rfb", Keeps: true}, {Name: "served", Protocol: "rdp", Guest: true}},
	}}
	for _, name := range []string{"alpha", "beta"} {
		p.add("Hypervisor", "", name, func(r estate.Resource) {
			h := r.(*estate.Hypervisor)
			room := estate.Capacity{CPUs: 8, Memory: 16 * estate.GiB, Disk: 100 * estate.GiB}
			h.Status = estate.HypervisorStatus{State: estate.HypervisorReady, Capacity: room, Free: room, Capabilities: able()}
		})
	}
	p.add("Person", "", "ana", nil)
	p.add("Network", "p", "office", func(r estate.Resource) { r.(*estate.Network).Spec.Subnet = "10.1.0.0/24" })
	p.add("Context", "p", "work", func(r estate.Resource) {
		s := &r.(*estate.Context).Spec
		s.Network, s.Clipboard = "office", estate.Clipboard{In: true, Out: true}
	})
	p.add("Image", "p", "debian", func(r estate.Resource) {
		m := r.(*estate.Image)
		m.Status.Digest, m.Status.Size = digest, 2*estate.GiB
		m.Status.Guest = estate.GuestFacts{Agent: true, Screen: true, Home: "/home/user", Drivers: []string{"virtio", "nvme"},
			Serves: []estate.Endpoint{{Protocol: "rdp", Port: 3389}}}
	})
	p.add("Blueprint", "p", "office", func(r estate.Resource) {
		r.(*estate.Blueprint).Spec = estate.BlueprintSpec{Image: "debian", Presentation: "screen", Context: "work", Home: estate.GiB}
	})
	p.add("Desktop", "p", "d", func(r estate.Resource) {
		d := r.(*estate.Desktop)
		d.Spec, d.Status.Machine = estate.DesktopSpec{Blueprint: "office", Person: "ana", Power: estate.On}, "d"
	})
	p.add("Machine", "p", "d", func(r estate.Resource) {
		m := r.(*estate.Machine)
		m.Metadata.Owner = &estate.Ref{Kind: "Desktop", Project: "p", Name: "d"}
		m.Spec = estate.MachineSpec{Hypervisor: "alpha", Epoch: 3, Power: estate.On, Hardware: estate.Hardware{
			CPUs: 2, Memory: estate.GiB, NICs: []estate.NIC{{Network: "office"}},
			Disks: []estate.Disk{{Name: "root", Image: digest}, {Name: "home", Volume: "home-ana-work"}},
		}}
		m.Status = estate.MachineStatus{Power: estate.On, Hypervisor: "alpha", Epoch: 3}
	})
	p.add("Volume", "p", "home-ana-work", func(r estate.Resource) {
		v := r.(*estate.Volume)
		v.Spec, v.Status.Hypervisor = estate.VolumeSpec{Person: "ana", Size: estate.GiB}, "alpha"
	})
	return p
}

func (p *paper) add(kind estate.Kind, project, name string, change func(estate.Resource)) {
	p.Helper()
	info, _ := estate.KindNamed(string(kind))
	r := info.NewNamed(project, name)
	if change != nil {
		change(r)
	}
	if err := p.s.Create(context.Background(), r); err != nil {
		p.Fatal(err)
	}
}

func on[T any](p *paper, project, name string, change func(*T)) {
	p.Helper()
	if _, err := store.Modify(p.Context(), p.s, project, name, func(t *T) error { change(t); return nil }); err != nil {
		p.Fatal(err)
	}
}

func (p *paper) ask(req api.MoveRequest) *api.MoveReply {
	p.Helper()
	req.DryRun = true
	reply, err := p.m.Begin(p.Context(), estate.Ref{Kind: "Desktop", Project: "p", Name: "d"}, req, "ana")
	if err != nil {
		p.Fatal(err)
	}
	return reply
}

func TestNothingStandsAgainstAMoveThatFits(t *testing.T) {
	p := newPaper(t)
	for _, to := range []string{"beta", ""} {
		if got := p.ask(api.MoveRequest{To: to}); len(got.Obstacles) > 0 || got.To != "beta" || got.From != "alpha" {
			t.Errorf("to %q: %+v", to, got)
		}
	}
	if ops, _, _ := store.List[estate.Operation](t.Context(), p.s, ""); len(ops) > 0 {
		t.Error("a dry run began something")
	}
}

// TestEveryReasonIsToldAtOnce breaks one thing at a time, then everything.
func TestEveryReasonIsToldAtOnce(t *testing.T) {
	lost := func(p *paper, name string) {
		on(p, "", name, func(h *estate.Hypervisor) { h.Status.State = estate.HypervisorLost })
	}
	lacks := func(p *paper, name string, c estate.CapabilityReport) {
		on(p, "", name, func(h *estate.Hypervisor) { h.Status.Capabilities = able(c) })
	}
	reasons := map[string]struct {
		spoil func(*paper)
		req   api.MoveRequest
		says  string
	}{
		"source lost":    {func(p *paper) { lost(p, "alpha") }, api.MoveRequest{}, "the agent of alpha does not answer"},
		"target lost":    {func(p *paper) { lost(p, "beta") }, api.MoveRequest{}, "its agent does not answer"},
		"target drained": {func(p *paper) { on(p, "", "beta", func(h *estate.Hypervisor) { h.Spec.Drain = true }) }, api.MoveRequest{}, "being drained"},
		"no export": {func(p *paper) {
			lacks(p, "alpha", estate.CapabilityReport{Name: estate.CanTransfer, Reason: "not built"})
		}, api.MoveRequest{}, "alpha cannot do disk-transfer (not built)"},
		"no import":  {func(p *paper) { lacks(p, "beta", estate.CapabilityReport{Name: estate.CanTransfer}) }, api.MoveRequest{}, "beta cannot do disk-transfer"},
		"no network": {func(p *paper) { lacks(p, "beta", estate.CapabilityReport{Name: estate.CanNetwork, Reason: "no root"}) }, api.MoveRequest{}, "it cannot do network (no root)"},
		"no disk":    {func(p *paper) { on(p, "", "beta", func(h *estate.Hypervisor) { h.Status.Free.Disk = estate.GiB }) }, api.MoveRequest{}, "beta has 1024 MiB of disk free, 3072 MiB needed"},
		"drivers missing": {func(p *paper) {
			lacks(p, "beta", estate.CapabilityReport{Name: estate.NeedsDrivers, Has: true, Value: "xenbus"})
		}, api.MoveRequest{}, "image debian has no xenbus drivers"},
		"drivers unknown": {func(p *paper) {
			lacks(p, "beta", estate.CapabilityReport{Name: estate.NeedsDrivers, Has: true, Value: "xenbus"})
			on(p, "p", "debian", func(m *estate.Image) { m.Status.Guest.Drivers = nil })
		}, api.MoveRequest{}, "it is not known whether the system on disk root has the drivers that beta needs (xenbus)"},
		"guest type": {func(p *paper) {}, api.MoveRequest{GuestType: "pv"}, "beta makes no guests of type pv"},
		"live type": {func(p *paper) {
			on(p, "", "beta", func(h *estate.Hypervisor) { h.Status.GuestTypes = []string{"pvh", "pv"} })
		}, api.MoveRequest{GuestType: "pv", Live: true}, "a machine that runs stays of the type"},
		"volume elsewhere": {func(p *paper) { on(p, "p", "home-ana-work", func(v *estate.Volume) { v.Status.Hypervisor = "gamma" }) }, api.MoveRequest{}, "volume home-ana-work lies on gamma"},
		"volume held":      {func(p *paper) { on(p, "p", "home-ana-work", func(v *estate.Volume) { v.Spec.Holder = "another" }) }, api.MoveRequest{}, "another machine holds volume"},
		"volume shared": {func(p *paper) {
			p.add("Machine", "p", "other", func(r estate.Resource) {
				r.(*estate.Machine).Spec.Hardware.Disks = []estate.Disk{{Name: "home", Volume: "home-ana-work"}}
			})
		}, api.MoveRequest{}, "machine other uses volume home-ana-work too"},
		"live with a volume": {nil, api.MoveRequest{Live: true}, "it has a volume, which does not go along while it runs"},
		"live elsewhere": {func(p *paper) {
			lacks(p, "beta", estate.CapabilityReport{Name: estate.CanMoveLive, Has: true, Value: "another site"})
		}, api.MoveRequest{Live: true}, "running machines do not move between alpha and beta"},
		"live and off":  {func(p *paper) { on(p, "p", "d", func(m *estate.Machine) { m.Status.Power = estate.Off }) }, api.MoveRequest{Live: true}, "it does not run"},
		"no such place": {nil, api.MoveRequest{To: "nowhere"}, "there is no hypervisor nowhere"},
		"there already": {nil, api.MoveRequest{To: "alpha"}, "it is on alpha already"},
		"adopted":       {func(p *paper) { on(p, "p", "d", func(m *estate.Machine) { m.Spec.Adopted = true }) }, api.MoveRequest{}, "it was adopted"},
	}
	for name, c := range reasons {
		t.Run(name, func(t *testing.T) {
			p := newPaper(t)
			if c.spoil != nil {
				c.spoil(p)
			}
			if c.req.To == "" {
				c.req.To = "beta"
			}
			got := p.ask(c.req)
			if !strings.Contains(strings.Join(got.Obstacles, "\n"), c.says) {
				t.Errorf("obstacles %q, want one that says %q", got.Obstacles, c.says)
			}
			_, err := p.m.Begin(t.Context(), estate.Ref{Kind: "Desktop", Project: "p", Name: "d"}, c.req, "ana")
			if !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("begun all the same: %v", err)
			}
		})
	}
	p := newPaper(t)
	for _, name := range []string{"no disk", "volume elsewhere", "drivers missing"} {
		reasons[name].spoil(p)
	}
	if got := p.ask(api.MoveRequest{To: "beta"}); len(got.Obstacles) < 3 {
		t.Errorf("three things are wrong, told were %q", got.Obstacles)
	}
}

func TestForceMovesWhatIsNotKnownToBoot(t *testing.T) {
	p := newPaper(t)
	on(p, "", "beta", func(h *estate.Hypervisor) {
		h.Status.Capabilities = able(estate.CapabilityReport{Name: estate.NeedsDrivers, Has: true, Value: "xenbus"})
	})
	got := p.ask(api.MoveRequest{To: "beta", Force: true})
	if len(got.Obstacles) > 0 || !strings.Contains(strings.Join(got.Notes, ""), "xenbus") {
		t.Errorf("%+v; want a note and no obstacle", got)
	}
}

// TestTheTypeOfGuestFollowsTheHost keeps a type where it is made, and takes the
// usual one where it is not; what the drivers are for is the type there.
func TestTheTypeOfGuestFollowsTheHost(t *testing.T) {
	p := newPaper(t)
	on(p, "p", "d", func(m *estate.Machine) { m.Spec.Hardware.GuestType = "square" })
	changes := "its type of guest changes from square to the usual one"
	if got := p.ask(api.MoveRequest{To: "beta"}); len(got.Obstacles) > 0 || !slices.Contains(got.Notes, changes) {
		t.Errorf("to a host of one type: %+v", got)
	}
	on(p, "", "beta", func(h *estate.Hypervisor) {
		h.Status.GuestTypes = []string{"round", "square"}
		h.Status.Capabilities = append(able(), estate.CapabilityReport{Name: estate.NeedsDrivers, GuestType: "round", Has: true, Value: "rounded"})
	})
	if got := p.ask(api.MoveRequest{To: "beta"}); len(got.Obstacles) > 0 || len(got.Notes) > 0 {
		t.Errorf("to a host of both types: %+v; want it to stay what it is", got)
	}
	got := p.ask(api.MoveRequest{To: "beta", GuestType: "round"})
	if text := strings.Join(got.Obstacles, ""); !strings.Contains(text, "image debian has no rounded drivers") {
		t.Errorf("as the other type: %+v; want it to need what that needs", got)
	}
}

// TestWhereThereIsNoDisplayTheGuestServesTheDesktop moves to a host without a
// display and back.
func TestWhereThereIsNoDisplayTheGuestServesTheDesktop(t *testing.T) {
	p := newPaper(t)
	on(p, "", "beta", func(h *estate.Hypervisor) {
		h.Status.Capabilities = able(estate.CapabilityReport{Name: estate.CanDisplay, Reason: "its guests have no screen"})
	})
	got := p.ask(api.MoveRequest{To: "beta"})
	if len(got.Obstacles) > 0 || !slices.Contains(got.Notes, "the desktop will be reached by served instead of screen") {
		t.Errorf("%+v", got)
	}
	on(p, "p", "d", func(d *estate.Desktop) { d.Spec.Presentation = "served" })
	on(p, "p", "d", func(m *estate.Machine) { m.Spec.Hypervisor = "beta" })
	on(p, "p", "home-ana-work", func(v *estate.Volume) { v.Status.Hypervisor = "beta" })
	if got := p.ask(api.MoveRequest{To: "alpha"}); len(got.Obstacles) > 0 || !slices.Contains(got.Notes, "the desktop will be reached by screen instead of served") {
		t.Errorf("on the way back: %+v", got)
	}
	on(p, "p", "debian", func(m *estate.Image) { m.Status.Guest.Serves = nil })
	on(p, "p", "d", func(m *estate.Machine) { m.Spec.Hypervisor = "alpha" })
	on(p, "p", "home-ana-work", func(v *estate.Volume) { v.Status.Hypervisor = "alpha" })
	if got := p.ask(api.MoveRequest{To: "beta"}); !strings.Contains(strings.Join(got.Obstacles, ""), "it cannot do display (its guests have no screen), presentation screen needs it") {
		t.Errorf("a guest that serves nothing: %+v", got)
	}
}

func TestADrainMovesWhatCanAndTellsWhatCannot(t *testing.T) {
	p := newPaper(t)
	p.add("Machine", "p", "stuck", func(r estate.Resource) {
		m := r.(*estate.Machine)
		m.Spec = estate.MachineSpec{Hypervisor: "alpha", Epoch: 1, Power: estate.On, Hardware: estate.Hardware{CPUs: 64, Memory: estate.GiB, Disks: []estate.Disk{{Name: "root", Image: digest}}}}
	})
	reply, err := p.m.Drain(t.Context(), "alpha", api.MoveRequest{}, "ana")
	if err != nil || len(reply.Moves) != 2 {
		t.Fatalf("%+v, %v", reply, err)
	}
	if d := reply.Moves[0]; d.Machine.Name != "d" || d.Operation == "" || len(d.Obstacles) > 0 {
		t.Errorf("%+v", d)
	}
	if s := reply.Moves[1]; s.Operation != "" || !strings.Contains(strings.Join(s.Obstacles, ""), "beta has 8 CPUs, 64 needed") {
		t.Errorf("%+v", s)
	}
	h, _ := store.Get[estate.Hypervisor](t.Context(), p.s, "", "alpha")
	m, _ := store.Get[estate.Machine](t.Context(), p.s, "p", "d")
	v, _ := store.Get[estate.Volume](t.Context(), p.s, "p", "home-ana-work")
	if !h.Spec.Drain || m.Spec.Moving == nil || m.Spec.Moving.To != "beta" || string(v.Spec.Holder) != m.Metadata.UID {
		t.Errorf("drain %v, moving %+v, holder %q", h.Spec.Drain, m.Spec.Moving, v.Spec.Holder)
	}
	if err := p.m.Undrain(t.Context(), "alpha"); err != nil {
		t.Fatal(err)
	}
	if h, _ = store.Get[estate.Hypervisor](t.Context(), p.s, "", "alpha"); h.Spec.Drain {
		t.Error("it is still drained")
	}
}

// TestAMoveBringsNoStrangersTogether moves a machine of each trust to a host with
// one of each other.
func TestAMoveBringsNoStrangersTogether(t *testing.T) {
	for there := range 4 {
		for trust := range 4 {
			p := newPaper(t)
			p.add("Machine", "p", "there", func(r estate.Resource) {
				r.(*estate.Machine).Spec = estate.MachineSpec{Hypervisor: "beta", Context: "other", Trust: there, Hardware: estate.Hardware{CPUs: 1, Memory: estate.GiB}}
			})
			on(p, "p", "work", func(x *estate.Context) { x.Spec.Trust = trust })
			on(p, "p", "d", func(m *estate.Machine) { m.Spec.Context, m.Spec.Trust = "work", trust })
			got := strings.Contains(strings.Join(p.ask(api.MoveRequest{To: "beta"}).Obstacles, ""), "never shares a host")
			if want := there+trust == 3 && there*trust == 0; got != want {
				t.Errorf("trust %d moves to where trust %d is: refused = %v, want %v", trust, there, got, want)
			}
		}
	}
}

package level_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"consort.dev/consort/agent"
	"consort.dev/consort/api"
	"consort.dev/consort/application"
	"consort.dev/consort/application/fakeapps"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/fakehost"
	"consort.dev/consort/image"
	"consort.dev/consort/plane/calls"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/control/level"
	"consort.dev/consort/plane/control/lifecycle"
	"consort.dev/consort/plane/control/move"
	"consort.dev/consort/plane/control/place"
	"consort.dev/consort/plane/rpc"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

const (
	soon  = 2 * time.Minute         // bounds every wait
	bound = 2 * time.Second         // of a start
	long  = 2200 * time.Millisecond // that a start takes on a slow host
)

// keys lets everybody in as the administrator, as the unix socket does.
type keys struct{}

func (keys) Authenticate(*http.Request) (rpc.Caller, error)              { return rpc.Caller{Admin: true}, nil }
func (keys) Allow(context.Context, rpc.Caller, string, estate.Ref) error { return nil }
func (keys) Sees(context.Context, rpc.Caller, estate.Resource) bool      { return true }

// guests have booted and drawn their desktop at once.
func guests(ctx context.Context, m driver.Machine, cmd driver.Command) (driver.Output, error) {
	if strings.HasPrefix(strings.Join(cmd.Args, " "), "/bin/sh -c hostname;") {
		return driver.Output{Stdout: []byte("office\n")}, nil
	}
	return fakehost.Shell(ctx, m, cmd)
}

// forgetful begins moves, and loses the first reply.
type forgetful struct {
	level.Moves
	lost atomic.Bool
}

func (f *forgetful) Begin(ctx context.Context, ref estate.Ref, req api.MoveRequest, by string) (*api.MoveReply, error) {
	reply, err := f.Moves.Begin(ctx, ref, req, by)
	if !req.DryRun && err == nil && !f.lost.Swap(true) {
		return nil, fault.OutcomeUnknown.Errorf("the reply was lost")
	}
	return reply, err
}

// plane is a plane with all that concerns desktops, and hosts in memory.
type plane struct {
	*testing.T
	store  *store.Store
	calls  *calls.Broker
	server *httptest.Server
	client *api.Client
	slow   sync.Map // hypervisors on which applications start slowly
	moves  *forgetful
}

func newPlane(t *testing.T) *plane {
	p := &plane{T: t, store: store.New(mem.Open(mem.Options{Now: time.Now}), store.Options{}), calls: calls.New(rand.Reader)}
	quiet := slog.New(slog.DiscardHandler)
	server, err := rpc.New(rpc.Options{Store: p.store, Auth: keys{}, Calls: p.calls, Now: time.Now, Random: rand.Reader, Log: quiet})
	p.must(err)
	p.server = httptest.NewServer(server)
	p.client, err = api.NewClient(api.Options{Server: p.server.URL})
	p.must(err)
	t.Cleanup(func() {
		p.client.Close()
		p.server.CloseClientConnections()
		p.server.Close()
		p.store.Close()
	})
	screens := []estate.PresentationOffer{{Name: "screen", Protocol: "rfb", Keeps: true}}
	deliveries := []estate.DeliveryOffer{{Name: "fakeapps", Needs: []estate.Capability{estate.CanHotplug, estate.CanGuest}, Agent: true}}
	mover := &move.Mover{Store: p.store, Calls: p.calls, Presentations: screens, Deliveries: deliveries, Now: time.Now, Log: quiet,
		Times: move.Times{Again: 20 * time.Millisecond, Settle: 20 * time.Millisecond}}
	p.moves = &forgetful{Moves: mover}
	levels := &level.Keeper{Store: p.store, Moves: p.moves, Now: time.Now, Log: quiet, Every: 200 * time.Millisecond}
	placer := &place.Placer{Store: p.store, Alive: func(context.Context, string) (bool, error) { return true, nil }, Now: time.Now, Log: quiet}
	keeper := &lifecycle.Keeper{Store: p.store, Presentations: screens, Deliveries: deliveries, Now: time.Now, Log: quiet}
	for _, l := range append(placer.Loops(), keeper.Loop(), mover.Loop(), levels.Loop()) {
		p.run(l)
	}
	return p
}

func (p *plane) run(l *control.Loop) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = l.Run(ctx) }()
	p.Cleanup(func() { cancel(); <-done })
}

func (p *plane) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// until waits until something is so.
func (p *plane) until(what string, so func() bool) {
	p.Helper()
	for end := time.Now().Add(soon); !so(); time.Sleep(5 * time.Millisecond) {
		if !time.Now().After(end) {
			continue
		}
		machines, _, _ := store.List[estate.Machine](p.Context(), p.store, "p")
		for _, m := range machines {
			p.Logf("%s: %+v\n%+v", m.Metadata.Name, m.Spec, m.Status)
		}
		desktops, _, _ := store.List[estate.Desktop](p.Context(), p.store, "p")
		for _, d := range desktops {
			p.Logf("%s: %+v %+v", d.Metadata.Name, d.Status.State, d.Status.Progress)
		}
		for _, d := range p.decisions() {
			p.Logf("%s: %+v", d.Spec.Say, d.Status)
		}
		p.Fatalf("not so after %s: %s", soon, what)
	}
}

// employ has a host join whose applications may be slow.
func (p *plane) employ(name string) {
	p.Helper()
	images, err := image.Open(p.TempDir())
	p.must(err)
	for _, kind := range []string{image.KindImage, image.KindLayer} {
		_, err := images.Put(p.Context(), bytes.NewReader(content(kind)), image.Record{Kind: kind, Format: estate.Raw, Size: 4096})
		p.must(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	host, err := hypervisor.Open(ctx, name, fakehost.New(fakehost.Options{Run: guests}))
	p.must(err)
	brought := fakeapps.New()
	brought.Wait = func(_ context.Context, verb string, _ estate.MachineID) error {
		if _, slow := p.slow.Load(name); slow && verb == "start" {
			time.Sleep(long)
		}
		return nil
	}
	apps, err := application.Open(ctx, brought, application.Deadlines{})
	p.must(err)
	client, err := api.NewClient(api.Options{Server: p.server.URL})
	p.must(err)
	a, err := agent.New(agent.Options{
		Hypervisor: name, Provider: "fake", Dir: p.TempDir(), Plane: client, Host: host,
		Applications: map[string]*application.Provider{apps.Offer().Name: apps},
		Images:       images, NoNetwork: "tests make no networks", Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	p.must(err)
	done := make(chan struct{})
	go func() { defer close(done); _ = a.Run(ctx) }()
	p.Cleanup(func() { cancel(); <-done; client.Close() })
	p.until(name+" has joined", func() bool {
		h, err := store.Get[estate.Hypervisor](p.Context(), p.store, "", name)
		return err == nil && h.Status.State == estate.HypervisorReady
	})
}

func digest(b []byte) estate.Digest { return estate.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(b))) }

func content(kind string) []byte {
	b := make([]byte, 4096)
	copy(b, kind)
	return b
}

func (p *plane) create(kind estate.Kind, project, name string, fill func(estate.Resource)) {
	p.Helper()
	info, _ := estate.KindNamed(string(kind))
	r := info.NewNamed(project, name)
	fill(r)
	p.must(p.store.Create(p.Context(), r))
}

// furnish makes what desktops are made from, and the level of the editor.
func (p *plane) furnish(mode estate.Mode) {
	p.Helper()
	system, layer := digest(content(image.KindImage)), digest(content(image.KindLayer))
	p.create("Project", "", "p", func(estate.Resource) {})
	p.create("Person", "", "ana", func(estate.Resource) {})
	p.create("Context", "p", "work", func(r estate.Resource) { r.(*estate.Context).Spec.Colour = "#112233" })
	p.create("Image", "p", "office", func(r estate.Resource) {
		m := r.(*estate.Image)
		m.Spec.Import = &estate.Import{Path: "/nowhere", Format: estate.Raw}
		m.Status.Digest, m.Status.Size = system, 4096
		m.Status.Guest = estate.GuestFacts{OS: "debian-12", Agent: true, Screen: true, Home: "/home/user", User: "user"}
	})
	p.create("Application", "p", "editor", func(r estate.Resource) {
		a := r.(*estate.Application)
		a.Spec = estate.ApplicationSpec{Title: "Editor", Delivery: "fakeapps", Command: []string{"editor"}, Versions: []estate.ApplicationVersion{{Name: "1", Packages: []string{"editor"}}}}
		a.Status.Layers = []estate.LayerBuild{{Version: "1", Image: system, Digest: layer, Size: 4096}}
	})
	p.create("Grant", "p", "editor", func(r estate.Resource) {
		r.(*estate.Grant).Spec = estate.GrantSpec{To: estate.Grantee{Person: "ana"}, Of: estate.Granted{Kind: "Application", Name: "editor"}, Role: estate.Use}
	})
	for name, on := range map[string]string{"office": "", "there": "birch"} {
		p.create("Blueprint", "p", name, func(r estate.Resource) {
			r.(*estate.Blueprint).Spec = estate.BlueprintSpec{
				Image: "office", Presentation: "screen", Context: "work", Applications: []estate.ApplicationChoice{{Name: "editor"}}, Hypervisor: estate.Selector{Name: on},
			}
		})
	}
	p.create("ServiceLevel", "p", "quick", func(r estate.Resource) {
		r.(*estate.ServiceLevel).Spec = estate.ServiceLevelSpec{
			Application: "editor", Mode: mode, Level: estate.Level{Start: &estate.Startup{Within: estate.Duration(bound)}, Target: 900_000},
		}
	})
}

// desktop makes a desktop, which is off.
func (p *plane) desktop(name, blueprint string) {
	p.Helper()
	p.create("Desktop", "p", name, func(r estate.Resource) {
		r.(*estate.Desktop).Spec = estate.DesktopSpec{Blueprint: blueprint, Person: "ana", Power: estate.Off}
	})
}

func (p *plane) machine(desktop string) *estate.Machine {
	d, err := store.Get[estate.Desktop](p.Context(), p.store, "p", desktop)
	if err != nil || d.Status.Machine == "" {
		return new(estate.Machine)
	}
	m, err := store.Get[estate.Machine](p.Context(), p.store, "p", d.Status.Machine)
	if err != nil {
		return new(estate.Machine)
	}
	return m
}

func (p *plane) power(desktop string, power estate.Power) {
	p.Helper()
	_, err := store.Modify(p.Context(), p.store, "p", desktop, func(d *estate.Desktop) error { d.Spec.Power = power; return nil })
	p.must(err)
	p.until(fmt.Sprintf("%s is %s", desktop, power), func() bool {
		m := p.machine(desktop)
		return m.Spec.Moving == nil && (m.Status.Power == power || power == estate.Off && m.Metadata.Name == "")
	})
}

// starts turns a desktop on, starts the editor on it and turns it off, so often.
func (p *plane) starts(desktop string, times int) {
	p.Helper()
	for range times {
		p.power(desktop, estate.On)
		p.until("the editor is brought to "+desktop, func() bool {
			m := p.machine(desktop)
			return len(m.Status.Layers) == 1 && m.Status.Layers[0].Attached
		})
		before := len(p.machine(desktop).Status.Launches)
		p.must(p.client.StartApplication(p.Context(), "p", desktop, "editor"))
		p.must(p.client.StartApplication(p.Context(), "p", desktop, "editor")) // it runs: no start
		p.until("the start is told", func() bool { return len(p.machine(desktop).Status.Launches) == before+1 })
		p.power(desktop, estate.Off)
	}
}

func (p *plane) decisions() []*estate.Decision {
	all, _, err := store.List[estate.Decision](p.Context(), p.store, "p")
	p.must(err)
	return all
}

// TestASlowDesktopIsMovedToWhereItIsQuick is the whole way: agents measure, the
// plane judges, decides, moves, and sees what came of it. The reply of the move
// is lost once, and it is not begun twice.
func TestASlowDesktopIsMovedToWhereItIsQuick(t *testing.T) {
	p := newPlane(t)
	p.slow.Store("alder", true)
	p.furnish(estate.Auto)
	p.employ("alder")
	p.desktop("ana", "office")
	p.starts("ana", 3)
	if at := p.machine("ana").Spec.Hypervisor; at != "alder" {
		t.Fatalf("the desktop is on %s, want alder", at)
	}
	if n := len(p.decisions()); n != 0 {
		t.Fatalf("%d decisions while no other host is known, want none", n)
	}
	p.employ("birch")
	p.desktop("bo", "there")
	p.starts("bo", 3)
	p.power("ana", estate.On) // a change: it is looked at
	p.until("a decision is carried out", func() bool {
		all := p.decisions()
		return len(all) == 1 && all[0].Status.State == estate.Done
	})
	d := p.decisions()[0]
	if m := p.machine("ana"); m.Spec.Hypervisor != "birch" || d.Spec.Source != "alder" || d.Spec.Target != "birch" || d.Spec.On.Name != "ana" {
		t.Errorf("it is on %s by a decision from %s to %s about %s, want birch by one from alder to birch about ana", m.Spec.Hypervisor, d.Spec.Source, d.Spec.Target, d.Spec.On.Name)
	}
	if !strings.Contains(d.Spec.Say, "3 of the last 3 starts of editor took longer than 2s") || len(d.Spec.Evidence) == 0 || len(d.Spec.Alternatives) < 2 || d.Spec.Expected.Say == "" {
		t.Errorf("says %q with %d facts and %d alternatives, expects %q", d.Spec.Say, len(d.Spec.Evidence), len(d.Spec.Alternatives), d.Spec.Expected.Say)
	}
	ops, _, err := store.List[estate.Operation](p.Context(), p.store, "p")
	p.must(err)
	if len(ops) != 1 || !p.moves.lost.Load() {
		t.Errorf("%d moves were begun, want 1 although its reply was lost (%v)", len(ops), p.moves.lost.Load())
	}
	p.power("ana", estate.Off)
	p.starts("ana", 3)
	p.until("the outcome is known", func() bool { return p.decisions()[0].Status.Outcome != nil })
	if o := p.decisions()[0].Status.Outcome; !o.Met || !strings.Contains(o.Say, "0 of the last 3 starts of editor") {
		t.Errorf("it came to %+v, want that 0 of 3 starts were late", o)
	}
	p.until("the level says how it stands", func() bool {
		l, err := store.Get[estate.ServiceLevel](p.Context(), p.store, "p", "quick")
		return err == nil && l.Status.State == estate.Broken && l.Status.Total == 9 && l.Status.Good == 6
	})
}

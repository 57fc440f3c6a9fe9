package crossing

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/agent"
	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/gateway"
	"consort.dev/consort/hypervisor"
	"consort.dev/consort/hypervisor/fakehost"
	"consort.dev/consort/image"
	"consort.dev/consort/plane/auth"
	"consort.dev/consort/plane/calls"
	"consort.dev/consort/plane/rpc"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
	"consort.dev/consort/presentation"
	"consort.dev/consort/presentation/vnc"
	"consort.dev/consort/web"
)

// soon bounds every wait for what is to come.
const soon = time.Minute

// plane is the door, the gateway and the portal of a plane, in this process. It
// has one desktop, whose machine is played.
type plane struct {
	*testing.T
	store  *store.Store
	auth   *auth.Auth
	web    *httptest.Server
	trust  *httptest.Server // where the administrator asks without signing in
	calls  *calls.Broker
	log    journal
	client *api.Client // the administrator's

	mu      sync.Mutex
	desktop *desktop // of the next session
}

// desk is the desktop's name, shown by way of vnc.
const desk = "office"

func newPlane(t *testing.T) *plane {
	t.Helper()
	p := &plane{T: t, store: store.New(mem.Open(mem.Options{Now: time.Now}), store.Options{}), calls: calls.New(rand.Reader)}
	log := slog.New(slog.DiscardHandler)
	var err error
	p.auth, err = auth.New(auth.Options{Store: p.store, Now: time.Now, Random: rand.Reader})
	p.must(err)
	shown, err := presentation.Open(t.Context(), vnc.New(vnc.Config{Random: rand.Reader}))
	p.must(err)
	g := gateway.New(gateway.Options{
		KV: p.store.KV(), Store: p.store, Providers: map[string]*presentation.Provider{"vnc": shown},
		Now: time.Now, Random: rand.Reader, Log: log,
		Dial: func(context.Context, *estate.Machine, estate.Presentation) (io.ReadWriteCloser, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.desktop.look()
		},
		Carry: func(ctx context.Context, m *estate.Machine, f api.File) (net.Conn, error) {
			return p.calls.Dial(ctx, m.Spec.Hypervisor, api.Call{Verb: api.CallFile, Machine: estate.MachineID(m.Metadata.UID), File: &f})
		},
	})
	server, err := rpc.New(rpc.Options{
		Store: p.store, Auth: badges{p.auth}, Tickets: g, Files: g, Calls: p.calls, Audit: &p.log, Offers: api.Offers{Presentations: g.Offers()},
		SignIn: p.auth.Handler(), Gateway: g, Web: web.Handler(), Now: time.Now, Random: rand.Reader, Log: log,
	})
	p.must(err)
	p.web = httptest.NewServer(server)
	p.trust = httptest.NewUnstartedServer(server)
	p.trust.Config.ConnContext = auth.Trust
	p.trust.Start()
	p.client, err = api.NewClient(api.Options{Server: p.trust.URL})
	p.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	for _, run := range []func(context.Context) error{p.auth.Run, g.Run, p.ready} {
		loops.Go(func() { _ = run(ctx) }) // ends with ctx
	}
	t.Cleanup(func() {
		cancel()
		loops.Wait()
		p.client.Close()
		for _, s := range []*httptest.Server{p.web, p.trust} {
			s.CloseClientConnections()
			s.Close()
		}
		p.store.Close()
	})
	p.furnish()
	return p
}

// badges knows the agent by a token that is its name, and everybody else as the
// real auth does.
type badges struct{ *auth.Auth }

// Authenticate implements rpc.Auth.
func (b badges) Authenticate(r *http.Request) (rpc.Caller, error) {
	if name, is := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); is {
		return rpc.Caller{Agent: name}, nil
	}
	return b.Auth.Authenticate(r)
}

// employ has an agent run the desktop's machine, on a host in memory whose guests
// have that home.
func (p *plane) employ(h *home) {
	p.Helper()
	host, err := hypervisor.Open(p.Context(), "here", fakehost.New(fakehost.Options{Run: h.run}))
	p.must(err)
	client, err := api.NewClient(api.Options{Server: p.web.URL, Token: "here"})
	p.must(err)
	images, err := image.Open(p.TempDir())
	p.must(err)
	base, err := images.Put(p.Context(), strings.NewReader(strings.Repeat("a system", 64)), image.Record{Kind: image.KindImage, Format: estate.Raw, Size: 512})
	p.must(err)
	a, err := agent.New(agent.Options{
		Hypervisor: "here", Provider: "fake", Dir: p.TempDir(), Plane: client, Host: host, Images: images,
		NoNetwork: "tests make no networks", Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	p.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Run(ctx) // ends with ctx
	}()
	p.Cleanup(func() {
		cancel()
		<-done
		client.Close()
	})
	_, err = store.Modify(p.Context(), p.store, "default", desk, func(m *estate.Machine) error {
		m.Spec = estate.MachineSpec{Hypervisor: "here", Epoch: 1, Power: estate.On, Hardware: estate.Hardware{
			CPUs: 1, Memory: estate.GiB, Disks: []estate.Disk{{Name: "system", Image: base.Digest}},
		}}
		return nil
	})
	p.must(err)
	_, err = store.Modify(p.Context(), p.store, "default", desk, func(d *estate.Desktop) error {
		d.Status.Machine, d.Status.Plan = desk, &estate.Plan{Context: "work", Guest: estate.GuestFacts{User: "ana", Agent: true}}
		return nil
	})
	p.must(err)
	p.until("the machine runs, and its agent hears calls", func() bool {
		m, err := store.Get[estate.Machine](p.Context(), p.store, "default", desk)
		return err == nil && m.Status.Power == estate.On && p.calls.Listening("here")
	})
}

// needs skips the test where a program is missing.
func needs(t *testing.T, tools ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs browsers: not with -short")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: make deps test-deps", tool)
		}
	}
}

func (p *plane) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func (p *plane) furnish() {
	head := func(kind estate.Kind, project, name string) estate.Head {
		return estate.Head{APIVersion: estate.APIVersion, Kind: kind, Metadata: estate.Metadata{Project: project, Name: name}}
	}
	for _, r := range []estate.Resource{
		&estate.Project{Head: head("Project", "", "default")},
		&estate.Person{Head: head("Person", "", "ana"), Spec: estate.PersonSpec{Title: "Ana", Admin: true}},
		&estate.Context{Head: head("Context", "default", "work"), Spec: estate.ContextSpec{Title: "Work", Colour: "#2e6f8e"}},
		&estate.Blueprint{Head: head("Blueprint", "default", "clerk"), Spec: estate.BlueprintSpec{Image: "i", Presentation: "vnc", Context: "work"}},
		&estate.Desktop{Head: head("Desktop", "default", desk), Spec: estate.DesktopSpec{Blueprint: "clerk", Person: "ana", Title: "Office"}},
		&estate.Machine{Head: head("Machine", "default", desk)},
	} {
		p.must(p.store.Create(p.Context(), r))
	}
}

// ready makes every session ready at once: there is nothing to bring up.
func (p *plane) ready(ctx context.Context) error {
	sessions, err := p.store.Watch(ctx, 0, "Session")
	if err != nil {
		return err
	}
	for e := range sessions {
		s, is := e.Object.(*estate.Session)
		if !is || e.Deleted || s.Status.State != estate.SessionWaiting {
			continue
		}
		_, err := store.Modify(ctx, p.store, "default", s.Metadata.Name, func(s *estate.Session) error {
			s.Status.State, s.Status.Machine, s.Status.Waiting = estate.SessionReady, desk, ""
			s.Status.Way = estate.Presentation{Name: "vnc", Protocol: "rfb"}
			return nil
		})
		if err != nil && ctx.Err() == nil {
			p.Errorf("make %s ready: %v", s.Metadata.Name, err)
		}
	}
	return ctx.Err()
}

// allow sets what the desktop's context says of the clipboard, and which desktop
// the next session finds.
func (p *plane) allow(c estate.Clipboard, d *desktop) {
	p.Helper()
	_, err := store.Modify(p.Context(), p.store, "default", "work", func(x *estate.Context) error { x.Spec.Clipboard = c; return nil })
	p.must(err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.desktop = d
}

// link returns where Ana signs in, once. It is for a name, since a browser keeps
// no secure cookie of an address.
func (p *plane) link() string {
	p.Helper()
	code, err := p.auth.NewCode(p.Context(), "ana")
	p.must(err)
	return strings.Replace(p.web.URL, "127.0.0.1", "localhost", 1) + "/#code=" + code
}

// until waits for what is to come, and returns how long that took.
func (p *plane) until(what string, so func() bool) time.Duration {
	p.Helper()
	began := time.Now()
	for !so() {
		if time.Since(began) > soon {
			p.Fatalf("not so after %s: %s", soon, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

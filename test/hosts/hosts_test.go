package hosts

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/agent"
	"consort.dev/consort/agent/badge"
	"consort.dev/consort/agent/network"
	"consort.dev/consort/api"
	"consort.dev/consort/application"
	"consort.dev/consort/application/fakeapps"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/fakehost"
	"consort.dev/consort/image"
	"consort.dev/consort/plane/auth"
	"consort.dev/consort/plane/authority"
	"consort.dev/consort/plane/calls"
	"consort.dev/consort/plane/rpc"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

// soon bounds every wait; healed bounds how long anything may take to work
// again once a cut is over.
const (
	soon   = 30 * time.Second
	healed = 45 * time.Second
)

// TestMain runs an agent when the test starts itself in another namespace.
func TestMain(m *testing.M) {
	if state := os.Getenv("CONSORT_TEST_AGENT"); state != "" {
		if err := beAgent(context.Background(), state, os.Getenv("CONSORT_TEST_JOIN"), os.Getenv("CONSORT_TEST_TOKEN")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// beAgent is 'consort agent' over a host and applications in memory.
func beAgent(ctx context.Context, state, join, token string) error {
	b, err := badge.Join(ctx, state, join, token, time.Now)
	if err != nil {
		return err
	}
	client, err := api.NewClient(api.Options{Server: b.Plane(), TLS: b.TLS()})
	if err != nil {
		return err
	}
	a, err := newAgent(ctx, b.Hypervisor(), state, client)
	if err != nil {
		return err
	}
	go b.Run(ctx, client, slog.Default())
	return a.Run(ctx)
}

// newAgent builds an agent over a host in memory, with networks of the kernel.
func newAgent(ctx context.Context, name, state string, client *api.Client) (*agent.Agent, error) {
	guests := func(ctx context.Context, m driver.Machine, cmd driver.Command) (driver.Output, error) {
		if strings.HasPrefix(strings.Join(cmd.Args, " "), "/bin/sh -c hostname;") {
			return driver.Output{Stdout: []byte("far\n")}, nil
		}
		return fakehost.Shell(ctx, m, cmd)
	}
	host, err := hypervisor.Open(ctx, name, fakehost.New(fakehost.Options{Run: guests}))
	if err != nil {
		return nil, err
	}
	apps, err := application.Open(ctx, fakeapps.New(), application.Deadlines{})
	if err != nil {
		return nil, err
	}
	images, err := image.Open(filepath.Join(state, "images"))
	if err != nil {
		return nil, err
	}
	nets, err := network.Open(filepath.Join(state, "network"))
	if err != nil {
		return nil, err
	}
	return agent.New(agent.Options{
		Hypervisor: name, Provider: "fake", Dir: filepath.Join(state, "agent"), Plane: client, Host: host,
		Applications: map[string]*application.Provider{apps.Offer().Name: apps},
		Images:       images, Network: nets, Now: time.Now, Log: slog.Default(),
	})
}

// plane is a plane in memory whose door for agents can be shut and opened.
type plane struct {
	t     *testing.T
	store *store.Store
	auth  *auth.Auth
	calls *calls.Broker
	at    string // address of the door
	shut  func()
}

// newPlane opens a plane whose door is at the address.
func newPlane(t *testing.T, at string, life time.Duration) *plane {
	t.Helper()
	kv := mem.Open(mem.Options{Now: time.Now})
	p := &plane{t: t, at: at, store: store.New(kv, store.Options{})}
	ca, err := authority.Open(t.TempDir(), time.Now)
	p.must(err)
	p.auth, err = auth.New(auth.Options{Store: p.store, Now: time.Now, Random: rand.Reader, Authority: ca, AgentLife: life})
	p.must(err)
	p.open()
	t.Cleanup(func() {
		p.shut()
		p.store.Close()
	})
	return p
}

// open starts the plane's process, as it were, over the store that stays.
func (p *plane) open() {
	p.t.Helper()
	p.calls = calls.New(rand.Reader)
	server, err := rpc.New(rpc.Options{
		Store: p.store, Auth: p.auth, Badges: p.auth, Calls: p.calls, Now: time.Now, Random: rand.Reader,
		Log: slog.New(slog.DiscardHandler), Beat: 500 * time.Millisecond,
	})
	p.must(err)
	var l net.Listener
	p.until("the address is free", soon, func() bool {
		l, err = net.Listen("tcp", p.at)
		return err == nil
	})
	p.at = l.Addr().String()
	door := p.auth.Door()
	h := &http.Server{Handler: door.Handler(server), ConnContext: door.Connected, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	ctx, cancel := context.WithCancel(context.Background())
	h.BaseContext = func(net.Listener) context.Context { return ctx }
	ended := make(chan struct{}, 2)
	go func() { _ = h.Serve(door.Listen(l, p.auth.Authority.Serving(nil, nil))); ended <- struct{}{} }()
	go func() { _ = door.Run(ctx); ended <- struct{}{} }()
	p.shut = func() {
		cancel()
		h.Close()
		<-ended
		<-ended
	}
}

func (p *plane) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// until waits until something is so and returns how long that took.
func (p *plane) until(what string, limit time.Duration, so func() bool) time.Duration {
	p.t.Helper()
	began := time.Now()
	for !so() {
		if time.Since(began) > limit {
			p.t.Fatalf("not so after %s: %s\n%s", limit, what, p.story())
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-p.t.Context().Done():
		}
	}
	return time.Since(began)
}

// story is what the plane knows of the machine.
func (p *plane) story() string {
	m, err := store.Get[estate.Machine](context.Background(), p.store, "p", "far-desk")
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("the machine's status is %+v", m.Status)
}

// token makes a join token.
func (p *plane) token(hypervisor string) string {
	p.t.Helper()
	text, _, err := p.auth.JoinToken(p.t.Context(), hypervisor, 0)
	p.must(err)
	return text
}

// joined reports whether the agent holds its lease and listens for calls.
func (p *plane) joined(hypervisor string) bool {
	_, err := p.store.KV().Get(p.t.Context(), api.AgentLeases+hypervisor)
	return err == nil && p.calls.Listening(hypervisor)
}

// machine returns the machine as the plane knows it.
func (p *plane) machine() *estate.Machine {
	p.t.Helper()
	m, err := store.Get[estate.Machine](p.t.Context(), p.store, "p", "far-desk")
	p.must(err)
	return m
}

func TestEverythingFlowsThroughStreamsThatTheHostOpened(t *testing.T) {
	f := newFar(t)
	f.works()
	if s := f.machine().Status; s.Starts != 1 || s.Hypervisor != "far" {
		t.Errorf("the machine is %+v", s)
	}
}

func TestACutLinkHealsAndTheMachineRunsOn(t *testing.T) {
	f := newFar(t)
	f.works()
	open, err := f.screen()
	f.must(err)
	began := f.machine().Status.Started

	// A short cut is not noticed: what was sent meanwhile arrives.
	f.Link(false)
	drawn := make(chan error, 1)
	go func() { drawn <- draw(open) }()
	select {
	case err := <-drawn:
		t.Fatalf("a frame came through a cut link: %v", err)
	case <-time.After(time.Second): // the length of the cut is the test's input
	}
	f.Link(true)
	cut := time.Now()
	if err := <-drawn; err != nil {
		t.Errorf("the display of before a short cut: %v", err)
	}
	t.Logf("a display went on %s after a cut of a second", time.Since(cut))

	// A long one costs the lease and the streams, not the machine.
	f.Link(false)
	f.until("the lease has run out", soon, func() bool {
		_, err := f.store.KV().Get(t.Context(), api.AgentLeases+"far")
		return errors.Is(err, fault.NotFound)
	})
	f.Link(true)
	took := f.until("far is back", healed, func() bool { return f.joined("far") })
	f.works()
	t.Logf("back %s after a cut that cost the lease", took)
	if s := f.machine().Status; s.Starts != 1 || !s.Started.Equal(began) {
		t.Errorf("the machine was started %d times, last at %s; want once, at %s", s.Starts, s.Started, began)
	}
}

func TestAPlaneThatRestartsFindsItsHostsAgain(t *testing.T) {
	f := newFar(t)
	f.works()
	began := f.machine().Status.Started
	f.shut()
	f.open()
	took := f.until("far is back", healed, func() bool { return f.joined("far") })
	f.works()
	t.Logf("back %s after the plane", took)
	if s := f.machine().Status; s.Starts != 1 || !s.Started.Equal(began) {
		t.Errorf("the machine was started %d times, last at %s; want once, at %s", s.Starts, s.Started, began)
	}
}

func TestARevokedHostIsCutOffAtOnceAndStays(t *testing.T) {
	f := newFar(t)
	f.works()
	open, err := f.screen()
	f.must(err)
	ended := make(chan error, 1)
	go func() {
		for {
			if err := draw(open); err != nil {
				ended <- err
				return
			}
		}
	}()
	if n, err := f.auth.Revoke(t.Context(), "far"); err != nil || n != 1 {
		t.Fatalf("revoked %d, %v", n, err)
	}
	select {
	case <-ended:
	case <-time.After(2 * time.Second):
		t.Error("an open display goes on")
	}
	f.until("its calls end", 5*time.Second, func() bool { return !f.calls.Listening("far") })
	if _, err := f.call(api.CallDisplay, 0); !errors.Is(err, fault.Unavailable) {
		t.Errorf("a call to it: %v, want unavailable", err)
	}
	f.until("its lease has run out", soon, func() bool {
		_, err := f.store.KV().Get(t.Context(), api.AgentLeases+"far")
		return errors.Is(err, fault.NotFound)
	})
	if f.joined("far") {
		t.Error("it came back")
	}
	if !f.joined("near") {
		t.Error("another host was cut off with it")
	}
}

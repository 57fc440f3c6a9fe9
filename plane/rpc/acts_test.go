package rpc

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

func TestConnectTurnsTheDesktopOnAndIsOneSession(t *testing.T) {
	p := start(t)
	p.office()
	ctx := t.Context()
	names := make([]string, 8)
	var wg sync.WaitGroup
	for i := range names {
		wg.Go(func() {
			s, err := p.as("ana").Connect(ctx, "p", "desk", "")
			if err != nil {
				t.Error(err)
				return
			}
			names[i] = s.Metadata.Name
		})
	}
	wg.Wait()
	for _, n := range names {
		if n != names[0] || !strings.HasPrefix(n, "desk-") {
			t.Errorf("got sessions %q, want one", names)
		}
	}
	d, err := store.Get[estate.Desktop](ctx, p.store, "p", "desk")
	if err != nil || d.Spec.Power != estate.On {
		t.Errorf("got power %q, %v; want on", d.Spec.Power, err)
	}
	other, err := p.as("ana").Connect(ctx, "p", "desk", "glass")
	if err != nil || other.Metadata.Name == names[0] || other.Spec.Presentation != "glass" {
		t.Errorf("by another presentation: got %+v, %v; want a session of its own", other, err)
	}
	if _, err := api.Modify(ctx, p.as("ana"), "p", names[0], func(s *estate.Session) error { s.Spec.End = true; return nil }); err != nil {
		t.Errorf("ana ends her session: %v", err)
	}
	again, err := p.as("ana").Connect(ctx, "p", "desk", "")
	if err != nil || again.Metadata.Name == names[0] {
		t.Errorf("after the end: got %+v, %v; want a new one", again, err)
	}
}

// together holds the first two who are about to make a session until both are.
type together struct {
	store.KV
	mu   sync.Mutex
	n    int
	both chan struct{}
}

func (k *together) Commit(ctx context.Context, t store.Txn) (int64, error) {
	if slices.ContainsFunc(t.Then, func(w store.Write) bool { return strings.HasPrefix(w.Key, connects) }) {
		k.mu.Lock()
		if k.n++; k.n == 2 {
			close(k.both)
		}
		k.mu.Unlock()
		select {
		case <-k.both:
		case <-time.After(10 * time.Second): // one has seen the other: nothing to prove
		}
	}
	return k.KV.Commit(ctx, t)
}

func TestTwoConnectsAtOnceToADesktopThatIsOnAreOneSession(t *testing.T) {
	kv := &together{KV: mem.Open(mem.Options{}), both: make(chan struct{})}
	p := startOver(t, kv)
	p.office()
	ctx := t.Context()
	if _, err := api.Modify(ctx, p.as("ana"), "p", "desk", func(d *estate.Desktop) error { d.Spec.Power = estate.On; return nil }); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := p.as("ana").Connect(ctx, "p", "desk", ""); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	all, _, err := store.List[estate.Session](ctx, p.store, "p")
	if err != nil || len(all) != 1 {
		t.Errorf("got %d sessions, %v; want one", len(all), err)
	}
}

func TestConnectIsForThePersonAndOperators(t *testing.T) {
	p := start(t)
	p.office()
	ctx := t.Context()
	if _, err := p.as("ben").Connect(ctx, "p", "desk", ""); !errors.Is(err, fault.NotFound) {
		t.Errorf("ben: got %v, want not-found", err)
	}
	s, err := p.as("root").Connect(ctx, "p", "desk", "")
	if err != nil || s.Spec.Person != "ana" || s.Status.State != estate.SessionWaiting {
		t.Errorf("at the socket: got %+v, %v; want a waiting session for ana", s, err)
	}
	s, err = p.as("oli").Connect(ctx, "p", "desk", "")
	if err != nil || s.Spec.Person != "oli" {
		t.Errorf("the operator: got %+v, %v; want a session of their own", s, err)
	}
	_, err = p.as("ana").Connect(ctx, "p", "desk", "glas")
	if ps := api.Problems(err); len(ps) != 1 || !strings.Contains(ps[0].Text, "did you mean glass?") {
		t.Errorf("unknown presentation: got %v", err)
	}
}

func TestASessionCannotBeTurnedToAnotherDesktop(t *testing.T) {
	p := start(t)
	p.office()
	ctx := t.Context()
	s, err := p.as("ana").Connect(ctx, "p", "desk", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.as("root").Put(ctx, desktop("boss", "ben"), api.Write{}); err != nil {
		t.Fatal(err)
	}
	for _, who := range []string{"ana", "oli", "root"} {
		r := p.curl(who, "PATCH", api.Path(s.Ref()), `{"spec":{"desktop":"boss"}}`)
		if r.status < 400 {
			t.Errorf("%s turned the session: %s", who, r.body)
		}
	}
}

func TestATicketIsForTheReadySessionsPerson(t *testing.T) {
	p := start(t)
	p.office()
	ctx := t.Context()
	s, err := p.as("ana").Connect(ctx, "p", "desk", "")
	if err != nil {
		t.Fatal(err)
	}
	name := s.Metadata.Name
	if _, err := p.as("ana").Ticket(ctx, "p", name, false); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "not ready yet") {
		t.Errorf("before it is ready: got %v, want conflict", err)
	}
	state := func(st estate.SessionState) {
		if _, err := api.ModifyStatus(ctx, p.as("root"), "p", name, func(s *estate.Session) error { s.Status.State = st; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	state(estate.SessionReady)
	got, err := p.as("ana").Ticket(ctx, "p", name, true)
	if err != nil || got.Ticket != name+"/true" || got.Expires.IsZero() {
		t.Errorf("got %+v, %v; want the gateway's ticket", got, err)
	}
	if _, err := p.as("ben").Ticket(ctx, "p", name, false); !errors.Is(err, fault.NotFound) {
		t.Errorf("ben: got %v, want not-found", err)
	}
	if _, err := p.as("oli").Ticket(ctx, "p", name, false); !errors.Is(err, fault.Denied) {
		t.Errorf("oli looks over ana's shoulder: got %v, want denied", err)
	}
	state(estate.SessionEnded)
	if _, err := p.as("ana").Ticket(ctx, "p", name, false); !errors.Is(err, fault.Conflict) {
		t.Errorf("after the end: got %v, want conflict", err)
	}
}

// running gives desk a machine on hypervisor a, with writer in its plan.
func (p *plane) running() *estate.Machine {
	p.t.Helper()
	ctx := p.t.Context()
	m := &estate.Machine{Head: head("Machine", "p", "desk-m"), Spec: estate.MachineSpec{Hypervisor: "a", Power: estate.On}}
	m.Status.Power, m.Status.Hypervisor = estate.On, "a"
	if err := p.store.Create(ctx, m); err != nil {
		p.t.Fatal(err)
	}
	_, err := store.Modify(ctx, p.store, "p", "desk", func(d *estate.Desktop) error {
		d.Status.Machine = "desk-m"
		d.Status.Plan = &estate.Plan{
			Layers: []estate.Layer{{Application: "writer", Version: "1", Delivery: "cart"}},
			Guest:  estate.GuestFacts{User: "user", Home: "/home/user"},
		}
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

// agent answers calls to hypervisor a with a reply line until the test ends.
func (p *plane) agent(reply api.StartReply) <-chan api.Call {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := p.as("agent-a")
	seen, done := make(chan api.Call, 8), make(chan struct{})
	go func() {
		defer close(done)
		for call := range c.Calls(ctx, "a", nil) {
			seen <- call
			conn, err := c.OpenCall(ctx, call.ID)
			if err != nil {
				p.t.Error(err)
				continue
			}
			if err := json.NewEncoder(conn).Encode(reply); err != nil {
				p.t.Error(err)
			}
			conn.Close()
		}
	}()
	p.t.Cleanup(func() { cancel(); <-done })
	eventually(p.t, "the agent listens", func() bool { return p.calls.Listening("a") })
	return seen
}

func TestStartAsksTheAgentForAnEntitledApplication(t *testing.T) {
	p := start(t)
	p.office()
	ctx, ana := t.Context(), p.as("ana")
	if err := ana.StartApplication(ctx, "p", "desk", "writer"); !errors.Is(err, fault.NotFound) {
		t.Errorf("not entitled: got %v, want not-found", err)
	}
	if err := p.as("root").Put(ctx, grant("ana-writes", "ana", estate.Granted{Kind: "Application", Name: "writer"}, estate.Use), api.Write{}); err != nil {
		t.Fatal(err)
	}
	if err := ana.StartApplication(ctx, "p", "desk", "writer"); !errors.Is(err, fault.Conflict) {
		t.Errorf("not running: got %v, want conflict", err)
	}
	m := p.running()
	if err := ana.StartApplication(ctx, "p", "desk", "writer"); !errors.Is(err, fault.Unavailable) {
		t.Errorf("no agent: got %v, want unavailable", err)
	}
	seen := p.agent(api.StartReply{})
	if err := ana.StartApplication(ctx, "p", "desk", "writer"); err != nil {
		t.Fatal(err)
	}
	call := <-seen
	if call.Verb != api.CallStart || string(call.Machine) != m.Metadata.UID || call.Start.Command[0] != "/usr/bin/writer" || call.Start.Layer.Version != "1" || call.Start.User != "user" {
		t.Errorf("got call %+v, start %+v", call, call.Start)
	}
}

func TestTheAgentsErrorReachesWhoStarts(t *testing.T) {
	p := start(t)
	p.office()
	p.running()
	if err := p.as("root").Put(t.Context(), grant("ana-writes", "ana", estate.Granted{Kind: "Application", Name: "writer"}, estate.Use), api.Write{}); err != nil {
		t.Fatal(err)
	}
	p.agent(api.StartReply{Error: api.NewProblem(fault.Busy.Errorf("the layer is being attached; try again"))})
	err := p.as("ana").StartApplication(t.Context(), "p", "desk", "writer")
	if !errors.Is(err, fault.Busy) || !strings.Contains(err.Error(), "try again") {
		t.Errorf("got %v, want the agent's own words", err)
	}
}

func TestAnAgentJoinsStaysAliveAndIsTakenOver(t *testing.T) {
	p := start(t)
	p.office()
	ctx, a := t.Context(), p.as("agent-a")
	first, err := a.Join(ctx, "a")
	if err != nil || first.TTL == 0 {
		t.Fatalf("got %+v, %v", first, err)
	}
	if _, err := p.store.KV().Get(ctx, api.AgentLeases+"a"); err != nil {
		t.Errorf("the key of the lease: %v", err)
	}
	if err := a.Alive(ctx, "a", first.Lease); err != nil {
		t.Error(err)
	}
	second, err := a.Join(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Alive(ctx, "a", first.Lease); !errors.Is(err, fault.NotFound) {
		t.Errorf("the first after the second joined: got %v, want not-found", err)
	}
	if err := a.Alive(ctx, "a", second.Lease); err != nil {
		t.Error(err)
	}
	if _, err := p.as("agent-b").Join(ctx, "a"); !errors.Is(err, fault.Denied) {
		t.Errorf("another's agent: got %v, want denied", err)
	}
	if _, err := p.as("ana").Join(ctx, "a"); !errors.Is(err, fault.NotFound) {
		t.Errorf("a person: got %v, want not-found", err)
	}
	if _, err := p.as("root").Join(ctx, "none"); !errors.Is(err, fault.NotFound) {
		t.Errorf("no such hypervisor: got %v, want not-found", err)
	}
}

func TestATunnelCarriesBytesBothWays(t *testing.T) {
	const size = 64 << 20
	p := start(t)
	p.office()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a := p.as("agent-a")
	in := a.Calls(ctx, "a", nil)
	eventually(t, "the agent listens", func() bool { return p.calls.Listening("a") })
	var wg sync.WaitGroup
	wg.Go(func() {
		call := <-in
		conn, err := a.OpenCall(ctx, call.ID)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		// What comes is sent back, while it comes.
		if n, err := io.Copy(conn, io.LimitReader(conn, size)); n != size || err != nil {
			t.Errorf("the agent passed %d bytes, %v; want %d", n, err, size)
		}
	})
	conn, err := p.calls.Dial(ctx, "a", api.Call{Verb: api.CallDisplay, Machine: "m"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	block := make([]byte, 1<<20)
	_, _ = rand.Read(block)
	wg.Go(func() {
		mine := bytes.Clone(block)
		for i := range size / len(block) {
			mine[0] = byte(i)
			if _, err := conn.Write(mine); err != nil {
				t.Error(err)
				return
			}
		}
	})
	want, got := bytes.Clone(block), make([]byte, len(block))
	for i := range size / len(block) {
		want[0] = byte(i)
		if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("block %d: %v, or other bytes", i, err)
		}
	}
	wg.Wait()
}

func TestATunnelOfAnotherHypervisorIsRefused(t *testing.T) {
	p := start(t)
	p.office()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	in := p.as("agent-a").Calls(ctx, "a", nil)
	eventually(t, "the agent listens", func() bool { return p.calls.Listening("a") })
	dialled := make(chan error, 1)
	go func() {
		conn, err := p.calls.Dial(ctx, "a", api.Call{Verb: api.CallPort, Machine: "m", Port: 80})
		if err == nil {
			conn.Close()
		}
		dialled <- err
	}()
	call := <-in
	for who, want := range map[string]fault.Kind{"agent-b": fault.NotFound, "ana": fault.Denied} {
		if _, err := p.as(who).OpenCall(ctx, call.ID); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", who, err, want)
		}
	}
	conn, err := p.as("agent-a").OpenCall(ctx, call.ID)
	if err != nil {
		t.Fatalf("its own agent: %v", err)
	}
	conn.Close()
	if err := <-dialled; err != nil {
		t.Error(err)
	}
	if _, err := p.as("agent-a").OpenCall(ctx, call.ID); !errors.Is(err, fault.NotFound) {
		t.Errorf("a second time: got %v, want not-found", err)
	}
	if lost := p.curl("agent-b", "GET", "/v1/hypervisors/a/calls", ""); lost.status != 403 {
		t.Errorf("another's agent listens: got %d, want 403", lost.status)
	}
}

func TestAnAgentThatRefusesIsHeardAtOnce(t *testing.T) {
	p := start(t)
	p.office()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a := p.as("agent-a")
	in := a.Calls(ctx, "a", nil)
	eventually(t, "the agent listens", func() bool { return p.calls.Listening("a") })
	dialled := make(chan error, 1)
	go func() {
		_, err := p.calls.Dial(ctx, "a", api.Call{Verb: api.CallDisplay, Machine: "m"})
		dialled <- err
	}()
	call := <-in
	if err := p.as("agent-b").RefuseCall(ctx, call.ID, fault.Busy); !errors.Is(err, fault.NotFound) {
		t.Errorf("another's agent: got %v, want not-found", err)
	}
	if err := a.RefuseCall(ctx, call.ID, fault.Conflict.Errorf("the machine is off")); err != nil {
		t.Error(err)
	}
	if err := <-dialled; !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "the machine is off") {
		t.Errorf("got %v, want the agent's words", err)
	}
}

func TestMeAndOffersSayWhoAndWhat(t *testing.T) {
	p := start(t)
	p.office()
	me, err := p.as("ana").Me(t.Context())
	if err != nil || me.Person != "ana" || me.Admin {
		t.Errorf("got %+v, %v", me, err)
	}
	o, err := p.as("ana").Offers(t.Context())
	if err != nil || len(o.Presentations) != 2 {
		t.Errorf("got %+v, %v", o, err)
	}
}

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/application"
	"consort.dev/consort/audit"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/gateway"
	"consort.dev/consort/plane/auth"
	"consort.dev/consort/plane/authority"
	"consort.dev/consort/plane/calls"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/control/level"
	"consort.dev/consort/plane/control/lifecycle"
	"consort.dev/consort/plane/control/move"
	"consort.dev/consort/plane/control/place"
	"consort.dev/consort/plane/control/pool"
	"consort.dev/consort/plane/control/scale"
	"consort.dev/consort/plane/control/service"
	"consort.dev/consort/plane/fronts"
	"consort.dev/consort/plane/metrics"
	"consort.dev/consort/plane/metrics/embedded"
	"consort.dev/consort/plane/rpc"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/etcd"
	"consort.dev/consort/recording"
	"consort.dev/consort/web"
)

// plane is the plane's half of the process.
type plane struct {
	log     *slog.Logger
	store   *store.Store
	audit   *audit.Log
	auth    *auth.Auth
	gateway *gateway.Gateway
	calls   *calls.Broker
	server  *rpc.Server
	offers  api.Offers
	mover   *move.Mover
	pools   *pool.Keeper
	fronts  *fronts.Row
	source  metrics.Source  // of what is measured
	kept    *embedded.Store // where it is kept; nil where a server was named
	apps    map[string]*application.Provider
	socket  string // where the API is reached on this host
	url     string // where people reach it
	ca      *authority.Authority
	agents  string // URL where agents of other hosts come in; empty for nowhere
	client  *api.Client
}

func openPlane(ctx context.Context, o upOptions, log *slog.Logger) (*plane, error) {
	kv, err := openStore(ctx, o)
	if err != nil {
		return nil, err
	}
	p := &plane{log: log, store: store.New(kv, store.Options{}), calls: calls.New(rand.Reader), socket: filepath.Join(o.run, "api.sock")}
	if err := p.open(ctx, o, kv); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func openStore(ctx context.Context, o upOptions) (store.KV, error) {
	if len(o.store) > 0 {
		return etcd.Open(ctx, etcd.Config{Endpoints: o.store})
	}
	return etcd.Embed(ctx, filepath.Join(o.state, "etcd"))
}

// open builds the plane's parts over the store.
func (p *plane) open(ctx context.Context, o upOptions, kv store.KV) error {
	shown, err := openPresentations(ctx)
	if err != nil {
		return err
	}
	if p.apps, err = openApplications(ctx, o.state); err != nil {
		return err
	}
	p.audit, err = audit.Open(ctx, audit.Options{
		Dir: filepath.Join(o.state, "audit"), KV: kv, Now: time.Now, Random: rand.Reader, Log: p.log, Optional: o.auditOptional, Keep: o.auditKeep,
	})
	if err != nil {
		return err
	}
	films := recording.New(recording.Options{
		Dir: filepath.Join(o.state, "recordings"), KV: kv, Now: time.Now, Random: rand.Reader, Log: p.log,
	})
	p.gateway = gateway.New(gateway.Options{
		Recordings: films, Audit: p.audit, KV: kv, Store: p.store, Dial: p.dial, Carry: p.carry, Providers: shown, Now: time.Now, Random: rand.Reader, Log: p.log,
	})
	p.offers = api.Offers{Presentations: p.gateway.Offers(), Hypervisors: hypervisorOffers()}
	for _, a := range p.apps {
		p.offers.Deliveries = append(p.offers.Deliveries, a.Offer())
	}
	if p.ca, err = authority.Open(filepath.Join(o.state, "ca"), time.Now); err != nil {
		return err
	}
	if p.auth, err = auth.New(auth.Options{Audit: p.audit, Store: p.store, Now: time.Now, Random: rand.Reader, Log: p.log, Authority: p.ca, AgentLife: o.agentLife}); err != nil {
		return err
	}
	p.mover = &move.Mover{
		Store: p.store, Calls: p.calls, Presentations: p.offers.Presentations, Deliveries: p.offers.Deliveries,
		Now: time.Now, Log: p.log, Events: p.recorder("move"),
	}
	p.pools = &pool.Keeper{Store: p.store, Now: time.Now, Random: rand.Reader, Log: p.log, Events: p.recorder("pool")}
	p.fronts = fronts.New(fronts.Options{Host: o.services, Dial: p.reach, Log: p.log})
	if err := p.openMeasurements(o); err != nil {
		return err
	}
	p.server, err = rpc.New(rpc.Options{
		Store: p.store, Auth: p.auth, Tickets: p.gateway, Files: p.gateway, Calls: p.calls, Offers: p.offers, Moves: p.mover, Pools: p.pools,
		Metrics: p.source, Films: films, Audit: p.audit, Badges: p.auth, AgentsAt: func() string { return p.agents },
		SignIn: p.auth.Handler(), Gateway: p.gateway, Web: web.Handler(), Now: time.Now, Random: rand.Reader, Log: p.log,
	})
	return err
}

func (p *plane) close() {
	if p.fronts != nil {
		p.fronts.Close()
	}
	if p.kept != nil {
		if err := p.kept.Close(); err != nil {
			p.log.Warn("the last measurements may be lost", "error", err)
		}
	}
	if p.audit != nil {
		if err := p.audit.Close(); err != nil {
			p.log.Warn("the audit log was not sealed at its end", "error", err)
		}
	}
	p.store.Close()
}

// dial reaches a machine through its host's agent. Whoever looks at a desktop
// waits for a host that is about to come back.
func (p *plane) dial(ctx context.Context, m *estate.Machine, way estate.Presentation) (io.ReadWriteCloser, error) {
	call := api.Call{Verb: api.CallDisplay, Machine: estate.MachineID(m.Metadata.UID)}
	if way.Port != 0 {
		call.Verb, call.Port = api.CallPort, way.Port
	}
	p.calls.Await(ctx, m.Spec.Hypervisor)
	return p.calls.Dial(ctx, m.Spec.Hypervisor, call)
}

// carry has the agent of a machine's host carry a file.
func (p *plane) carry(ctx context.Context, m *estate.Machine, f api.File) (net.Conn, error) {
	return p.calls.Dial(ctx, m.Spec.Hypervisor, api.Call{Verb: api.CallFile, Machine: estate.MachineID(m.Metadata.UID), File: &f})
}

// reach dials a port of a machine's guest through its host's agent.
func (p *plane) reach(ctx context.Context, hypervisor string, machine estate.MachineID, port int) (net.Conn, error) {
	return p.calls.Dial(ctx, hypervisor, api.Call{Verb: api.CallPort, Machine: machine, Port: port})
}

// serve opens the doors and starts the plane's loops.
func (p *plane) serve(o upOptions, start func(string, func(context.Context) error)) error {
	local, err := listenUnix(p.socket)
	if err != nil {
		return err
	}
	public, url, err := listenPublic(o, p.ca)
	if err != nil {
		local.Close()
		return err
	}
	p.url = url
	if err := p.admitAgents(o, start); err != nil {
		local.Close()
		public.Close()
		return err
	}
	if p.client, err = api.NewClient(api.Options{Server: p.socket}); err != nil {
		return err
	}
	start("serve "+p.socket, serveOn(local, p.server, auth.Trust))
	start("serve "+o.listen, serveOn(public, p.server, nil))
	start("gateway", p.gateway.Run)
	start("permissions", p.auth.Run)
	keeper := &lifecycle.Keeper{Store: p.store, Presentations: p.offers.Presentations, Deliveries: p.offers.Deliveries, Now: time.Now, Log: p.log, Events: p.recorder("lifecycle")}
	placer := &place.Placer{Store: p.store, Alive: p.alive, Now: time.Now, Log: p.log, Events: p.recorder("place")}
	services := &service.Keeper{
		Store: p.store, Fronts: p.fronts, Dial: p.calls.Dial, Deliveries: p.offers.Deliveries, Now: time.Now, Log: p.log, Events: p.recorder("service"),
	}
	scaler := &scale.Scaler{Store: p.store, Figures: p.fronts.Figures, Now: time.Now, Log: p.log, Events: p.recorder("scale")}
	levels := &level.Keeper{Store: p.store, Moves: p.mover, Now: time.Now, Log: p.log, Events: p.recorder("level")}
	for _, l := range append(placer.Loops(), keeper.Loop(), p.mover.Loop(), p.pools.Loop(), services.Loop(), scaler.Loop(), levels.Loop()) {
		start("loop "+l.Name, l.Run)
	}
	return nil
}

// admitAgents opens the door for agents of other hosts, if there is to be one.
func (p *plane) admitAgents(o upOptions, start func(string, func(context.Context) error)) error {
	if o.agents == "" {
		return nil
	}
	l, url, err := listenAgents(context.Background(), o.agents)
	if err != nil {
		return err
	}
	p.agents = url
	host, _, _ := net.SplitHostPort(o.agents)
	door := p.auth.Door()
	start("serve "+o.agents, serveOn(door.Listen(l, servingOwn(p.ca, host)), door.Handler(p.server), door.Connected))
	start("certificates of agents", door.Run)
	return nil
}

// recorder returns what a loop writes its events with.
func (p *plane) recorder(by string) *control.Recorder {
	return &control.Recorder{Store: p.store, Now: time.Now, By: by, Log: p.log}
}

// alive reports whether the agent of a hypervisor holds its lease.
func (p *plane) alive(ctx context.Context, hypervisor string) (bool, error) {
	_, err := p.store.KV().Get(ctx, api.AgentLeases+hypervisor)
	if errors.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// startAgent starts this host's agent, a client like any other.
func (p *plane) startAgent(ctx context.Context, o upOptions, start func(string, func(context.Context) error)) error {
	a, err := newAgent(ctx, o.host(), p.client, p.apps, p.log)
	if err != nil {
		return err
	}
	start("agent", a.Run)
	return nil
}

// welcome applies the manifests, waits until what they need is made, and prints
// how to sign in.
func (p *plane) welcome(ctx context.Context, o upOptions, out io.Writer) error {
	if err := p.founders(ctx); err != nil {
		return err
	}
	person := o.signIn
	if len(o.apply) > 0 {
		first, err := p.applyAndWait(ctx, o.apply, out)
		if err != nil {
			return err
		}
		if person == "" {
			person = first
		}
	}
	if person == "" {
		person = "admin"
	}
	var code string
	err := audit.Do(ctx, p.audit, audit.Act{Who: "administrator", What: "code.make", On: "person/" + person, From: "console"}, func(map[string]string) (err error) {
		code, err = p.auth.NewCode(ctx, person)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nConsort is up. Sign in as %s, once, within ten minutes:\n\n  %s/#code=%s\n\n", person, p.url, code)
	fmt.Fprintf(out, "On the command line: export CONSORT_SERVER=%s\nStop with Ctrl-C; machines go on.\n", p.socket)
	return nil
}

// founders makes what every estate has from its first day.
func (p *plane) founders(ctx context.Context) error {
	for _, r := range []estate.Resource{
		&estate.Project{Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Project", Metadata: estate.Metadata{Name: "default"}}},
		&estate.Person{
			Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Person", Metadata: estate.Metadata{Name: "admin"}},
			Spec: estate.PersonSpec{Title: "Administrator", Admin: true},
		},
	} {
		if err := p.store.Create(ctx, r); err != nil && !errors.Is(err, fault.Exists) {
			return err
		}
	}
	return nil
}

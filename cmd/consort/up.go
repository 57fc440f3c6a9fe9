package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"consort.dev/consort/agent"
	"consort.dev/consort/agent/network"
	"consort.dev/consort/api"
	"consort.dev/consort/application"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/gateway"
	"consort.dev/consort/image"
	"consort.dev/consort/plane/auth"
	"consort.dev/consort/plane/calls"
	"consort.dev/consort/plane/control/lifecycle"
	"consort.dev/consort/plane/control/place"
	"consort.dev/consort/plane/rpc"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/etcd"
	"consort.dev/consort/web"
)

// upOptions are the flags of up.
type upOptions struct {
	state      string
	run        string
	listen     string
	tlsCert    string
	tlsKey     string
	store      []string
	hypervisor string
	provider   string
	images     string
	apply      []string
	signIn     string
	verbose    bool
}

func upCommand() *cobra.Command {
	o := upOptions{}
	c := &cobra.Command{
		Use:   "up",
		Short: "Run everything in one process: plane, gateway, portal and this host's agent",
		Long: `Run everything in one process: the plane with its store, the gateway, the portal
and the agent of this host. State lies under one directory; start it again and
it goes on where it was. Machines outlive it.`,
		Example: `  consort up --apply examples/first-desktop
  consort up --state /srv/consort --listen 0.0.0.0:8443 --store https://etcd-1:2379`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return up(c.Context(), o, c.OutOrStdout()) },
	}
	f := c.Flags()
	f.StringVar(&o.state, "state", "/var/lib/consort", "directory of everything that must last")
	f.StringVar(&o.run, "run", "", "directory of sockets; the path must be short (default /run/consort, or STATE/run)")
	f.StringVar(&o.listen, "listen", "127.0.0.1:8440", "address of API and portal; TLS is on for any but loopback")
	f.StringVar(&o.tlsCert, "tls-cert", "", "certificate file; made by our own authority when empty")
	f.StringVar(&o.tlsKey, "tls-key", "", "key file of --tls-cert")
	f.StringSliceVar(&o.store, "store", nil, "etcd endpoints; an etcd inside this process when empty")
	f.StringVar(&o.hypervisor, "hypervisor", "local", "name of this host's hypervisor")
	f.StringVar(&o.provider, "provider", "qemu", "what drives it")
	f.StringVar(&o.images, "images", "", "directory of images and layers (default STATE/images)")
	f.StringSliceVar(&o.apply, "apply", nil, "manifests to apply once it is up; waits until their images are made")
	f.StringVar(&o.signIn, "sign-in", "", "print a sign-in link for this person (default: the first person applied, else admin)")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log every request and step")
	return c
}

// up runs everything until ctx ends.
func up(ctx context.Context, o upOptions, out io.Writer) error {
	o.defaults()
	log := newLog(o.verbose)
	release, err := lockState(o.state)
	if err != nil {
		return err
	}
	defer release()
	p, err := openPlane(ctx, o, log)
	if err != nil {
		return err
	}
	defer p.close()
	ctx, stop := context.WithCancelCause(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer stop(nil)
	start := func(name string, run func(context.Context) error) {
		parts.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				stop(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	if err := p.serve(o, start); err != nil {
		return err
	}
	if err := p.startAgent(ctx, o, start); err != nil {
		return err
	}
	if err := p.welcome(ctx, o, out); err != nil && ctx.Err() == nil {
		return err
	}
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func (o *upOptions) defaults() {
	if o.run == "" {
		o.run = filepath.Join(o.state, "run")
		if o.state == "/var/lib/consort" {
			o.run = "/run/consort"
		}
	}
	if o.images == "" {
		o.images = filepath.Join(o.state, "images")
	}
}

func newLog(verbose bool) *slog.Logger {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// lockState makes sure that one process at a time works on the state.
func lockState(dir string) (release func(), err error) {
	// Machines have users of their own, which must be able to reach their disks.
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fault.Conflict.Errorf("another consort works on %s; stop it, or choose another --state", dir)
	}
	return func() { f.Close() }, nil
}

// plane is the plane's half of the process.
type plane struct {
	log     *slog.Logger
	store   *store.Store
	auth    *auth.Auth
	gateway *gateway.Gateway
	calls   *calls.Broker
	server  *rpc.Server
	offers  api.Offers
	apps    map[string]*application.Provider
	socket  string // where the API is reached on this host
	url     string // where people reach it
	client  *api.Client
}

func openPlane(ctx context.Context, o upOptions, log *slog.Logger) (*plane, error) {
	kv, err := openStore(ctx, o)
	if err != nil {
		return nil, err
	}
	p := &plane{log: log, store: store.New(kv, store.Options{}), calls: calls.New(rand.Reader), socket: filepath.Join(o.run, "api.sock")}
	if err := p.open(ctx, o, kv); err != nil {
		p.store.Close()
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
	p.gateway = gateway.New(gateway.Options{
		KV: kv, Store: p.store, Dial: p.dial, Providers: shown, Now: time.Now, Random: rand.Reader, Log: p.log,
	})
	p.offers = api.Offers{Presentations: p.gateway.Offers(), Hypervisors: hypervisorOffers()}
	for _, a := range p.apps {
		p.offers.Deliveries = append(p.offers.Deliveries, a.Offer())
	}
	if p.auth, err = auth.New(auth.Options{Store: p.store, Now: time.Now, Random: rand.Reader, Log: p.log}); err != nil {
		return err
	}
	p.server, err = rpc.New(rpc.Options{
		Store: p.store, Auth: p.auth, Tickets: p.gateway, Calls: p.calls, Offers: p.offers,
		SignIn: p.auth.Handler(), Gateway: p.gateway, Web: web.Handler(), Now: time.Now, Random: rand.Reader, Log: p.log,
	})
	return err
}

func (p *plane) close() { p.store.Close() }

// dial reaches a machine through its host's agent.
func (p *plane) dial(ctx context.Context, m *estate.Machine, way estate.Presentation) (io.ReadWriteCloser, error) {
	call := api.Call{Verb: api.CallDisplay, Machine: estate.MachineID(m.Metadata.UID)}
	if way.Port != 0 {
		call.Verb, call.Port = api.CallPort, way.Port
	}
	return p.calls.Dial(ctx, m.Spec.Hypervisor, call)
}

// serve opens the doors and starts the plane's loops.
func (p *plane) serve(o upOptions, start func(string, func(context.Context) error)) error {
	local, err := listenUnix(p.socket)
	if err != nil {
		return err
	}
	public, url, err := listenPublic(o)
	if err != nil {
		local.Close()
		return err
	}
	p.url = url
	if p.client, err = api.NewClient(api.Options{Server: p.socket}); err != nil {
		return err
	}
	start("serve "+p.socket, serveOn(local, p.server, auth.Trust))
	start("serve "+o.listen, serveOn(public, p.server, nil))
	start("gateway", p.gateway.Run)
	start("hub", p.auth.Run)
	keeper := &lifecycle.Keeper{Store: p.store, Presentations: p.offers.Presentations, Deliveries: p.offers.Deliveries, Now: time.Now, Log: p.log}
	placer := &place.Placer{Store: p.store, Alive: p.alive, Now: time.Now, Log: p.log}
	for _, l := range append(placer.Loops(), keeper.Loop()) {
		start("loop "+l.Name, l.Run)
	}
	return nil
}

// alive reports whether the agent of a hypervisor holds its lease.
func (p *plane) alive(ctx context.Context, hypervisor string) (bool, error) {
	_, err := p.store.KV().Get(ctx, api.AgentLeases+hypervisor)
	if errors.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil, err
}

func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// The state is locked, so a socket that is there belongs to nobody.
	os.Remove(path)
	old := syscall.Umask(0o177)
	defer syscall.Umask(old)
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fault.Unavailable.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// serveOn serves a listener until ctx ends. connected may mark its connections.
func serveOn(l net.Listener, h http.Handler, connected func(context.Context, net.Conn) context.Context) func(context.Context) error {
	return func(ctx context.Context) error {
		s := &http.Server{
			Handler: h, ConnContext: connected,
			ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
			ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		}
		stop := context.AfterFunc(ctx, func() { s.Close() })
		defer stop()
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
}

// startAgent starts this host's agent, a client like any other.
func (p *plane) startAgent(ctx context.Context, o upOptions, start func(string, func(context.Context) error)) error {
	images, err := image.Open(o.images)
	if err != nil {
		return err
	}
	host, err := openHypervisor(ctx, o.provider, o.hypervisor, o.state, o.run)
	if err != nil {
		return err
	}
	opts := agent.Options{
		Hypervisor: o.hypervisor, Provider: o.provider, Dir: filepath.Join(o.state, "agent"),
		Plane: p.client, Host: host, Applications: p.apps, Images: images, Now: time.Now, Log: p.log,
	}
	if err := network.Probe(ctx); err != nil {
		opts.NoNetwork = err.Error()
	} else if opts.Network, err = network.Open(filepath.Join(o.state, "network")); err != nil {
		return err
	}
	a, err := agent.New(opts)
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
	code, err := p.auth.NewCode(ctx, person)
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

func namesOf[V any](m map[string]V) string {
	var all []string
	for n := range m {
		all = append(all, n)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

package main

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"consort.dev/consort/api"
	"consort.dev/consort/audit"
	"consort.dev/consort/estate"
	"consort.dev/consort/gateway"
	"consort.dev/consort/manifest"
	"consort.dev/consort/plane/auth"
	"consort.dev/consort/plane/authority"
	"consort.dev/consort/plane/calls"
	"consort.dev/consort/plane/control/move"
	"consort.dev/consort/plane/control/pool"
	"consort.dev/consort/plane/metrics"
	"consort.dev/consort/plane/metrics/embedded"
	"consort.dev/consort/plane/rpc"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
	"consort.dev/consort/presentation"
	"consort.dev/consort/presentation/fakescreen"
	"consort.dev/consort/presentation/vnc"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"consort": main})
}

// TestScripts runs what people type against a plane in memory.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			h, err := newHouse(env.Defer)
			if err != nil {
				return err
			}
			env.Setenv("CONSORT_SERVER", h.socket)
			env.Setenv("AUDIT", h.told.Dir)
			env.Values["house"] = h
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// report FILE writes the status of the objects in the file, as agents
			// and loops do.
			"report": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Check(ts.Value("house").(*house).report(ts.MkAbs(args[0])))
			},
			// harm HOW copies the audit log into a folder of that name and harms it so.
			"harm": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Check(harm(ts.Value("house").(*house).told.Dir, ts.MkAbs(args[0]), args[0]))
			},
			// place MACHINE HYPERVISOR plays placement.
			"place": func(ts *testscript.TestScript, neg bool, args []string) {
				_, err := store.Modify(context.Background(), ts.Value("house").(*house).store, "default", args[0], func(m *estate.Machine) error {
					m.Spec.Hypervisor, m.Spec.Epoch = args[1], 1
					return nil
				})
				ts.Check(err)
			},
		},
	})
}

// house is a plane in memory behind a unix socket, with a gateway, a machine
// that draws, and somebody who makes sessions ready.
type house struct {
	store  *store.Store
	socket string
	client *api.Client
	told   *audit.Log
}

// keys lets everybody do everything: whoever reaches the socket is the
// administrator, as on a real plane.
type keys struct{}

func (keys) Authenticate(*http.Request) (rpc.Caller, error) {
	return rpc.Caller{Admin: true, Person: "ana"}, nil
}
func (keys) Allow(context.Context, rpc.Caller, string, estate.Ref) error { return nil }
func (keys) Sees(context.Context, rpc.Caller, estate.Resource) bool      { return true }

func newHouse(atEnd func(func())) (*house, error) {
	dir, err := os.MkdirTemp("", "c") // paths of sockets are short
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	atEnd(cancel)
	kv := mem.Open(mem.Options{Now: time.Now})
	h := &house{store: store.New(kv, store.Options{}), socket: filepath.Join(dir, "api.sock")}
	log := slog.New(slog.DiscardHandler)
	told, err := audit.Open(ctx, audit.Options{Dir: filepath.Join(dir, "audit"), KV: kv, Now: time.Now, Random: rand.Reader, Reserve: -1, Every: time.Hour})
	if err != nil {
		return nil, err
	}
	h.told = told
	shown := map[string]*presentation.Provider{}
	fake, err := presentation.Open(ctx, &fakescreen.Provider{})
	if err != nil {
		return nil, err
	}
	screen, err := presentation.Open(ctx, vnc.New(vnc.Config{Random: rand.Reader}))
	if err != nil {
		return nil, err
	}
	shown[fake.Offer().Name], shown[screen.Offer().Name] = fake, screen
	g := gateway.New(gateway.Options{KV: kv, Store: h.store, Providers: shown, Now: time.Now, Random: rand.Reader, Log: log,
		Dial: func(context.Context, *estate.Machine, estate.Presentation) (io.ReadWriteCloser, error) {
			mine, theirs := net.Pipe()
			fakescreen.StartMachine(theirs)
			return mine, nil
		}})
	ca, err := authority.Open(dir, time.Now)
	if err != nil {
		return nil, err
	}
	badges, err := auth.New(auth.Options{Store: h.store, Now: time.Now, Random: rand.Reader, Authority: ca})
	if err != nil {
		return nil, err
	}
	pools := &pool.Keeper{Store: h.store, Now: time.Now, Random: rand.Reader, Log: log}
	moves := &move.Mover{Store: h.store, Presentations: g.Offers(), Now: time.Now, Log: log} // nobody carries them out
	kept, err := embedded.Open(embedded.Options{Dir: filepath.Join(dir, "metrics"), Log: log})
	if err != nil {
		return nil, err
	}
	var samples []metrics.Sample
	for i := range 3 {
		samples = append(samples, metrics.Sample{Labels: metrics.Labels{metrics.Name: "consort_pool_queue", "project": "default", "pool": "clerks"},
			At: time.Now().Add(time.Duration(i-2) * time.Minute), Value: float64(3 * i)})
	}
	if err := kept.Append(ctx, samples); err != nil {
		return nil, err
	}
	server, err := rpc.New(rpc.Options{
		Metrics: kept, Audit: h.told, Moves: moves, Pools: pools,
		Badges: badges, AgentsAt: func() string { return "https://plane.example.org:8441" },
		Store: h.store, Auth: keys{}, Tickets: g, Files: g, Calls: calls.New(rand.Reader), Gateway: g, Now: time.Now, Random: rand.Reader, Log: log,
		Offers: api.Offers{Presentations: append(g.Offers(), estate.PresentationOffer{Name: "rdp", Protocol: "rdp", Guest: true}), Hypervisors: []estate.HypervisorOffer{{Name: "paper", Version: "1"}},
			Deliveries: []estate.DeliveryOffer{{Name: "parcels", Agent: true, Needs: []estate.Capability{estate.CanHotplug}}}},
	})
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", h.socket)
	if err != nil {
		return nil, err
	}
	web := &http.Server{Handler: server}
	go func() { _ = web.Serve(l) }()
	go func() { _ = g.Run(ctx) }()
	go func() { _ = pools.Loop().Run(ctx) }()
	if h.client, err = api.NewClient(api.Options{Server: h.socket}); err != nil {
		return nil, err
	}
	go h.makeReady(ctx)
	atEnd(func() {
		h.client.Close()
		web.Close()
		h.told.Close()
		kept.Close()
		h.store.Close()
		os.RemoveAll(dir)
	})
	return h, nil
}

// makeReady plays the loops that bring a desktop up for a session.
func (h *house) makeReady(ctx context.Context) {
	for e := range api.Watch[estate.Session](ctx, h.client, "") {
		if e.Type != api.Is || e.Object.Status.State != "" && e.Object.Status.State != estate.SessionWaiting || e.Object.Spec.Desktop == "" {
			continue
		}
		now := time.Now()
		_, _ = api.ModifyStatus(ctx, h.client, e.Object.Metadata.Project, e.Object.Metadata.Name, func(s *estate.Session) error {
			way := s.Spec.Presentation
			if way == "" {
				way = "fakescreen"
			}
			s.Status = estate.SessionStatus{State: estate.SessionReady, Machine: "ana-office", Way: estate.Presentation{Name: way, Protocol: "lines"},
				Phases: []estate.Phase{
					{Name: "place", Text: "find a host", Began: now.Add(-2 * time.Second), Ended: now.Add(-time.Second)},
					{Name: "start", Text: "start the machine", Began: now.Add(-time.Second), Ended: now},
				}}
			return nil
		})
	}
}

func (h *house) report(file string) error {
	known := func(kind estate.Kind, project string) ([]string, error) {
		rs, _, err := h.client.ListKind(context.Background(), kind, api.Filter{Project: project})
		var names []string
		for _, r := range rs {
			names = append(names, r.Header().Metadata.Name)
		}
		return names, err
	}
	set, err := (&manifest.Loader{Known: known}).Load(file)
	if err != nil {
		return err
	}
	for _, r := range set.Resources() {
		if err := h.client.PutStatus(context.Background(), r, api.Write{}); err != nil {
			return err
		}
	}
	return nil
}

// TestEveryCommandExplainsItself finds a sentence and an example at every
// command that people type.
func TestEveryCommandExplainsItself(t *testing.T) {
	c := &cli{terminal: terminal{getenv: os.Getenv}}
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Name() == "help" || cmd.Name() == "completion" || cmd.Hidden {
			return
		}
		if cmd.Short == "" || cmd.Example == "" && cmd.HasParent() {
			t.Errorf("%s: no example, or no sentence", cmd.CommandPath())
		}
		if strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: the sentence ends in a full stop", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(newRoot(c))
}

package agent_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"consort.dev/consort/agent"
	"consort.dev/consort/api"
	"consort.dev/consort/application"
	appdriver "consort.dev/consort/application/driver"
	"consort.dev/consort/application/fakeapps"
	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/fakehost"
	"consort.dev/consort/image"
	"consort.dev/consort/plane/calls"
	"consort.dev/consort/plane/rpc"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon bounds every wait. An agent looks again after 5 s by itself.
const soon = 2 * time.Minute

// keys lets the agent in as the administrator, as the unix socket does.
type keys struct{}

func (keys) Authenticate(*http.Request) (rpc.Caller, error)              { return rpc.Caller{Admin: true}, nil }
func (keys) Allow(context.Context, rpc.Caller, string, estate.Ref) error { return nil }
func (keys) Sees(context.Context, rpc.Caller, estate.Resource) bool      { return true }

// guests have booted and drawn their desktop at once.
func guests(ctx context.Context, m driver.Machine, cmd driver.Command) (driver.Output, error) {
	if strings.HasPrefix(strings.Join(cmd.Args, " "), "/bin/sh -c hostname;") {
		return driver.Output{Stdout: []byte("ana-office\n")}, nil
	}
	return fakehost.Shell(ctx, m, cmd)
}

// house is a plane in memory, and a host for an agent to look after.
type house struct {
	t      *testing.T
	name   string // of the hypervisor
	store  *store.Store
	calls  *calls.Broker
	plane  *httptest.Server
	memory *fakehost.Host
	host   driver.Host // memory, or what a test put around it
	apps   *fakeapps.Provider
	give   appdriver.Provider // apps, or what a test put around it
	images *image.Store
	dir    string
	broken atomic.Pointer[string] // requests whose path ends so fail
	torn   atomic.Pointer[torn]   // breaks fetches off
	logs   *ear
}

func newHouse(t *testing.T) *house {
	t.Helper()
	kv := mem.Open(mem.Options{Now: time.Now})
	h := &house{
		t: t, name: "here", store: store.New(kv, store.Options{}), calls: calls.New(rand.Reader), dir: t.TempDir(), logs: new(ear),
		memory: fakehost.New(fakehost.Options{Run: guests}), apps: fakeapps.New(),
	}
	h.host, h.give = h.memory, h.apps
	server, err := rpc.New(rpc.Options{
		Store: h.store, Auth: keys{}, Calls: h.calls, Now: time.Now, Random: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	h.must(err)
	h.plane = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if end := h.broken.Load(); end != nil && strings.HasSuffix(r.URL.Path, *end) {
			http.Error(w, "broken by a test", http.StatusServiceUnavailable)
			return
		}
		if t := h.torn.Load(); t != nil && strings.HasSuffix(r.URL.Path, "/fetch") {
			t.serve(server, w, r)
			return
		}
		server.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		h.plane.CloseClientConnections()
		h.plane.Close()
		h.store.Close()
	})
	h.images, err = image.Open(t.TempDir())
	h.must(err)
	return h
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// ear remembers what an agent logged.
type ear struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (e *ear) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.text.Write(p)
}

func (e *ear) heard(words string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Contains(e.text.String(), words)
}

// beside returns another host of the same plane.
func (h *house) beside(name string) *house {
	h.t.Helper()
	images, err := image.Open(h.t.TempDir())
	h.must(err)
	memory := fakehost.New(fakehost.Options{Run: guests})
	return &house{
		t: h.t, name: name, store: h.store, calls: h.calls, plane: h.plane, dir: h.t.TempDir(),
		memory: memory, host: memory, apps: h.apps, give: h.give, images: images, logs: new(ear),
	}
}

// employ starts an agent, which kill ends as kill -9 would: it does nothing more.
func (h *house) employ() (kill func()) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	client, err := api.NewClient(api.Options{Server: h.plane.URL})
	h.must(err)
	host, err := hypervisor.Open(ctx, h.name, h.host)
	h.must(err)
	apps, err := application.Open(ctx, h.give, application.Deadlines{})
	h.must(err)
	a, err := agent.New(agent.Options{
		Hypervisor: h.name, Provider: "fake", Dir: h.dir, Plane: client, Host: host,
		Applications: map[string]*application.Provider{apps.Offer().Name: apps},
		Images:       h.images, NoNetwork: "tests make no networks", Now: time.Now, Log: slog.New(slog.NewTextHandler(h.logs, nil)),
	})
	h.must(err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Run(ctx) // ends with ctx
	}()
	kill = func() {
		cancel()
		<-done
		client.Close()
	}
	h.t.Cleanup(kill)
	return kill
}

// content puts bytes into the image store and returns their digest.
func (h *house) content(kind, text string) estate.Digest {
	h.t.Helper()
	b := make([]byte, 4096)
	copy(b, text)
	rec, err := h.images.Put(h.t.Context(), bytes.NewReader(b), image.Record{Kind: kind, Format: estate.Raw, Size: 4096})
	h.must(err)
	return rec.Digest
}

// order creates a machine that is wanted on here, as the loops do.
func (h *house) order(change func(*estate.Machine)) *estate.Machine {
	h.t.Helper()
	m := &estate.Machine{
		Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Machine", Metadata: estate.Metadata{
			Name: "ana-office", Project: "p", Finalizers: []string{estate.AgentFinalizer},
		}},
		Spec: estate.MachineSpec{
			Hypervisor: "here", Epoch: 5, Power: estate.On,
			Hardware: estate.Hardware{CPUs: 2, Memory: estate.GiB, Disks: []estate.Disk{{Name: "root", Image: h.content(image.KindImage, "a system")}}},
		},
	}
	if change != nil {
		change(m)
	}
	h.must(h.store.Create(h.t.Context(), m))
	return m
}

// want changes the machine's spec.
func (h *house) want(change func(*estate.MachineSpec)) {
	h.t.Helper()
	_, err := store.Modify(h.t.Context(), h.store, "p", "ana-office", func(m *estate.Machine) error {
		change(&m.Spec)
		return nil
	})
	h.must(err)
}

// status is what the plane was told of the machine.
func (h *house) status() *estate.MachineStatus {
	m, err := store.Get[estate.Machine](h.t.Context(), h.store, "p", "ana-office")
	if err != nil {
		return new(estate.MachineStatus)
	}
	return &m.Status
}

// held returns the machine as the host has it.
func (h *house) held(m *estate.Machine) (driver.Machine, bool) {
	h.t.Helper()
	all, err := h.memory.List(h.t.Context())
	h.must(err)
	for _, have := range all {
		if string(have.ID) == m.Metadata.UID {
			return have, true
		}
	}
	return driver.Machine{}, false
}

// until waits until something is so.
func (h *house) until(what string, so func() bool) {
	h.t.Helper()
	for end := time.Now().Add(soon); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("not so after %s: %s\nthe machine's status is %+v", soon, what, *h.status())
		}
	}
}

// running waits until the machine and its desktop are up.
func (h *house) running() {
	h.t.Helper()
	h.until("the machine runs", func() bool {
		s := h.status()
		return s.Power == estate.On && s.Guest.Desktop && s.Guest.Own && s.Is(estate.Ready)
	})
}

// hypervisor is what the plane was told of the host.
func (h *house) hypervisor() *estate.HypervisorStatus {
	v, err := store.Get[estate.Hypervisor](h.t.Context(), h.store, "", h.name)
	if err != nil {
		return new(estate.HypervisorStatus)
	}
	return &v.Status
}

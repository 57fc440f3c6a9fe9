package move_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"consort.dev/consort/agent"
	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/fakehost"
	"consort.dev/consort/hypervisor/flaky"
	"consort.dev/consort/image"
	"consort.dev/consort/plane/auth"
	"consort.dev/consort/plane/calls"
	"consort.dev/consort/plane/control/move"
	"consort.dev/consort/plane/rpc"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon bounds every wait.
const soon = 4 * time.Minute

// size is how large every disk of a yard is.
const size = 8192

// keys knows agents by their tokens, and lets them do what agents may.
type keys struct{ *auth.Auth }

func (keys) Authenticate(r *http.Request) (rpc.Caller, error) {
	return rpc.Caller{Agent: strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")}, nil
}

// yard is a plane and two hosts in memory, any part of which may be killed and
// is revived then.
type yard struct {
	t       *testing.T
	store   *store.Store
	auth    *auth.Auth
	calls   *calls.Broker
	plane   *httptest.Server
	sites   map[string]*site
	mover   *move.Mover
	ref     *referee
	loop    alive
	machine *estate.Machine
	home    *estate.Volume // nil when it has none
	disks   []string
	body    []byte // what every disk holds but for the guest's own counter
}

// site is one host with its agent.
type site struct {
	name   string
	dir    string
	memory *fakehost.Host
	images *image.Store
	lossy  flaky.Options
	leaves func() // called as a machine is about to leave it live, unless nil
	agent  alive
}

// alive is something that runs until it is killed.
type alive struct {
	mu   sync.Mutex
	end  context.CancelFunc
	done chan struct{}
}

// start runs it. A second start without a kill between is a mistake of the test.
func (a *alive) start(run func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	a.mu.Lock()
	a.end, a.done = cancel, done
	a.mu.Unlock()
	go func() {
		defer close(done)
		run(ctx)
	}()
}

// strike ends it as kill -9 would, without waiting.
func (a *alive) strike() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.end != nil {
		a.end()
	}
}

func (a *alive) kill() {
	a.strike()
	a.mu.Lock()
	done := a.done
	a.mu.Unlock()
	if done != nil {
		<-done
	}
}

func newYard(t *testing.T) *yard {
	t.Helper()
	y := &yard{
		t: t, store: store.New(mem.Open(mem.Options{Now: time.Now}), store.Options{}), calls: calls.New(rand.Reader),
		sites: map[string]*site{}, body: bytes.Repeat([]byte("a person's files"), size/16)[8:],
	}
	y.ref = &referee{yard: y, last: map[string]uint64{}, epochs: map[int64]string{}}
	var err error
	y.auth, err = auth.New(auth.Options{Store: y.store, Now: time.Now, Random: rand.Reader})
	y.must(err)
	server, err := rpc.New(rpc.Options{
		Store: y.store, Auth: keys{y.auth}, Calls: y.calls, Now: time.Now, Random: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	y.must(err)
	y.plane = httptest.NewServer(server)
	y.mover = &move.Mover{
		Store: y.store, Calls: y.ref, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Times: move.Times{Again: 5 * time.Millisecond, Patience: soon, Settle: 20 * time.Millisecond},
	}
	y.must(y.store.Create(t.Context(), &estate.Project{Head: estate.Head{Kind: "Project", Metadata: estate.Metadata{Name: "p"}}}))
	together := new(fakehost.Site)
	for _, name := range []string{"a", "b"} {
		s := &site{name: name, dir: t.TempDir(), memory: fakehost.New(fakehost.Options{Site: together})}
		s.images, err = image.Open(t.TempDir())
		y.must(err)
		y.sites[name] = s
	}
	permissions := new(alive)
	permissions.start(func(ctx context.Context) { _ = y.auth.Run(ctx) })
	t.Cleanup(func() {
		y.loop.kill()
		for _, s := range y.sites {
			s.agent.kill()
		}
		permissions.kill()
		y.plane.CloseClientConnections()
		y.plane.Close()
		y.store.Close()
	})
	return y
}

// open starts everything.
func (y *yard) open() {
	for _, s := range y.sites {
		y.employ(s)
	}
	y.direct()
	y.until("both hosts have joined", func() bool {
		return y.hypervisor("a").State == estate.HypervisorReady && y.hypervisor("b").State == estate.HypervisorReady
	})
}

// direct starts the mover's loop.
func (y *yard) direct() { y.loop.start(func(ctx context.Context) { _ = y.mover.Loop().Run(ctx) }) }

// employ starts a host's agent.
func (y *yard) employ(s *site) {
	s.agent.start(func(ctx context.Context) {
		client, err := api.NewClient(api.Options{Server: y.plane.URL, Token: s.name})
		if err != nil {
			panic(err)
		}
		defer client.Close()
		var drv driver.Host = &spied{s.memory, s.name, y.ref, s.leaves}
		if s.lossy != (flaky.Options{}) {
			drv = flaky.New(drv, s.lossy)
			s.lossy.Seed += 1000 // or every life would begin with the same mishaps
		}
		host, err := hypervisor.Open(ctx, s.name, drv)
		if err != nil {
			return // killed that early
		}
		a, err := agent.New(agent.Options{
			Hypervisor: s.name, Provider: "fake", Dir: s.dir, Plane: client, Host: host,
			Images: s.images, NoNetwork: "tests make no networks", Now: time.Now, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			panic(err)
		}
		_ = a.Run(ctx) // ends with ctx
	})
}

func (y *yard) must(err error) {
	y.t.Helper()
	if err != nil {
		y.t.Fatal(err)
	}
}

// until waits until something is so.
func (y *yard) until(what string, so func() bool) {
	y.t.Helper()
	for end := time.Now().Add(soon); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			m, err := store.Get[estate.Machine](y.t.Context(), y.store, "p", "m")
			if err != nil {
				y.t.Logf("the machine: %v", err)
				m = new(estate.Machine)
			}
			ops, _, _ := store.List[estate.Operation](y.t.Context(), y.store, "p")
			for _, op := range ops {
				if op.Status.Ended.IsZero() {
					y.t.Logf("operation %+v %+v", *op.Spec.Move, op.Status)
				}
			}
			y.t.Fatalf("not so after %s: %s\nthe machine is %+v\n%+v", soon, what, m.Spec, m.Status)
		}
	}
}

func (y *yard) hypervisor(name string) *estate.HypervisorStatus {
	h, err := store.Get[estate.Hypervisor](y.t.Context(), y.store, "", name)
	if err != nil {
		return new(estate.HypervisorStatus)
	}
	return &h.Status
}

// settle makes a machine on host a that runs, with a system disk and a home that
// its guest has written to.
func (y *yard) settle() { y.settleWith(true) }

func (y *yard) settleWith(withHome bool) {
	y.t.Helper()
	y.disks = []string{"root"}
	hw := estate.Hardware{CPUs: 1, Memory: estate.GiB}
	base, err := y.sites["a"].images.Put(y.t.Context(), bytes.NewReader(make([]byte, size)), image.Record{Kind: image.KindImage, Format: estate.Raw, Size: size})
	y.must(err)
	hw.Disks = []estate.Disk{{Name: "root", Image: base.Digest}}
	if withHome {
		y.home = &estate.Volume{
			Head: estate.Head{Kind: "Volume", Metadata: estate.Metadata{Name: "home", Project: "p"}},
			Spec: estate.VolumeSpec{Size: size}, Status: estate.VolumeStatus{Hypervisor: "a"},
		}
		y.must(y.store.Create(y.t.Context(), y.home))
		y.must(os.WriteFile(y.file("a", y.home), append(make([]byte, 8), y.body...), 0o600))
		y.disks = append(y.disks, "home")
		hw.Disks = append(hw.Disks, estate.Disk{Name: "home", Volume: "home"})
	}
	y.machine = &estate.Machine{
		Head: estate.Head{Kind: "Machine", Metadata: estate.Metadata{Name: "m", Project: "p", Finalizers: []string{estate.AgentFinalizer}}},
		Spec: estate.MachineSpec{
			Hypervisor: "a", Epoch: 1, Power: estate.Off, Hardware: hw,
		},
	}
	y.must(y.store.Create(y.t.Context(), y.machine))
	id := estate.MachineID(y.machine.Metadata.UID)
	if withHome {
		_, err = store.Modify(y.t.Context(), y.store, "p", "home", func(v *estate.Volume) error { v.Spec.Holder = id; return nil })
		y.must(err)
	}
	y.power(estate.On)
	y.runs("a", estate.On)
	y.power(estate.Off)
	y.runs("a", estate.Off)
	y.must(y.sites["a"].memory.Import(y.t.Context(), id, "root", bytes.NewReader(append(make([]byte, 8), y.body...))))
	y.ref.begin(y.machine)
	y.power(estate.On)
	y.runs("a", estate.On)
}

// hasFile reports whether a host has a file of the home.
func (y *yard) hasFile(host string) bool {
	if y.home == nil {
		return false
	}
	_, err := os.Stat(y.file(host, y.home))
	return !errors.Is(err, os.ErrNotExist)
}

// file is where a host keeps a volume.
func (y *yard) file(host string, v *estate.Volume) string {
	dir := filepath.Join(y.sites[host].dir, "volumes")
	y.must(os.MkdirAll(dir, 0o711))
	return filepath.Join(dir, v.Metadata.UID+".raw")
}

func (y *yard) power(p estate.Power) {
	y.t.Helper()
	_, err := store.Modify(y.t.Context(), y.store, "p", "m", func(m *estate.Machine) error { m.Spec.Power = p; return nil })
	y.must(err)
}

// runs waits until the host says that the machine is in the state.
func (y *yard) runs(host string, p estate.Power) {
	y.t.Helper()
	y.until(fmt.Sprintf("machine m is %s on %s", p, host), func() bool {
		m, err := store.Get[estate.Machine](y.t.Context(), y.store, "p", "m")
		have, here := y.held(host)
		return err == nil && m.Status.Power == p && m.Status.Hypervisor == host && here && have.Power == p
	})
}

// held returns the machine as a host has it.
func (y *yard) held(host string) (driver.Machine, bool) {
	all, err := y.sites[host].memory.List(context.Background())
	y.must(err)
	for _, m := range all {
		if string(m.ID) == y.machine.Metadata.UID {
			return m, true
		}
	}
	return driver.Machine{}, false
}

// begin begins a move and returns its journal's name.
func (y *yard) begin(to string, change func(*api.MoveRequest)) string {
	y.t.Helper()
	req := api.MoveRequest{To: to}
	if change != nil {
		change(&req)
	}
	reply, err := y.mover.Begin(y.t.Context(), y.machine.Ref(), req, "tests")
	y.must(err)
	return reply.Operation
}

// ended waits for the end of a move and returns its journal.
func (y *yard) ended(operation string) *estate.Operation {
	y.t.Helper()
	var op *estate.Operation
	y.until("operation "+operation+" has ended", func() bool {
		var err error
		op, err = store.Get[estate.Operation](y.t.Context(), y.store, "p", operation)
		y.must(err)
		return !op.Status.Ended.IsZero()
	})
	return op
}

// only waits until the machine is on one host alone, in the power state wanted,
// with nothing left on the other, and checks what its disks hold.
func (y *yard) only(host string, power estate.Power) {
	y.t.Helper()
	other := map[string]string{"a": "b", "b": "a"}[host]
	id := estate.MachineID(y.machine.Metadata.UID)
	var still string // what is not so
	defer func() {
		if y.t.Failed() && still != "" {
			y.t.Logf("the machine is not on %s alone: %s", host, still)
		}
	}()
	y.until("the machine is on "+host+" alone", func() bool {
		m, err := store.Get[estate.Machine](y.t.Context(), y.store, "p", "m")
		y.must(err)
		have, here := y.held(host)
		_, there := y.held(other)
		records, _ := filepath.Glob(filepath.Join(y.sites[other].dir, "records", "*.json"))
		still = ""
		for _, c := range []struct {
			so   bool
			what string
		}{
			{m.Spec.Hypervisor == host && m.Spec.Moving == nil && m.Spec.Power == power, "it is not placed there at rest"},
			{m.Status.Hypervisor == host && m.Status.Power == power, "its agent has not told so"},
			{here && have.Power == power, "its host has it otherwise"},
			{!there, "the other host has it too"},
			{!y.hasFile(other), "the other host has its volume"},
			{len(records) == 0, "the other agent remembers it"},
			{y.ref.quiet(), "something still acts"},
		} {
			if !c.so {
				still = c.what
				break
			}
		}
		return still == ""
	})
	// Nothing is on the other's shelf: an unequal machine of that ID can be made.
	def := driver.Definition{ID: id, Name: "another", CPUs: 1, Memory: estate.GiB, Disks: []driver.Disk{{Name: "x", Size: size}}}
	if err := y.sites[other].memory.Define(y.t.Context(), def); err != nil {
		y.t.Errorf("%s still has a shelf of it: %v", other, err)
	}
	y.must(y.sites[other].memory.Delete(y.t.Context(), id))
	y.ref.check()
}

// meddle is a vendor that starts, after a power failure, what its host still
// has, although the machine is another host's by now.
func (y *yard) meddle() {
	m, err := store.Get[estate.Machine](context.Background(), y.store, "p", "m")
	if err != nil {
		return
	}
	if mv := m.Spec.Moving; mv != nil && mv.To == m.Spec.Hypervisor {
		_ = y.sites[mv.From].memory.Start(context.Background(), estate.MachineID(m.Metadata.UID)) // shelved, it has none
	}
}

// records is how many records the agents keep.
func (y *yard) records() int {
	n := 0
	for _, s := range y.sites {
		all, err := filepath.Glob(filepath.Join(s.dir, "records", "*.json"))
		y.must(err)
		n += len(all)
	}
	return n
}

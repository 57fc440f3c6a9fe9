package service_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/control/place"
	"consort.dev/consort/plane/control/service"
	"consort.dev/consort/plane/fronts"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon bounds every wait.
const soon = time.Minute

var shop = estate.Ref{Kind: "Service", Project: "p", Name: "shop"}

func digest(c string) estate.Digest { return estate.Digest("sha256:" + strings.Repeat(c, 64)) }

// yard is a plane with one host, whose machines are played: each is a real HTTP
// server, which a call to the agent reaches.
type yard struct {
	*testing.T
	store *store.Store
	kept  *journal
	row   *fronts.Row
	url   string

	mu       sync.Mutex
	machines map[string]*played // by uid
	launched int                // calls to start an application
	refusing string             // why none starts
	broken   estate.Digest      // the layer whose servers answer 500
}

// played is a machine that runs.
type played struct {
	server *http.Server
	at     string
}

func newYard(t *testing.T) *yard {
	kept := &journal{KV: mem.Open(mem.Options{})}
	y := &yard{T: t, kept: kept, store: store.New(kept, store.Options{}), machines: map[string]*played{}}
	quiet := slog.New(slog.DiscardHandler)
	y.row = fronts.New(fronts.Options{Host: "127.0.0.1", Log: quiet, Dial: func(ctx context.Context, host string, id estate.MachineID, port int) (net.Conn, error) {
		return y.call(ctx, host, api.Call{Verb: api.CallPort, Machine: id, Port: port})
	}})
	y.create("Project", "", "p", nil)
	y.create("Hypervisor", "", "here", func(r estate.Resource) {
		s := &r.(*estate.Hypervisor).Status
		s.State, s.Capacity = estate.HypervisorReady, estate.Capacity{CPUs: 64, Memory: 64 * estate.GiB, Disk: estate.TiB}
		s.Free = s.Capacity
		s.Capabilities = []estate.CapabilityReport{{Name: estate.CanNetwork, Has: true}}
	})
	y.create("Image", "p", "system", func(r estate.Resource) {
		m := r.(*estate.Image)
		m.Status.Digest, m.Status.Guest = digest("a"), estate.GuestFacts{OS: "debian-12", Agent: true, User: "user"}
	})
	y.create("Network", "p", "lan", func(r estate.Resource) { r.(*estate.Network).Spec.Subnet = "10.1.0.0/24" })
	y.create("Context", "p", "work", func(r estate.Resource) {
		r.(*estate.Context).Spec.Colour, r.(*estate.Context).Spec.Network = "#112233", "lan"
	})
	y.create("Application", "p", "web", func(r estate.Resource) {
		a := r.(*estate.Application)
		a.Spec = estate.ApplicationSpec{Title: "Web", Delivery: "stream", Command: []string{"/usr/bin/web"}, Versions: []estate.ApplicationVersion{
			{Name: "3", Packages: []string{"web"}}, {Name: "2", Packages: []string{"web"}}, {Name: "1", Packages: []string{"web"}},
		}}
		for i, v := range []string{"1", "2", "3"} {
			a.Status.Layers = append(a.Status.Layers, estate.LayerBuild{Version: v, Image: digest("a"), Digest: digest(string(rune('b' + i)))})
		}
	})
	keeper := &service.Keeper{
		Store: y.store, Fronts: y.row, Dial: y.call, Deliveries: []estate.DeliveryOffer{{Name: "stream", Agent: true}}, Now: time.Now, Log: quiet,
	}
	placer := &place.Placer{Store: y.store, Now: time.Now, Log: quiet, Alive: func(context.Context, string) (bool, error) { return true, nil }}
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	for _, l := range append(placer.Loops(), keeper.Loop()) {
		parts.Go(func() { _ = l.Run(ctx) })
	}
	parts.Go(func() { y.play(ctx) })
	t.Cleanup(func() {
		cancel()
		parts.Wait()
		y.row.Close()
		y.store.Close()
		for _, m := range y.machines {
			m.server.Close()
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return y
}

func (y *yard) must(err error) {
	y.Helper()
	if err != nil {
		y.Fatal(err)
	}
}

func (y *yard) create(kind estate.Kind, project, name string, fill func(estate.Resource)) {
	y.Helper()
	info, _ := estate.KindNamed(string(kind))
	r := info.NewNamed(project, name)
	if fill != nil {
		fill(r)
	}
	y.must(y.store.Create(y.Context(), r))
}

// compose makes the service, with two replicas of version 1.
func (y *yard) compose(change func(*estate.ServiceSpec)) {
	y.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	y.must(err)
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	y.url = fmt.Sprintf("http://127.0.0.1:%d/", port)
	y.create("Service", "p", "shop", func(r estate.Resource) {
		s := &r.(*estate.Service).Spec
		*s = estate.ServiceSpec{
			Image: "system", Applications: []estate.ApplicationChoice{{Name: "web", Version: "1"}}, Context: "work", Port: 80,
			Front: estate.FrontSpec{Port: port}, Probe: estate.Probe{Path: "/", Interval: estate.Duration(100 * time.Millisecond)},
			Scale: estate.Scale{Least: 2, Most: 4},
			Levels: []estate.NamedLevel{{Name: "fast", Level: estate.Level{
				Response: &estate.Response{Within: estate.Duration(time.Second)}, Target: 990_000,
			}}},
			Update: estate.Update{Canary: estate.Whole / 5, Watch: estate.Duration(500 * time.Millisecond), Requests: 20, Patience: estate.Duration(20 * time.Second)},
		}
		if change != nil {
			change(s)
		}
		y.must(errors.Join(problems(r)...))
	})
}

func problems(r estate.Resource) (errs []error) {
	for _, p := range estate.Check(r) {
		errs = append(errs, errors.New(p.String()))
	}
	return errs
}

// call is the host's agent.
func (y *yard) call(ctx context.Context, host string, c api.Call) (net.Conn, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	m := y.machines[string(c.Machine)]
	if m == nil || host != "here" {
		return nil, fault.NotFound.Errorf("no machine %s on %q", c.Machine, host)
	}
	switch c.Verb {
	case api.CallPort:
		return new(net.Dialer).DialContext(ctx, "tcp", m.at)
	case api.CallStart:
		y.launched++
		mine, theirs := net.Pipe()
		reply := "{}\n"
		if y.refusing != "" {
			text, _ := json.Marshal(api.StartReply{Error: api.NewProblem(fault.Invalid.Errorf("%s", y.refusing))})
			reply = string(text) + "\n"
		}
		go func() {
			_, _ = io.WriteString(theirs, reply)
			theirs.Close()
		}()
		return mine, nil
	}
	return nil, fault.Unsupported.Errorf("call %s", c.Verb)
}

// play plays the host: a machine that is placed comes up, and goes when it is deleted.
func (y *yard) play(ctx context.Context) {
	events, err := y.store.Watch(ctx, 0, "Machine")
	if err != nil {
		return
	}
	for e := range events {
		m := e.Object.(*estate.Machine)
		change := func(f func(*estate.Machine)) {
			_, err := store.Modify(ctx, y.store, "p", m.Metadata.Name, func(now *estate.Machine) error { f(now); return nil })
			if err != nil && ctx.Err() == nil && !errors.Is(err, fault.NotFound) {
				y.Error(err)
			}
		}
		switch {
		case e.Deleted:
		case !m.Metadata.Deleting.IsZero():
			y.mu.Lock()
			if p := y.machines[m.Metadata.UID]; p != nil {
				p.server.Close()
				delete(y.machines, m.Metadata.UID)
			}
			y.mu.Unlock()
			change(func(m *estate.Machine) { m.Metadata.Finalizers = nil })
		case m.Spec.Hypervisor != "" && m.Status.Power == "":
			y.boot(m)
			change(func(m *estate.Machine) {
				m.Status.Power, m.Status.Hypervisor, m.Status.Starts = estate.On, "here", 1
				m.Status.Guest = estate.GuestStatus{Agent: true, Own: true}
				m.Status.Layers = []estate.LayerState{{Application: "web", Digest: m.Spec.Layers[0].Digest, Attached: true}}
			})
		}
	}
}

func (y *yard) boot(m *estate.Machine) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		y.Error(err)
		return
	}
	version := m.Spec.Layers[0].Version
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		y.mu.Lock()
		broken := y.broken == m.Spec.Layers[0].Digest && r.UserAgent() != "consort-front"
		y.mu.Unlock()
		if broken {
			w.WriteHeader(http.StatusInternalServerError)
		}
		fmt.Fprintf(w, "%s %s", m.Metadata.Name, version)
	})}
	y.mu.Lock()
	defer y.mu.Unlock()
	y.machines[m.Metadata.UID] = &played{s, l.Addr().String()}
	go func() { _ = s.Serve(l) }()
}

func (y *yard) service() *estate.Service {
	y.Helper()
	s, err := store.Get[estate.Service](y.Context(), y.store, "p", "shop")
	y.must(err)
	return s
}

func (y *yard) until(what string, so func(*estate.Service) bool) {
	y.Helper()
	for end := time.Now().Add(soon); !so(y.service()); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			y.Fatalf("not so after %s: %s\n%+v\n%+v", soon, what, y.service().Status, y.service().Status.Rollout)
		}
	}
}

func (y *yard) change(f func(*estate.Service)) {
	y.Helper()
	_, err := store.Modify(y.Context(), y.store, "p", "shop", func(s *estate.Service) error { f(s); return nil })
	y.must(err)
}

// load asks the service again and again until stop is called, which tells how
// many answers there were by status, 0 for none.
func (y *yard) load() (stop func() map[int]int) {
	var done atomic.Bool
	var clients sync.WaitGroup
	var mu sync.Mutex
	got := map[int]int{}
	for range 4 {
		clients.Go(func() {
			for !done.Load() {
				status := 0
				if res, err := http.Get(y.url); err == nil {
					_, err = io.Copy(io.Discard, res.Body)
					res.Body.Close()
					if err == nil {
						status = res.StatusCode
					}
				}
				mu.Lock()
				got[status]++
				mu.Unlock()
				time.Sleep(time.Millisecond)
			}
		})
	}
	return func() map[int]int {
		done.Store(true)
		clients.Wait()
		return got
	}
}

func versions(s *estate.Service) []int {
	var all []int
	for _, r := range s.Status.Replicas {
		all = append(all, r.Revision)
	}
	slices.Sort(all)
	return all
}

func ready(n int) func(*estate.Service) bool {
	return func(s *estate.Service) bool {
		return s.Status.Ready == n && len(s.Status.Replicas) == n && s.Status.Waiting == ""
	}
}

// TestWhyAnApplicationDoesNotStartIsTold: not more than now and then is it tried
// again, and at once once that helps.
func TestWhyAnApplicationDoesNotStartIsTold(t *testing.T) {
	y := newYard(t)
	y.refusing = "the layer lacks libfoo"
	y.compose(nil)
	y.until("the reason is told", func(s *estate.Service) bool { return strings.Contains(s.Status.Waiting, "the layer lacks libfoo") })
	time.Sleep(time.Second)
	y.mu.Lock()
	if y.launched > 4 {
		t.Errorf("two replicas were started %d times in a second, want at most twice each", y.launched)
	}
	y.refusing = ""
	y.mu.Unlock()
	y.until("two replicas answer", ready(2))
}

func TestAServiceAnswersThroughItsFrontAndGoes(t *testing.T) {
	y := newYard(t)
	y.compose(nil)
	y.until("two replicas answer", ready(2))
	seen := map[string]bool{}
	for range 50 {
		res, err := http.Get(y.url)
		y.must(err)
		text, err := io.ReadAll(res.Body)
		y.must(err)
		res.Body.Close()
		seen[string(text)] = true
	}
	if !seen["shop-1 1"] || !seen["shop-2 1"] || len(seen) != 2 {
		t.Errorf("answers came from %v, want both replicas with version 1", seen)
	}
	if y.launched != 2 {
		t.Errorf("%d applications were started, want one on each of two machines", y.launched)
	}
	y.must(y.store.Delete(t.Context(), shop, 0))
	for end := time.Now().Add(soon); ; time.Sleep(5 * time.Millisecond) {
		_, err := store.Get[estate.Service](t.Context(), y.store, "p", "shop")
		machines, _, _ := store.List[estate.Machine](t.Context(), y.store, "p")
		if errors.Is(err, fault.NotFound) && len(machines) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it is still there (%v), with %d machines", err, len(machines))
		}
	}
	if _, err := http.Get(y.url); err == nil {
		t.Error("the front of a service that has gone still answers")
	}
}

func TestReplicasComeAndGoAsWantedWithoutALostRequest(t *testing.T) {
	y := newYard(t)
	y.compose(nil)
	y.until("two replicas answer", ready(2))
	stop := y.load()
	for _, n := range []int{4, 2, 3} {
		y.change(func(s *estate.Service) { s.Status.Wanted = n })
		y.until(fmt.Sprint(n, " replicas answer"), ready(n))
	}
	y.change(func(s *estate.Service) { s.Status.Replicas[0].Replace = true })
	gone := y.service().Status.Replicas[0].Machine
	y.until("another stands in for the first", func(s *estate.Service) bool {
		return ready(3)(s) && !slices.ContainsFunc(s.Status.Replicas, func(r estate.Replica) bool { return r.Machine == gone })
	})
	if got := stop(); len(got) != 1 || got[200] == 0 {
		t.Errorf("answers by status: %v, want 200 alone", got)
	}
}

func TestAGoodUpdateReachesEveryReplicaWithoutALostRequest(t *testing.T) {
	y := newYard(t)
	y.compose(nil)
	y.until("two replicas answer", ready(2))
	stop := y.load()
	y.change(func(s *estate.Service) { s.Spec.Applications[0].Version = "2" })
	y.until("all are of the second revision", func(s *estate.Service) bool {
		return ready(2)(s) && slices.Equal(versions(s), []int{2, 2}) && s.Status.Rollout.State == estate.RolloutDone
	})
	if got := stop(); len(got) != 1 || got[200] == 0 {
		t.Errorf("answers by status: %v, want 200 alone", got)
	}
	s := y.service().Status
	if s.Serving() != 2 || !strings.Contains(s.Revisions[1].Verdict, "passed") {
		t.Errorf("revision %d serves with verdict %q, want 2 which passed", s.Serving(), s.Revisions[1].Verdict)
	}
}

func TestABadUpdateIsRolledBackByItsGate(t *testing.T) {
	y := newYard(t)
	y.compose(nil)
	y.until("two replicas answer", ready(2))
	y.broken = digest("c") // version 2
	stop := y.load()
	y.change(func(s *estate.Service) { s.Spec.Applications[0].Version = "2" })
	y.until("it is rolled back", func(s *estate.Service) bool {
		o := s.Status.Rollout
		return o != nil && o.State == estate.RolloutRolledBack && ready(2)(s) && slices.Equal(versions(s), []int{1, 1})
	})
	got := stop()
	bad, all := 0, 0
	for status, n := range got {
		all += n
		if status != 200 {
			bad += n
		}
	}
	if got[0] > 0 || bad == 0 || float64(bad) > .2*float64(all) {
		t.Errorf("answers by status: %v, want some bad ones, and at most the canary's fifth", got)
	}
	s := y.service()
	if v := s.Status.Revisions[1].Verdict; !strings.Contains(v, "of its") || !strings.Contains(v, "requests") {
		t.Errorf("it was rolled back because %q, want because of its requests", v)
	}
	if !s.Status.Revisions[1].Refused || s.Status.Serving() != 1 {
		t.Errorf("revisions %+v, want the second refused and the first serving", s.Status.Revisions)
	}
	y.change(func(s *estate.Service) { s.Spec.Applications[0].Version = "3" })
	y.until("the next one is tried and serves", func(s *estate.Service) bool {
		return ready(2)(s) && slices.Equal(versions(s), []int{3, 3})
	})
}

func TestWhatKeepsAServiceFromRunningIsSaid(t *testing.T) {
	y := newYard(t)
	y.compose(func(s *estate.ServiceSpec) { s.Applications[0].Version = "9" })
	y.until("it says what is missing", func(s *estate.Service) bool {
		return strings.Contains(s.Status.Waiting, "application web has no version 9") && s.Status.Get(estate.Ready).Status == estate.False
	})
}

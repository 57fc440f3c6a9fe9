package pools

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/agent"
	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor"
	"consort.dev/consort/hypervisor/fakehost"
	"consort.dev/consort/image"
)

// soon bounds every wait.
const soon = 3 * time.Minute

var consort string // the binary under test

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "cp")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	consort = filepath.Join(dir, "consort")
	code := 1
	if out, err := exec.Command("go", "build", "-o", consort, "../../cmd/consort").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s%v\n", out, err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// plane is 'consort up' in a process of its own, with its store, and a host in
// memory whose agent outlives it.
type plane struct {
	*testing.T
	dir    string
	client *api.Client
	log    *os.File
	memory *fakehost.Host    // what its agent looks after
	guest  estate.GuestFacts // of every seat

	mu  sync.Mutex
	cmd *exec.Cmd
}

func newPlane(t *testing.T, host fakehost.Options, guest estate.GuestFacts) *plane {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a plane: not with -short")
	}
	dir, err := os.MkdirTemp("", "cp") // short, for unix sockets
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{T: t, dir: dir, memory: fakehost.New(host), guest: guest}
	p.log, err = os.Create(filepath.Join(dir, "log"))
	p.must(err)
	p.client, err = api.NewClient(api.Options{Server: filepath.Join(dir, "run", "api.sock")})
	p.must(err)
	t.Cleanup(func() {
		p.kill()
		p.client.Close()
		p.log.Close()
		os.RemoveAll(dir)
	})
	p.start()
	p.employ()
	return p
}

func (p *plane) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// start starts the plane's process and waits until it answers.
func (p *plane) start() {
	p.Helper()
	cmd := exec.Command(consort, "up", "--no-agent", "--state", p.dir, "--run", filepath.Join(p.dir, "run"), "--listen", "127.0.0.1:0")
	cmd.Stderr = p.log
	p.must(cmd.Start())
	p.mu.Lock()
	p.cmd = cmd
	p.mu.Unlock()
	p.until("the plane answers", func() bool { _, err := p.client.Me(p.Context()); return err == nil })
}

// kill ends it with SIGKILL.
func (p *plane) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = p.cmd.Process.Kill() // it may have ended
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

// employ starts the agent of a host in memory, which never dies.
func (p *plane) employ() {
	p.Helper()
	images, err := image.Open(filepath.Join(p.dir, "images"))
	p.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	host, err := hypervisor.Open(ctx, "here", p.memory)
	p.must(err)
	client, err := api.NewClient(api.Options{Server: filepath.Join(p.dir, "run", "api.sock")})
	p.must(err)
	a, err := agent.New(agent.Options{
		Hypervisor: "here", Provider: "fake", Dir: filepath.Join(p.dir, "agent"), Plane: client, Host: host,
		Images: images, NoNetwork: "tests make no networks", Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	p.must(err)
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
	p.furnish()
}

// furnish applies what seats are made from.
func (p *plane) furnish() {
	p.Helper()
	system := filepath.Join(p.dir, "system.raw")
	p.must(os.WriteFile(system, make([]byte, 1<<20), 0o644))
	_, err := p.client.Apply(p.Context(), []estate.Resource{
		&estate.Context{Head: head("Context", "work"), Spec: estate.ContextSpec{Colour: "#2e6f8e"}},
		&estate.Image{Head: head("Image", "tiny"), Spec: estate.ImageSpec{Import: &estate.Import{Path: system, Format: estate.Raw, Guest: p.guest}}},
		&estate.Blueprint{Head: head("Blueprint", "task"), Spec: estate.BlueprintSpec{
			Image: "tiny", Presentation: "vnc", Context: "work", Size: estate.Size{CPUs: 1, Memory: estate.GiB},
		}},
	}, false)
	p.must(err)
	p.until("the image is there", func() bool {
		m, err := api.Get[estate.Image](p.Context(), p.client, "default", "tiny")
		return err == nil && m.Status.Digest != ""
	})
	p.until("the host has joined", func() bool {
		h, err := api.Get[estate.Hypervisor](p.Context(), p.client, "", "here")
		return err == nil && h.Status.State == estate.HypervisorReady
	})
}

func head(kind estate.Kind, name string) estate.Head {
	return estate.Head{APIVersion: estate.APIVersion, Kind: kind, Metadata: estate.Metadata{Name: name, Project: "default"}}
}

// persons makes so many persons.
func (p *plane) persons(n int) []string {
	p.Helper()
	var names []string
	for len(names) < n {
		var part []estate.Resource
		for range min(100, n-len(names)) {
			name := fmt.Sprint("person-", len(names))
			part = append(part, &estate.Person{Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Person", Metadata: estate.Metadata{Name: name}}})
			names = append(names, name)
		}
		_, err := p.client.Apply(p.Context(), part, false)
		p.must(err)
	}
	return names
}

// pool makes a pool of one person a seat.
func (p *plane) pool(name string, warm, most int) {
	p.Helper()
	pool := &estate.Pool{
		Head: head("Pool", name),
		Spec: estate.PoolSpec{Blueprint: "task", Warm: warm, Maximum: most},
	}
	_, err := p.client.Apply(p.Context(), []estate.Resource{pool}, false)
	p.must(err)
}

// connect asks for a seat until the plane answers.
func (p *plane) connect(pool, person string) (*estate.Session, error) {
	for {
		s, err := p.client.ConnectPool(p.Context(), "default", pool, api.ConnectRequest{Person: person})
		if err == nil || !errors.Is(err, fault.Unavailable) && !errors.Is(err, fault.OutcomeUnknown) {
			return s, err
		}
		select {
		case <-p.Context().Done():
			return nil, p.Context().Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// end ends a session, once the plane answers.
func (p *plane) end(session string) {
	p.Helper()
	p.until("the session is ended", func() bool {
		err := p.client.Delete(p.Context(), estate.Ref{Kind: "Session", Project: "default", Name: session}, api.Write{})
		return err == nil || errors.Is(err, fault.NotFound)
	})
}

func (p *plane) status(pool string) estate.PoolStatus {
	o, err := api.Get[estate.Pool](p.Context(), p.client, "default", pool)
	if err != nil {
		return estate.PoolStatus{}
	}
	return o.Status
}

// until waits until something is so.
func (p *plane) until(what string, so func() bool) {
	p.Helper()
	for end := time.Now().Add(soon); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			log, _ := os.ReadFile(p.log.Name())
			p.Fatalf("not so after %s: %s\n%s", soon, what, log[max(0, len(log)-3000):])
		}
	}
}

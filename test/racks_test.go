package test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/agent"
	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/fakehost"
	"consort.dev/consort/image"
	"consort.dev/consort/plane/auth"
	"consort.dev/consort/plane/calls"
	"consort.dev/consort/plane/control/move"
	"consort.dev/consort/plane/rpc"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
	"consort.dev/consort/web"
)

// TestAnAdministratorMovesMachinesInTheBrowser has Chromium move a machine,
// drain a hypervisor and adopt what was there before, against the plane's real
// parts and real agents. Only the hosts are in memory, so that no guest is needed.
func TestAnAdministratorMovesMachinesInTheBrowser(t *testing.T) {
	for _, tool := range []string{"node", "chromium"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: make deps test-deps", tool)
		}
	}
	if _, err := os.Stat("../web/dist/index.html"); err != nil {
		t.Skip("needs the built pages: make web")
	}
	s := newShow(t)
	s.furnish()
	var saw struct {
		Adopted, Given, Reasons, Moved, Drained, Matrix bool
		Digest                                          string
	}
	s.browse(&saw)
	if !saw.Adopted || !saw.Given || !saw.Reasons || !saw.Moved || !saw.Drained || !saw.Matrix || len(saw.Digest) != 12 {
		t.Errorf("the pages showed %+v", saw)
	}
	m, err := store.Get[estate.Machine](t.Context(), s.store, "default", "desk")
	if err != nil {
		t.Fatal(err)
	}
	if m.Spec.Hypervisor != "rack-1" || m.Spec.Moving != nil {
		t.Errorf("after the move to rack-2 and the drain of that, it is on %s, moving %v; want rack-1 at rest", m.Spec.Hypervisor, m.Spec.Moving)
	}
}

// show is a plane with two hosts in memory.
type show struct {
	*testing.T
	store *store.Store
	auth  *auth.Auth
	plane *httptest.Server
	hosts map[string]*fakehost.Host
	base  image.Record // what machines begin with; the first host has it
}

// badges knows agents by a token that is their name, and everybody else as the
// real auth does.
type badges struct{ *auth.Auth }

func (b badges) Authenticate(r *http.Request) (rpc.Caller, error) {
	if name, is := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); is {
		return rpc.Caller{Agent: name}, nil
	}
	return b.Auth.Authenticate(r)
}

func newShow(t *testing.T) *show {
	s := &show{T: t, store: store.New(mem.Open(mem.Options{Now: time.Now}), store.Options{}), hosts: map[string]*fakehost.Host{}}
	var err error
	s.auth, err = auth.New(auth.Options{Store: s.store, Now: time.Now, Random: rand.Reader})
	s.must(err)
	log := slog.New(slog.DiscardHandler)
	broker := calls.New(rand.Reader)
	mover := &move.Mover{
		Store: s.store, Calls: broker, Now: time.Now, Log: log,
		Times: move.Times{Again: 10 * time.Millisecond, Settle: 50 * time.Millisecond},
	}
	server, err := rpc.New(rpc.Options{
		Store: s.store, Auth: badges{s.auth}, Calls: broker, Moves: mover, SignIn: s.auth.Handler(), Web: web.Handler(),
		Now: time.Now, Random: rand.Reader, Log: log,
	})
	s.must(err)
	s.plane = httptest.NewServer(server)
	var stop []func()
	start := func(run func(context.Context) error) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); _ = run(ctx) }()
		stop = append(stop, func() { cancel(); <-done })
	}
	t.Cleanup(func() {
		for _, end := range stop {
			end()
		}
		s.plane.CloseClientConnections()
		s.plane.Close()
		s.store.Close()
	})
	start(s.auth.Run)
	start(mover.Loop().Run)
	for _, name := range []string{"rack-1", "rack-2"} {
		start(s.employ(name))
	}
	return s
}

// employ makes a host and returns the life of its agent.
func (s *show) employ(name string) func(context.Context) error {
	s.hosts[name] = fakehost.New(fakehost.Options{})
	images, err := image.Open(s.TempDir())
	s.must(err)
	if s.base.Digest == "" {
		content := bytes.Repeat([]byte("a person's files"), 1<<16)
		s.base, err = images.Put(s.Context(), bytes.NewReader(content), image.Record{Kind: image.KindImage, Format: estate.Raw, Size: estate.Bytes(len(content))})
		s.must(err)
	}
	host, err := hypervisor.Open(s.Context(), name, s.hosts[name])
	s.must(err)
	client, err := api.NewClient(api.Options{Server: s.plane.URL, Token: name})
	s.must(err)
	s.Cleanup(client.Close)
	a, err := agent.New(agent.Options{
		Hypervisor: name, Provider: "fake", Dir: s.TempDir(), Plane: client, Host: host, Images: images,
		NoNetwork: "tests make no networks", Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	s.must(err)
	return a.Run
}

func (s *show) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// furnish puts a machine of ours on the first host, one of others on the second,
// and two runs of the matrix.
func (s *show) furnish() {
	file := driver.Content{Path: filepath.Join(s.TempDir(), "theirs"), Format: estate.Raw, Size: 512}
	s.must(os.WriteFile(file.Path, make([]byte, file.Size), 0o600))
	s.hosts["rack-2"].Plant(estate.Found{
		ID: "11111111-1111-4111-8111-111111111111", Name: "Payroll 2019", Power: estate.On, CPUs: 2, Memory: estate.GiB,
	}, driver.Disk{Name: "theirs", File: &file})
	for _, r := range []estate.Resource{
		&estate.Project{Head: head("Project", "", "default")},
		&estate.Person{Head: head("Person", "", "admin"), Spec: estate.PersonSpec{Title: "Administrator", Admin: true}},
		s.trial("before", time.Hour, 10), s.trial("after", 0, 20),
	} {
		s.must(s.store.Create(s.Context(), r))
	}
	s.until("both hosts have joined", func() bool {
		all, _, err := store.List[estate.Hypervisor](s.Context(), s.store, "")
		return err == nil && len(all) == 2 && all[0].Status.State == estate.HypervisorReady && all[1].Status.State == estate.HypervisorReady
	})
	m := &estate.Machine{Head: head("Machine", "default", "desk"), Spec: estate.MachineSpec{
		Hypervisor: "rack-1", Epoch: 1, Power: estate.On,
		Hardware: estate.Hardware{CPUs: 1, Memory: estate.GiB, Disks: []estate.Disk{{Name: "system", Image: s.base.Digest}}},
	}}
	m.Metadata.Finalizers = []string{estate.AgentFinalizer}
	s.must(s.store.Create(s.Context(), m))
	s.until("the machine runs", func() bool {
		m, err := store.Get[estate.Machine](s.Context(), s.store, "default", "desk")
		return err == nil && m.Status.Power == estate.On
	})
}

func head(kind estate.Kind, project, name string) estate.Head {
	return estate.Head{APIVersion: estate.APIVersion, Kind: kind, Metadata: estate.Metadata{Project: project, Name: name}}
}

// trial is one of a run, that long ago, in which a start took so many seconds.
func (s *show) trial(run string, ago time.Duration, seconds float64) *estate.Trial {
	t := &estate.Trial{Head: head("Trial", "", run+"-boot"), Spec: estate.TrialSpec{Run: run, Hypervisor: "rack-1", Workload: "boot", At: time.Now().Add(-ago)}}
	f := estate.Figure{Name: "boot_to_agent_s", Better: estate.Lower}
	for _, by := range []float64{0.98, 1.01, 1, 0.99, 1.02} {
		f.Samples = append(f.Samples, seconds*by)
	}
	t.Spec.Figures = []estate.Figure{f}
	return t
}

func (s *show) until(what string, so func() bool) {
	s.Helper()
	for end := time.Now().Add(time.Minute); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("not so after a minute: %s", what)
		}
	}
}

// browse runs the browser's part, whose last line is what it saw.
func (s *show) browse(saw any) {
	s.Helper()
	code, err := s.auth.NewCode(s.Context(), "admin")
	s.must(err)
	cmd := exec.CommandContext(s.Context(), "node", "test/racks.mjs")
	cmd.Dir = "../web"
	// The sign-in is for a name, since a browser keeps no secure cookie of an address.
	cmd.Env = append(os.Environ(), "LINK="+strings.Replace(s.plane.URL, "127.0.0.1", "localhost", 1)+"/#code="+code)
	out, err := cmd.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || json.Unmarshal([]byte(lines[len(lines)-1]), saw) != nil {
		s.Fatalf("the browser: %v\n%s", err, out)
	}
}

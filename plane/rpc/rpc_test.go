package rpc

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/auth"
	"consort.dev/consort/plane/calls"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ Auth = (*auth.Auth)(nil)

// guards is an Auth of fixed tokens: "root" is an administrator, "agent-a" the
// agent of hypervisor a, any other token a person of that name, who sees what
// is theirs or granted to them.
type guards struct{ s *store.Store }

func (g guards) Authenticate(r *http.Request) (Caller, error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch agent, isAgent := strings.CutPrefix(token, "agent-"); {
	case !ok:
		return Caller{}, fault.Unauthenticated.Errorf("sign in first")
	case token == "root":
		return Caller{Admin: true}, nil
	case isAgent:
		return Caller{Agent: agent}, nil
	}
	return Caller{Person: token}, nil
}

func (g guards) Allow(ctx context.Context, c Caller, verb string, ref estate.Ref) error {
	r, _ := g.s.Load(ctx, ref)
	return g.judge(ctx, c, verb, ref, r)
}

func (g guards) Sees(ctx context.Context, c Caller, r estate.Resource) bool {
	return g.judge(ctx, c, "get", r.Header().Ref(), r) == nil
}

// judge answers for the object as given, which is nil where there is none.
func (g guards) judge(ctx context.Context, c Caller, verb string, ref estate.Ref, r estate.Resource) error {
	switch {
	case c.Admin:
		return nil
	case c.Agent != "":
		if verb == "get" || verb == "status" && ref.Kind == "Machine" {
			return nil
		}
		return fault.Denied.Errorf("agents may not %s %s", verb, ref)
	}
	own := false
	switch o := r.(type) {
	case *estate.Desktop:
		own = o.Spec.Person == c.Person
	case *estate.Session:
		own = o.Spec.Person == c.Person
	}
	grants, _, err := store.List[estate.Grant](ctx, g.s, ref.Project)
	if err != nil {
		return err
	}
	role := estate.Use
	if verb == "create" || verb == "update" || verb == "delete" {
		role = estate.Operate
	}
	sees := own
	for _, gr := range grants {
		if verb != "status" && gr.Gives(c.Person, nil, role, ref) {
			return nil
		}
		sees = sees || gr.Gives(c.Person, nil, estate.Use, ref)
	}
	switch {
	case own && (verb == "get" || verb == "connect" || verb == "start"):
		return nil
	case sees:
		return fault.Denied.Errorf("%s may not %s %s", c.Person, verb, ref)
	}
	return fault.NotFound.Errorf("there is no %s", ref)
}

// tills issues tickets that name their session.
type tills struct{}

func (tills) Issue(_ context.Context, s *estate.Session, native bool) (api.Ticket, error) {
	return api.Ticket{Ticket: fmt.Sprintf("%s/%v", s.Metadata.Name, native), Expires: time.Unix(1, 0).UTC()}, nil
}

// plane is a server under test.
type plane struct {
	t     *testing.T
	store *store.Store
	calls *calls.Broker
	http  *httptest.Server
	log   *bytes.Buffer

	server *Server
}

func start(t *testing.T) *plane {
	t.Helper()
	return startOver(t, mem.Open(mem.Options{Now: time.Now}))
}

func startOver(t *testing.T, kv store.KV) *plane {
	t.Helper()
	var uids atomic.Int64
	s := store.New(kv, store.Options{Now: time.Now, NewUID: func() string {
		return fmt.Sprintf("00000000-0000-4000-8000-%012d", uids.Add(1))
	}})
	p := &plane{t: t, store: s, calls: calls.New(rand.Reader), log: new(bytes.Buffer)}
	srv, err := New(Options{
		Store: s, Auth: guards{s}, Tickets: tills{}, Pools: benches{}, Calls: p.calls, Now: time.Now, Random: rand.Reader,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Beat: 20 * time.Millisecond,
		Offers: api.Offers{Presentations: []estate.PresentationOffer{{Name: "paper"}, {Name: "glass"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.server, p.http = srv, httptest.NewServer(srv)
	t.Cleanup(func() {
		p.http.CloseClientConnections()
		p.http.Close()
		s.Close()
	})
	return p
}

// as returns a client of the caller with the token.
func (p *plane) as(token string) *api.Client {
	p.t.Helper()
	c, err := api.NewClient(api.Options{Server: p.http.URL, Token: token})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(c.Close)
	return c
}

// reply is a raw answer.
type reply struct {
	status int
	header http.Header
	body   string
	p      api.Problem
}

// curl sends a raw request. header holds pairs.
func (p *plane) curl(token, method, path, body string, header ...string) reply {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.http.URL+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := p.http.Client().Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	out := reply{status: resp.StatusCode, header: resp.Header, body: string(data)}
	if resp.StatusCode >= 400 {
		if err := json.Unmarshal(data, &out.p); err != nil {
			p.t.Errorf("%s %s: %d without a problem: %s", method, path, resp.StatusCode, data)
		}
	}
	return out
}

// want checks status and, at each path, a piece of the problem's text.
func (r reply) want(t *testing.T, what string, status int, texts ...string) {
	t.Helper()
	if r.status != status {
		t.Errorf("%s: got %d %s, want %d", what, r.status, r.body, status)
	}
	for _, text := range texts {
		if !strings.Contains(r.body, text) {
			t.Errorf("%s: got %s, want it to say %q", what, r.body, text)
		}
	}
}

// Objects that tests begin with.
func project(name string) *estate.Project {
	p := new(estate.Project)
	p.Head = head("Project", "", name)
	return p
}

func head(kind estate.Kind, project, name string) estate.Head {
	return estate.Head{APIVersion: estate.APIVersion, Kind: kind, Metadata: estate.Metadata{Name: name, Project: project}}
}

func person(name string) *estate.Person { return &estate.Person{Head: head("Person", "", name)} }

func network(name string) *estate.Network {
	return &estate.Network{Head: head("Network", "p", name), Spec: estate.NetworkSpec{Subnet: "10.77.1.0/24"}}
}

func context0(name, net string) *estate.Context {
	return &estate.Context{Head: head("Context", "p", name), Spec: estate.ContextSpec{Colour: "#112233", Network: net}}
}

func image(name string) *estate.Image {
	return &estate.Image{Head: head("Image", "p", name), Spec: estate.ImageSpec{Import: &estate.Import{Path: "/x.raw", Format: estate.Raw}}}
}

func blueprint(name string) *estate.Blueprint {
	return &estate.Blueprint{Head: head("Blueprint", "p", name), Spec: estate.BlueprintSpec{Image: "debian", Presentation: "paper", Context: "work"}}
}

func desktop(name, person string) *estate.Desktop {
	return &estate.Desktop{Head: head("Desktop", "p", name), Spec: estate.DesktopSpec{Blueprint: "office", Person: person}}
}

func application(name string) *estate.Application {
	return &estate.Application{Head: head("Application", "p", name), Spec: estate.ApplicationSpec{
		Title: name, Delivery: "cart", Command: []string{"/usr/bin/" + name}, Versions: []estate.ApplicationVersion{{Name: "1", Packages: []string{name}}},
	}}
}

func grant(name, person string, of estate.Granted, role estate.Role) *estate.Grant {
	return &estate.Grant{Head: head("Grant", "p", name), Spec: estate.GrantSpec{To: estate.Grantee{Person: person}, Of: of, Role: role}}
}

func hypervisor(name string) *estate.Hypervisor {
	return &estate.Hypervisor{Head: head("Hypervisor", "", name), Spec: estate.HypervisorSpec{Provider: "iron"}}
}

// office applies a small estate: ana has desk, ben has none.
func (p *plane) office() {
	p.t.Helper()
	_, err := p.as("root").Apply(p.t.Context(), []estate.Resource{
		project("p"), person("ana"), person("ben"), person("oli"), hypervisor("a"), hypervisor("b"), network("lan"), context0("work", "lan"),
		image("debian"), blueprint("office"), application("writer"), desktop("desk", "ana"),
		grant("oli-runs", "oli", estate.Granted{Kind: "Project"}, estate.Operate),
	}, false)
	if err != nil {
		p.t.Fatal(err)
	}
}

// eventually polls until ok, for at most ten seconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: it never came", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

package rpc

import (
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/auth"
	"consort.dev/consort/plane/calls"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

// assembled is the server over the real auth, with both its doors: the unix
// socket at path, and p.http.
func assembled(t *testing.T) (p *plane, a *auth.Auth, path string) { return assembledWith(t, nil) }

// assembledWith is assembled with an audit log.
func assembledWith(t *testing.T, told Audit) (p *plane, a *auth.Auth, path string) {
	t.Helper()
	s := store.New(mem.Open(mem.Options{}), store.Options{Now: time.Now, NewUID: rand.Text})
	a, err := auth.New(auth.Options{Audit: told, Store: s, Now: time.Now, Random: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := New(Options{
		Audit: told, Store: s, Auth: a, Tickets: tills{}, Calls: calls.New(rand.Reader), SignIn: a.Handler(),
		Now: time.Now, Random: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	local, public := &http.Server{Handler: srv, ConnContext: auth.Trust}, httptest.NewServer(srv)
	go func() { _ = local.Serve(l) }()
	t.Cleanup(func() { local.Close(); public.Close(); s.Close() })
	return &plane{t: t, store: s, http: public}, a, path
}

// TestTheRealPartsFitTogether meets an administrator at the unix socket and a
// person in a browser.
func TestTheRealPartsFitTogether(t *testing.T) {
	p, a, path := assembled(t)
	root, err := api.NewClient(api.Options{Server: path})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	desks := []estate.Resource{
		project("p"), person("ana"), person("ben"), network("lan"), context0("work", "lan"), image("debian"),
		blueprint("office"), desktop("desk", "ana"), desktop("other", "ben"),
	}
	if _, err := root.Apply(t.Context(), desks, false); err != nil {
		t.Fatal(err)
	}
	code, err := a.NewCode(t.Context(), "ana")
	if err != nil {
		t.Fatal(err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	public := p.http
	public.Client().Jar = jar
	p.curl("", "GET", "/v1/me", "").want(t, "before", http.StatusUnauthorized)
	p.curl("", "POST", "/v1/sign-in/code", `{"code":"`+code+`"}`, "Origin", public.URL).want(t, "sign in", http.StatusOK)
	p.curl("", "GET", "/v1/me", "").want(t, "me", http.StatusOK, `"person":"ana"`)
	r := p.curl("", "GET", "/v1/desktops", "")
	r.want(t, "list", http.StatusOK, `"name":"desk"`)
	if strings.Contains(r.body, "other") {
		t.Errorf("ana sees ben's desktop: %s", r.body)
	}
	p.curl("", "POST", "/v1/projects/p/desktops/desk/connect", `{}`, "Origin", "https://evil.example").want(t, "from elsewhere", http.StatusForbidden)
	p.curl("", "POST", "/v1/projects/p/desktops/desk/connect", `{}`, "Origin", public.URL).want(t, "connect", http.StatusCreated, `"state":"waiting"`)
	p.curl("", "POST", "/v1/projects/p/desktops/other/connect", `{}`, "Origin", public.URL).want(t, "connect to ben's", http.StatusNotFound)
	p.curl("", "PATCH", "/v1/projects/p/desktops/desk", `{"spec":{"resets":1}}`, "Origin", public.URL).want(t, "reset", http.StatusOK)
	p.curl("", "PATCH", "/v1/projects/p/desktops/desk", `{"spec":{"person":"ben"}}`, "Origin", public.URL).want(t, "give away", http.StatusForbidden)
	anon, err := api.NewClient(api.Options{Server: public.URL, Token: "guess"})
	if err != nil {
		t.Fatal(err)
	}
	defer anon.Close()
	if _, err := anon.Me(t.Context()); !errors.Is(err, fault.Unauthenticated) {
		t.Errorf("a guessed token: got %v, want unauthenticated", err)
	}
}

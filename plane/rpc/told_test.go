package rpc

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/audit"
	"consort.dev/consort/estate"
	"consort.dev/consort/plane/store/mem"
)

// TestEveryRouteIsToldOrSaysWhyNot keeps new routes from going unaudited.
func TestEveryRouteIsToldOrSaysWhyNot(t *testing.T) {
	known := map[string]bool{}
	for _, r := range new(Server).routes() {
		known[r.id] = true
		ofKind := r.kind.Kind != "" && slices.ContainsFunc([]string{"list", "get", "put", "patch", "delete", "letGo"}, func(verb string) bool {
			return r.id == verb+string(r.kind.Kind) || r.id == verb+string(r.kind.Kind)+"Status" || verb == "list" && strings.HasPrefix(r.id, verb)
		})
		_, is := acts[r.id]
		_, not := untold[r.id]
		n := 0
		for _, yes := range []bool{ofKind, is, not} {
			if yes {
				n++
			}
		}
		if n != 1 {
			t.Errorf("route %s is in %d of: those of a kind, acts, untold; want one", r.id, n)
		}
	}
	for id := range acts {
		if !known[id] {
			t.Errorf("acts: there is no route %s", id)
		}
	}
	for id := range untold {
		if !known[id] {
			t.Errorf("untold: there is no route %s", id)
		}
	}
}

// logged opens a log whose reserve is larger than any disk when acts are not
// to begin.
func logged(t *testing.T, reserve int64) (*audit.Log, string) {
	t.Helper()
	dir, kv := t.TempDir(), mem.Open(mem.Options{})
	l, err := audit.Open(t.Context(), audit.Options{Dir: dir, KV: kv, Now: time.Now, Random: rand.Reader, Reserve: reserve})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); kv.Close() })
	return l, dir
}

// TestActsAreToldAndSecretsAreNot does what people do and reads what is told.
func TestActsAreToldAndSecretsAreNot(t *testing.T) {
	l, dir := logged(t, -1)
	p, a, path := assembledWith(t, l)
	root, err := api.NewClient(api.Options{Server: path})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	ana := person("ana")
	ana.Spec.Title = "canary-title"
	if _, err := root.Apply(t.Context(), []estate.Resource{
		project("p"), ana, network("lan"), context0("work", "lan"), image("debian"), blueprint("office"), desktop("desk", "ana"),
	}, false); err != nil {
		t.Fatal(err)
	}
	code, err := a.NewCode(t.Context(), "ana")
	if err != nil {
		t.Fatal(err)
	}
	const password, wrong = "canary-password-1", "canary-password-2"
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	p.http.Client().Jar = jar
	send := func(status int, method, path, body string) reply {
		t.Helper()
		r := p.curl("", method, path, body, "Origin", p.http.URL)
		r.want(t, method+" "+path, status)
		return r
	}
	send(401, "POST", "/v1/sign-in/code", `{"code":"canary-code"}`)
	send(200, "POST", "/v1/sign-in/code", `{"code":"`+code+`"}`)
	send(200, "POST", "/v1/me/password", `{"password":"`+password+`"}`)
	made := send(200, "POST", "/v1/me/tokens", `{"name":"canary-name","scopes":["read"]}`)
	send(201, "POST", "/v1/projects/p/desktops/desk/connect", `{}`)
	send(200, "PATCH", "/v1/projects/p/desktops/desk", `{"spec":{"title":"canary-desk"}}`)
	send(403, "PATCH", "/v1/projects/p/desktops/desk", `{"spec":{"person":"ben"}}`)
	send(403, "GET", "/v1/audit", "")
	send(403, "DELETE", "/v1/projects/p/desktops/desk", "")
	send(200, "POST", "/v1/sign-out", "")
	send(401, "POST", "/v1/sign-in/password", `{"person":"ana","password":"`+wrong+`"}`)
	send(401, "POST", "/v1/sign-in/password", `{"person":"canary-person","password":"`+password+`"}`)
	send(200, "POST", "/v1/sign-in/password", `{"person":"ana","password":"`+password+`"}`)
	if err := root.Delete(t.Context(), estate.Ref{Kind: "Desktop", Project: "p", Name: "desk"}, api.Write{}); err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := l.Read(t.Context(), audit.Query{}, func(r audit.Record) error {
		if r.Outcome != audit.Begun {
			got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", r.Who, r.What, r.On, r.Outcome)))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSpace(`
audit.open  done
administrator apply  done
sign-in  refused
ana sign-in  done
ana password.change  done
ana token.make  done
ana connect desktop/p/desk done
ana desktop.change desktop/p/desk done
ana patchDesktop desktop/p/desk refused
ana audit.read  refused
ana deleteDesktop desktop/p/desk refused
ana sign-out  done
ana sign-in  refused
sign-in  refused
ana sign-in  done
administrator desktop.delete desktop/p/desk done`), "\n")
	if !slices.Equal(got, want) {
		t.Errorf("told:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	_, token, _ := strings.Cut(made.body, `"token":"`)
	token, _, _ = strings.Cut(token, `"`)
	noCanaries(t, dir, code, token, "canary")
}

// noCanaries fails when a file of the log holds one of the texts.
func noCanaries(t *testing.T, dir string, canaries ...string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range canaries {
			if len(c) < 6 || strings.Contains(string(b), c) {
				t.Errorf("%s holds %q", f, c)
			}
		}
	}
}

// TestWhatCannotBeToldIsNotDone has a log with no room for beginnings.
func TestWhatCannotBeToldIsNotDone(t *testing.T) {
	l, _ := logged(t, 1<<62)
	p, _, path := assembledWith(t, l)
	root, err := api.NewClient(api.Options{Server: path})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, do := range map[string]func(ctx context.Context) error{
		"apply": func(ctx context.Context) error {
			_, err := root.Apply(ctx, []estate.Resource{project("p")}, false)
			return err
		},
		"token": func(ctx context.Context) error {
			return root.Post(ctx, "/v1/me/tokens", map[string]any{"name": "a", "scopes": []string{"agent:a"}}, nil)
		},
	} {
		if err := do(t.Context()); err == nil || !strings.Contains(err.Error(), "nothing was done, since it could not be written into the audit log") {
			t.Errorf("%s: %v, want that nothing was done", name, err)
		}
	}
	page, err := p.store.KV().List(t.Context(), "/consort/", "", 0)
	if err != nil || len(page.Entries) != 0 {
		t.Errorf("the store has %d entries, want none: %v", len(page.Entries), err)
	}
	if _, err := root.Apply(t.Context(), []estate.Resource{project("p")}, true); err != nil {
		t.Errorf("a dry run: %v", err)
	}
}

// TestAuditorsReadTheLog and nobody else but administrators.
func TestAuditorsReadTheLog(t *testing.T) {
	l, _ := logged(t, -1)
	p, a, path := assembledWith(t, l)
	root, err := api.NewClient(api.Options{Server: path})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	aud := person("aud")
	aud.Spec.Auditor = true
	if _, err := root.Apply(t.Context(), []estate.Resource{project("p"), person("ben"), aud}, false); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"aud": http.StatusOK, "ben": http.StatusForbidden} {
		code, err := a.NewCode(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		p.http.Client().Jar = jar
		p.curl("", "POST", "/v1/sign-in/code", `{"code":"`+code+`"}`, "Origin", p.http.URL).want(t, "sign in", http.StatusOK)
		for _, path := range []string{"/v1/audit", "/v1/audit/verify", "/v1/audit/seals"} {
			p.curl("", "GET", path, "").want(t, name+" "+path, want)
		}
		p.curl("", "GET", "/v1/hypervisors", "").want(t, name+" sees nothing else by it", http.StatusOK, `"items":[]`)
	}
	p.http.Client().Jar = nil
	r := p.curl("", "GET", "/v1/audit?what=apply&last=1", "")
	r.want(t, "nobody", http.StatusUnauthorized)
}

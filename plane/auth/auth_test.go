package auth_test

import (
	"context"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/auth"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

func TestCodeSignsInOnce(t *testing.T) {
	w := newWorld(t, cheap)
	code, err := w.NewCode(t.Context(), "ana")
	if err != nil {
		t.Fatal(err)
	}
	ana := w.browser(t)
	ana.want(200, "POST", "/v1/sign-in/code", body{"code": code})
	if c, err := ana.who(); err != nil || c.Person != "ana" || c.Admin {
		t.Errorf("signed in as %+v, %v; want ana", c, err)
	}
	w.browser(t).want(401, "POST", "/v1/sign-in/code", body{"code": code})
	_, err = w.NewCode(t.Context(), "nobody")
	wantKind(t, "a code for nobody", err, fault.NotFound)
}

func TestCodeEndsAfterTenMinutes(t *testing.T) {
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{9 * time.Minute, 200}, {11 * time.Minute, 401}} {
		w := newWorld(t, cheap)
		code, err := w.NewCode(t.Context(), "ana")
		if err != nil {
			t.Fatal(err)
		}
		w.pass(c.after)
		w.browser(t).want(c.want, "POST", "/v1/sign-in/code", body{"code": code})
	}
}

// starter is an engine that lets nobody go on with a code before as many as
// race for it have read it.
type starter struct {
	store.KV
	gate func() *sync.WaitGroup
}

func (s *starter) Get(ctx context.Context, key string) (store.Entry, error) {
	e, err := s.KV.Get(ctx, key)
	if gate := s.gate(); gate != nil && strings.Contains(key, "/codes/") {
		gate.Done()
		gate.Wait()
	}
	return e, err
}

func TestOneOfAThousandRedeemersWins(t *testing.T) {
	const racers = 1000
	var gate *sync.WaitGroup
	w := newWorldOver(t, cheap, &starter{mem.Open(mem.Options{}), func() *sync.WaitGroup { return gate }})
	for range 3 {
		code, err := w.NewCode(t.Context(), "ana")
		if err != nil {
			t.Fatal(err)
		}
		gate = new(sync.WaitGroup)
		gate.Add(racers)
		var wg sync.WaitGroup
		var mu sync.Mutex
		answers := map[int]int{}
		for i := range racers {
			wg.Go(func() {
				b := w.browser(t)
				b.from = net.JoinHostPort(net.IPv4(10, 0, byte(i>>8), byte(i)).String(), "1")
				status, _, _ := b.send("POST", "/v1/sign-in/code", body{"code": code})
				mu.Lock()
				defer mu.Unlock()
				answers[status]++
			})
		}
		wg.Wait()
		w.pass(time.Hour)
		if answers[200] != 1 || answers[401] != racers-1 {
			t.Errorf("answers %v, want one 200 and the others 401", answers)
		}
	}
}

func TestNoSecretIsStored(t *testing.T) {
	w := newWorld(t, cheap)
	code, err := w.NewCode(t.Context(), "ana")
	if err != nil {
		t.Fatal(err)
	}
	ana := w.browser(t).signIn("ana")
	ana.want(200, "POST", "/v1/me/password", body{"password": "correct horse battery"})
	token, _, err := w.NewToken(t.Context(), auth.Token{Name: "ci", Person: "ana", Scopes: []string{"read"}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	page, err := w.store.KV().List(t.Context(), "/", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	found := false // the control: the search does find what is there
	for _, e := range page.Entries {
		text := e.Key + string(e.Value)
		found = found || strings.Contains(text, "argon2id")
		for name, secret := range map[string]string{"code": code, "cookie": ana.cookies["consort"], "password": "correct horse battery", "token": token} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s is stored under %s", name, e.Key)
			}
		}
	}
	if !found {
		t.Error("the search finds nothing at all")
	}
}

func TestSignInNeverTakesAnIDThatIsThereAlready(t *testing.T) {
	w := newWorld(t, cheap)
	// The control: a session planted by somebody who has one.
	eve := w.browser(t).signIn("eve")
	planted := eve.cookies["consort"]
	victim := w.browser(t)
	victim.cookies["consort"] = planted
	victim.signIn("ana")
	if victim.cookies["consort"] == planted {
		t.Error("signing in kept the planted id")
	}
	if c, err := eve.who(); err == nil {
		t.Errorf("the planted id still opens the door, as %+v", c)
	}
	made := w.browser(t)
	made.cookies["consort"] = "made-up"
	made.signIn("ana")
	if made.cookies["consort"] == "made-up" {
		t.Error("signing in took an id that the browser made up")
	}
}

func TestCookieIsKeptFromPagesAndOtherSites(t *testing.T) {
	w := newWorld(t, cheap)
	code, err := w.NewCode(t.Context(), "ana")
	if err != nil {
		t.Fatal(err)
	}
	_, _, header := w.browser(t).send("POST", "/v1/sign-in/code", body{"code": code})
	got := header.Get("Set-Cookie")
	for _, want := range []string{"consort=", "HttpOnly", "SameSite=Strict", "Path=/"} {
		if !strings.Contains(got, want) {
			t.Errorf("cookie %q lacks %s", got, want)
		}
	}
}

func TestPagesOfOtherOriginsAreRefused(t *testing.T) {
	w := newWorld(t, cheap)
	ana := w.browser(t).signIn("ana")
	for _, c := range []struct {
		name    string
		headers map[string]string
		allowed bool
	}{
		{"our own page", map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:8080"}, true},
		{"our own page in an old browser", map[string]string{"Origin": "http://localhost:8080"}, true},
		{"a foreign page", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"}, false},
		{"a foreign page in an old browser", map[string]string{"Origin": "http://evil.example"}, false},
		{"another port of this host", map[string]string{"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:9090"}, false},
		{"a page without an origin", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "null"}, false},
	} {
		ana.headers = c.headers
		_, err := w.Authenticate(ana.request("POST", "/v1/projects/p/desktops/d/connect", nil))
		if (err == nil) != c.allowed || err != nil && fault.KindOf(err) != fault.Denied {
			t.Errorf("%s: %v, want allowed %v", c.name, err, c.allowed)
		}
		status, _, _ := ana.send("POST", "/v1/sign-in/code", body{"code": "x"})
		if (status != 403) != c.allowed {
			t.Errorf("%s: signing in answers %d, want allowed %v", c.name, status, c.allowed)
		}
	}
}

func TestRevokedSignInIsRefused(t *testing.T) {
	w := newWorld(t, cheap)
	one, two := w.browser(t).signIn("ana"), w.browser(t).signIn("ana")
	list := one.want(200, "GET", "/v1/me/sign-ins", nil)["items"].([]any)
	if len(list) != 2 {
		t.Fatalf("sign-ins %v, want two", list)
	}
	for _, s := range list {
		if s := s.(map[string]any); s["this"] == nil {
			one.want(200, "DELETE", "/v1/me/sign-ins/"+s["id"].(string), nil)
		}
	}
	_, err := two.who()
	wantKind(t, "the revoked one", err, fault.Unauthenticated)
	if _, err := one.who(); err != nil {
		t.Errorf("the other one: %v", err)
	}
	one.want(200, "POST", "/v1/sign-out", nil)
	_, err = one.who()
	wantKind(t, "after signing out", err, fault.Unauthenticated)
}

func TestSignOutEndsTheSignInAndNotOnlyTheCookie(t *testing.T) {
	w := newWorld(t, cheap)
	ana := w.browser(t).signIn("ana")
	stolen := w.browser(t)
	stolen.cookies["consort"] = ana.cookies["consort"]
	if _, err := stolen.who(); err != nil {
		t.Fatalf("the control: %v", err)
	}
	ana.want(200, "POST", "/v1/sign-out", nil)
	_, err := stolen.who()
	wantKind(t, "a copy of the cookie", err, fault.Unauthenticated)
}

func TestNobodyEndsSignInsOfOthers(t *testing.T) {
	w := newWorld(t, cheap)
	ana, eve := w.browser(t).signIn("ana"), w.browser(t).signIn("eve")
	id := ana.want(200, "GET", "/v1/me/sign-ins", nil)["items"].([]any)[0].(map[string]any)["id"].(string)
	eve.want(404, "DELETE", "/v1/me/sign-ins/"+id, nil)
	if _, err := ana.who(); err != nil {
		t.Error(err)
	}
}

func TestSignInEndsWhenIdleAndAfterADay(t *testing.T) {
	w := newWorld(t, cheap)
	idle, busy := w.browser(t).signIn("ana"), w.browser(t).signIn("bob")
	for range 23 {
		w.pass(time.Hour)
		if _, err := busy.who(); err != nil {
			t.Fatalf("one that is used every hour: %v", err)
		}
	}
	_, err := idle.who()
	wantKind(t, "an idle one", err, fault.Unauthenticated)
	w.pass(time.Hour)
	_, err = busy.who()
	wantKind(t, "one that is a day old", err, fault.Unauthenticated)
}

func TestDeletedPersonIsOut(t *testing.T) {
	w := newWorld(t, cheap)
	ana := w.browser(t).signIn("ana")
	ana.want(200, "POST", "/v1/me/password", body{"password": "correct horse battery"})
	token, _, err := w.NewToken(t.Context(), auth.Token{Name: "ci", Person: "ana", Scopes: []string{"read"}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.Delete(t.Context(), estate.Ref{Kind: "Person", Name: "ana"}, 0); err != nil {
		t.Fatal(err)
	}
	_, err = ana.who()
	wantKind(t, "a deleted person", err, fault.Unauthenticated)
	w.create(t, &estate.Person{Head: head("Person", "", "ana")}) // a namesake
	_, err = ana.who()
	wantKind(t, "the sign-in of a namesake", err, fault.Unauthenticated)
	_, err = w.bearer(token)
	wantKind(t, "the token of a namesake", err, fault.Unauthenticated)
	w.browser(t).want(401, "POST", "/v1/sign-in/password", body{"person": "ana", "password": "correct horse battery"})
}

func TestTrustedConnectionIsTheAdministrator(t *testing.T) {
	w := newWorld(t, cheap)
	r := httptest.NewRequest("GET", "/v1/me", nil)
	_, err := w.Authenticate(r)
	wantKind(t, "the control, without trust", err, fault.Unauthenticated)
	c, err := w.Authenticate(r.WithContext(auth.Trust(context.Background(), nil)))
	if err != nil || !c.Admin || c.Person != "" {
		t.Errorf("caller %+v, %v; want the administrator", c, err)
	}
}

func TestTokensAreLimitedAndShownOnce(t *testing.T) {
	w := newWorld(t, cheap)
	root := w.browser(t).signIn("root")
	made := root.want(200, "POST", "/v1/me/tokens", body{"name": "ci", "scopes": []string{"read"}, "life": "1h"})
	secret := made["token"].(string)
	c, err := w.bearer(secret)
	if err != nil || c.Person != "root" || c.Admin {
		t.Errorf("a reading token of an administrator is %+v, %v; want root and not Admin", c, err)
	}
	wantKind(t, "writing with it", w.Allow(t.Context(), c, "update", estate.Ref{Kind: "Person", Name: "ana"}), fault.Denied)
	if err := w.Allow(t.Context(), c, "get", estate.Ref{Kind: "Person", Name: "ana"}); err != nil {
		t.Errorf("reading with it: %v", err)
	}
	list := root.want(200, "GET", "/v1/me/tokens", nil)["items"].([]any)
	if len(list) != 1 || strings.Contains(list[0].(map[string]any)["id"].(string), secret) || list[0].(map[string]any)["token"] != nil {
		t.Errorf("the list is %v, want one without its secret", list)
	}
	w.pass(61 * time.Minute)
	_, err = w.bearer(secret)
	wantKind(t, "an expired token", err, fault.Unauthenticated)
	_, err = w.bearer("consort_made-up")
	wantKind(t, "a made-up token", err, fault.Unauthenticated)
}

func TestTokenCannotMakeMoreOfItself(t *testing.T) {
	w := newWorld(t, cheap)
	token, _, err := w.NewToken(t.Context(), auth.Token{Name: "all", Person: "root", Scopes: []string{"admin"}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := w.bearer(token); err != nil || !c.Admin {
		t.Fatalf("the control: %+v, %v", c, err)
	}
	b := w.browser(t)
	b.headers["Authorization"] = "Bearer " + token
	b.want(403, "POST", "/v1/me/tokens", body{"name": "more", "scopes": []string{"admin"}})
	b.want(403, "POST", "/v1/me/password", body{"password": "correct horse battery"})
}

func TestOnlyAnAdministratorMakesAgents(t *testing.T) {
	w := newWorld(t, cheap)
	agent := body{"name": "host", "scopes": []string{"agent:h1"}}
	w.browser(t).signIn("ana").want(403, "POST", "/v1/me/tokens", agent)
	made := w.browser(t).signIn("root").want(200, "POST", "/v1/me/tokens", agent)
	c, err := w.bearer(made["token"].(string))
	if err != nil || c.Agent != "h1" || c.Admin || c.Person != "" {
		t.Errorf("caller %+v, %v; want the agent of h1", c, err)
	}
	for _, scopes := range [][]string{nil, {"everything"}, {"agent:h1", "admin"}, {"agent:../x"}} {
		w.browser(t).signIn("root").want(422, "POST", "/v1/me/tokens", body{"name": "bad", "scopes": scopes})
	}
}

func TestOnlyAnAdministratorMakesCodesForOthers(t *testing.T) {
	w := newWorld(t, cheap)
	w.browser(t).signIn("ana").want(403, "POST", "/v1/sign-in/codes", body{"person": "root"})
	w.browser(t).want(401, "POST", "/v1/sign-in/codes", body{"person": "root"})
	made := w.browser(t).signIn("root").want(200, "POST", "/v1/sign-in/codes", body{"person": "bob"})
	w.browser(t).want(200, "POST", "/v1/sign-in/code", body{"code": made["code"]})
}

func TestUnknownFieldsAndHugeBodiesAreRefused(t *testing.T) {
	w := newWorld(t, cheap)
	w.browser(t).want(422, "POST", "/v1/sign-in/code", body{"code": "x", "admin": true})
	w.browser(t).want(422, "POST", "/v1/sign-in/code", body{"code": strings.Repeat("x", 1<<20)})
	w.browser(t).want(404, "POST", "/v1/sign-in/nothing", nil)
}

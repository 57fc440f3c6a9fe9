package auth_test

import (
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
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

// world is an estate with people in it and a clock that the test moves.
type world struct {
	*auth.Auth
	store *store.Store
	mu    sync.Mutex
	now   time.Time
}

// cheap makes a password guess cost little, where the cost is not the point.
var cheap = auth.Cost{Memory: 64, Rounds: 1, Threads: 1}

// newWorld returns a world over an engine whose leases never run out: what has
// a time must be refused by us, and not only by etcd, which may be late.
func newWorld(t testing.TB, cost auth.Cost) *world {
	began := time.Now()
	return newWorldOver(t, cost, mem.Open(mem.Options{Now: func() time.Time { return began }}))
}

func newWorldOver(t testing.TB, cost auth.Cost, kv store.KV) *world {
	t.Helper()
	w := &world{now: time.Now()}
	w.store = store.New(kv, store.Options{Now: w.clock})
	t.Cleanup(func() { w.store.Close() })
	var err error
	if w.Auth, err = auth.New(auth.Options{Store: w.store, Now: w.clock, Random: rand.Reader, Cost: cost}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ana", "bob", "eve", "olga", "root"} {
		w.create(t, &estate.Person{Head: head("Person", "", name), Spec: estate.PersonSpec{Admin: name == "root"}})
	}
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) create(t testing.TB, r estate.Resource) {
	t.Helper()
	if err := w.store.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

func head(kind estate.Kind, project, name string) estate.Head {
	return estate.Head{APIVersion: estate.APIVersion, Kind: kind, Metadata: estate.Metadata{Name: name, Project: project}}
}

// browser is somebody's browser: it keeps cookies.
type browser struct {
	t       *testing.T
	w       *world
	cookies map[string]string
	from    string
	headers map[string]string
}

func (w *world) browser(t *testing.T) *browser {
	return &browser{t: t, w: w, cookies: map[string]string{}, from: "192.0.2.7:4711", headers: map[string]string{"Sec-Fetch-Site": "same-origin"}}
}

func (b *browser) request(method, path string, body any) *http.Request {
	b.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		b.t.Fatal(err)
	}
	r := httptest.NewRequest(method, "http://localhost:8080"+path, strings.NewReader(string(text)))
	r.RemoteAddr = b.from
	for k, v := range b.headers {
		r.Header.Set(k, v)
	}
	for name, value := range b.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	return r
}

// send returns the status and the answer.
func (b *browser) send(method, path string, body any) (int, map[string]any, http.Header) {
	b.t.Helper()
	rec := httptest.NewRecorder()
	b.w.Handler().ServeHTTP(rec, b.request(method, path, body))
	res := rec.Result()
	for _, c := range res.Cookies() {
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = c.Value
		}
	}
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	var answer map[string]any
	if err := json.Unmarshal(text, &answer); err != nil {
		b.t.Fatalf("%s %s answers %q: %v", method, path, text, err)
	}
	return res.StatusCode, answer, res.Header
}

func (b *browser) want(status int, method, path string, body any) map[string]any {
	b.t.Helper()
	got, answer, _ := b.send(method, path, body)
	if got != status {
		b.t.Fatalf("%s %s = %d %v, want %d", method, path, got, answer, status)
	}
	return answer
}

// who returns the caller that the plane takes the browser for.
func (b *browser) who() (auth.Caller, error) {
	return b.w.Authenticate(b.request("GET", "/v1/me", nil))
}

func (b *browser) signIn(person string) *browser {
	b.t.Helper()
	code, err := b.w.NewCode(b.t.Context(), person)
	if err != nil {
		b.t.Fatal(err)
	}
	b.want(200, "POST", "/v1/sign-in/code", map[string]string{"code": code})
	return b
}

func wantKind(t *testing.T, what string, err error, want fault.Kind) {
	t.Helper()
	if err == nil || fault.KindOf(err) != want {
		t.Errorf("%s = %v, want %v", what, err, want)
	}
}

type body map[string]any

func (w *world) bearer(token string) (auth.Caller, error) {
	r := httptest.NewRequest("POST", "/v1/apply", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return w.Authenticate(r)
}

package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

var built = fstest.MapFS{
	"index.html":            {Data: []byte("the page")},
	"placeholder.html":      {Data: []byte("run make web")},
	"assets/app-1a2b.js":    {Data: []byte("let a = 1")},
	"assets/app-1a2b.js.gz": {Data: []byte("squeezed")},
}

func get(h http.Handler, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestPathsOfTheApplicationGetThePage(t *testing.T) {
	for _, p := range []string{"/", "/desktops/office/desk", "/index.html", "/no/such.page"} {
		w := get(handler{built}, p)
		if w.Code != 200 || w.Body.String() != "the page" {
			t.Errorf("GET %s: got %d %q, want the page", p, w.Code, w.Body)
		}
		if got := w.Header().Get("Cache-Control"); got != "no-cache" {
			t.Errorf("GET %s: got Cache-Control %q, want no-cache", p, got)
		}
		if got := w.Header().Get("Content-Security-Policy"); !strings.Contains(got, "default-src 'self'") {
			t.Errorf("GET %s: got policy %q", p, got)
		}
	}
}

func TestAbsentFilesAndCallsStayAbsent(t *testing.T) {
	for _, p := range []string{"/assets/old-9f.js", "/v1/desktops", "/assets/app-1a2b.js.gz"} {
		if w := get(handler{built}, p); w.Code != 404 {
			t.Errorf("GET %s: got %d, want 404", p, w.Code)
		}
	}
}

func TestHashedFilesAreKeptForeverAndSentSmall(t *testing.T) {
	w := get(handler{built}, "/assets/app-1a2b.js", "Accept-Encoding", "gzip, br")
	if got := w.Header().Get("Cache-Control"); !strings.Contains(got, "immutable") {
		t.Errorf("got Cache-Control %q, want immutable", got)
	}
	if w.Header().Get("Content-Encoding") != "gzip" || w.Body.String() != "squeezed" {
		t.Errorf("got %q in %q, want the small one in gzip", w.Body, w.Header().Get("Content-Encoding"))
	}
	plain := get(handler{built}, "/assets/app-1a2b.js")
	if plain.Header().Get("Content-Encoding") != "" || plain.Body.String() != "let a = 1" {
		t.Errorf("got %q for a reader without gzip", plain.Body)
	}
	if got := plain.Header().Get("Content-Type"); got != "text/javascript; charset=utf-8" {
		t.Errorf("got type %q", got)
	}
	if plain.Header().Get("ETag") == w.Header().Get("ETag") {
		t.Error("two encodings share one ETag")
	}
}

func TestAnUnchangedPageIsNotSentAgain(t *testing.T) {
	tag := get(handler{built}, "/").Header().Get("ETag")
	if w := get(handler{built}, "/", "If-None-Match", tag); w.Code != http.StatusNotModified || w.Body.Len() != 0 {
		t.Errorf("got %d and %d bytes, want 304 and none", w.Code, w.Body.Len())
	}
}

func TestPagesAreOnlyRead(t *testing.T) {
	w := httptest.NewRecorder()
	handler{built}.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST /: got %d, want 405", w.Code)
	}
}

func TestATreeWithoutPagesSaysHowToMakeThem(t *testing.T) {
	fresh := fstest.MapFS{"placeholder.html": built["placeholder.html"]}
	if w := get(handler{fresh}, "/"); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "make web") {
		t.Errorf("got %d %q, want 503 and what to run", w.Code, w.Body)
	}
}

func TestTheEmbeddedTreeAnswers(t *testing.T) {
	if w := get(Handler(), "/"); w.Body.Len() == 0 {
		t.Errorf("GET /: got %d and nothing to read", w.Code)
	}
}

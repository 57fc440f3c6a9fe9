package rpc

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"consort.dev/consort/estate"
)

func TestEveryAnswerCarriesTheSecurityHeaders(t *testing.T) {
	p := start(t)
	r := p.curl("", "GET", "/v1/projects/p/desktops", "")
	for k, want := range map[string]string{
		"Content-Security-Policy": "frame-ancestors 'none'", "X-Content-Type-Options": "nosniff",
		"Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin", "Cache-Control": "no-store",
	} {
		if !strings.Contains(r.header.Get(k), want) {
			t.Errorf("%s: got %q, want %q in it", k, r.header.Get(k), want)
		}
	}
	if r.header.Get("X-Request-Id") == "" {
		t.Error("no request id")
	}
}

func TestAPageFromElsewhereMayNotWrite(t *testing.T) {
	p := start(t)
	p.office()
	for origin, want := range map[string]int{"https://evil.example": http.StatusForbidden, p.http.URL: http.StatusCreated} {
		r := p.curl("root", "POST", "/v1/projects/p/desktops/desk/connect", "{}", "Origin", origin)
		r.want(t, origin, want)
	}
}

func TestABodyHasALimit(t *testing.T) {
	p := start(t)
	r := p.curl("root", "POST", "/v1/apply", `{"objects":["`+strings.Repeat("x", largestBody)+`"]}`)
	r.want(t, "too long", http.StatusUnprocessableEntity, "at most 4 MiB")
}

func TestAPathWithNothingSaysWhereToLook(t *testing.T) {
	p := start(t)
	p.curl("root", "GET", "/v1/desktps", "").want(t, "unknown", http.StatusNotFound, "there is nothing here", "/openapi.json")
	p.curl("", "GET", "/healthz", "")
	if r := p.curl("", "GET", "/openapi.json", ""); r.status != 200 || !strings.Contains(r.body, `"openapi": "3.1.0"`) {
		t.Errorf("document: got %d %.60s", r.status, r.body)
	}
	if r := p.curl("", "GET", "/readyz", ""); r.status != 200 || r.body != "ready\n" {
		t.Errorf("readyz: got %d %q", r.status, r.body)
	}
}

// bomb panics when asked.
type bomb struct{ Auth }

func (bomb) Sees(context.Context, Caller, estate.Resource) bool      { panic("boom") }
func (bomb) Allow(context.Context, Caller, string, estate.Ref) error { panic("boom") }

func TestAPanicIsAProblemWithoutItsText(t *testing.T) {
	p := start(t)
	p.http.Config.Handler.(*Server).Auth = bomb{guards{p.store}}
	r := p.curl("root", "GET", "/v1/projects/p/desktops/x", "")
	r.want(t, "panic", http.StatusInternalServerError, "the log says what")
	if strings.Contains(r.body, "boom") {
		t.Errorf("the panic's text got out: %s", r.body)
	}
}

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/fault"
)

// doors opens a plane of its own that listens on the address. end stops it as
// SIGTERM does and says how long that took.
func doors(t *testing.T, listen string) (p *plane, o upOptions, end func() time.Duration) {
	t.Helper()
	dir, err := os.MkdirTemp("", "c") // paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	o = upOptions{state: dir, listen: listen}
	o.defaults()
	ctx, cancel := context.WithCancel(context.Background())
	if p, err = openPlane(ctx, o, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	var parts sync.WaitGroup
	err = p.serve(o, func(name string, run func(context.Context) error) {
		parts.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	once := sync.OnceValue(func() time.Duration {
		began := time.Now()
		cancel()
		parts.Wait()
		p.close()
		return time.Since(began)
	})
	t.Cleanup(func() {
		once()
		p.client.Close()
		os.RemoveAll(dir)
	})
	return p, o, once
}

// status asks for a page that only people who signed in may see.
func status(c *http.Client, url string) (int, error) {
	r, err := c.Get(url + api.MePath)
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	_, _ = io.Copy(io.Discard, r.Body)
	return r.StatusCode, nil
}

func TestOnLoopbackTheDoorIsPlainAndShut(t *testing.T) {
	p, _, _ := doors(t, "127.0.0.1:0")
	if !strings.HasPrefix(p.url, "http://localhost:") {
		t.Errorf("people are sent to %s, want http://localhost:PORT", p.url)
	}
	got, err := status(http.DefaultClient, strings.Replace(p.url, "localhost", "127.0.0.1", 1))
	if err != nil || got != http.StatusUnauthorized {
		t.Errorf("somebody who did not sign in: %d, %v; want 401", got, err)
	}
	if me, err := p.client.Me(t.Context()); err != nil || !me.Admin {
		t.Errorf("at the socket: %+v, %v; want the administrator", me, err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestElsewhereTheDoorHasACertificateOfOurAuthority(t *testing.T) {
	p, o, _ := doors(t, "0.0.0.0:0")
	_, at, _ := strings.Cut(p.url, "://")
	port := at[strings.LastIndex(at, ":"):]
	if !strings.HasPrefix(p.url, "https://") {
		t.Fatalf("people are sent to %s, want https", p.url)
	}
	pem, err := os.ReadFile(filepath.Join(o.state, "ca", "authority.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	knowing := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer knowing.CloseIdleConnections()
	for _, host := range []string{"127.0.0.1", "localhost"} {
		got, err := status(&http.Client{Transport: knowing}, "https://"+host+port)
		if err != nil || got != http.StatusUnauthorized {
			t.Errorf("%s: %d, %v; want 401 over TLS", host, got, err)
		}
	}
	stranger := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: x509.NewCertPool()}}
	defer stranger.CloseIdleConnections()
	if _, err := status(&http.Client{Transport: stranger}, "https://127.0.0.1"+port); err == nil {
		t.Error("somebody who does not know our authority trusts the certificate")
	}
	plain := new(http.Transport)
	defer plain.CloseIdleConnections()
	if got, err := status(&http.Client{Transport: plain}, "http://127.0.0.1"+port); err == nil && got != http.StatusBadRequest {
		t.Errorf("without TLS: %d, want a refusal", got)
	}
}

func TestStoppingEndsWatchesAtOnce(t *testing.T) {
	p, _, end := doors(t, "127.0.0.1:0")
	r, err := p.follow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if _, err := r.Body.Read(make([]byte, 1)); err != nil {
		t.Fatalf("the watch has not begun: %v", err)
	}
	if took := end(); took > time.Second {
		t.Errorf("stopping took %s, want less than a second", took)
	}
	_, _ = io.Copy(io.Discard, r.Body) // it ends, in order or not
}

// follow opens a watch at the public door as a person who signed in.
func (p *plane) follow(ctx context.Context) (*http.Response, error) {
	if err := p.founders(ctx); err != nil {
		return nil, err
	}
	code, err := p.auth.NewCode(ctx, "admin")
	if err != nil {
		return nil, err
	}
	at := strings.Replace(p.url, "localhost", "127.0.0.1", 1)
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, at+api.SignInPath+"code", strings.NewReader(`{"code":"`+code+`"}`))
	if err != nil {
		return nil, err
	}
	q.Header.Set("Origin", at)
	signed, err := http.DefaultClient.Do(q)
	if err != nil {
		return nil, err
	}
	defer signed.Body.Close()
	if q, err = http.NewRequestWithContext(ctx, http.MethodGet, at+api.WatchPath+"?kinds=Person", nil); err != nil {
		return nil, err
	}
	for _, c := range signed.Cookies() {
		q.AddCookie(c)
	}
	return http.DefaultClient.Do(q)
}

func TestACertificateNeedsItsKey(t *testing.T) {
	for _, o := range []upOptions{{listen: "127.0.0.1:0", tlsCert: "cert.pem"}, {listen: "127.0.0.1:0", tlsKey: "key.pem"}} {
		_, _, err := listenPublic(o, nil)
		if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "give both --tls-cert and --tls-key") {
			t.Errorf("cert %q, key %q: %v", o.tlsCert, o.tlsKey, err)
		}
	}
}

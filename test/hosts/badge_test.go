package hosts

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/agent/badge"
	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/authority"
)

// guest is a host that has joined, and its way to the plane.
func (p *plane) guest(name string) (*badge.Badge, *api.Client, string) {
	p.t.Helper()
	dir := p.t.TempDir()
	b, err := badge.Join(p.t.Context(), dir, "https://"+p.at, p.token(name), time.Now)
	p.must(err)
	return b, p.client(b), dir
}

func (p *plane) client(b *badge.Badge) *api.Client {
	p.t.Helper()
	c, err := api.NewClient(api.Options{Server: b.Plane(), TLS: b.TLS()})
	p.must(err)
	p.t.Cleanup(c.Close)
	return c
}

func TestAHostJoinsOnceAndKeepsItsBadge(t *testing.T) {
	p := newPlane(t, "127.0.0.1:0", 0)
	dir, token := t.TempDir(), p.token("east")
	first, err := badge.Join(t.Context(), dir, "https://"+p.at, token, time.Now)
	p.must(err)
	if me, err := p.client(first).Me(t.Context()); err != nil || me.Agent != "east" || me.Admin {
		t.Errorf("the plane takes it for %+v, %v", me, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "badge.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key is kept with mode %v, %v; want 600", info.Mode(), err)
	}
	for name, again := range map[string]func() (*badge.Badge, error){
		"with the used token": func() (*badge.Badge, error) {
			return badge.Join(t.Context(), dir, "https://"+p.at, token, time.Now)
		},
		"without": func() (*badge.Badge, error) { return badge.Open(dir, time.Now) },
	} {
		b, err := again()
		if err != nil || !b.Expires().Equal(first.Expires()) || b.Plane() != "https://"+p.at {
			t.Errorf("started again %s: %v", name, err)
		}
	}
	if _, err := badge.Join(t.Context(), t.TempDir(), "https://"+p.at, token, time.Now); !errors.Is(err, fault.Unauthenticated) {
		t.Errorf("another host with the used token: %v, want unauthenticated", err)
	}
	if _, err := badge.Open(t.TempDir(), time.Now); !errors.Is(err, fault.NotFound) {
		t.Errorf("a host that never joined: %v, want not-found", err)
	}
	late := func() time.Time { return time.Now().Add(40 * 24 * time.Hour) }
	if _, err := badge.Open(dir, late); !errors.Is(err, fault.Unauthenticated) || !strings.Contains(err.Error(), "new token") {
		t.Errorf("after its time: %v, want unauthenticated and what to do", err)
	}
}

func TestAHostTellsItsTokenToNobodyElse(t *testing.T) {
	p, other := newPlane(t, "127.0.0.1:0", 0), newPlane(t, "127.0.0.1:0", 0)
	token := p.token("east")
	_, err := badge.Join(t.Context(), t.TempDir(), "https://"+other.at, token, time.Now)
	if err == nil || !strings.Contains(err.Error(), "is not the plane that made the token") {
		t.Errorf("joined another plane: %v", err)
	}
	if _, err := badge.Join(t.Context(), t.TempDir(), "https://"+p.at, token, time.Now); err != nil {
		t.Errorf("the token is not good any more: %v", err)
	}
}

func TestACertificateIsRenewedBeforeItsTime(t *testing.T) {
	p := newPlane(t, "127.0.0.1:0", 6*time.Second)
	b, client, dir := p.guest("east")
	read := func() []byte {
		data, err := os.ReadFile(filepath.Join(dir, "badge.json"))
		p.must(err)
		return data
	}
	first, ends := read(), b.Expires()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = b.Run(ctx, client, slog.New(slog.DiscardHandler)) // ends with ctx
	}()
	p.until("the first certificate is over and the host still in", soon, func() bool {
		me, err := client.Me(ctx)
		if err != nil && !errors.Is(err, fault.Unavailable) { // a connection of the old one may just have been closed
			t.Fatalf("after %s: %v", time.Until(ends), err)
		}
		return err == nil && me.Agent == "east" && time.Now().After(ends.Add(time.Second))
	})
	cancel()
	<-done
	if bytes.Equal(first, read()) {
		t.Error("the renewed badge was not kept")
	}
	if old, err := badge.Open(dir, time.Now); err != nil || !old.Expires().After(ends) {
		t.Errorf("what was kept: %v", err)
	}
}

// TestAgentsRoutesTakeACertificate asks every route of agents with a
// certificate, with that of another host, and with none.
func TestAgentsRoutesTakeACertificate(t *testing.T) {
	p := newPlane(t, "127.0.0.1:0", 0)
	_, east, _ := p.guest("east")
	_, west, _ := p.guest("west")
	p.must(p.store.Create(t.Context(), &estate.Hypervisor{
		Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Hypervisor", Metadata: estate.Metadata{Name: "east"}}, Spec: estate.HypervisorSpec{Provider: "fake"},
	}))
	lease, err := east.Join(t.Context(), "east")
	p.must(err)
	token, err := api.ParseJoinToken(p.token("nobody"))
	p.must(err)
	nobody, err := api.NewClient(api.Options{Server: "https://" + p.at, TLS: token.TLS()})
	p.must(err)
	defer nobody.Close()
	digest := estate.Digest("sha256:" + strings.Repeat("a", 64))
	for name, act := range map[string]func(*api.Client) error{
		"join": func(c *api.Client) error {
			_, err := c.Join(t.Context(), "east")
			return err
		},
		"claim": func(c *api.Client) error { return c.Claim(t.Context(), "east", "work") },
		"drop":  func(c *api.Client) error { return c.Drop(t.Context(), "east", "work") },
		"calls": func(c *api.Client) error { return follow(t, c, "east") },
		"fetch": func(c *api.Client) error {
			body, err := c.Fetch(t.Context(), "east", api.FetchRequest{Digest: digest})
			if err == nil {
				body.Close()
			}
			if errors.Is(err, fault.NotFound) && strings.Contains(err.Error(), "no host has it") {
				return nil // it was let in
			}
			return err
		},
	} {
		if err := act(east); err != nil {
			t.Errorf("%s with the certificate: %v", name, err)
		}
		if err := act(west); err == nil || !errors.Is(err, fault.Denied) && !errors.Is(err, fault.NotFound) {
			t.Errorf("%s with that of another host: %v, want a refusal", name, err)
		}
		if err := act(nobody); !errors.Is(err, fault.Unauthenticated) {
			t.Errorf("%s without one: %v, want unauthenticated", name, err)
		}
	}
	if err := west.Alive(t.Context(), "east", lease.Lease); err == nil {
		t.Error("another host keeps the lease alive")
	}
	for name, act := range map[string]func(*api.Client) error{
		"make a join token": func(c *api.Client) error { _, err := c.JoinToken(t.Context(), "more", 0); return err },
		"revoke another":    func(c *api.Client) error { _, err := c.Revoke(t.Context(), "west"); return err },
	} {
		if err := act(east); !errors.Is(err, fault.Denied) {
			t.Errorf("an agent may %s: %v, want denied", name, err)
		}
	}
	stranger := forger(t, "east")
	if _, err := stranger.Get("https://" + p.at + api.MePath); err == nil {
		t.Error("a certificate of another authority is taken")
	}
}

// follow opens the stream of calls and says how that went.
func follow(t *testing.T, c *api.Client, hypervisor string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var err error
	for range c.Calls(ctx, hypervisor, func(e error) { err = e; cancel() }) {
		continue
	}
	return err
}

// forger comes with a certificate for the hypervisor from an authority of its own.
func forger(t *testing.T, hypervisor string) *http.Client {
	t.Helper()
	ca, err := authority.Open(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	show := ca.Serving(nil, nil)
	way := &http.Transport{TLSClientConfig: &tls.Config{
		InsecureSkipVerify:   true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return show(nil) },
		RootCAs:              x509.NewCertPool(),
	}}
	t.Cleanup(way.CloseIdleConnections)
	return &http.Client{Transport: way}
}

func TestOneHostHasAClaimUntilItIsLost(t *testing.T) {
	p := newPlane(t, "127.0.0.1:0", 0)
	clients := map[string]*api.Client{}
	for _, name := range []string{"east", "west"} {
		_, clients[name], _ = p.guest(name)
		p.must(p.store.Create(t.Context(), &estate.Hypervisor{
			Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Hypervisor", Metadata: estate.Metadata{Name: name}}, Spec: estate.HypervisorSpec{Provider: "fake"},
		}))
		if err := clients[name].Claim(t.Context(), name, "image"); !errors.Is(err, fault.Unavailable) {
			t.Errorf("%s, which has not joined, claims: %v, want unavailable", name, err)
		}
		_, err := clients[name].Join(t.Context(), name)
		p.must(err)
	}
	for range 2 {
		if err := clients["east"].Claim(t.Context(), "east", "image"); err != nil {
			t.Errorf("east claims: %v", err)
		}
	}
	if err := clients["west"].Claim(t.Context(), "west", "image"); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "east") {
		t.Errorf("west claims what east has: %v, want conflict", err)
	}
	if err := clients["west"].Drop(t.Context(), "west", "image"); err != nil {
		t.Error(err)
	}
	if err := clients["west"].Claim(t.Context(), "west", "image"); !errors.Is(err, fault.Conflict) {
		t.Errorf("west dropped what east has: %v", err)
	}
	_, err := clients["east"].Join(t.Context(), "east") // another process of its own
	p.must(err)
	if err := clients["west"].Claim(t.Context(), "west", "image"); err != nil {
		t.Errorf("west claims what the lost one had: %v", err)
	}
	p.must(clients["west"].Drop(t.Context(), "west", "image"))
	if err := clients["east"].Claim(t.Context(), "east", "image"); err != nil {
		t.Errorf("east claims what west dropped: %v", err)
	}
}

package api_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client returns a client of a server that answers with h.
func client(t *testing.T, h http.HandlerFunc) *api.Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := api.NewClient(api.Options{Server: srv.URL, Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// hangUp ends the connection without an answer.
func hangUp(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		conn.Close()
	}
}

func me(w http.ResponseWriter) { _ = json.NewEncoder(w).Encode(api.Me{Person: "ana"}) }

func TestALostReplyToAWriteIsOutcomeUnknownAndNotRepeated(t *testing.T) {
	var n atomic.Int32
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		n.Add(1)
		hangUp(w)
	})
	if _, err := c.Connect(t.Context(), "p", "d", ""); !errors.Is(err, fault.OutcomeUnknown) || n.Load() != 1 {
		t.Errorf("got %v after %d requests, want outcome-unknown after one", err, n.Load())
	}
}

func TestAReadIsTriedAgain(t *testing.T) {
	var n atomic.Int32
	c := client(t, func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) < 3 {
			hangUp(w)
			return
		}
		me(w)
	})
	if got, err := c.Me(t.Context()); err != nil || got.Person != "ana" {
		t.Errorf("got %+v, %v; want the answer", got, err)
	}
}

func TestAPlaneThatIsNotThereIsUnavailable(t *testing.T) {
	c, err := api.NewClient(api.Options{Server: filepath.Join(t.TempDir(), "no.sock")})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Put(t.Context(), &estate.Person{Head: estate.Head{Kind: "Person"}}, api.Write{}); !errors.Is(err, fault.Unavailable) {
		t.Errorf("got %v, want unavailable: nothing was sent", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Me(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func TestAnErrorComesBackWithKindTextAndProblems(t *testing.T) {
	want := api.Invalid("network p/x: 1 rule is broken", []estate.Problem{{Path: "spec.subnet", Text: "no"}})
	c := client(t, func(w http.ResponseWriter, _ *http.Request) {
		p := api.NewProblem(want)
		w.WriteHeader(p.Status)
		_ = json.NewEncoder(w).Encode(p)
	})
	_, err := c.Me(t.Context())
	if !errors.Is(err, fault.Invalid) || len(api.Problems(err)) != 1 || err.Error() != "network p/x: 1 rule is broken: spec.subnet: no" {
		t.Errorf("got %v, %v", err, api.Problems(err))
	}
}

func TestAServerThatIsNotOursIsNamed(t *testing.T) {
	c := client(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusForbidden) })
	_, err := c.Me(t.Context())
	if !errors.Is(err, fault.Denied) || !strings.Contains(err.Error(), "403") {
		t.Errorf("got %v, want denied and the status", err)
	}
}

func TestTextOfAnUnclassifiedErrorStaysInside(t *testing.T) {
	p := api.NewProblem(errors.New("open /var/lib/secret: no"))
	if strings.Contains(p.Detail, "secret") || p.Status != http.StatusInternalServerError {
		t.Errorf("got %+v", p)
	}
}

func TestTheClientSpeaksOverAUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(echo)}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	for _, server := range []string{path, "unix://" + path} {
		c, err := api.NewClient(api.Options{Server: server})
		if err != nil {
			t.Fatal(err)
		}
		speaks(t, c)
		c.Close()
	}
}

func TestTheClientSpeaksOverTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(echo))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	c, err := api.NewClient(api.Options{Server: srv.URL, TLS: &tls.Config{RootCAs: roots}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	speaks(t, c)
	bad, err := api.NewClient(api.Options{Server: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	if err := bad.Put(t.Context(), &estate.Person{Head: estate.Head{Kind: "Person"}}, api.Write{}); !errors.Is(err, fault.Unavailable) {
		t.Errorf("an unknown certificate: got %v, want unavailable", err)
	}
}

// speaks makes a request and passes bytes through both sorts of tunnels.
func speaks(t *testing.T, c *api.Client) {
	t.Helper()
	if got, err := c.Me(t.Context()); err != nil || got.Person != "ana" {
		t.Errorf("me: got %+v, %v", got, err)
	}
	for name, open := range map[string]func() (net.Conn, error){
		"call":    func() (net.Conn, error) { return c.OpenCall(t.Context(), "c") },
		"gateway": func() (net.Conn, error) { return c.Tunnel(t.Context(), "secret") },
	} {
		conn, err := open()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := conn.Write([]byte("hello\n")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if line != "hello\n" {
			t.Errorf("%s: got %q, %v; want the line back", name, line, err)
		}
		conn.Close()
	}
}

// echo answers as a plane whose tunnels send back what they get.
func echo(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == api.MePath:
		me(w)
	case r.URL.Path == api.TunnelPath:
		if r.URL.RawQuery != "" || !strings.Contains(r.Header.Get("Sec-WebSocket-Protocol"), "ticket.secret") {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{api.TunnelProtocol}})
		if err == nil {
			conn := websocket.NetConn(context.Background(), ws, websocket.MessageBinary)
			_, _ = io.Copy(conn, conn)
		}
	case r.Header.Get("Upgrade") == api.TunnelUpgrade:
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+api.TunnelUpgrade+"\r\n\r\n")
		_, _ = io.Copy(conn, rw)
	}
}

func TestOpeningATunnelEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // it listens and never answers
	c, err := api.NewClient(api.Options{Server: l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.OpenCall(ctx, "c"); err == nil {
		t.Error("it opened")
	}
}

func TestModifyTriesAgainWhenSomebodyWasFaster(t *testing.T) {
	var puts atomic.Int32
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && puts.Add(1) == 1 {
			p := api.NewProblem(fault.Conflict.Errorf("changed"))
			w.WriteHeader(p.Status)
			_ = json.NewEncoder(w).Encode(p)
			return
		}
		o := &estate.Person{Head: estate.Head{Kind: "Person", Metadata: estate.Metadata{Name: "ana", Version: 7}}}
		if r.Method == http.MethodPut {
			if r.Header.Get("If-Match") != `"7"` {
				t.Errorf("If-Match: got %s", r.Header.Get("If-Match"))
			}
			_ = json.NewDecoder(r.Body).Decode(o)
		}
		_ = json.NewEncoder(w).Encode(o)
	})
	got, err := api.Modify(t.Context(), c, "", "ana", func(p *estate.Person) error { p.Spec.Title = "Ana"; return nil })
	if err != nil || got.Spec.Title != "Ana" || puts.Load() != 2 {
		t.Errorf("got %+v, %v after %d writes; want two", got, err, puts.Load())
	}
	if _, err := api.Modify(t.Context(), c, "", "ana", func(*estate.Person) error { return nil }); err != nil || puts.Load() != 2 {
		t.Errorf("nothing changed: got %v and %d writes, want none more", err, puts.Load()-2)
	}
}

func TestAnAddressThatIsNoneIsRefused(t *testing.T) {
	for _, server := range []string{"", "localhost:8080", "ftp://x", "relative.sock"} {
		if _, err := api.NewClient(api.Options{Server: server}); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: got %v, want invalid", server, err)
		}
	}
}

func TestAWatchThatFellBehindListsAgainAndTellsWhatWent(t *testing.T) {
	line := func(w http.ResponseWriter, typ api.WatchType, version int64, name string) {
		l := api.WatchLine{Type: typ, Version: version}
		if name != "" {
			l.Object, _ = json.Marshal(&estate.Person{Head: estate.Head{Kind: "Person", Metadata: estate.Metadata{Name: name, Version: version}}})
		}
		_ = json.NewEncoder(w).Encode(l)
	}
	var n atomic.Int32
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		version := r.URL.Query().Get("version")
		switch n.Add(1) {
		case 1:
			line(w, api.Put, 3, "ana")
			line(w, api.Put, 4, "ben")
			line(w, api.Bookmark, 5, "")
		case 2:
			if version != "5" {
				t.Errorf("resumed from %q, want 5", version)
			}
			p := api.NewProblem(fault.Stale.Errorf("no longer kept"))
			w.WriteHeader(p.Status)
			_ = json.NewEncoder(w).Encode(p)
		default:
			if n.Load() == 3 && version != "" {
				t.Errorf("listed again from %q, want everything", version)
			}
			line(w, api.Put, 9, "ana")
			line(w, api.Bookmark, 9, "")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	var got []string
	for e := range api.Watch[estate.Person](ctx, c, "") {
		switch {
		case e.Type == api.Lost:
		case e.Object != nil:
			got = append(got, string(e.Type)+" "+e.Object.Metadata.Name)
		default:
			got = append(got, string(e.Type))
		}
		if len(got) == 6 {
			break
		}
	}
	cancel()
	want := "is ana, is ben, synced, is ana, gone ben, synced"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("got %s, want %s", s, want)
	}
}

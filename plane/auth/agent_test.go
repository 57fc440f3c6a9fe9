package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/auth"
	"consort.dev/consort/plane/authority"
	"consort.dev/consort/plane/store/mem"
)

// lodge is a plane's door for agents and the authority behind it.
type lodge struct {
	*world
	t  *testing.T
	at string // its address
}

// newLodge opens a door. Who gets through hears who the plane takes them for;
// /stay answers slowly, as a stream does.
func newLodge(t *testing.T) *lodge {
	t.Helper()
	w := newWorldOver(t, cheap, mem.Open(mem.Options{Now: time.Now}))
	ca, err := authority.Open(t.TempDir(), w.clock)
	if err != nil {
		t.Fatal(err)
	}
	w.Auth.Authority, w.Auth.AgentLife = ca, time.Hour
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	door := w.Door()
	server := &http.Server{ConnContext: door.Connected, Handler: door.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c, err := w.Authenticate(r)
		if err != nil {
			http.Error(rw, err.Error(), fault.KindOf(err).HTTPStatus())
			return
		}
		_, _ = io.WriteString(rw, c.Agent)
		if r.URL.Path == "/stay" {
			_ = http.NewResponseController(rw).Flush()
			<-r.Context().Done()
		}
	}))}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(door.Listen(l, ca.Serving(nil, nil))) })
	running.Go(func() { _ = door.Run(t.Context()) })
	t.Cleanup(func() {
		server.Close()
		running.Wait()
	})
	return &lodge{w, t, "https://" + l.Addr().String()}
}

// request makes a key and asks for a certificate with the name.
func request(t *testing.T, name string) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// guest is an agent with a certificate, or without.
type guest struct {
	*http.Client
	serial string
}

// client comes with the certificate, or without one when it is nil.
func (o *lodge) client(key *ecdsa.PrivateKey, c *api.Certificate) guest {
	o.t.Helper()
	conf := &tls.Config{RootCAs: o.Authority.Pool(), ServerName: api.PlaneName, Time: o.clock}
	g := guest{}
	if c != nil {
		block, _ := pem.Decode([]byte(c.Certificate))
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			o.t.Fatal(err)
		}
		conf.Certificates = []tls.Certificate{{Certificate: [][]byte{block.Bytes}, PrivateKey: key}}
		g.serial = leaf.SerialNumber.Text(16)
	}
	way := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
	o.t.Cleanup(way.CloseIdleConnections)
	g.Client = &http.Client{Transport: way}
	return g
}

// join enrols an agent of the hypervisor.
func (o *lodge) join(hypervisor string) guest {
	o.t.Helper()
	token, _, err := o.JoinToken(o.t.Context(), hypervisor, 0)
	if err != nil {
		o.t.Fatal(err)
	}
	key, csr := request(o.t, api.AgentSubject(hypervisor))
	made, err := o.Enrol(o.t.Context(), token, csr)
	if err != nil {
		o.t.Fatal(err)
	}
	return o.client(key, made)
}

// ask returns the status and who the plane takes the guest for.
func (o *lodge) ask(g guest, path string) (int, string) {
	o.t.Helper()
	r, err := g.Get(o.at + path)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(b)
}

func TestAnAgentComesInWithItsCertificateAndNobodyWithoutOne(t *testing.T) {
	o := newLodge(t)
	if status, who := o.ask(o.join("east"), "/"); status != http.StatusOK || who != "east" {
		t.Errorf("with a certificate: %d %q, want 200 east", status, who)
	}
	if status, said := o.ask(o.client(nil, nil), "/"); status != http.StatusUnauthorized || !strings.Contains(said, "consort agent --join") {
		t.Errorf("without: %d %q, want 401 and what to do", status, said)
	}
	other, err := authority.Open(t.TempDir(), o.clock)
	if err != nil {
		t.Fatal(err)
	}
	key, csr := request(t, api.AgentSubject("east"))
	forged, err := other.Agent("east", csr, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	g := o.client(key, &api.Certificate{Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: forged.Raw}))})
	if status, said := o.ask(g, "/"); status == http.StatusOK {
		t.Errorf("with a stranger's certificate: %d %q, want a refusal", status, said)
	}
}

func TestOneOfOursThatWasNeverWrittenDownIsRefused(t *testing.T) {
	o := newLodge(t)
	key, csr := request(t, api.AgentSubject("east"))
	made, err := o.Authority.Agent("east", csr, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	g := o.client(key, &api.Certificate{Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made.Raw}))})
	if status, _ := o.ask(g, "/"); status != http.StatusUnauthorized {
		t.Errorf("got %d, want 401", status)
	}
}

func TestAJoinTokenIsGoodOnceForOneNameAndForAWhile(t *testing.T) {
	o := newLodge(t)
	token, ends, err := o.JoinToken(t.Context(), "east", time.Hour)
	if err != nil || ends.Sub(o.clock()) != time.Hour {
		t.Fatalf("ends %s, %v", ends, err)
	}
	_, csr := request(t, api.AgentSubject("west"))
	if _, err := o.Enrol(t.Context(), token, csr); !errors.Is(err, fault.Denied) {
		t.Errorf("a request for another name: %v, want denied", err)
	}
	if _, err := o.Enrol(t.Context(), strings.Replace(token, "east", "west", 1), csr); !errors.Is(err, fault.Unauthenticated) {
		t.Errorf("the token with another name: %v, want unauthenticated", err)
	}
	_, csr = request(t, api.AgentSubject("east"))
	var wg sync.WaitGroup
	var in, out int
	var mu sync.Mutex
	for range 8 {
		wg.Go(func() {
			_, err := o.Enrol(t.Context(), token, csr)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				in++
			case errors.Is(err, fault.Unauthenticated):
				out++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if in != 1 || out != 7 {
		t.Errorf("%d got in and %d were refused, want 1 and 7", in, out)
	}
	token, _, err = o.JoinToken(t.Context(), "east", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	o.pass(time.Minute)
	if _, err := o.Enrol(t.Context(), token, csr); !errors.Is(err, fault.Unauthenticated) {
		t.Errorf("after its time: %v, want unauthenticated", err)
	}
}

func TestARevokedAgentIsRefusedAndCutOff(t *testing.T) {
	o := newLodge(t)
	east, west := o.join("east"), o.join("west")
	token, _, err := o.JoinToken(t.Context(), "east", 0)
	if err != nil {
		t.Fatal(err)
	}
	streams := map[string]io.ReadCloser{}
	for name, g := range map[string]guest{"east": east, "west": west} {
		r, err := g.Get(o.at + "/stay")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if _, err := io.ReadFull(r.Body, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		streams[name] = r.Body
	}
	cut := make(chan time.Time, 1)
	go func() {
		_, _ = streams["east"].Read(make([]byte, 1))
		cut <- time.Now()
	}()
	began := time.Now()
	if n, err := o.Revoke(t.Context(), "east"); err != nil || n != 2 {
		t.Errorf("revoked %d, %v; want its certificate and its token", n, err)
	}
	select {
	case at := <-cut:
		t.Logf("cut after %s", at.Sub(began))
	case <-time.After(5 * time.Second):
		t.Error("the stream goes on")
	}
	if status, said := o.ask(east, "/"); status != http.StatusUnauthorized {
		t.Errorf("revoked: %d %q, want 401", status, said)
	}
	if status, _ := o.ask(west, "/"); status != http.StatusOK {
		t.Errorf("another: %d, want 200", status)
	}
	_, csr := request(t, api.AgentSubject("east"))
	if _, err := o.Enrol(t.Context(), token, csr); !errors.Is(err, fault.Unauthenticated) {
		t.Errorf("with a token from before: %v, want unauthenticated", err)
	}
	if n, err := o.Revoke(t.Context(), "east"); err != nil || n != 0 {
		t.Errorf("again: %d, %v; want nothing left", n, err)
	}
}

func TestAHostThatJoinsAnewTakesTheOldOnesPlace(t *testing.T) {
	o := newLodge(t)
	old := o.join("east")
	if status, _ := o.ask(old, "/"); status != http.StatusOK {
		t.Fatal(status)
	}
	now := o.join("east")
	if status, _ := o.ask(old, "/"); status == http.StatusOK {
		t.Error("the old certificate is still good")
	}
	if status, _ := o.ask(now, "/"); status != http.StatusOK {
		t.Errorf("the new one: %d", status)
	}
}

func TestARenewedCertificateOutlivesTheOld(t *testing.T) {
	o := newLodge(t)
	old := o.join("east")
	o.pass(40 * time.Minute)
	key, csr := request(t, api.AgentSubject("east"))
	who := auth.Caller{Agent: "east", Serial: old.serial}
	if _, err := o.Renew(t.Context(), auth.Caller{Agent: "east"}, csr); !errors.Is(err, fault.Denied) {
		t.Errorf("without the old one: %v, want denied", err)
	}
	_, another := request(t, api.AgentSubject("west"))
	if _, err := o.Renew(t.Context(), who, another); !errors.Is(err, fault.Denied) {
		t.Errorf("for another name: %v, want denied", err)
	}
	if _, err := o.Renew(t.Context(), who, csr); err != nil { // its reply is lost
		t.Fatal(err)
	}
	made, err := o.Renew(t.Context(), who, csr)
	if err != nil {
		t.Fatal(err)
	}
	if status, _ := o.ask(old, "/"); status != http.StatusOK {
		t.Errorf("the old one, in its time: %d, want 200", status)
	}
	o.pass(30 * time.Minute)
	if status, _ := o.ask(old, "/"); status == http.StatusOK {
		t.Error("the old one is good after its time")
	}
	if status, said := o.ask(o.client(key, made), "/"); status != http.StatusOK || said != "east" {
		t.Errorf("the new one: %d %q, want 200 east", status, said)
	}
	if _, err := o.Renew(t.Context(), auth.Caller{Agent: "east", Serial: "revoked"}, csr); !errors.Is(err, fault.NotFound) {
		t.Errorf("from one that is not written down: %v, want not-found", err)
	}
}

func TestAJoinTokenKnowsItsPlane(t *testing.T) {
	o := newLodge(t)
	text, _, err := o.JoinToken(t.Context(), "east", 0)
	if err != nil {
		t.Fatal(err)
	}
	token, err := api.ParseJoinToken(text + "\n")
	if err != nil || token.Hypervisor != "east" {
		t.Fatalf("%+v, %v", token, err)
	}
	for name, c := range map[string]struct {
		change func(*api.JoinToken)
		ok     bool
	}{
		"its own": {func(*api.JoinToken) {}, true},
		"another": {func(t *api.JoinToken) { t.Authority = strings.Repeat("A", len(t.Authority)) }, false},
	} {
		at := token
		c.change(&at)
		conn, err := tls.Dial("tcp", strings.TrimPrefix(o.at, "https://"), at.TLS())
		if (err == nil) != c.ok {
			t.Errorf("%s authority: %v", name, err)
		}
		if err == nil {
			conn.Close()
		}
	}
	for _, bad := range []string{"", "consort_x", "consort_join_east.x", "consort_join_EAST.x.y", "consort_join_east..y"} {
		if _, err := api.ParseJoinToken(bad); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v, want invalid", bad, err)
		}
	}
}

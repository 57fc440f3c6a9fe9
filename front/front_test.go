package front

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"consort.dev/consort/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// town is where replicas live: servers by name.
type town struct {
	mu      sync.Mutex
	servers map[string]*httptest.Server

	elsewhere string // address of everybody else
}

// start runs a replica. It ends with the test, or before by its Close.
func (w *town) start(t testing.TB, name string, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.servers == nil {
		w.servers = map[string]*httptest.Server{}
	}
	w.servers[name] = s
	return s
}

func (w *town) dial(ctx context.Context, name string, _ int) (net.Conn, error) {
	w.mu.Lock()
	s := w.servers[name]
	w.mu.Unlock()
	var d net.Dialer
	if w.elsewhere != "" {
		return d.DialContext(ctx, "tcp", w.elsewhere)
	}
	if s == nil {
		return nil, fault.Unavailable.Errorf("there is no %s", name)
	}
	return d.DialContext(ctx, "tcp", s.Listener.Addr().String())
}

// open returns a front of the replicas and the address where it serves.
func (w *town) open(t testing.TB, o Options, names ...string) (*Front, string) {
	t.Helper()
	o.Service, o.Dial = "shop", w.dial
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Set(replicas(names...)); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- f.Serve(ctx, l, nil) }()
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		f.Close()
		cancel()
		<-served
	})
	return f, l.Addr().String()
}

func replicas(names ...string) []Replica {
	var out []Replica
	for _, n := range names {
		out = append(out, Replica{Name: n, Port: 80})
	}
	return out
}

func get(t testing.TB, url string) (*http.Response, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func TestARequestComesAsItWasSentAndSaysWhereFrom(t *testing.T) {
	var w town
	seen := make(chan *http.Request, 1)
	w.start(t, "a", func(_ http.ResponseWriter, r *http.Request) { seen <- r })
	_, at := w.open(t, Options{}, "a")
	req, _ := http.NewRequest("GET", "http://"+at+"/a%2Fb/../c;d?x=1;y=%zz&&", nil)
	req.Host = "shop.example"
	req.Header = http.Header{
		"X-Forwarded-For": {"6.6.6.6"}, "X_forwarded_for": {"6.6.6.6"}, "X-Forwarded-Port": {"1"}, "Forwarded": {"for=6.6.6.6"}, "X-Real-Ip": {"6.6.6.6"},
		"Connection": {"X-Secret, X-Forwarded-For"}, "X-Secret": {"hop"}, "Te": {"gzip"}, "Proxy-Authorization": {"p"}, "X-Kept": {"1", "2"},
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	r := <-seen
	if got, want := r.RequestURI, "/a%2Fb/../c;d?x=1;y=%zz&&"; got != want || r.Host != "shop.example" {
		t.Errorf("asked for %s at %s, want %s at shop.example", got, r.Host, want)
	}
	for name, want := range map[string]string{
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "shop.example", "X-Forwarded-Proto": "http",
		"Forwarded": `for=127.0.0.1;host="shop.example";proto=http`, "X-Kept": "1|2",
		"X_forwarded_for": "", "X-Forwarded-Port": "", "X-Real-Ip": "", "X-Secret": "", "Te": "", "Proxy-Authorization": "", "Connection": "",
	} {
		if got := strings.Join(r.Header[name], "|"); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestBodiesStreamBothWaysWithTrailers(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprint("HTTP/2 to replicas ", http2), func(t *testing.T) {
			var w town
			w.start(t, "a", func(w http.ResponseWriter, r *http.Request) {
				control := http.NewResponseController(w)
				control.EnableFullDuplex()
				w.Header().Set("Trailer", "X-Sum")
				control.Flush()
				lines := bufio.NewScanner(r.Body)
				for lines.Scan() {
					fmt.Fprintln(w, "echo", lines.Text())
					control.Flush()
				}
				w.Header().Set("X-Sum", r.Trailer.Get("X-Asked"))
			})
			_, at := w.open(t, Options{HTTP2: http2}, "a")
			// Only HTTP/2 clients may go on sending while they read.
			only := new(http.Protocols)
			only.SetUnencryptedHTTP2(true)
			client := &http.Transport{Protocols: only}
			defer client.CloseIdleConnections()
			mine, theirs := io.Pipe()
			req, _ := http.NewRequest("POST", "http://"+at+"/", mine)
			req.Trailer = http.Header{"X-Asked": nil}
			res, err := client.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			answers := bufio.NewReader(res.Body)
			for _, word := range []string{"one", "two"} {
				fmt.Fprintln(theirs, word)
				if got, err := answers.ReadString('\n'); got != "echo "+word+"\n" {
					t.Fatalf("read %q, %v; want the echo of %s before the next is sent", got, err, word)
				}
			}
			req.Trailer.Set("X-Asked", "42")
			theirs.Close()
			io.Copy(io.Discard, answers)
			if got := res.Trailer.Get("X-Sum"); got != "42" {
				t.Errorf("trailer %q, want 42", got)
			}
		})
	}
}

func TestAClientThatExpectsAContinueSendsNothingInVain(t *testing.T) {
	var w town
	w.start(t, "a", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		io.Copy(w, r.Body)
	})
	_, at := w.open(t, Options{}, "a")
	for path, want := range map[string]string{"/yes": "HTTP/1.1 100", "/no": "HTTP/1.1 403"} {
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n", path)
		if line, err := bufio.NewReader(conn).ReadString('\n'); !strings.HasPrefix(line, want) {
			t.Errorf("%s: %q, %v; want %s", path, line, err, want)
		}
	}
}

func TestAWebSocketPassesAndIsMeasuredByItsHandshake(t *testing.T) {
	var w town
	w.start(t, "a", func(w http.ResponseWriter, r *http.Request) {
		conn, both, _ := http.NewResponseController(w).Hijack()
		defer conn.Close()
		fmt.Fprint(both, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+r.Header.Get("Upgrade")+"\r\n\r\n")
		both.Flush()
		line, _ := both.ReadString('\n')
		fmt.Fprint(conn, "echo ", line)
	})
	f, at := w.open(t, Options{Objectives: []Objective{{"fast", time.Minute}}}, "a")
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != 101 || res.Header.Get("Upgrade") != "websocket" {
		t.Fatalf("got %v, %v; want 101", res, err)
	}
	fmt.Fprintln(conn, "hello")
	if got, err := io.ReadAll(in); string(got) != "echo hello\n" {
		t.Errorf("read %q, %v; want the echo", got, err)
	}
	conn.Close()
	n := settled(t, f)
	if len(n.Series) != 1 || n.Series[0].Status != 101 || n.Objectives[0] != (Count{"fast", 1, 1}) {
		t.Errorf("counted %+v, %+v; want one 101", n.Series, n.Objectives)
	}
}

// settled returns the figures when nothing is in flight.
func settled(t testing.TB, f *Front) Figures {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		n := f.Figures()
		if n.InFlight == 0 {
			return n
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d requests are still in flight", n.InFlight)
		}
	}
}

func TestAClientWhoLeavesEndsTheWorkOfItsReplica(t *testing.T) {
	var w town
	began, ended := make(chan struct{}), make(chan struct{})
	w.start(t, "a", func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(ended)
	})
	f, at := w.open(t, Options{Objectives: []Objective{{"fast", time.Nanosecond}, {"slow", time.Hour}}}, "a")
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+at, nil)
	go func() {
		<-began
		cancel()
	}()
	if _, err := http.DefaultClient.Do(req); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the replica still works for nobody")
	}
	n := settled(t, f)
	// It left after the one bound, and before the other.
	if n.Series[0].Status != statusLeft || n.Objectives[0] != (Count{"fast", 0, 1}) || n.Objectives[1] != (Count{"slow", 0, 0}) {
		t.Errorf("counted %+v, %+v", n.Series, n.Objectives)
	}
}

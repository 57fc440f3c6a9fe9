package front

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAClientThatDripsIsCutOffAndOthersAreServed(t *testing.T) {
	var w town
	w.start(t, "a", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	f, at := w.open(t, Options{Limits: Limits{Head: 200 * time.Millisecond, Stall: 200 * time.Millisecond, PerReplica: 2}}, "a")
	for name, text := range map[string]string{
		"head": "GET / HTTP/1.1\r\nHost: x\r\n",
		"body": "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx",
	} {
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		began := time.Now()
		fmt.Fprint(conn, text)
		if res, _ := get(t, "http://"+at); res.StatusCode != 200 {
			t.Errorf("beside a slow %s: %s, want 200", name, res.Status)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		io.Copy(io.Discard, conn)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("a slow %s took %s until it was cut off, want about 0.2 s", name, took)
		}
	}
	settled(t, f)
}

func TestAClientThatReadsNothingIsCutOff(t *testing.T) {
	var w town
	w.start(t, "a", func(w http.ResponseWriter, r *http.Request) {
		for b := make([]byte, 1<<20); r.Context().Err() == nil; {
			w.Write(b)
		}
	})
	f, at := w.open(t, Options{Limits: Limits{Stall: 200 * time.Millisecond}}, "a")
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	for deadline := time.Now().Add(10 * time.Second); len(f.Figures().Series) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the response still waits for its reader")
		}
	}
}

func TestALongResponseOutlivesAStallBoundAndItsFirstHalfComesFirst(t *testing.T) {
	var w town
	w.start(t, "a", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Length", "10")
		for range 10 {
			fmt.Fprint(w, "x")
			http.NewResponseController(w).Flush()
			time.Sleep(50 * time.Millisecond)
		}
	})
	_, at := w.open(t, Options{Limits: Limits{Stall: 250 * time.Millisecond}}, "a")
	began := time.Now()
	res, err := http.Post("http://"+at, "", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := res.Body.Read(make([]byte, 1)); err != nil || time.Since(began) > 400*time.Millisecond {
		t.Errorf("the first byte came after %s, %v; want it before the last is made", time.Since(began), err)
	}
	if b, err := io.ReadAll(res.Body); err != nil || len(b) != 9 {
		t.Errorf("the rest: %q, %v; want 9 bytes", b, err)
	}
}

func TestAStickyClientStaysWhileItsReplicaIsWell(t *testing.T) {
	var w town
	for _, name := range []string{"a", "b", "c"} {
		w.start(t, name, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name) })
	}
	f, at := w.open(t, Options{Sticky: "seat"}, "a", "b", "c")
	res, home := get(t, "http://"+at)
	if len(res.Cookies()) != 1 || res.Cookies()[0].Name != "seat" || !res.Cookies()[0].HttpOnly {
		t.Fatalf("cookies %v, want one HttpOnly seat", res.Cookies())
	}
	again := func() (string, int) {
		req, _ := http.NewRequest("GET", "http://"+at, nil)
		req.AddCookie(res.Cookies()[0])
		next, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer next.Body.Close()
		b, _ := io.ReadAll(next.Body)
		return string(b), len(next.Cookies())
	}
	for range 30 {
		if got, cookies := again(); got != home || cookies != 0 {
			t.Fatalf("came to %s with %d new cookies, want %s and none", got, cookies, home)
		}
	}
	if err := f.Drain(t.Context(), home); err != nil {
		t.Fatal(err)
	}
	if got, cookies := again(); got == home || cookies != 1 {
		t.Errorf("its replica drains: came to %s with %d new cookies, want another and one", got, cookies)
	}
}

func TestTLSAndHTTP2EndAtTheFront(t *testing.T) {
	var w town
	seen := make(chan *http.Request, 1)
	w.start(t, "a", func(_ http.ResponseWriter, r *http.Request) { seen <- r })
	cert := selfSigned(t)
	f, err := New(Options{Service: "shop", Dial: w.dial})
	if err != nil {
		t.Fatal(err)
	}
	f.Set(replicas("a"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- f.Serve(ctx, l, func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil })
	}()
	client := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	res, err := client.RoundTrip(must(http.NewRequest("GET", "https://"+l.Addr().String(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if r := <-seen; res.ProtoMajor != 2 || r.Header.Get("X-Forwarded-Proto") != "https" || !strings.HasSuffix(r.Header.Get("Forwarded"), ";proto=https") {
		t.Errorf("HTTP/%d outside; inside %v; want 2, and https", res.ProtoMajor, r.Header)
	}
	client.CloseIdleConnections()
	cancel()
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
	f.Close()
}

func TestTCPGoesBothWaysAndEndsOneWayAtATime(t *testing.T) {
	replica, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer replica.Close()
	go func() {
		for {
			conn, err := replica.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				all, _ := io.ReadAll(conn) // until the client has said everything
				fmt.Fprintf(conn, "got %d", len(all))
			}()
		}
	}()
	f, err := New(Options{Service: "db", Objectives: []Objective{{"reached", time.Minute}},
		Dial: func(ctx context.Context, name string, _ int) (net.Conn, error) {
			if name == "dead" {
				return nil, io.ErrUnexpectedEOF
			}
			return net.Dial("tcp", replica.Addr().String())
		}})
	if err != nil {
		t.Fatal(err)
	}
	f.Set([]Replica{{Name: "dead", Port: 1}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	carried := make(chan error, 1)
	go func() { carried <- f.Carry(ctx, l) }()
	ask := func() string {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprint(conn, strings.Repeat("x", 1<<20))
		conn.(*net.TCPConn).CloseWrite()
		b, _ := io.ReadAll(bufio.NewReader(conn))
		return string(b)
	}
	if got := ask(); got != "" {
		t.Errorf("a dead replica answers %q", got)
	}
	f.Set(replicas("dead", "b"))
	for range 5 {
		if got, want := ask(), fmt.Sprintf("got %d", 1<<20); got != want {
			t.Errorf("read %q, want %q", got, want)
		}
	}
	if n := settled(t, f); n.Objectives[0] != (Count{"reached", 5, 6}) {
		t.Errorf("counted %+v, want 5 good of 6", n.Objectives[0])
	}
	if err := f.Drain(t.Context(), "b"); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-carried; err != nil {
		t.Errorf("carry: %v", err)
	}
	f.Close()
}

func TestAMinuteHasExactlyTheRequestsThatEndedInIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var minutes []Minute
		f, err := New(Options{
			Service: "shop", Objectives: []Objective{{"300ms", 300 * time.Millisecond}}, Minute: func(m Minute) { minutes = append(minutes, m) },
			Dial: func(context.Context, string, int) (net.Conn, error) { return nil, io.EOF },
		})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now() // a whole minute, by synctest
		count := func(took time.Duration, status, n int) {
			for range n {
				f.meter.begin()
				f.meter.end(event{method: "GET", status: status, took: took})
			}
		}
		time.Sleep(time.Minute - 1)
		count(300*time.Millisecond, 200, 3)
		count(300*time.Millisecond+1, 200, 2)
		count(time.Millisecond, 500, 1)
		time.Sleep(1)
		count(time.Millisecond, 404, 10)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		count(time.Millisecond, 200, 1)
		f.Close()
		want := []Count{{"300ms", 3, 6}, {"300ms", 13, 16}, {"300ms", 13, 16}, {"300ms", 14, 17}}
		if len(minutes) != len(want) {
			t.Fatalf("%d minutes, want %d: %v", len(minutes), len(want), minutes)
		}
		for i, m := range minutes {
			ended := began.Add(time.Duration(i+1) * time.Minute)
			if i == len(want)-1 {
				ended = began.Add(3 * time.Minute) // when it closed
			}
			if m.Counts[0] != want[i] || !m.Ended.Equal(ended) {
				t.Errorf("minute %d: %v at %s, want %v at %s", i, m.Counts[0], m.Ended, want[i], ended)
			}
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// selfSigned returns a certificate that nobody trusts.
func selfSigned(t *testing.T) *tls.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	form := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, &form, &form, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
	"consort.dev/consort/presentation"
	"consort.dev/consort/presentation/vnc"
	"github.com/coder/websocket"
)

// world is an estate with one ready session and a gateway in front of it.
type world struct {
	*Gateway
	store *store.Store
	web   *httptest.Server
	now   *atomic.Int64 // nanoseconds that the clock is ahead
	calls atomic.Int64  // machines dialled
	log   *lockedBuffer
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{now: new(atomic.Int64), log: new(lockedBuffer)}
	clock := func() time.Time { return time.Now().Add(time.Duration(w.now.Load())) }
	uid := atomic.Int64{}
	w.store = store.New(mem.Open(mem.Options{Now: clock}), store.Options{
		Now: clock, NewUID: func() string { return fmt.Sprintf("uid-%d", uid.Add(1)) },
	})
	t.Cleanup(func() { w.store.Close() })
	p, err := presentation.Open(t.Context(), vnc.New(vnc.Config{Random: rand.Reader}))
	if err != nil {
		t.Fatal(err)
	}
	w.Gateway = New(Options{
		KV: w.store.KV(), Store: w.store, Providers: map[string]*presentation.Provider{"vnc": p},
		Now: clock, Random: rand.Reader, Log: slog.New(slog.NewTextHandler(w.log, nil)),
		Dial: func(context.Context, *estate.Machine, estate.Presentation) (io.ReadWriteCloser, error) {
			w.calls.Add(1)
			return screen(t), nil
		},
	})
	for _, r := range []estate.Resource{
		object(&estate.Context{Spec: estate.ContextSpec{Colour: "#2e6f8e", Clipboard: estate.Clipboard{In: true}}}, "Context", "office"),
		object(&estate.Blueprint{Spec: estate.BlueprintSpec{Image: "i", Presentation: "vnc", Context: "office"}}, "Blueprint", "clerk"),
		object(&estate.Desktop{Spec: estate.DesktopSpec{Blueprint: "clerk", Person: "ana", Title: "Ana's desktop"}}, "Desktop", "ana-clerk"),
		object(&estate.Machine{}, "Machine", "ana-clerk"),
	} {
		if err := w.store.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	w.web = httptest.NewServer(w.Gateway)
	t.Cleanup(w.web.Close)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return w
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// yielding lets others run before each commit, as a store across a network does.
type yielding struct{ store.KV }

func (y yielding) Commit(ctx context.Context, t store.Txn) (int64, error) {
	time.Sleep(time.Microsecond)
	return y.KV.Commit(ctx, t)
}

func object[R estate.Resource](r R, kind estate.Kind, name string) R {
	*r.Header() = estate.Head{APIVersion: estate.APIVersion, Kind: kind, Metadata: estate.Metadata{Name: name, Project: "main"}}
	return r
}

// session creates a session that is ready.
func (w *world) session(t testing.TB, name string) *estate.Session {
	t.Helper()
	s := object(&estate.Session{Spec: estate.SessionSpec{Desktop: "ana-clerk", Person: "ana"}}, "Session", name)
	if err := w.store.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	s, err := store.Modify(t.Context(), w.store, "main", name, func(s *estate.Session) error {
		s.Status.State, s.Status.Machine = estate.SessionReady, "ana-clerk"
		s.Status.Way = estate.Presentation{Name: "vnc", Protocol: "rfb"}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (w *world) ticket(t testing.TB, s *estate.Session) string {
	t.Helper()
	ticket, err := w.Issue(context.Background(), s, false)
	if err != nil {
		t.Fatal(err)
	}
	return ticket.Ticket
}

// dial opens the tunnel as a browser at our own page does.
func (w *world) dial(ticket string, header http.Header) (net.Conn, *http.Response, error) {
	if header == nil {
		header = http.Header{"Origin": {w.web.URL}}
	}
	ws, resp, err := websocket.Dial(context.Background(), w.web.URL+api.TunnelPath, &websocket.DialOptions{
		HTTPHeader: header, Subprotocols: []string{api.TunnelProtocol, api.TicketProtocol + ticket},
	})
	if err != nil {
		return nil, resp, err
	}
	if got := ws.Subprotocol(); got != api.TunnelProtocol {
		return nil, resp, fmt.Errorf("subprotocol = %q", got)
	}
	return websocket.NetConn(context.Background(), ws, websocket.MessageBinary), resp, nil
}

// eventually waits until what is true, at most ten seconds.
func eventually(t testing.TB, say string, what func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !what(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", say)
		}
	}
}

func (w *world) status(t testing.TB, name string) estate.SessionStatus {
	t.Helper()
	s, err := store.Get[estate.Session](context.Background(), w.store, "main", name)
	if err != nil {
		t.Fatal(err)
	}
	return s.Status
}

// screen returns a connection to a machine that draws one picture for each
// request that is not incremental.
func screen(t testing.TB) net.Conn {
	ours, theirs := net.Pipe()
	go func() {
		defer ours.Close()
		if err := draw(ours); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
			t.Logf("screen: %v", err)
		}
	}()
	return theirs
}

// cells is the side of the picture that screens draw.
const cells = 64

func draw(c net.Conn) error {
	r := bufio.NewReader(c)
	if _, err := rfb.Accept(r, c, rfb.Guard{}); err != nil {
		return err
	}
	if err := rfb.Write(c, rfb.ServerInit{Width: cells, Height: cells, Format: rfb.XRGB(), Name: "screen"}); err != nil {
		return err
	}
	in := rfb.ViewerReader{R: r, TextLimit: 1 << 20}
	for {
		m, err := in.Read()
		if err != nil {
			return err
		}
		if u, is := m.(rfb.UpdateRequest); is && !u.Incremental {
			if err := paint(c); err != nil {
				return err
			}
		}
	}
}

// paint draws the whole picture once.
func paint(c net.Conn) error {
	if err := rfb.Write(c, rfb.Update{Rects: 1}, rfb.Rect{Area: rfb.Area{Width: cells, Height: cells}}); err != nil {
		return err
	}
	_, err := c.Write(bytes.Repeat([]byte{0x10, 0x20, 0x30, 0}, cells*cells))
	return err
}

// look opens a viewer on the tunnel and waits for the first frame.
func look(c net.Conn, p rfb.Proof) (*rfb.Client, error) {
	v, err := rfb.NewClient(c, p)
	if err != nil {
		return nil, err
	}
	if err := v.Request(false); err != nil {
		return nil, err
	}
	return v, v.NextFrame()
}

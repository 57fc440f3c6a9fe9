package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/presentation"
	"consort.dev/consort/presentation/driver"
	"github.com/coder/websocket"
)

// Times of a connection.
const (
	dialTime  = 15 * time.Second // to reach the machine
	writeTime = time.Minute      // for one write to a viewer; a slower one is gone
	pingEvery = 20 * time.Second
	closeTime = 500 * time.Millisecond // for the viewer to answer that we close
	noteTime  = 5 * time.Second        // to write down how a session ended
)

// ServeHTTP opens the session that the request's ticket is for, over a
// websocket. It is to be mounted at api.TunnelPath.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v, b, ticket, err := g.admit(r)
	if err != nil {
		refuse(w, g.unadmitted(r, err))
		return
	}
	ctx, end := context.WithCancelCause(r.Context())
	defer end(nil)
	o := &opened{project: b.Project, session: b.Session, uid: b.UID, desktop: b.Desktop, machine: b.Machine, end: end}
	if !v.machine.Own() {
		o.own = make(chan struct{})
		v.own = o.own
	}
	g.enter(o)
	defer g.leave(o)
	// From here on what changes reaches us; look once more at what came before.
	again, err := g.find(ctx, b.Project, b.Session)
	if err != nil || !b.fits(again) {
		refuse(w, errTicket)
		return
	}
	if again.machine.Own() {
		o.letIn()
	}
	told, err := g.tell(r, b)
	if err != nil {
		refuse(w, err)
		return
	}
	defer told.end(ctx, &err)
	tape, err := g.tape(ctx, v, o)
	if err != nil {
		refuse(w, err)
		return
	}
	defer g.untape(tape)
	machine, err := g.reach(ctx, v)
	if err != nil {
		g.closed(v, err)
		refuse(w, err)
		return
	}
	defer machine.Close()
	// Accept answers the request itself when it cannot be upgraded. The Origin
	// was checked, more strictly, by admit.
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{api.TunnelProtocol}, InsecureSkipVerify: true,
	})
	if err != nil {
		g.Log.Info("gateway: upgrade", "session", b.Session, "error", err)
		return
	}
	viewer := newViewer(ctx, ws)
	go viewer.ping(ctx)
	err = g.carry(ctx, v, taped(viewer, tape), machine, secretFor(v, b, ticket))
	viewer.wait()
	g.closed(v, err)
}

// secretFor returns what the viewer must show: nothing where the ticket alone
// proved who it is.
func secretFor(v *visit, b binding, ticket string) string {
	if !b.Native || !v.provider.HasSecret() {
		return ""
	}
	s, err := v.provider.NewSecret(secretSource(ticket))
	if err != nil {
		return ticket // nobody can show it: nobody gets in
	}
	return s
}

// admit checks the request, uses its ticket up and finds what it opens.
func (g *Gateway) admit(r *http.Request) (*visit, binding, string, error) {
	var none binding
	if r.Method != http.MethodGet {
		return nil, none, "", fault.Invalid.Errorf("a tunnel is opened with GET and an upgrade to websocket")
	}
	if r.URL.RawQuery != "" {
		return nil, none, "", fault.Invalid.Errorf("a tunnel takes no query: URLs are logged; the ticket goes into Sec-WebSocket-Protocol, as %q", api.TicketProtocol+"...")
	}
	if !sameOrigin(r) {
		return nil, none, "", fault.Denied.Errorf("the page at %q may not open tunnels here", r.Header.Get("Origin"))
	}
	ticket, err := offered(r)
	if err != nil {
		return nil, none, "", err
	}
	b, err := g.tickets.redeem(r.Context(), ticket)
	if err != nil {
		return nil, none, "", err
	}
	v, err := g.find(r.Context(), b.Project, b.Session)
	switch {
	case err != nil && fault.KindOf(err).Temporary():
		return nil, none, "", err
	case err != nil, !b.fits(v):
		return nil, none, "", errTicket
	}
	return v, b, ticket, nil
}

// sameOrigin reports whether the page that opens the tunnel is ours: same
// scheme, host and port. Programs that are no browser send no Origin.
func sameOrigin(r *http.Request) bool {
	values := r.Header.Values("Origin")
	if len(values) == 0 {
		return true
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	u, err := url.Parse(values[0])
	return err == nil && len(values) == 1 && u.Scheme == scheme && strings.EqualFold(u.Host, r.Host)
}

// offered takes the ticket out of the offered subprotocols.
func offered(r *http.Request) (string, error) {
	ticket, speaks := "", false
	for _, p := range strings.Split(strings.Join(r.Header.Values("Sec-WebSocket-Protocol"), ","), ",") {
		p = strings.TrimSpace(p)
		if t, is := strings.CutPrefix(p, api.TicketProtocol); is {
			if ticket != "" {
				return "", fault.Invalid.Errorf("a tunnel takes one ticket")
			}
			ticket = t
		}
		speaks = speaks || p == api.TunnelProtocol
	}
	if !speaks || ticket == "" {
		return "", fault.Unauthenticated.Errorf("a tunnel needs the subprotocols %q and %q", api.TunnelProtocol, api.TicketProtocol+"...")
	}
	return ticket, nil
}

func (g *Gateway) reach(ctx context.Context, v *visit) (io.ReadWriteCloser, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	c, err := g.Dial(ctx, v.machine, v.session.Status.Way)
	if err != nil {
		return nil, fault.KindOf(err).Errorf("reach %s: %w", v.machine.Ref(), err)
	}
	return c, nil
}

// carry runs the session and writes into its status how it goes.
func (g *Gateway) carry(ctx context.Context, v *visit, viewer, machine io.ReadWriteCloser, secret string) error {
	began := g.Now()
	var notes sync.WaitGroup // a slow store must not hold the session up
	defer notes.Wait()
	g.note(v, func(s *estate.Session) {
		s.Status.State, s.Status.Because = estate.SessionOpen, ""
		if s.Status.Opened.IsZero() {
			s.Status.Opened = began.UTC()
		}
	})
	return v.provider.Serve(ctx, presentation.Session{
		Viewer: viewer, Machine: machine, Title: v.title, Secret: secret, Policy: v.policy, Own: v.own,
		Report: func(e presentation.Event) {
			g.Log.Info("gateway: session", "session", v.session.Ref().String(), "event", e.Name, "bytes", e.Bytes, "text", e.Text)
			notes.Go(func() { g.crossed(v, e) })
			mark(viewer, e)
			if e.Name == driver.Idle {
				v.idled = true // read once Serve has returned
			}
			if e.Name == driver.FirstFrame {
				shown := g.Now()
				notes.Go(func() { g.note(v, func(s *estate.Session) { setPhase(s, began, shown) }) })
			}
		},
	})
}

// setPhase writes the first frame down once, after the time that the viewer took
// to come with its ticket; a second connection to the same session is not part
// of Connect.
func setPhase(s *estate.Session, began, now time.Time) {
	st := &s.Status
	if slices.ContainsFunc(st.Phases, func(p estate.Phase) bool { return p.Name == estate.FirstFrame }) {
		return
	}
	if shown := st.Shown(); len(shown) > 0 && !shown[len(shown)-1].Ended.IsZero() {
		st.Phases = append(st.Phases, estate.Phase{Name: estate.TicketUsed, Text: "Opening the desktop", Began: shown[len(shown)-1].Ended, Ended: began})
	}
	st.Phases = append(st.Phases, estate.Phase{Name: estate.FirstFrame, Text: "The desktop is shown.", Began: began, Ended: now})
}

// closed writes down why the connection ended. Unless the session was ended for
// good it is ready for another ticket.
func (g *Gateway) closed(v *visit, err error) {
	beside := g.beside(v)
	g.note(v, func(s *estate.Session) {
		switch {
		case s.Spec.End:
			s.Status.State, s.Status.Ended = estate.SessionEnded, g.Now().UTC()
			s.Status.Because = "It was ended."
			return
		case v.idled:
			s.Status.State, s.Status.Ended = estate.SessionEnded, g.Now().UTC()
			s.Status.Because = "Nothing was typed or pointed at for " + v.policy.Idle.String() + "."
			return
		case beside:
			return
		}
		s.Status.Left = g.Now().UTC()
		if s.Status.State == estate.SessionOpen {
			s.Status.State = estate.SessionReady
		}
		s.Status.Because = because(err)
	})
}

func because(err error) string {
	switch {
	case err == nil:
		return "The viewer or the desktop closed the connection."
	case errors.Is(err, context.Canceled):
		return "The gateway closed the connection."
	}
	return "The connection broke: " + err.Error() + "."
}

// note changes the session's status. It is about something that has happened,
// so it does not end with the request; a session that is gone needs no note.
func (g *Gateway) note(v *visit, change func(*estate.Session)) {
	ctx, cancel := context.WithTimeout(context.Background(), noteTime)
	defer cancel()
	m := v.session.Metadata
	_, err := store.Modify(ctx, g.Store, m.Project, m.Name, func(s *estate.Session) error {
		if s.Metadata.UID == m.UID && s.Status.State != estate.SessionEnded {
			change(s)
		}
		return nil
	})
	if err != nil && fault.KindOf(err) != fault.NotFound {
		g.Log.Warn("gateway: write a session's status", "session", m.Name, "error", err)
	}
}

// refuse answers a request that opens nothing.
func refuse(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", api.ProblemType)
	w.Header().Set("Cache-Control", "no-store")
	p := api.NewProblem(err)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the asker may be gone
}

// viewer is a websocket as a stream of bytes.
type viewer struct {
	ws     *websocket.Conn
	conn   net.Conn
	cancel context.CancelFunc
	closed chan struct{}
}

func newViewer(ctx context.Context, ws *websocket.Conn) *viewer {
	v := &viewer{ws: ws, closed: make(chan struct{})}
	ctx, v.cancel = context.WithCancel(context.WithoutCancel(ctx))
	v.conn = websocket.NetConn(ctx, ws, websocket.MessageBinary)
	return v
}

func (v *viewer) Read(b []byte) (int, error) { return v.conn.Read(b) }

func (v *viewer) Write(b []byte) (int, error) {
	// Only a deadline that has passed is an error here, and Write says it too.
	_ = v.conn.SetWriteDeadline(time.Now().Add(writeTime))
	return v.conn.Write(b)
}

// Close says goodbye and does not wait for the answer. It is called once.
func (v *viewer) Close() error {
	go func() {
		defer close(v.closed)
		late := time.AfterFunc(closeTime, func() { _ = v.ws.CloseNow() })
		defer late.Stop()
		_ = v.ws.Close(websocket.StatusNormalClosure, "")
		v.cancel()
		_ = v.conn.Close()
	}()
	return nil
}

// wait returns when nothing of the connection is left.
func (v *viewer) wait() { <-v.closed }

// ping finds out that a viewer is gone without a word.
func (v *viewer) ping(ctx context.Context) {
	t := time.NewTicker(pingEvery)
	defer t.Stop()
	for {
		select {
		case <-v.closed:
			return
		case <-t.C:
		}
		ctx, cancel := context.WithTimeout(ctx, writeTime)
		err := v.ws.Ping(ctx)
		cancel()
		if err != nil {
			_ = v.ws.CloseNow()
			return
		}
	}
}

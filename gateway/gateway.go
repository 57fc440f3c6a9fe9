// Package gateway lets people through to their desktops: one ticket, one
// connection, one session. It owns tickets and sockets and knows no protocol.
package gateway

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"consort.dev/consort/audit"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/presentation"
	"consort.dev/consort/recording"
)

// Dial opens a connection to a machine by a way: its screen, or a port of its
// guest.
type Dial func(ctx context.Context, machine *estate.Machine, way estate.Presentation) (io.ReadWriteCloser, error)

// Options are what a gateway is made of.
type Options struct {
	KV        store.KV     // holds tickets
	Store     *store.Store // holds sessions and what they lead to
	Dial      Dial
	Carry     Carry                             // of files; none are carried when nil
	Providers map[string]*presentation.Provider // by the name of their offer
	Now       func() time.Time                  // the clock
	Random    io.Reader                         // makes tickets; crypto/rand.Reader
	Log       *slog.Logger
	Audit     audit.Recorder // of sessions and what crosses; nothing is written when nil, in tests

	Recordings *recording.Keeper // nil where none are kept: what must be recorded is not shown then
}

// Gateway issues tickets and serves what they open. It is safe for concurrent
// use.
type Gateway struct {
	Options
	tickets   tickets
	strangers audit.Sparing // tells of tickets that opened nothing

	mu   sync.Mutex
	open map[*opened]struct{}
}

// opened is a session with somebody connected.
type opened struct {
	project, session, uid, desktop string
	machine                        string // its UID
	end                            context.CancelCauseFunc
	own                            chan struct{} // closed once the machine is its own; nil when it was from the start
	let                            sync.Once
}

// letIn lets input through.
func (o *opened) letIn() {
	if o.own != nil {
		o.let.Do(func() { close(o.own) })
	}
}

// New returns a gateway. Run must run for sessions to end when they are told to.
func New(o Options) *Gateway {
	return &Gateway{
		Options: o,
		tickets: tickets{kv: o.KV, now: o.Now, random: o.Random}, strangers: audit.Sparing{To: o.Audit, Now: o.Now},
		open: map[*opened]struct{}{},
	}
}

// Offers returns what the providers offer, by name.
func (g *Gateway) Offers() []estate.PresentationOffer {
	list := make([]estate.PresentationOffer, 0, len(g.Providers))
	for _, name := range slices.Sorted(maps.Keys(g.Providers)) {
		list = append(list, g.Providers[name].Offer())
	}
	return list
}

// Opened returns how many sessions have somebody connected.
func (g *Gateway) Opened() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.open)
}

// Run ends sessions whose object says so or is gone, and those of desktops that
// are gone, until ctx ends. It watches, and looks at everything after each time
// a watch ended.
func (g *Gateway) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := g.follow(ctx); err != nil && ctx.Err() == nil {
			g.Log.Warn("gateway: follow sessions", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return ctx.Err()
}

func (g *Gateway) follow(ctx context.Context) error {
	sessions, revision, err := store.List[estate.Session](ctx, g.Store, "")
	if err != nil {
		return err
	}
	kept := map[string]bool{}
	for _, s := range sessions {
		g.judge(s, false)
		kept[s.Metadata.UID] = true
	}
	g.endWhere("the session was removed", func(o *opened) bool { return !kept[o.uid] })
	machines, _, err := store.List[estate.Machine](ctx, g.Store, "")
	if err != nil {
		return err
	}
	for _, m := range machines {
		g.isOwn(m)
	}
	events, err := g.Store.Watch(ctx, revision, "Session", "Desktop", "Machine")
	if err != nil {
		return err
	}
	for e := range events {
		switch x := e.Object.(type) {
		case *estate.Session:
			g.judge(x, e.Deleted)
		case *estate.Machine:
			g.isOwn(x)
		case *estate.Desktop:
			if e.Deleted || !x.Metadata.Deleting.IsZero() {
				g.endWhere("the desktop was removed", func(o *opened) bool {
					return o.project == x.Metadata.Project && o.desktop == x.Metadata.Name
				})
			}
		}
	}
	return nil
}

// judge ends the session when its object says so.
func (g *Gateway) judge(s *estate.Session, deleted bool) {
	why := ""
	switch {
	case deleted, !s.Metadata.Deleting.IsZero():
		why = "the session was removed"
	case s.Spec.End:
		why = "the session was ended"
	case s.Status.State == estate.SessionEnded:
		why = s.Status.Because
	default:
		return
	}
	g.endWhere(why, func(o *opened) bool { return o.uid == s.Metadata.UID })
}

// isOwn lets input through to the machine if it is its own by now.
func (g *Gateway) isOwn(m *estate.Machine) {
	if !m.Own() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for o := range g.open {
		if o.machine == m.Metadata.UID {
			o.letIn()
		}
	}
}

func (g *Gateway) endWhere(why string, match func(*opened) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for o := range g.open {
		if match(o) {
			o.end(ended(why))
		}
	}
}

// ended is the reason a session's context was ended for good.
type ended string

func (e ended) Error() string { return string(e) }

func (g *Gateway) enter(o *opened) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open[o] = struct{}{}
}

// beside reports whether others look at the session too.
func (g *Gateway) beside(v *visit) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for o := range g.open {
		if o.uid == v.session.Metadata.UID {
			n++
		}
	}
	return n > 1
}

func (g *Gateway) leave(o *opened) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, o)
}

// visit is everything a redeemed ticket leads to.
type visit struct {
	session  *estate.Session
	machine  *estate.Machine
	provider *presentation.Provider
	policy   presentation.Policy
	title    string
	own      <-chan struct{} // see driver.Session
	idled    bool            // nobody did anything for too long
	context  string
	record   estate.Recording
}

// find loads what the session leads to now. The ticket's binding is compared
// with it by the caller.
func (g *Gateway) find(ctx context.Context, project, name string) (*visit, error) {
	s, err := store.Get[estate.Session](ctx, g.Store, project, name)
	if err != nil {
		return nil, err
	}
	return g.around(ctx, s)
}

func (g *Gateway) around(ctx context.Context, s *estate.Session) (*visit, error) {
	v := &visit{session: s, provider: g.Providers[s.Status.Way.Name]}
	switch {
	case s.Spec.End || s.Status.State == estate.SessionEnded || !s.Metadata.Deleting.IsZero():
		return nil, fault.Conflict.Errorf("%s has ended; connect again", s.Ref())
	case s.Status.State != estate.SessionReady && s.Status.State != estate.SessionOpen:
		return nil, fault.Conflict.Errorf("%s is not ready yet: %s", s.Ref(), s.Status.Waiting)
	case v.provider == nil:
		return nil, fault.Unsupported.Errorf("%s wants presentation %q, which this gateway does not have", s.Ref(), s.Status.Way.Name)
	}
	d, err := store.Get[estate.Desktop](ctx, g.Store, s.Metadata.Project, s.Spec.Desktop)
	if err != nil {
		return nil, err
	}
	if v.machine, err = store.Get[estate.Machine](ctx, g.Store, s.Metadata.Project, s.Status.Machine); err != nil {
		return nil, err
	}
	x, err := g.contextOf(ctx, d)
	if err != nil {
		return nil, err
	}
	v.policy.Clipboard = x.Spec.Clipboard
	v.context, v.record = x.Metadata.Name, x.Spec.Recording
	v.policy.Idle = time.Duration(x.Spec.TimeOuts.Idle)
	if x.Spec.Watermark {
		v.policy.Watermark = strings.Join([]string{s.Spec.Person, d.Metadata.Name, g.Now().UTC().Format("2006-01-02 15:04")}, " ")
	}
	v.title = cmp.Or(d.Spec.Title, d.Metadata.Name)
	return v, nil
}

// contextOf returns the compartment the desktop runs in: its plan's, or its
// blueprint's before there is a plan. Without one nothing is let through.
func (g *Gateway) contextOf(ctx context.Context, d *estate.Desktop) (*estate.Context, error) {
	name := ""
	if d.Status.Plan != nil {
		name = d.Status.Plan.Context
	} else {
		b, err := store.Get[estate.Blueprint](ctx, g.Store, d.Metadata.Project, d.Spec.Blueprint)
		if err != nil {
			return nil, err
		}
		name = b.Spec.Context
	}
	return store.Get[estate.Context](ctx, g.Store, d.Metadata.Project, name)
}

package rpc

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/near"
	"consort.dev/consort/plane/store"
)

// connects is where the keys live that keep a person to one session for each
// desktop and presentation.
const connects = "/consort/connects/"

// startTime is how long an application may take to start.
const startTime = 2 * time.Minute

// accountTime is how long a guest may take to set a password.
const accountTime = 30 * time.Second

// connect gives the caller a session on the desktop and turns it on.
func (c *call) connect() error {
	var req api.ConnectRequest
	if err := c.message(&req); err != nil {
		return err
	}
	if err := c.allow("connect", c.ref()); err != nil {
		return err
	}
	if err := c.presentation(req.Presentation); err != nil {
		return err
	}
	for try := 0; ; try++ {
		s, made, err := c.session(req.Presentation)
		if err == nil {
			c.with["session"] = s.Metadata.Name
		}
		switch {
		case err == nil && made:
			return c.replyObject(http.StatusCreated, s)
		case err == nil:
			return c.replyObject(http.StatusOK, s)
		case !errors.Is(err, fault.Conflict) && !errors.Is(err, fault.Exists) || try >= 20:
			return err
		}
	}
}

// presentation checks that a provider of the name is offered.
func (c *call) presentation(name string) error {
	if name == "" {
		return nil
	}
	var known []string
	for _, o := range c.Offers.Presentations {
		if o.Name == name {
			return nil
		}
		known = append(known, o.Name)
	}
	return api.Invalid("connect to "+c.ref().String(), []estate.Problem{{Path: "presentation", Text: "there is no presentation " + name + near.DidYouMean(name, known, "there are")}})
}

// session returns the live session, or makes one in the transaction that turns
// the desktop on. A lost race is fault.Conflict.
func (c *call) session(presentation string) (_ *estate.Session, made bool, err error) {
	ctx, ref := c.r.Context(), c.ref()
	desktop, err := store.Get[estate.Desktop](ctx, c.Store, ref.Project, ref.Name)
	if err != nil {
		return nil, false, err
	}
	if !desktop.Metadata.Deleting.IsZero() {
		return nil, false, fault.Denied.Errorf("connect to %s: it is being deleted", ref)
	}
	if desktop.Free() {
		return nil, false, fault.Conflict.Errorf("connect to %s: nobody has taken this seat; connect to pool %s, which gives out the next one", ref, desktop.Spec.Pool)
	}
	person := c.caller.Person
	if person == "" {
		person = desktop.Spec.Person // an administrator at the socket
	}
	key := connects + strings.Join([]string{ref.Project, ref.Name, person, presentation + "_"}, "/")
	guard, err := c.Store.KV().Get(ctx, key)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return nil, false, err
	}
	going, err := c.going(desktop)
	if err != nil {
		return nil, false, err
	}
	if desktop.Spec.Pool != "" && desktop.Disposable() && len(going) == 0 {
		return nil, false, fault.Conflict.Errorf("connect to %s: its last session is over and it is thrown away; connect to pool %s, which gives out a fresh one", ref, desktop.Spec.Pool)
	}
	var live *estate.Session
	if i := slices.IndexFunc(going, func(s *estate.Session) bool { return s.Spec.Person == person && s.Spec.Presentation == presentation }); i >= 0 {
		live = going[i]
	}
	var edits []store.Edit
	if desktop.Spec.Power != estate.On {
		desktop.Spec.Power = estate.On
		edits = append(edits, store.Put(desktop))
	}
	if live == nil {
		if live, err = c.newSession(desktop, person, presentation); err != nil {
			return nil, false, err
		}
		made = true
		if desktop.Spec.Pool != "" {
			desktop.Status.Visits++ // changes the seat: it is not taken back behind their back
			edits = []store.Edit{store.Put(desktop)}
		}
		edits = append(edits, store.Create(live), store.Raw(store.Txn{
			If:   []store.Compare{{Key: key, Revision: guard.Revision}},
			Then: []store.Write{{Key: key, Value: []byte(live.Metadata.Name)}},
		}))
	}
	if len(edits) > 0 {
		err = c.Store.Commit(ctx, edits...)
	}
	return live, made, err
}

// going returns the sessions of the desktop that go on.
func (c *call) going(desktop *estate.Desktop) (going []*estate.Session, err error) {
	all, _, err := store.List[estate.Session](c.r.Context(), c.Store, desktop.Metadata.Project)
	for _, s := range all {
		over := s.Status.State == estate.SessionEnded || s.Spec.End || !s.Metadata.Deleting.IsZero()
		// A session of an earlier desktop of the same name is not its own.
		owned := s.Metadata.Created.IsZero() || !s.Metadata.Created.Before(desktop.Metadata.Created)
		if !over && owned && s.Spec.Desktop == desktop.Metadata.Name {
			going = append(going, s)
		}
	}
	return going, err
}

func (c *call) newSession(desktop *estate.Desktop, person, presentation string) (*estate.Session, error) {
	var b [5]byte
	if _, err := io.ReadFull(c.Random, b[:]); err != nil {
		return nil, fault.Internal.Errorf("name a session: %w", err)
	}
	name := desktop.Metadata.Name
	name = strings.TrimRight(name[:min(len(name), 50)], "-") + "-" + hex.EncodeToString(b[:])
	owner := desktop.Ref()
	s := &estate.Session{Spec: estate.SessionSpec{Desktop: desktop.Metadata.Name, Pool: desktop.Spec.Pool, Person: person, Presentation: presentation}}
	s.Head = estate.Head{APIVersion: estate.APIVersion, Kind: "Session", Metadata: estate.Metadata{
		Name: name, Project: desktop.Metadata.Project, Owner: &owner,
	}}
	s.Status.State = estate.SessionWaiting
	s.Status.Waiting = "the desktop is being brought up"
	return s, nil
}

// ticket gives the session's person what opens it once.
func (c *call) ticket() error {
	var req api.TicketRequest
	if err := c.message(&req); err != nil {
		return err
	}
	ref := c.ref()
	if err := c.allow("connect", ref); err != nil {
		return err
	}
	s, err := store.Get[estate.Session](c.r.Context(), c.Store, ref.Project, ref.Name)
	if err != nil {
		return err
	}
	switch {
	case c.caller.Person != "" && c.caller.Person != s.Spec.Person:
		return fault.Denied.Errorf("open %s: it is %s's; connect to get one of your own", ref, s.Spec.Person)
	case s.Spec.End || s.Status.State == estate.SessionEnded:
		return fault.Conflict.Errorf("open %s: it has ended; connect again", ref)
	case s.Status.State != estate.SessionReady && s.Status.State != estate.SessionOpen:
		return fault.Conflict.Errorf("open %s: it is not ready yet: %s", ref, or(s.Status.Waiting, "wait a moment"))
	}
	var account api.Account
	if req.Native && s.Status.Way.Port != 0 {
		// First, since it takes a slow guest seconds and a ticket lasts only some.
		if account, err = c.account(c.r.Context(), s); err != nil {
			return err
		}
	}
	t, err := c.Tickets.Issue(c.r.Context(), s, req.Native)
	if err != nil {
		return err
	}
	if account.User != "" {
		t.User, t.Secret = account.User, account.Password
	}
	return c.reply(http.StatusOK, t)
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// start starts an application on the desktop.
func (c *call) start() error {
	var req api.StartRequest
	if err := c.message(&req); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), startTime)
	defer cancel()
	ref := c.ref()
	if err := c.allow("start", ref); err != nil {
		return err
	}
	desktop, err := store.Get[estate.Desktop](ctx, c.Store, ref.Project, ref.Name)
	if err != nil {
		return err
	}
	machine, start, err := c.prepareStart(ctx, desktop, req.Application)
	if err != nil {
		return err
	}
	err = c.ask(ctx, machine, api.Call{Verb: api.CallStart, Start: start})
	if errors.Is(err, fault.OutcomeUnknown) {
		err = fault.OutcomeUnknown.Errorf("start %s on %s: look whether its window opens: %w", req.Application, ref, err)
	}
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, api.Empty{})
}

// ask has the machine's agent do something and returns what it answers.
func (c *call) ask(ctx context.Context, machine *estate.Machine, call api.Call) error {
	call.Machine = estate.MachineID(machine.Metadata.UID)
	conn, err := c.Calls.Dial(ctx, machine.Status.Hypervisor, call)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	var reply api.StartReply
	line, err := bufio.NewReader(io.LimitReader(conn, 64<<10)).ReadBytes('\n')
	if err == nil || len(line) > 0 {
		err = json.Unmarshal(line, &reply)
	}
	if err != nil {
		return fault.OutcomeUnknown.Errorf("the agent's answer was lost: %w", err)
	}
	if reply.Error != nil {
		return reply.Error
	}
	return nil
}

// account gives the guest's account a password for one session, where a native
// viewer reaches a server in the guest that asks for one. Nobody keeps it.
func (c *call) account(ctx context.Context, s *estate.Session) (a api.Account, err error) {
	ctx, cancel := context.WithTimeout(ctx, accountTime)
	defer cancel()
	desktop, err := store.Get[estate.Desktop](ctx, c.Store, s.Metadata.Project, s.Spec.Desktop)
	if err != nil {
		return a, err
	}
	if desktop.Status.Plan == nil || desktop.Status.Plan.Guest.User == "" {
		return a, nil // it has accounts of its own, which the person knows
	}
	machine, err := store.Get[estate.Machine](ctx, c.Store, s.Metadata.Project, s.Status.Machine)
	if err != nil {
		return a, err
	}
	var b [12]byte
	if _, err := io.ReadFull(c.Random, b[:]); err != nil {
		return a, fault.Internal.Errorf("make a password: %w", err)
	}
	a = api.Account{User: desktop.Status.Plan.Guest.User, Password: base64.RawURLEncoding.EncodeToString(b[:])}
	return a, c.ask(ctx, machine, api.Call{Verb: api.CallAccount, Account: &a})
}

// prepareStart works out what the agent has to start where.
func (c *call) prepareStart(ctx context.Context, desktop *estate.Desktop, application string) (*estate.Machine, *api.Start, error) {
	ref, project := desktop.Ref(), desktop.Metadata.Project
	app, err := store.Get[estate.Application](ctx, c.Store, project, application)
	if err == nil && desktop.Spec.Pool == "" { // who may use a pool may use what is on its seats
		err = c.entitled(ctx, desktop.Spec.Person, app.Ref())
	}
	if err != nil {
		return nil, nil, err
	}
	plan := desktop.Status.Plan
	if plan == nil || desktop.Status.Machine == "" {
		return nil, nil, fault.Conflict.Errorf("start %s on %s: the desktop is not running; connect first", application, ref)
	}
	start := &api.Start{Command: app.Spec.Command, User: plan.Guest.User, Home: plan.Guest.Home}
	for _, l := range plan.Layers {
		if l.Application == application {
			start.Layer = l
		}
	}
	if start.Layer.Application == "" {
		return nil, nil, fault.Conflict.Errorf("start %s on %s: the desktop runs without it; add it to blueprint %s and restart the desktop", application, ref, desktop.Spec.Blueprint)
	}
	machine, err := store.Get[estate.Machine](ctx, c.Store, project, desktop.Status.Machine)
	if err != nil {
		return nil, nil, err
	}
	if machine.Status.Power != estate.On || machine.Status.Hypervisor == "" {
		return nil, nil, fault.Conflict.Errorf("start %s on %s: its machine does not run; connect first", application, ref)
	}
	return machine, start, nil
}

// entitled returns nil when the person has been granted the application, and
// otherwise fault.NotFound: who is not entitled does not see it.
func (c *call) entitled(ctx context.Context, person string, app estate.Ref) error {
	p, err := store.Get[estate.Person](ctx, c.Store, "", person)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return err
	}
	if err == nil && p.Spec.Admin {
		return nil
	}
	groups, _, err := store.List[estate.Group](ctx, c.Store, "")
	if err != nil {
		return err
	}
	var in []string
	for _, g := range groups {
		for _, m := range g.Spec.Members {
			if m == person {
				in = append(in, g.Metadata.Name)
			}
		}
	}
	grants, _, err := store.List[estate.Grant](ctx, c.Store, app.Project)
	if err != nil {
		return err
	}
	for _, g := range grants {
		if g.Metadata.Deleting.IsZero() && g.Gives(person, in, estate.Use, app) {
			return nil
		}
	}
	return fault.NotFound.Errorf("there is no %s for %s; ask an operator of project %s to grant it", app, person, app.Project)
}

// Package rpc serves the HTTP API: objects of every kind, watches, applied
// sets, the acts of people and agents, and the document that describes them.
package rpc

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/audit"
	"consort.dev/consort/estate"
	"consort.dev/consort/plane/auth"
	"consort.dev/consort/plane/calls"
	"consort.dev/consort/plane/metrics"
	"consort.dev/consort/plane/store"
)

// Caller is who asks.
type Caller = auth.Caller

// Auth knows callers and what they may do.
type Auth interface {
	// Authenticate returns who asks, or fault.Unauthenticated.
	Authenticate(r *http.Request) (Caller, error)
	// Allow returns nil when the caller may do the verb to the object:
	// otherwise fault.NotFound where they may not even see it, fault.Denied
	// where they may. Verbs are get, list, watch, create, update, delete,
	// connect, start, status.
	Allow(ctx context.Context, c Caller, verb string, ref estate.Ref) error
	// Sees reports whether the caller may get the object as given, which may be
	// newer or older than what Allow knows: a watch asks it of every event.
	Sees(ctx context.Context, c Caller, r estate.Resource) bool
}

// Tickets issues what opens a session once.
type Tickets interface {
	// Issue returns a ticket for a session that is ready.
	Issue(ctx context.Context, s *estate.Session, native bool) (api.Ticket, error)
}

// Options are the parts a server is made of.
type Options struct {
	Store    *store.Store
	Auth     Auth
	Tickets  Tickets
	Calls    *calls.Broker
	Offers   api.Offers
	Moves    Moves          // nil where no machine moves
	Pools    Pools          // nil where there are no pools
	Audit    Audit          // nothing is written down when nil, in tests
	Files    Files          // none are carried when nil
	Films    Recordings     // of sessions; none are kept when nil
	Metrics  metrics.Source // of what is measured; nothing is when nil
	Badges   Badges         // of agents that join; none can when nil
	AgentsAt func() string  // where the plane listens for agents; may be nil
	SignIn   http.Handler   // /v1/sign-in/, /v1/sign-out and /v1/me/; absent when nil
	Gateway  http.Handler   // /v1/tunnel; absent when nil
	Web      http.Handler   // everything else; absent when nil
	Ready    func(context.Context) error
	Now      func() time.Time
	Random   io.Reader
	Log      *slog.Logger
	Beat     time.Duration // between bookmarks of a quiet watch; 10 s when 0
}

// Server answers the API.
type Server struct {
	Options
	mux       *http.ServeMux
	document  []byte
	streams   map[string]bool // patterns of mux whose requests may be of any length
	strangers audit.Sparing   // tells of hosts that may not join
}

// New returns the handler of everything the plane serves.
func New(opts Options) (*Server, error) {
	if opts.Beat == 0 {
		opts.Beat = 10 * time.Second
	}
	s := &Server{Options: opts, streams: map[string]bool{}, mux: http.NewServeMux(), strangers: audit.Sparing{To: opts.Audit, Now: opts.Now}}
	routes := s.routes()
	doc, err := Document()
	if err != nil {
		return nil, err
	}
	s.document = doc
	for _, r := range routes {
		pattern := r.method + " " + r.path
		s.mux.HandleFunc(pattern, s.handle(r))
		s.streams[pattern] = r.streams
	}
	s.mux.HandleFunc("GET "+api.DocumentPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(s.document)
	})
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	s.mux.HandleFunc("GET /readyz", s.readyz)
	for path, h := range map[string]http.Handler{
		api.SignInPath: opts.SignIn, api.SignOutPath: opts.SignIn, api.MePath + "/": opts.SignIn,
		api.TunnelPath: opts.Gateway, "/": opts.Web,
	} {
		if h != nil {
			s.mux.Handle(path, h)
		}
	}
	s.mux.HandleFunc("/v1/", s.nothingHere)
	return s, nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.guard(w, r) }

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	_, _, _, err := s.Store.Page(ctx, "Project", "", "", 1)
	if err == nil && s.Ready != nil {
		err = s.Ready(ctx)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ready\n")
}

// route is one operation of the API.
type route struct {
	id      string // operation id
	method  string
	path    string // pattern of http.ServeMux, which is an OpenAPI path too
	kind    estate.KindInfo
	serve   func(*call) error
	endless bool // no time-out: it lasts as long as both sides want
	streams bool // its body has a length that somebody else bounds
	open    bool // no caller needed
}

// call is one request on its way.
type call struct {
	*Server
	w      http.ResponseWriter
	r      *http.Request
	route  *route
	caller Caller
	with   map[string]string // what else to write down of it
}

// ref returns the object the path names.
func (c *call) ref() estate.Ref {
	ref := estate.Ref{Kind: c.route.kind.Kind, Name: c.r.PathValue("name")}
	if !c.route.kind.Global {
		ref.Project = c.r.PathValue("project")
	}
	return ref
}

// allow asks whether the caller may do the verb to the object.
func (c *call) allow(verb string, ref estate.Ref) error {
	return c.Auth.Allow(c.r.Context(), c.caller, verb, ref)
}

// routes lists every operation: those of each kind, and the rest.
func (s *Server) routes() []route {
	var rs []route
	for _, k := range estate.Kinds() {
		plural, one := "/v1/"+k.Plural, string(k.Kind)
		all := plural
		if !k.Global {
			all = "/v1/projects/{project}/" + k.Plural
			rs = append(rs, route{id: "listAll" + title(k.Plural), method: "GET", path: plural, kind: k, serve: (*call).list})
		}
		at := all + "/{name}"
		rs = append(rs,
			route{id: "list" + title(k.Plural), method: "GET", path: all, kind: k, serve: (*call).list},
			route{id: "get" + one, method: "GET", path: at, kind: k, serve: (*call).get},
			route{id: "put" + one, method: "PUT", path: at, kind: k, serve: (*call).put},
			route{id: "patch" + one, method: "PATCH", path: at, kind: k, serve: (*call).patch},
			route{id: "delete" + one, method: "DELETE", path: at, kind: k, serve: (*call).remove},
			route{id: "put" + one + "Status", method: "PUT", path: at + "/status", kind: k, serve: (*call).putStatus},
			route{id: "patch" + one + "Status", method: "PATCH", path: at + "/status", kind: k, serve: (*call).patchStatus},
			route{id: "letGo" + one, method: "POST", path: at + "/let-go", kind: k, serve: (*call).letGo},
		)
	}
	desktop, _ := estate.KindNamed("Desktop")
	pool, _ := estate.KindNamed("Pool")
	session, _ := estate.KindNamed("Session")
	hypervisor, _ := estate.KindNamed("Hypervisor")
	machine, _ := estate.KindNamed("Machine")
	operation, _ := estate.KindNamed("Operation")
	service, _ := estate.KindNamed("Service")
	decision, _ := estate.KindNamed("Decision")
	return append(rs,
		route{id: "watch", method: "GET", path: api.WatchPath, serve: (*call).watch},
		route{id: "apply", method: "POST", path: api.ApplyPath, serve: (*call).apply},
		route{id: "connect", method: "POST", path: "/v1/projects/{project}/desktops/{name}/connect", kind: desktop, serve: (*call).connect},
		route{id: "connectPool", method: "POST", path: "/v1/projects/{project}/pools/{name}/connect", kind: pool, serve: (*call).connectPool},
		route{id: "startApplication", method: "POST", path: "/v1/projects/{project}/desktops/{name}/start", kind: desktop, serve: (*call).start, endless: true},
		route{id: "sendFile", method: "POST", path: "/v1/projects/{project}/desktops/{name}/file", kind: desktop, serve: (*call).sendFile, endless: true, streams: true},
		route{id: "fetchFile", method: "GET", path: "/v1/projects/{project}/desktops/{name}/file", kind: desktop, serve: (*call).fetchFile, endless: true},
		route{id: "ticket", method: "POST", path: "/v1/projects/{project}/sessions/{name}/ticket", kind: session, serve: (*call).ticket},
		route{id: "offers", method: "GET", path: api.OffersPath, serve: (*call).offers},
		route{id: "audit", method: "GET", path: api.AuditPath, serve: (*call).audit, endless: true},
		route{id: "verifyAudit", method: "GET", path: api.AuditPath + "/verify", serve: (*call).verifyAudit, endless: true},
		route{id: "auditSeals", method: "GET", path: api.AuditPath + "/seals", serve: (*call).auditSeals},
		route{id: "recordings", method: "GET", path: api.RecordingsPath, serve: (*call).recordings},
		route{id: "playRecording", method: "GET", path: api.RecordingsPath + "/{name}", serve: (*call).playRecording, endless: true},
		route{id: "verifyRecording", method: "GET", path: api.RecordingsPath + "/{name}/verify", serve: (*call).verifyRecording, endless: true},
		route{id: "query", method: "GET", path: api.QueryPath, serve: (*call).query},
		route{id: "postQuery", method: "POST", path: api.QueryPath, serve: (*call).query},
		route{id: "queryRange", method: "GET", path: api.QueryRangePath, serve: (*call).queryRange},
		route{id: "postQueryRange", method: "POST", path: api.QueryRangePath, serve: (*call).queryRange},
		route{id: "me", method: "GET", path: api.MePath, serve: (*call).me},
		route{id: "join", method: "POST", path: "/v1/hypervisors/{name}/join", kind: hypervisor, serve: (*call).join},
		route{id: "run", method: "POST", path: "/v1/projects/{project}/machines/{name}/run", kind: machine, serve: (*call).run, endless: true},
		route{id: "trial", method: "POST", path: "/v1/projects/{project}/machines/{name}/trial", kind: machine, serve: (*call).trial, endless: true},
		route{id: "moveDesktop", method: "POST", path: "/v1/projects/{project}/desktops/{name}/move", kind: desktop, serve: (*call).move},
		route{id: "moveMachine", method: "POST", path: "/v1/projects/{project}/machines/{name}/move", kind: machine, serve: (*call).move},
		route{id: "abort", method: "POST", path: "/v1/projects/{project}/operations/{name}/abort", kind: operation, serve: (*call).abort},
		route{id: "approve", method: "POST", path: "/v1/projects/{project}/decisions/{name}/approve", kind: decision, serve: (*call).approve},
		route{id: "undo", method: "POST", path: "/v1/projects/{project}/decisions/{name}/undo", kind: decision, serve: (*call).undo},
		route{id: "undoRollout", method: "POST", path: "/v1/projects/{project}/services/{name}/undo", kind: service, serve: (*call).undoRollout},
		route{id: "drain", method: "POST", path: "/v1/hypervisors/{name}/drain", kind: hypervisor, serve: (*call).drain},
		route{id: "undrain", method: "POST", path: "/v1/hypervisors/{name}/undrain", kind: hypervisor, serve: (*call).undrain},
		route{id: "adopt", method: "POST", path: "/v1/hypervisors/{name}/adopt", kind: hypervisor, serve: (*call).adopt},
		route{id: "alive", method: "POST", path: "/v1/hypervisors/{name}/alive", kind: hypervisor, serve: (*call).alive},
		route{id: "joinToken", method: "POST", path: "/v1/hypervisors/{name}/token", kind: hypervisor, serve: (*call).joinToken},
		route{id: "revoke", method: "POST", path: "/v1/hypervisors/{name}/revoke", kind: hypervisor, serve: (*call).revoke},
		route{id: "enrol", method: "POST", path: api.EnrolPath, serve: (*call).enrol, open: true},
		route{id: "renew", method: "POST", path: "/v1/hypervisors/{name}/renew", kind: hypervisor, serve: (*call).renew},
		route{id: "claim", method: "POST", path: "/v1/hypervisors/{name}/claim", kind: hypervisor, serve: (*call).claim},
		route{id: "fetch", method: "POST", path: "/v1/hypervisors/{name}/fetch", kind: hypervisor, serve: (*call).fetch, endless: true},
		route{id: "calls", method: "GET", path: "/v1/hypervisors/{name}/calls", kind: hypervisor, serve: (*call).calls, endless: true},
		route{id: "answerCall", method: "POST", path: "/v1/calls/{id}", serve: (*call).answer, endless: true},
		route{id: "refuseCall", method: "POST", path: "/v1/calls/{id}/refuse", serve: (*call).refuse},
	)
}

func title(s string) string { return string(s[0]-'a'+'A') + s[1:] }

// Package auth knows who calls, and what they may do.
package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"consort.dev/consort/audit"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/authority"
	"consort.dev/consort/plane/store"
)

// Caller is who asks. One without Person, Agent and Admin may do nothing.
type Caller struct {
	Person  string
	Admin   bool     // may do everything
	Auditor bool     // may read the audit log
	Groups  []string // the person's
	Scopes  []string // what a token is limited to; no limit when empty
	Agent   string   // the hypervisor whose agent it is
	Serial  string   // of the certificate that an agent came with
}

// Options are the parts an Auth is made of.
type Options struct {
	Store   *store.Store
	Now     func() time.Time
	Random  io.Reader // of cryptographic quality
	Log     *slog.Logger
	Audit   audit.Recorder // of who signs in, and how; nothing is written when nil, in tests
	Origins []string       // where people open the portal, as https://desk.example.org; what the browser says when empty
	Cost    Cost           // of a password guess; the zero Cost is DefaultCost

	Authority *authority.Authority // vouches for agents; they cannot join when it is nil
	AgentLife time.Duration        // of their certificates; DefaultAgentLife when 0
}

// Auth knows callers. It is safe for use by many goroutines. Run keeps its
// knowledge in memory; without it every question reads the store.
type Auth struct {
	Options
	index   index
	rows    map[estate.Kind]row
	hashing chan struct{} // a token for each password that may be worked on at once
	decoy   string        // fits no password, for persons who have none
	persons *limiter
	places  *limiter
	cross   http.CrossOriginProtection
}

// New returns an Auth.
func New(o Options) (*Auth, error) {
	if o.Cost == (Cost{}) {
		o.Cost = DefaultCost()
	}
	if o.AgentLife == 0 {
		o.AgentLife = DefaultAgentLife
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &Auth{
		Options: o,
		rows:    rows(),
		hashing: make(chan struct{}, hashers),
		// Ten tries at once for one person, then one in six seconds; twice that
		// for one address, behind which many persons may sit.
		persons: newLimiter(o.Now, 10, 6*time.Second),
		places:  newLimiter(o.Now, 20, 3*time.Second),
	}
	var nobodys [48]byte // salt and sum of no password
	if _, err := io.ReadFull(o.Random, nobodys[:]); err != nil {
		return nil, fault.Internal.Errorf("read randomness: %w", err)
	}
	a.decoy = phc(o.Cost, nobodys[:16], nobodys[16:])
	return a, nil
}

type trustKey struct{}

// Trust marks a connection whose other end is the administrator, because only
// the administrator can open it: the socket of mode 0600. It is an
// http.Server's ConnContext.
func Trust(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, trustKey{}, true)
}

func trusted(r *http.Request) bool {
	yes, _ := r.Context().Value(trustKey{}).(bool)
	return yes
}

// Authenticate returns who sent the request: by the certificate of an agent, by
// a bearer token, by a trusted connection, or by the cookie of a sign-in. Nobody we know is
// fault.Unauthenticated. A request that changes something and comes with the
// cookie, but from a page of another origin, is fault.Denied.
func (a *Auth) Authenticate(r *http.Request) (Caller, error) {
	if presented(r) {
		return a.byCertificate(r)
	}
	if h := r.Header.Get("Authorization"); h != "" {
		scheme, secret, _ := strings.Cut(h, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return Caller{}, fault.Unauthenticated.Errorf("%q is no way to sign in here; send Authorization: Bearer and a token", scheme)
		}
		return a.byToken(r.Context(), strings.TrimSpace(secret))
	}
	if trusted(r) {
		return Caller{Admin: true}, nil
	}
	_, s, err := a.signedIn(r)
	if err != nil {
		return Caller{}, err
	}
	return a.callerOf(r.Context(), s.Person, s.UID)
}

// callerOf returns the person as a caller. A person who has gone, or another
// one who has the same name now, is not them.
func (a *Auth) callerOf(ctx context.Context, name, uid string) (Caller, error) {
	v, err := a.view(ctx)
	if err != nil {
		return Caller{}, err
	}
	p, _ := v.find(ctx, estate.Ref{Kind: "Person", Name: name}).(*estate.Person)
	if p == nil || p.Metadata.UID != uid || !p.Metadata.Deleting.IsZero() {
		return Caller{}, fault.Unauthenticated.Errorf("the person who signed in is no longer here")
	}
	return Caller{Person: name, Admin: p.Spec.Admin, Auditor: p.Spec.Auditor, Groups: v.groupsOf(name)}, nil
}

// person reads somebody who may sign in, from the store itself.
func (a *Auth) person(ctx context.Context, name string) (*estate.Person, error) {
	p, err := store.Get[estate.Person](ctx, a.Store, "", name)
	if err == nil && !p.Metadata.Deleting.IsZero() {
		return nil, fault.NotFound.Errorf("there is no %s", p.Ref())
	}
	return p, err
}

// secret returns 160 random bits as 32 letters and digits.
func (a *Auth) secret() (string, error) {
	var b [20]byte
	if _, err := io.ReadFull(a.Random, b[:]); err != nil {
		return "", fault.Internal.Errorf("read randomness: %w", err)
	}
	return strings.ToLower(base32.StdEncoding.EncodeToString(b[:])), nil
}

// atRest returns what is stored of a secret. It has 160 bits of its own, so
// one round without salt is enough.
func atRest(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// secrets is where a sort of secret lives; those of a person are under their
// UID, so that a namesake inherits nothing.
func secrets(sort, id string) string { return store.Secrets + sort + "/" + id }

func ofPerson(uid, sort, id string) string {
	return store.Secrets + "persons/" + uid + "/" + sort + "/" + id
}

// read decodes the secret under the key; an absent one is fault.NotFound.
func read[T any](ctx context.Context, a *Auth, key string) (T, store.Entry, error) {
	var v T
	e, err := a.Store.KV().Get(ctx, key)
	if err != nil {
		return v, e, err
	}
	if err := json.Unmarshal(e.Value, &v); err != nil {
		return v, e, fault.Internal.Errorf("read a secret: %w", err)
	}
	return v, e, nil
}

// write is the write of v under the key.
func write(key string, v any, lease store.LeaseID) (store.Write, error) {
	value, err := json.Marshal(v)
	if err != nil {
		return store.Write{}, fault.Internal.Errorf("write a secret: %w", err)
	}
	return store.Write{Key: key, Value: value, Lease: lease}, nil
}

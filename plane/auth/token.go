package auth

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// tokenPrefix lets people and scanners see what a string is.
const tokenPrefix = "consort_"

// The scopes of a token. A token does at most what its person may; an agent's
// token is of no person.
const (
	ScopeRead    = "read"    // see what the person sees
	ScopeWrite   = "write"   // and change it
	ScopeConnect = "connect" // and open desktops and start applications
	ScopeAdmin   = "admin"   // everything the person may
	ScopeAgent   = "agent:"  // followed by the hypervisor's name, and alone
)

// Token is a way in for programs.
type Token struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Person  string    `json:"person,omitempty"`
	UID     string    `json:"uid,omitempty"`
	Scopes  []string  `json:"scopes"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"`
}

// agents is under whose UID the tokens of agents are listed.
const agents = "agents"

func (t *Token) holder() string {
	if t.UID == "" {
		return agents
	}
	return t.UID
}

// NewToken makes a token for the person, or with the scope of an agent for
// nobody. The secret is returned this once. life 0 is for ever.
func (a *Auth) NewToken(ctx context.Context, t Token, life time.Duration) (secret string, made Token, err error) {
	hypervisor, err := agentOf(t.Scopes)
	if err != nil {
		return "", t, err
	}
	if t.Name == "" || len(t.Name) > 63 {
		return "", t, fault.Invalid.Errorf("a token needs a name of at most 63 characters that says what it is for")
	}
	t.UID = ""
	if hypervisor != "" {
		t.Person = ""
	} else {
		p, err := a.person(ctx, t.Person)
		if err != nil {
			return "", t, err
		}
		t.UID = p.Metadata.UID
	}
	if secret, err = a.secret(); err != nil {
		return "", t, err
	}
	secret = tokenPrefix + secret
	id := atRest(secret)
	t.ID, t.Created = id[:shownID], a.Now().UTC()
	var lease store.LeaseID
	if life > 0 {
		t.Expires = t.Created.Add(life)
		if lease, err = a.Store.KV().Lease(ctx, life); err != nil {
			return "", t, err
		}
	}
	w, err := write(secrets("tokens", id), t, lease)
	if err != nil {
		return "", t, err
	}
	_, err = a.Store.KV().Commit(ctx, store.Txn{Then: []store.Write{w, {Key: ofPerson(t.holder(), "tokens", id), Lease: lease}}})
	return secret, t, err
}

// agentOf checks the scopes and returns the hypervisor of an agent's.
func agentOf(scopes []string) (string, error) {
	if len(scopes) == 0 {
		return "", fault.Invalid.Errorf("a token needs a scope: read, write, connect, admin, or agent: and a hypervisor")
	}
	for _, s := range scopes {
		name, agent := strings.CutPrefix(s, ScopeAgent)
		switch {
		case agent && len(scopes) > 1:
			return "", fault.Invalid.Errorf("an agent's token has no other scope")
		case agent && estate.NameProblem(name) != "":
			return "", fault.Invalid.Errorf("scope %q: %s", s, estate.NameProblem(name))
		case agent:
			return name, nil
		case !slices.Contains([]string{ScopeRead, ScopeWrite, ScopeConnect, ScopeAdmin}, s):
			return "", fault.Invalid.Errorf("%q is not a scope; use read, write, connect, admin, or agent: and a hypervisor", s)
		}
	}
	return "", nil
}

// byToken returns whose token it is.
func (a *Auth) byToken(ctx context.Context, secret string) (Caller, error) {
	t, _, err := read[Token](ctx, a, secrets("tokens", atRest(secret)))
	switch {
	case errors.Is(err, fault.NotFound), err == nil && !t.Expires.IsZero() && !a.Now().Before(t.Expires):
		return Caller{}, fault.Unauthenticated.Errorf("that token is not known or has expired; make a new one")
	case err != nil:
		return Caller{}, err
	}
	hypervisor, err := agentOf(t.Scopes)
	if err != nil {
		return Caller{}, err
	}
	if hypervisor != "" {
		return Caller{Agent: hypervisor, Scopes: t.Scopes}, nil
	}
	c, err := a.callerOf(ctx, t.Person, t.UID)
	// Code that asks for Admin alone must not take a limited token for more.
	c.Scopes, c.Admin = t.Scopes, c.Admin && slices.Contains(t.Scopes, ScopeAdmin)
	c.Auditor = c.Auditor && limits(t.Scopes)&get != 0
	return c, err
}

// tokens lists the tokens of a person, or of agents.
func (a *Auth) tokens(ctx context.Context, uid string) ([]Token, error) {
	ids, err := a.idsOf(ctx, uid, "tokens")
	if err != nil {
		return nil, err
	}
	list := []Token{}
	for _, id := range ids {
		if t, _, err := read[Token](ctx, a, secrets("tokens", id)); err == nil {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, func(x, y Token) int { return x.Created.Compare(y.Created) })
	return list, nil
}

// endToken ends a token by its shown id.
func (a *Auth) endToken(ctx context.Context, uid, shown string) error {
	id, err := a.named(ctx, uid, "tokens", shown)
	if err != nil {
		return err
	}
	_, err = a.Store.KV().Commit(ctx, store.Txn{Then: []store.Write{
		{Key: secrets("tokens", id), Delete: true}, {Key: ofPerson(uid, "tokens", id), Delete: true},
	}})
	return err
}

package auth

import (
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// Where the certificates of agents are written down, and the tokens they join
// with: each under the hypervisor's name. A certificate that is not written
// down is good for nothing, whatever its date.
const (
	badges = "badges"
	joins  = "joins"
)

const (
	// DefaultAgentLife is how long an agent's certificate is good. It is renewed
	// after two thirds, so a host may be off for ten days.
	DefaultAgentLife = 30 * 24 * time.Hour
	defaultJoinLife  = time.Hour
	longestJoinLife  = 7 * 24 * time.Hour
)

// joining is what is stored of a join token.
type joining struct {
	Ends time.Time
}

// badge is what is stored of a certificate.
type badge struct {
	Made time.Time
	Ends time.Time
}

// JoinToken makes a token that lets one host join as the hypervisor, once,
// while it lives: an hour when life is 0.
func (a *Auth) JoinToken(ctx context.Context, hypervisor string, life time.Duration) (string, time.Time, error) {
	if t := estate.NameProblem(hypervisor); t != "" {
		return "", time.Time{}, fault.Invalid.Errorf("name of the hypervisor: %s", t)
	}
	if life == 0 {
		life = defaultJoinLife
	}
	if life < time.Second || life > longestJoinLife {
		return "", time.Time{}, fault.Invalid.Errorf("a join token lives between a second and %s, not %s", longestJoinLife, life)
	}
	secret, err := a.secret()
	if err != nil {
		return "", time.Time{}, err
	}
	token := api.JoinToken{Hypervisor: hypervisor, Secret: secret, Authority: a.Authority.Fingerprint()}
	lease, err := a.Store.KV().Lease(ctx, life)
	if err != nil {
		return "", time.Time{}, err
	}
	ends := a.Now().Add(life).UTC()
	w, err := write(joinKey(token), joining{ends}, lease)
	if err != nil {
		return "", time.Time{}, err
	}
	_, err = a.Store.KV().Commit(ctx, store.Txn{Then: []store.Write{w}})
	return token.String(), ends, err
}

func joinKey(t api.JoinToken) string { return secrets(joins, t.Hypervisor+"/"+atRest(t.Secret)) }

func badgeKey(hypervisor, serial string) string { return secrets(badges, hypervisor+"/"+serial) }

// Enrol trades a join token for an agent's first certificate. The token goes in
// the transaction that writes the certificate down: of many who come with it,
// one gets in. Whoever was that hypervisor's agent before is so no longer. A
// token that was used, or is too old, is fault.Unauthenticated; a request for
// another hypervisor's agent is fault.Denied, and leaves the token good.
func (a *Auth) Enrol(ctx context.Context, text string, request []byte) (*api.Certificate, error) {
	token, err := api.ParseJoinToken(text)
	if err != nil {
		return nil, err
	}
	used := fault.Unauthenticated.Errorf("this join token has been used or is too old; make a new one with 'consort hypervisor token %s'", token.Hypervisor)
	j, e, err := read[joining](ctx, a, joinKey(token))
	switch {
	case errors.Is(err, fault.NotFound), err == nil && !a.Now().Before(j.Ends):
		return nil, used
	case err != nil:
		return nil, err
	}
	txn := store.Txn{
		If:   []store.Compare{{Key: e.Key, Revision: e.Revision}},
		Then: []store.Write{{Key: e.Key, Delete: true}},
	}
	made, err := a.certify(ctx, token.Hypervisor, request, "", txn)
	if errors.Is(err, fault.Conflict) {
		return nil, used
	}
	if err == nil {
		a.Log.Warn("a host joined", "hypervisor", token.Hypervisor, "until", made.Expires)
	}
	return made, err
}

// Renew gives the agent its next certificate. The one it came with, of which
// serial is the number, stays good, since the reply may be lost; others end.
func (a *Auth) Renew(ctx context.Context, c Caller, request []byte) (*api.Certificate, error) {
	if c.Agent == "" || c.Serial == "" {
		return nil, fault.Denied.Errorf("renew a certificate: come with the one that is to be renewed")
	}
	_, e, err := read[badge](ctx, a, badgeKey(c.Agent, c.Serial))
	if err != nil {
		return nil, err
	}
	// One that is revoked meanwhile is not renewed.
	return a.certify(ctx, c.Agent, request, c.Serial, store.Txn{If: []store.Compare{{Key: e.Key, Revision: e.Revision}}})
}

// certify signs the request and writes the certificate down with the rest of
// the transaction. Of the certificates the agent had, only keep stays good.
func (a *Auth) certify(ctx context.Context, hypervisor string, request []byte, keep string, txn store.Txn) (*api.Certificate, error) {
	cert, err := a.Authority.Agent(hypervisor, request, a.AgentLife)
	if err != nil {
		return nil, err
	}
	old, err := a.Store.KV().List(ctx, badgeKey(hypervisor, ""), "", 0)
	if err != nil {
		return nil, err
	}
	for _, e := range old.Entries {
		if keep == "" || e.Key != badgeKey(hypervisor, keep) {
			txn.Then = append(txn.Then, store.Write{Key: e.Key, Delete: true})
		}
	}
	lease, err := a.Store.KV().Lease(ctx, a.AgentLife)
	if err != nil {
		return nil, err
	}
	w, err := write(badgeKey(hypervisor, serialOf(cert)), badge{a.Now().UTC(), cert.NotAfter}, lease)
	if err != nil {
		return nil, err
	}
	txn.Then = append(txn.Then, w)
	if _, err := a.Store.KV().Commit(ctx, txn); err != nil {
		return nil, err
	}
	return &api.Certificate{
		Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})),
		Authority:   string(a.Authority.PEM()), Expires: cert.NotAfter,
	}, nil
}

// Revoke ends every certificate and token of the hypervisor's agent and says
// how many there were. Nothing left to end is success. A Door closes what the
// agent has open.
func (a *Auth) Revoke(ctx context.Context, hypervisor string) (int, error) {
	var txn store.Txn
	for _, prefix := range []string{badgeKey(hypervisor, ""), secrets(joins, hypervisor+"/")} {
		page, err := a.Store.KV().List(ctx, prefix, "", 0)
		if err != nil {
			return 0, err
		}
		for _, e := range page.Entries {
			txn.Then = append(txn.Then, store.Write{Key: e.Key, Delete: true})
		}
	}
	ended := len(txn.Then)
	ids, err := a.idsOf(ctx, agents, "tokens")
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		t, e, err := read[Token](ctx, a, secrets("tokens", id))
		if err == nil && slices.Contains(t.Scopes, ScopeAgent+hypervisor) {
			txn.Then = append(txn.Then, store.Write{Key: e.Key, Delete: true}, store.Write{Key: ofPerson(agents, "tokens", id), Delete: true})
			ended++
		}
	}
	if ended == 0 {
		return 0, nil
	}
	_, err = a.Store.KV().Commit(ctx, txn)
	if err == nil {
		a.Log.Warn("an agent was revoked", "hypervisor", hypervisor, "ended", ended)
	}
	return ended, err
}

// byCertificate returns whose certificate it is that TLS has verified.
func (a *Auth) byCertificate(r *http.Request) (Caller, error) {
	cert := r.TLS.VerifiedChains[0][0]
	hypervisor, serial := api.AgentIn(cert), serialOf(cert)
	no := fault.Unauthenticated.Errorf("this certificate was revoked or has expired; join again with a new token")
	if hypervisor == "" || !a.Now().Before(cert.NotAfter) {
		return Caller{}, no
	}
	switch _, err := a.Store.KV().Get(r.Context(), badgeKey(hypervisor, serial)); {
	case errors.Is(err, fault.NotFound):
		return Caller{}, no
	case err != nil:
		return Caller{}, err
	}
	return Caller{Agent: hypervisor, Serial: serial}, nil
}

// presented reports whether the caller came with a certificate of ours.
func presented(r *http.Request) bool { return r.TLS != nil && len(r.TLS.VerifiedChains) > 0 }

// serialIn returns the last part of a badge's key.
func serialIn(key string) string { return key[strings.LastIndexByte(key, '/')+1:] }

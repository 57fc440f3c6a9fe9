package auth

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/audit"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

const (
	cookieName = "consort"
	idleLife   = 8 * time.Hour    // a sign-in that nobody uses
	wholeLife  = 24 * time.Hour   // any sign-in
	seenEvery  = 5 * time.Minute  // how exactly use is noted
	freshLife  = 10 * time.Minute // how long a sign-in proves that the person is there
)

// signIn is what is stored of a sign-in, under the hash of its cookie.
type signIn struct {
	Person string
	UID    string
	Began  time.Time
	Seen   time.Time
	From   string // address
	With   string // browser
	How    string // code, password or passkey
}

// SignedIn is one sign-in as its person sees it.
type SignedIn struct {
	ID    string    `json:"id"`
	Began time.Time `json:"began"`
	Seen  time.Time `json:"seen"`
	From  string    `json:"from"`
	With  string    `json:"with,omitempty"`
	How   string    `json:"how"`
	This  bool      `json:"this,omitempty"`
}

// signedIn returns the sign-in that the request's cookie belongs to, and its id.
func (a *Auth) signedIn(r *http.Request) (string, signIn, error) {
	nobody := fault.Unauthenticated.Errorf("sign in first")
	c, err := r.Cookie(cookieName)
	if err != nil || c.Value == "" {
		return "", signIn{}, nobody
	}
	if err := a.cross.Check(r); err != nil {
		return "", signIn{}, fault.Denied.Errorf("a page from elsewhere may not do this; open Consort's own page")
	}
	id := atRest(c.Value)
	s, e, err := read[signIn](r.Context(), a, secrets("sign-ins", id))
	switch {
	case errors.Is(err, fault.NotFound):
		return "", signIn{}, fault.Unauthenticated.Errorf("you are signed out; sign in again")
	case err != nil:
		return "", signIn{}, err
	}
	now := a.Now()
	if now.Sub(s.Began) >= wholeLife || now.Sub(s.Seen) >= idleLife {
		_ = a.endSignIn(r.Context(), s.UID, id) // it runs out by its lease as well
		return "", signIn{}, fault.Unauthenticated.Errorf("you have been signed out after a while; sign in again")
	}
	if now.Sub(s.Seen) >= seenEvery {
		s.Seen = now
		if w, err := write(e.Key, s, e.Lease); err == nil {
			// Whoever ended it meanwhile wins; whoever noted it too is as good.
			_, _ = a.Store.KV().Commit(r.Context(), store.Txn{If: []store.Compare{{Key: e.Key, Revision: e.Revision}}, Then: []store.Write{w}})
		}
	}
	return id, s, nil
}

// begin signs the person in and sets the cookie. The id is always new, and
// whatever the browser had before ends, so that nobody can plant one. With is
// done in the same transaction as the sign-in is made.
func (a *Auth) begin(w http.ResponseWriter, r *http.Request, p *estate.Person, how string, with store.Txn) error {
	secret, err := a.secret()
	if err != nil {
		return err
	}
	ctx, kv, now, id := r.Context(), a.Store.KV(), a.Now(), atRest(secret)
	lease, err := kv.Lease(ctx, wholeLife)
	if err != nil {
		return err
	}
	s := signIn{Person: p.Metadata.Name, UID: p.Metadata.UID, Began: now, Seen: now, From: place(r), With: browser(r), How: how}
	put, err := write(secrets("sign-ins", id), s, lease)
	if err != nil {
		return err
	}
	with.Then = append(with.Then, put, store.Write{Key: ofPerson(s.UID, "sign-ins", id), Lease: lease})
	act := audit.Act{Who: s.Person, What: "sign-in", From: From(r), With: map[string]string{"how": how}}
	err = audit.Do(ctx, a.Audit, act, func(map[string]string) error {
		_, err := kv.Commit(ctx, with)
		return err
	})
	if err != nil {
		_ = kv.Revoke(context.WithoutCancel(ctx), lease) // nothing is under it
		return err
	}
	if old, err := r.Cookie(cookieName); err == nil {
		if s, _, err := read[signIn](ctx, a, secrets("sign-ins", atRest(old.Value))); err == nil {
			_ = a.endSignIn(ctx, s.UID, atRest(old.Value)) // the browser forgets it anyway
		}
	}
	http.SetCookie(w, cookie(r, cookieName, secret, wholeLife))
	a.Log.Info("signed in", "person", s.Person, "how", how, "from", s.From)
	return nil
}

func cookie(r *http.Request, name, value string, life time.Duration) *http.Cookie {
	return &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: int(life.Seconds()),
		HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode,
	}
}

// browser returns what the browser calls itself, cut to a sane length.
func browser(r *http.Request) string {
	ua := strings.ToValidUTF8(r.UserAgent(), "")
	return ua[:min(len(ua), 200)]
}

// endSignIn ends a sign-in; an absent one is success.
func (a *Auth) endSignIn(ctx context.Context, uid, id string) error {
	_, err := a.Store.KV().Commit(ctx, store.Txn{Then: []store.Write{
		{Key: secrets("sign-ins", id), Delete: true},
		{Key: ofPerson(uid, "sign-ins", id), Delete: true},
	}})
	return err
}

// endOthers ends every sign-in of the person but one.
func (a *Auth) endOthers(ctx context.Context, uid, but string) error {
	ids, err := a.idsOf(ctx, uid, "sign-ins")
	if err != nil {
		return err
	}
	for _, id := range ids {
		if id != but {
			if err := a.endSignIn(ctx, uid, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// idsOf lists the person's secrets of a sort.
func (a *Auth) idsOf(ctx context.Context, uid, sort string) ([]string, error) {
	prefix := ofPerson(uid, sort, "")
	page, err := a.Store.KV().List(ctx, prefix, "", 0)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range page.Entries {
		ids = append(ids, strings.TrimPrefix(e.Key, prefix))
	}
	return ids, nil
}

// signIns lists the person's sign-ins, the newest first. this is the id of the
// one that asks.
func (a *Auth) signIns(ctx context.Context, uid, this string) ([]SignedIn, error) {
	ids, err := a.idsOf(ctx, uid, "sign-ins")
	if err != nil {
		return nil, err
	}
	list := []SignedIn{}
	for _, id := range ids {
		s, _, err := read[signIn](ctx, a, secrets("sign-ins", id))
		if err != nil {
			continue // it ended meanwhile
		}
		list = append(list, SignedIn{id[:shownID], s.Began, s.Seen, s.From, s.With, s.How, id == this})
	}
	slices.SortFunc(list, func(x, y SignedIn) int { return y.Began.Compare(x.Began) })
	return list, nil
}

// shownID is how much of a hash people see: enough to name, useless to forge.
const shownID = 16

// named returns the whole id that begins with the shown one.
func (a *Auth) named(ctx context.Context, uid, sort, shown string) (string, error) {
	ids, err := a.idsOf(ctx, uid, sort)
	if err != nil {
		return "", err
	}
	for _, id := range ids {
		if len(shown) == shownID && strings.HasPrefix(id, shown) {
			return id, nil
		}
	}
	return "", fault.NotFound.Errorf("you have none named %q", shown)
}

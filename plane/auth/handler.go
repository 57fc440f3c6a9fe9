package auth

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"consort.dev/consort/audit"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// largestBody is more than any sign-in needs.
const largestBody = 64 << 10

// Handler serves /v1/sign-in/, /v1/sign-out and /v1/me/.
func (a *Auth) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/sign-in/code", a.answer(a.signInByCode))
	mux.HandleFunc("POST /v1/sign-in/password", a.answer(a.signInByPassword))
	mux.HandleFunc("POST /v1/sign-in/passkey/begin", a.answer(a.beginPasskey))
	mux.HandleFunc("POST /v1/sign-in/passkey/finish", a.answer(a.signInByPasskey))
	mux.HandleFunc("POST /v1/sign-in/codes", a.answer(a.makeCode))
	mux.HandleFunc("POST /v1/sign-out", a.answer(a.signOut))
	mux.HandleFunc("POST /v1/me/password", a.answer(a.told("password.change", a.mine(a.setPassword))))
	mux.HandleFunc("GET /v1/me/passkeys", a.answer(a.mine(a.listPasskeys)))
	mux.HandleFunc("POST /v1/me/passkeys/begin", a.answer(a.mine(a.beginAddPasskey)))
	mux.HandleFunc("POST /v1/me/passkeys/finish", a.answer(a.told("passkey.add", a.mine(a.finishAddPasskey))))
	mux.HandleFunc("DELETE /v1/me/passkeys/{id}", a.answer(a.told("passkey.delete", a.mine(a.deletePasskey))))
	mux.HandleFunc("GET /v1/me/sign-ins", a.answer(a.mine(a.listSignIns)))
	mux.HandleFunc("DELETE /v1/me/sign-ins/{id}", a.answer(a.told("sign-in.end", a.mine(a.deleteSignIn))))
	mux.HandleFunc("GET /v1/me/tokens", a.answer(a.mine(a.listTokens)))
	mux.HandleFunc("POST /v1/me/tokens", a.answer(a.mine(a.makeToken)))
	mux.HandleFunc("DELETE /v1/me/tokens/{id}", a.answer(a.told("token.delete", a.mine(a.deleteToken))))
	mux.HandleFunc("/", a.answer(func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return nil, fault.NotFound.Errorf("%s %s: there is nothing here", r.Method, r.URL.Path)
	}))
	return mux
}

// act serves one request and returns what is answered.
type act func(http.ResponseWriter, *http.Request) (any, error)

// answer writes what the act returns. Pages of other origins get nowhere: they
// could sign somebody in as another person.
func (a *Auth) answer(do act) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		var body any
		err := a.cross.Check(r)
		if err != nil {
			err = fault.Denied.Errorf("a page from elsewhere may not do this; open Consort's own page")
		} else {
			r.Body = http.MaxBytesReader(w, r.Body, largestBody)
			body, err = do(w, r)
		}
		if err != nil {
			a.problem(w, r, err)
			return
		}
		if body == nil {
			body = struct{}{}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(body)
	}
}

// problem answers with an error as RFC 9457 has it.
func (a *Auth) problem(w http.ResponseWriter, r *http.Request, err error) {
	kind, detail := fault.KindOf(err), err.Error()
	if kind == fault.Internal {
		a.Log.Error("sign-in failed", "path", r.URL.Path, "error", err)
		detail = "a mistake of ours; it has been noted"
	}
	var l *limited
	if errors.As(err, &l) {
		w.Header().Set("Retry-After", fmt.Sprint(int(l.after.Seconds())+1))
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(kind.HTTPStatus())
	_ = json.NewEncoder(w).Encode(map[string]any{
		"type": "/problems/" + kind.String(), "title": http.StatusText(kind.HTTPStatus()),
		"status": kind.HTTPStatus(), "detail": detail, "kind": kind.String(),
	})
}

// decode reads the body strictly.
func decode[T any](r *http.Request) (T, error) {
	var v T
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, fault.Invalid.Errorf("read the request: %w", err)
	}
	return v, nil
}

// Answers of a sign-in.
type welcome struct {
	Person string `json:"person"`
}

func (a *Auth) signInByCode(w http.ResponseWriter, r *http.Request) (any, error) {
	req, err := decode[struct{ Code string }](r)
	if err != nil {
		return nil, err
	}
	person, err := a.byCode(w, r, req.Code)
	if fault.KindOf(err) == fault.Unauthenticated {
		err = a.refused(r, nil, "code", err)
	}
	return welcome{person}, err
}

func (a *Auth) signInByPassword(w http.ResponseWriter, r *http.Request) (any, error) {
	req, err := decode[struct{ Person, Password string }](r)
	if err != nil {
		return nil, err
	}
	return nil, a.byPassword(w, r, req.Person, req.Password)
}

func (a *Auth) signInByPasskey(w http.ResponseWriter, r *http.Request) (any, error) {
	return nil, a.byPasskey(w, r)
}

// makeCode gives an administrator a code for somebody.
func (a *Auth) makeCode(_ http.ResponseWriter, r *http.Request) (any, error) {
	c, err := a.Authenticate(r)
	if err != nil {
		return nil, err
	}
	if !c.Admin {
		return nil, fault.Denied.Errorf("make a sign-in code: only an administrator may")
	}
	req, err := decode[struct{ Person string }](r)
	if err != nil {
		return nil, err
	}
	p, err := a.person(r.Context(), req.Person)
	if err != nil {
		return nil, err
	}
	var code string
	err = audit.Do(r.Context(), a.Audit, audit.Act{Who: c.Name(), What: "code.make", On: p.Ref().String(), From: From(r)}, func(map[string]string) error {
		code, err = a.NewCode(r.Context(), req.Person)
		return err
	})
	if err != nil {
		return nil, err
	}
	return struct {
		Code    string    `json:"code"`
		Expires time.Time `json:"expires"`
	}{code, a.Now().Add(codeLife).UTC()}, nil
}

func (a *Auth) signOut(w http.ResponseWriter, r *http.Request) (any, error) {
	http.SetCookie(w, cookie(r, cookieName, "", -time.Second))
	id, s, err := a.signedIn(r)
	if err != nil {
		return nil, nil // signed out is what was asked for
	}
	return nil, audit.Do(r.Context(), a.Audit, audit.Act{Who: s.Person, What: "sign-out", From: From(r)}, func(map[string]string) error {
		return a.endSignIn(r.Context(), s.UID, id)
	})
}

// me is the person who is signed in with a browser, or the administrator on
// the trusted connection (then without a person).
type me struct {
	id     string // of the sign-in
	signIn signIn
	person *estate.Person
	admin  bool
}

// mine serves only whoever is signed in themselves: a token must not make
// tokens or set passwords.
func (a *Auth) mine(do func(http.ResponseWriter, *http.Request, me) (any, error)) act {
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		if r.Header.Get("Authorization") != "" {
			return nil, fault.Denied.Errorf("a token may not change how its person signs in; sign in to the portal")
		}
		c, err := a.Authenticate(r)
		if err != nil {
			return nil, err
		}
		m := me{admin: c.Admin}
		if c.Person == "" {
			return do(w, r, m)
		}
		if m.id, m.signIn, err = a.signedIn(r); err != nil {
			return nil, err
		}
		if m.person, err = a.person(r.Context(), c.Person); err != nil {
			return nil, err
		}
		return do(w, r, m)
	}
}

// needed returns the person, who must be one and have signed in just now if
// fresh: a browser left alone must not give away the account.
func (a *Auth) needed(m me, fresh bool) (*estate.Person, error) {
	switch {
	case m.person == nil:
		return nil, fault.Invalid.Errorf("the administrator's socket is nobody in particular; sign in as a person")
	case fresh && a.Now().Sub(m.signIn.Began) > freshLife:
		return nil, fault.Denied.Errorf("you signed in a while ago; sign out and in again, then do this within ten minutes")
	}
	return m.person, nil
}

func (a *Auth) setPassword(_ http.ResponseWriter, r *http.Request, m me) (any, error) {
	req, err := decode[struct{ Password, Current string }](r)
	if err != nil {
		return nil, err
	}
	knows := false
	if m.person != nil && req.Current != "" {
		if err := a.persons.take(m.person.Metadata.Name); err != nil {
			return nil, err
		}
		hash, has, err := a.stored(r.Context(), m.signIn.UID)
		if err != nil {
			return nil, err
		}
		if knows, err = a.matches(r.Context(), req.Current, hash); err != nil {
			return nil, err
		}
		knows = knows && has
	}
	p, err := a.needed(m, !knows)
	if err != nil {
		return nil, err
	}
	if err := a.SetPassword(r.Context(), p.Metadata.Name, req.Password); err != nil {
		return nil, err
	}
	return nil, a.endOthers(r.Context(), p.Metadata.UID, m.id)
}

func (a *Auth) listPasskeys(_ http.ResponseWriter, r *http.Request, m me) (any, error) {
	p, err := a.needed(m, false)
	if err != nil {
		return nil, err
	}
	list, err := a.passkeys(r.Context(), p.Metadata.UID)
	return items(list), err
}

func (a *Auth) beginAddPasskey(w http.ResponseWriter, r *http.Request, m me) (any, error) {
	p, err := a.needed(m, true)
	if err != nil {
		return nil, err
	}
	return a.beginAdd(w, r, p)
}

func (a *Auth) finishAddPasskey(_ http.ResponseWriter, r *http.Request, m me) (any, error) {
	p, err := a.needed(m, false)
	if err != nil {
		return nil, err
	}
	return nil, a.finishAdd(r, p)
}

func (a *Auth) deletePasskey(_ http.ResponseWriter, r *http.Request, m me) (any, error) {
	p, err := a.needed(m, false)
	if err != nil {
		return nil, err
	}
	return nil, a.endPasskey(r.Context(), p.Metadata.UID, r.PathValue("id"))
}

func (a *Auth) listSignIns(_ http.ResponseWriter, r *http.Request, m me) (any, error) {
	p, err := a.needed(m, false)
	if err != nil {
		return nil, err
	}
	list, err := a.signIns(r.Context(), p.Metadata.UID, m.id)
	return items(list), err
}

func (a *Auth) deleteSignIn(_ http.ResponseWriter, r *http.Request, m me) (any, error) {
	p, err := a.needed(m, false)
	if err != nil {
		return nil, err
	}
	id, err := a.named(r.Context(), p.Metadata.UID, "sign-ins", r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return nil, a.endSignIn(r.Context(), p.Metadata.UID, id)
}

// whose returns under whom tokens are kept: the person, or for the trusted
// administrator those of agents.
func whose(m me) string {
	if m.person == nil {
		return agents
	}
	return m.person.Metadata.UID
}

func (a *Auth) listTokens(_ http.ResponseWriter, r *http.Request, m me) (any, error) {
	list, err := a.tokens(r.Context(), whose(m))
	return items(list), err
}

func (a *Auth) makeToken(_ http.ResponseWriter, r *http.Request, m me) (any, error) {
	req, err := decode[struct {
		Name   string
		Scopes []string
		Life   estate.Duration
	}](r)
	if err != nil {
		return nil, err
	}
	t := Token{Name: req.Name, Scopes: req.Scopes}
	hypervisor, err := agentOf(t.Scopes)
	switch {
	case err != nil:
		return nil, err
	case hypervisor != "" && !m.admin:
		return nil, fault.Denied.Errorf("make a token for an agent: only an administrator may")
	case hypervisor == "" && m.person == nil:
		return nil, fault.Invalid.Errorf("the administrator's socket is nobody in particular; sign in as a person")
	case m.person != nil:
		t.Person = m.person.Metadata.Name
	}
	var secret string
	made := audit.Act{Who: cmp.Or(t.Person, "administrator"), What: "token.make", From: From(r), With: map[string]string{"scopes": strings.Join(t.Scopes, " ")}}
	err = audit.Do(r.Context(), a.Audit, made, func(with map[string]string) error {
		secret, t, err = a.NewToken(r.Context(), t, time.Duration(req.Life))
		with["id"] = t.ID // as its person sees it
		return err
	})
	if err != nil {
		return nil, err
	}
	return struct {
		Token
		Secret string `json:"token"`
	}{t, secret}, nil
}

func (a *Auth) deleteToken(_ http.ResponseWriter, r *http.Request, m me) (any, error) {
	err := a.endToken(r.Context(), whose(m), r.PathValue("id"))
	if errors.Is(err, fault.NotFound) && m.admin {
		err = a.endToken(r.Context(), agents, r.PathValue("id"))
	}
	return nil, err
}

func items[T any](list []T) any {
	return struct {
		Items []T `json:"items"`
	}{list}
}

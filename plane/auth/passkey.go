package auth

import (
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
)

const (
	ceremonyCookie = "consort-ceremony"
	ceremonyLife   = 5 * time.Minute
)

// passkey is what is stored of a passkey.
type passkey struct {
	Site       string // it is good for this host name only
	Name       string
	Created    time.Time
	Credential webauthn.Credential
}

// Passkey is a passkey as its person sees it.
type Passkey struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
}

// ceremony is what is kept between begin and finish, under the hash of its cookie.
type ceremony struct {
	UID  string // of the person who adds a passkey; empty for a sign-in
	Data webauthn.SessionData
}

// holder is a person as the library wants one. Their UID is the handle, so a
// namesake does not inherit passkeys.
type holder struct {
	person *estate.Person
	keys   []webauthn.Credential
}

func (h *holder) WebAuthnID() []byte                         { return []byte(h.person.Metadata.UID) }
func (h *holder) WebAuthnName() string                       { return h.person.Metadata.Name }
func (h *holder) WebAuthnCredentials() []webauthn.Credential { return h.keys }
func (h *holder) WebAuthnDisplayName() string {
	if h.person.Spec.Title != "" {
		return h.person.Spec.Title
	}
	return h.person.Metadata.Name
}

// site returns the library for the place where the browser is. The passkey's
// own signature binds it to that place.
func (a *Auth) site(r *http.Request) (*webauthn.WebAuthn, error) {
	origin := "http://" + r.Host
	if r.TLS != nil {
		origin = "https://" + r.Host
	}
	if len(a.Origins) > 0 && !slices.Contains(a.Origins, origin) {
		return nil, fault.Denied.Errorf("passkeys are for %s; open the portal there", strings.Join(a.Origins, " and "))
	}
	u, err := url.Parse(origin)
	if err != nil {
		return nil, fault.Invalid.Errorf("the browser says that it is at %q", r.Host)
	}
	host := u.Hostname()
	if _, err := netip.ParseAddr(host); err == nil {
		return nil, fault.Unsupported.Errorf("passkeys need a name, and %s is an address; open the portal by its name", host)
	}
	if r.TLS == nil && host != "localhost" && !strings.HasSuffix(host, ".localhost") {
		return nil, fault.Unsupported.Errorf("passkeys need a secure connection; open the portal with https")
	}
	w, err := webauthn.New(&webauthn.Config{
		RPID: host, RPDisplayName: "Consort", RPOrigins: []string{origin},
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementRequired, UserVerification: protocol.VerificationRequired,
		},
	})
	if err != nil {
		return nil, fault.Invalid.Errorf("passkeys at %s: %w", origin, err)
	}
	return w, nil
}

// keysOf returns the person's passkeys for the site.
func (a *Auth) keysOf(ctx context.Context, p *estate.Person, site string) (*holder, error) {
	h := &holder{person: p}
	ids, err := a.idsOf(ctx, p.Metadata.UID, "passkeys")
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		k, _, err := read[passkey](ctx, a, ofPerson(p.Metadata.UID, "passkeys", id))
		if err == nil && k.Site == site {
			h.keys = append(h.keys, k.Credential)
		}
	}
	return h, nil
}

// keep stores a ceremony for its finish.
func (a *Auth) keep(w http.ResponseWriter, r *http.Request, c ceremony) error {
	secret, err := a.secret()
	if err != nil {
		return err
	}
	lease, err := a.Store.KV().Lease(r.Context(), ceremonyLife)
	if err != nil {
		return err
	}
	put, err := write(secrets("ceremonies", atRest(secret)), c, lease)
	if err != nil {
		return err
	}
	if _, err := a.Store.KV().Commit(r.Context(), store.Txn{Then: []store.Write{put}}); err != nil {
		return err
	}
	http.SetCookie(w, cookie(r, ceremonyCookie, secret, ceremonyLife))
	return nil
}

// kept takes a ceremony out again, once.
func (a *Auth) kept(r *http.Request) (ceremony, error) {
	late := fault.Unauthenticated.Errorf("that took too long, or was answered already; begin again")
	c, err := r.Cookie(ceremonyCookie)
	if err != nil {
		return ceremony{}, late
	}
	found, e, err := read[ceremony](r.Context(), a, secrets("ceremonies", atRest(c.Value)))
	if err != nil {
		return ceremony{}, late
	}
	_, err = a.Store.KV().Commit(r.Context(), store.Txn{
		If:   []store.Compare{{Key: e.Key, Revision: e.Revision}},
		Then: []store.Write{{Key: e.Key, Delete: true}},
	})
	if err != nil {
		return ceremony{}, late
	}
	return found, nil
}

// beginAdd asks the browser to make a passkey for the person.
func (a *Auth) beginAdd(w http.ResponseWriter, r *http.Request, p *estate.Person) (any, error) {
	site, err := a.site(r)
	if err != nil {
		return nil, err
	}
	h, err := a.keysOf(r.Context(), p, site.Config.RPID)
	if err != nil {
		return nil, err
	}
	options, data, err := site.BeginRegistration(h, webauthn.WithExclusions(webauthn.Credentials(h.keys).CredentialDescriptors()))
	if err != nil {
		return nil, fault.Internal.Errorf("begin a passkey: %w", err)
	}
	return options, a.keep(w, r, ceremony{p.Metadata.UID, *data})
}

// finishAdd stores the passkey that the browser made.
func (a *Auth) finishAdd(r *http.Request, p *estate.Person) error {
	site, err := a.site(r)
	if err != nil {
		return err
	}
	c, err := a.kept(r)
	if err != nil {
		return err
	}
	if c.UID != p.Metadata.UID {
		return fault.Denied.Errorf("somebody else began this; begin again")
	}
	parsed, err := protocol.ParseCredentialCreationResponseBody(io.LimitReader(r.Body, largestBody))
	if err != nil {
		return fault.Invalid.Errorf("the browser's answer cannot be read: %w", err)
	}
	h, err := a.keysOf(r.Context(), p, site.Config.RPID)
	if err != nil {
		return err
	}
	cred, err := site.CreateCredential(h, c.Data, parsed)
	if err != nil {
		return fault.Invalid.Errorf("the passkey was refused: %w", err)
	}
	put, err := write(ofPerson(c.UID, "passkeys", keyID(cred.ID)), passkey{site.Config.RPID, browser(r), a.Now().UTC(), *cred}, 0)
	if err != nil {
		return err
	}
	_, err = a.Store.KV().Commit(r.Context(), store.Txn{If: []store.Compare{{Key: put.Key}}, Then: []store.Write{put}})
	if err != nil && fault.KindOf(err) == fault.Conflict {
		return fault.Exists.Errorf("that passkey is here already")
	}
	return err
}

// keyID names a passkey by the hash of its credential's own id, which may be
// longer than a key should be.
func keyID(credential []byte) string { return atRest(hex.EncodeToString(credential)) }

// beginPasskey asks the browser for any passkey of this site. Nobody is named,
// so nobody learns who has one.
func (a *Auth) beginPasskey(w http.ResponseWriter, r *http.Request) (any, error) {
	if err := a.places.take(place(r)); err != nil {
		return nil, err
	}
	site, err := a.site(r)
	if err != nil {
		return nil, err
	}
	options, data, err := site.BeginDiscoverableLogin(webauthn.WithUserVerification(protocol.VerificationRequired))
	if err != nil {
		return nil, fault.Internal.Errorf("begin a sign-in: %w", err)
	}
	return options, a.keep(w, r, ceremony{"", *data})
}

// byPasskey signs in whose passkey answered.
func (a *Auth) byPasskey(w http.ResponseWriter, r *http.Request) error {
	site, err := a.site(r)
	if err != nil {
		return err
	}
	c, err := a.kept(r)
	if err != nil {
		return err
	}
	parsed, err := protocol.ParseCredentialRequestResponseBody(io.LimitReader(r.Body, largestBody))
	if err != nil {
		return fault.Invalid.Errorf("the browser's answer cannot be read: %w", err)
	}
	user, cred, err := site.ValidatePasskeyLogin(func(_, handle []byte) (webauthn.User, error) {
		return a.holderOf(r.Context(), string(handle), site.Config.RPID)
	}, c.Data, parsed)
	refused := fault.Unauthenticated.Errorf("that passkey is not known here; sign in another way and add it")
	if err != nil || c.UID != "" {
		a.Log.Warn("passkey refused", "from", place(r), "error", err)
		return a.refused(r, nil, "passkey", refused)
	}
	if cred.Authenticator.CloneWarning {
		a.Log.Warn("passkey refused: its counter went back, so there are two of it", "from", place(r))
		return a.refused(r, user.(*holder).person, "passkey", refused)
	}
	p := user.(*holder).person
	k, e, err := read[passkey](r.Context(), a, ofPerson(p.Metadata.UID, "passkeys", keyID(cred.ID)))
	if err != nil {
		return refused
	}
	k.Credential = *cred // the counter has moved
	put, err := write(e.Key, k, 0)
	if err != nil {
		return err
	}
	err = a.begin(w, r, p, "passkey", store.Txn{If: []store.Compare{{Key: e.Key, Revision: e.Revision}}, Then: []store.Write{put}})
	if err == nil {
		a.places.back(place(r))
	}
	return err
}

// holderOf finds the person by UID.
func (a *Auth) holderOf(ctx context.Context, uid, site string) (*holder, error) {
	persons, _, err := store.List[estate.Person](ctx, a.Store, "")
	if err != nil {
		return nil, err
	}
	for _, p := range persons {
		if p.Metadata.UID == uid && p.Metadata.Deleting.IsZero() {
			return a.keysOf(ctx, p, site)
		}
	}
	return nil, fault.NotFound.Errorf("nobody has that passkey")
}

// passkeys lists the person's passkeys.
func (a *Auth) passkeys(ctx context.Context, uid string) ([]Passkey, error) {
	ids, err := a.idsOf(ctx, uid, "passkeys")
	if err != nil {
		return nil, err
	}
	list := []Passkey{}
	for _, id := range ids {
		if k, _, err := read[passkey](ctx, a, ofPerson(uid, "passkeys", id)); err == nil {
			list = append(list, Passkey{id[:shownID], k.Name, k.Created})
		}
	}
	return list, nil
}

// endPasskey removes a passkey by its shown id.
func (a *Auth) endPasskey(ctx context.Context, uid, shown string) error {
	id, err := a.named(ctx, uid, "passkeys", shown)
	if err != nil {
		return err
	}
	_, err = a.Store.KV().Commit(ctx, store.Txn{Then: []store.Write{{Key: ofPerson(uid, "passkeys", id), Delete: true}}})
	return err
}

package auth

import (
	"context"
	"errors"
	"net/http"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

// codeLife is how long a sign-in code is good.
const codeLife = 10 * time.Minute

// oneTime is what is stored of a sign-in code, under its hash.
type oneTime struct {
	Person string
	UID    string
	Ends   time.Time
}

// NewCode returns a code that signs the person in once, within ten minutes. An
// unknown person is fault.NotFound.
func (a *Auth) NewCode(ctx context.Context, person string) (string, error) {
	p, err := a.person(ctx, person)
	if err != nil {
		return "", err
	}
	code, err := a.secret()
	if err != nil {
		return "", err
	}
	lease, err := a.Store.KV().Lease(ctx, codeLife)
	if err != nil {
		return "", err
	}
	w, err := write(secrets("codes", atRest(code)), oneTime{person, p.Metadata.UID, a.Now().Add(codeLife)}, lease)
	if err != nil {
		return "", err
	}
	if _, err := a.Store.KV().Commit(ctx, store.Txn{Then: []store.Write{w}}); err != nil {
		return "", err
	}
	return code, nil
}

// byCode signs in whom the code is for. Of many who send it at once, one is
// signed in: the code goes in the transaction that makes the sign-in.
func (a *Auth) byCode(w http.ResponseWriter, r *http.Request, code string) (string, error) {
	from := place(r)
	if err := a.places.take(from); err != nil {
		return "", err
	}
	used := fault.Unauthenticated.Errorf("this sign-in code has been used or is too old; ask for a new one")
	c, e, err := read[oneTime](r.Context(), a, secrets("codes", atRest(code)))
	switch {
	case errors.Is(err, fault.NotFound):
		return "", used
	case err != nil:
		return "", err
	case !a.Now().Before(c.Ends):
		return "", used
	}
	p, err := a.person(r.Context(), c.Person)
	if err != nil || p.Metadata.UID != c.UID {
		return "", used
	}
	err = a.begin(w, r, p, "code", store.Txn{
		If:   []store.Compare{{Key: e.Key, Revision: e.Revision}},
		Then: []store.Write{{Key: e.Key, Delete: true}},
	})
	switch {
	case fault.KindOf(err) == fault.Conflict && err != nil:
		return "", used
	case err != nil:
		return "", err
	}
	a.places.back(from)
	return c.Person, nil
}

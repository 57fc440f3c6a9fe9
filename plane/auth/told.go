package auth

import (
	"net"
	"net/http"

	"consort.dev/consort/audit"
	"consort.dev/consort/estate"
)

// Name returns the caller as the audit log names them.
func (c Caller) Name() string {
	switch {
	case c.Person != "":
		return c.Person
	case c.Agent != "":
		return "agent:" + c.Agent
	case c.Admin:
		return "administrator"
	}
	return ""
}

// From returns where a request came from, as the audit log has it: an address,
// or the administrator's socket.
func From(r *http.Request) string {
	if trusted(r) || r.RemoteAddr == "@" || r.RemoteAddr == "" { // as Go has the other end of a unix socket
		return "socket"
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// told writes down an act of whoever is signed in: before it is done, and how
// it went.
func (a *Auth) told(what string, do act) act {
	return func(w http.ResponseWriter, r *http.Request) (body any, err error) {
		c, err := a.Authenticate(r)
		if err != nil {
			return nil, err
		}
		act := audit.Act{Who: c.Name(), What: what, From: From(r)}
		if id := r.PathValue("id"); len(id) == shownID {
			act.With = map[string]string{"id": id}
		}
		err = audit.Do(r.Context(), a.Audit, act, func(map[string]string) error {
			body, err = do(w, r)
			return err
		})
		return body, err
	}
}

// refused writes down that somebody did not get in. Only a person whom we know
// is named: what was typed for a name may be a password.
func (a *Auth) refused(r *http.Request, p *estate.Person, how string, err error) error {
	act := audit.Act{What: "sign-in", From: From(r), With: map[string]string{"how": how}}
	if p != nil {
		act.Who = p.Metadata.Name
	}
	// They are refused whether it can be written down or not; the log says when not.
	_ = audit.Tell(r.Context(), a.Audit, act, err)
	return err
}

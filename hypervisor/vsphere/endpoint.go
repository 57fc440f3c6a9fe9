package vsphere

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"strings"
	"sync"

	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"consort.dev/consort/fault"
)

// endpoint is what an operator's URL says.
type endpoint struct {
	sdk        *url.URL // where the API is; carries no user
	ca         string   // file with the certificates of authorities
	thumbprint string   // SHA-256 of the server's certificate, as AA:BB:...
	datacenter string   // names in the inventory; the only one there is when empty
	cluster    string
	host       string // one host; the whole cluster when empty
	datastore  string
	folder     string // of the inventory, for our machines
}

// sha256Print is a SHA-256 thumbprint as vCenter shows it.
var sha256Print = regexp.MustCompile(`^[0-9A-F]{2}(:[0-9A-F]{2}){31}$`)

// parseEndpoint reads an operator's URL: https://HOST[/sdk], with where machines
// are placed, and whom to trust, in its query.
func parseEndpoint(text string) (endpoint, error) {
	u, err := url.Parse(text)
	if err != nil {
		return endpoint{}, fault.Invalid.Errorf("the endpoint is no URL: give https://HOST")
	}
	switch {
	case u.User != nil:
		return endpoint{}, fault.Invalid.Errorf("the endpoint names a user: take it out and put user and password in the credentials file")
	case u.Scheme != "https" || u.Host == "":
		return endpoint{}, fault.Invalid.Errorf("the endpoint %q is not https://HOST", text)
	case u.Path != "" && u.Path != "/" && u.Path != vim25.Path:
		return endpoint{}, fault.Invalid.Errorf("the endpoint's path is %q: leave it out, or say %s", u.Path, vim25.Path)
	}
	e := endpoint{sdk: &url.URL{Scheme: u.Scheme, Host: u.Host, Path: vim25.Path}, folder: "consort"}
	fields := map[string]*string{
		"ca": &e.ca, "thumbprint": &e.thumbprint, "datacenter": &e.datacenter, "cluster": &e.cluster,
		"host": &e.host, "datastore": &e.datastore, "folder": &e.folder,
	}
	for key, values := range u.Query() {
		field, known := fields[key]
		if !known || len(values) != 1 {
			return endpoint{}, fault.Invalid.Errorf("the endpoint says %q: it may say once each of ca, thumbprint, datacenter, cluster, host, datastore, folder", key)
		}
		*field = values[0]
	}
	if e.thumbprint = strings.ToUpper(e.thumbprint); e.thumbprint != "" && !sha256Print.MatchString(e.thumbprint) {
		return endpoint{}, fault.Invalid.Errorf("the endpoint's thumbprint is not the SHA-256 of a certificate, as 32 pairs of hex digits with colons between them")
	}
	return e, nil
}

// readCredentials returns the user and the password in a file, a line each.
// Nobody but the file's owner may read it. Errors never hold what it says.
func readCredentials(file string) (*url.Userinfo, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fault.Invalid.Errorf("read the credentials: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fault.Invalid.Errorf("others may read the credentials in %s: chmod 600 it", file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fault.Invalid.Errorf("read the credentials: %w", err)
	}
	user, rest, two := strings.Cut(string(b), "\n")
	password, _, _ := strings.Cut(rest, "\n")
	user, password = strings.TrimSuffix(user, "\r"), strings.TrimSuffix(password, "\r")
	if !two || user == "" || password == "" {
		return nil, fault.Invalid.Errorf("%s does not hold a user and a password, a line each", file)
	}
	return url.UserPassword(user, password), nil
}

// connect reaches the API and logs in. A server that neither the authorities
// nor the thumbprint vouch for is refused.
func connect(ctx context.Context, e endpoint, credentials string) (*vim25.Client, *login, error) {
	sc := soap.NewClient(e.sdk, false)
	if e.ca != "" {
		if err := sc.SetRootCAs(e.ca); err != nil {
			return nil, nil, fault.Invalid.Errorf("read the authorities in %s: %w", e.ca, err)
		}
	}
	sc.SetThumbprint(e.sdk.Host, e.thumbprint)
	c, err := vim25.NewClient(ctx, sc)
	if err != nil {
		if soap.IsCertificateUntrusted(err) {
			return nil, nil, fault.Denied.Errorf("reach %s: %w; name its authority with ?ca=FILE or its certificate with ?thumbprint=SHA256", e.sdk.Host, err)
		}
		return nil, nil, asked(err, "reach %s", e.sdk.Host)
	}
	plain := *c // logs in and out without being logged in for it
	l := &login{inner: c.RoundTripper, credentials: credentials, manager: session.NewManager(&plain)}
	c.RoundTripper = l
	return c, l, l.renew(ctx, 0)
}

// login sends calls under a session, and begins another when that has ended:
// a call that was refused for want of a session was not carried out.
type login struct {
	inner       soap.RoundTripper
	credentials string // read at each login, so that a changed password counts
	manager     *session.Manager

	mu       sync.Mutex
	sessions int // begun so far
}

// RoundTrip implements soap.RoundTripper.
func (l *login) RoundTrip(ctx context.Context, req, res soap.HasFault) error {
	l.mu.Lock()
	under := l.sessions
	l.mu.Unlock()
	err := l.inner.RoundTrip(ctx, req, res)
	if !unheard(err, res) {
		return err
	}
	if again := l.renew(ctx, under); again != nil {
		return again
	}
	reflect.ValueOf(res).Elem().SetZero() // it holds the refusal
	return l.inner.RoundTrip(ctx, req, res)
}

// unheard reports whether a call was refused for want of a session. Reading has
// an answer even then, in which every property is missing.
func unheard(err error, res soap.HasFault) bool {
	if is[*types.NotAuthenticated](err) {
		return true
	}
	body, reads := res.(*methods.RetrievePropertiesExBody)
	if err != nil || !reads || body.Res == nil || body.Res.Returnval == nil {
		return false
	}
	for _, c := range body.Res.Returnval.Objects {
		for _, m := range c.MissingSet {
			if _, no := m.Fault.Fault.(*types.NotAuthenticated); no {
				return true
			}
		}
	}
	return false
}

// renew logs in, unless somebody did since the session of that number.
func (l *login) renew(ctx context.Context, under int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sessions != under {
		return nil
	}
	user, err := readCredentials(l.credentials)
	if err != nil {
		return err
	}
	// A session is refused to a client that has one, even one that it may not use.
	if old, err := l.manager.UserSession(ctx); err == nil && old != nil {
		if err := l.manager.Logout(ctx); err != nil {
			return asked(err, "log out")
		}
	}
	if err := l.manager.Login(ctx, user); err != nil {
		return asked(err, "log in as the user in %s", l.credentials)
	}
	l.sessions++
	return nil
}

// ensure makes sure of a session before a transfer of files, which has no
// second try.
func (l *login) ensure(ctx context.Context) error {
	l.mu.Lock()
	under := l.sessions
	l.mu.Unlock()
	s, err := l.manager.UserSession(ctx)
	if err != nil {
		return asked(err, "look at the session")
	}
	if s == nil {
		return l.renew(ctx, under)
	}
	return nil
}

// close ends the session.
func (l *login) close(ctx context.Context) error {
	if err := l.manager.Logout(ctx); err != nil {
		return fmt.Errorf("log out: %w", err)
	}
	return nil
}

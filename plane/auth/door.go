package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"sync"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/fault"
)

// Door is where agents come in, over TLS and with a certificate of ours.
// Without one they get as far as joining. It knows which connection came with
// which certificate, and Run closes those whose certificate has ended: requests
// that last and tunnels end with them.
type Door struct {
	auth *Auth

	mu   sync.Mutex
	open map[string]map[*visit]struct{} // by number of the certificate
}

// visit is one connection.
type visit struct {
	net.Conn
	door   *Door
	serial string // of the certificate it came with, once a request told; the door's lock guards it
}

// Door returns a door. Connections are Listen's, known to the server by
// Connected, and their requests pass through Handler.
func (a *Auth) Door() *Door {
	return &Door{auth: a, open: map[string]map[*visit]struct{}{}}
}

// Listen puts TLS on the listener, with the certificate that the server shows.
func (d *Door) Listen(l net.Listener, serving func(*tls.ClientHelloInfo) (*tls.Certificate, error)) net.Listener {
	return tls.NewListener(hall{l, d}, &tls.Config{
		GetCertificate: serving, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"},
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: d.auth.Authority.Pool(), Time: d.auth.Now,
		// A resumed session would show a certificate from before.
		SessionTicketsDisabled: true,
	})
}

// hall makes each connection a visit.
type hall struct {
	net.Listener
	door *Door
}

// Accept implements net.Listener.
func (h hall) Accept() (net.Conn, error) {
	conn, err := h.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &visit{Conn: conn, door: h.door}, nil
}

// Close implements net.Conn.
func (v *visit) Close() error {
	v.door.mu.Lock()
	if of := v.door.open[v.serial]; of != nil {
		if delete(of, v); len(of) == 0 {
			delete(v.door.open, v.serial)
		}
	}
	v.door.mu.Unlock()
	return v.Conn.Close()
}

type visitKey struct{}

// Connected is the server's ConnContext.
func (d *Door) Connected(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		if v, ok := t.NetConn().(*visit); ok {
			return context.WithValue(ctx, visitKey{}, v)
		}
	}
	return ctx
}

// Handler passes on what comes with a certificate, and requests to join.
func (d *Door) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, ok := r.Context().Value(visitKey{}).(*visit)
		switch {
		case ok && presented(r):
			// Noted before it is asked whether the certificate is still good: one
			// that ends in between is closed by Run or refused by Authenticate.
			cert := r.TLS.VerifiedChains[0][0]
			d.note(v, serialOf(cert))
			if d.auth.Now().After(cert.NotAfter.Add(-d.auth.AgentLife / 10)) {
				// An agent that has a newer one comes back with it before this ends.
				w.Header().Set("Connection", "close")
			}
		case r.URL.Path != api.EnrolPath:
			d.auth.problem(w, r, fault.Unauthenticated.Errorf("agents come here with their certificate: join first with 'consort agent --join'"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (d *Door) note(v *visit, serial string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v.serial = serial
	if d.open[serial] == nil {
		d.open[serial] = map[*visit]struct{}{}
	}
	d.open[serial][v] = struct{}{}
}

// Run closes the connections of certificates that have ended, until ctx ends.
func (d *Door) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := d.follow(ctx); err != nil && ctx.Err() == nil {
			d.auth.Log.Warn("certificates of agents are read anew", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
	return nil
}

// follow closes what ended while nobody watched, and what ends from now on.
func (d *Door) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	page, err := d.auth.Store.KV().List(ctx, secrets(badges, ""), "", 0)
	if err != nil {
		return err
	}
	good := map[string]bool{}
	for _, e := range page.Entries {
		good[serialIn(e.Key)] = true
	}
	d.shut(func(serial string) bool { return !good[serial] })
	changes, err := d.auth.Store.KV().Watch(ctx, secrets(badges, ""), page.Revision)
	if err != nil {
		return err
	}
	for batch := range changes {
		for _, c := range batch.Changes {
			if c.Deleted {
				d.shut(func(serial string) bool { return serial == serialIn(c.Key) })
			}
		}
	}
	return ctx.Err()
}

// shut closes every connection whose certificate is meant.
func (d *Door) shut(meant func(serial string) bool) {
	var close []*visit
	d.mu.Lock()
	for serial, visits := range d.open {
		for v := range visits {
			if meant(serial) {
				close = append(close, v)
			}
		}
	}
	d.mu.Unlock()
	for _, v := range close {
		v.Close()
	}
}

// serialOf returns the number of a certificate as it is written down.
func serialOf(c *x509.Certificate) string { return c.SerialNumber.Text(16) }

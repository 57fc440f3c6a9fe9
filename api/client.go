package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"consort.dev/consort/fault"
)

// Options says how to reach the plane.
type Options struct {
	Server string      // http://host:port, https://host:port, or the path of a unix socket
	Token  string      // bearer token; empty over a unix socket
	TLS    *tls.Config // for https; the system's roots when nil
	Agent  string      // User-Agent; "consort" when empty
}

// Client speaks to the plane. It is safe for concurrent use. Methods return
// errors of the kinds in package fault: the server's own, Unavailable when it
// could not be reached, and OutcomeUnknown when the reply to a write was lost.
// Reads are tried again for a few seconds; writes never are.
type Client struct {
	base  *url.URL
	opts  Options
	http  *http.Client
	bulk  *http.Transport
	dials func(ctx context.Context) (net.Conn, error)
}

// goneAfter is how long a connection may get no acknowledgement of what it
// sent: a link that is cut for less goes on where it was.
const goneAfter = 30 * time.Second

// NewClient returns a client. Nothing is dialled yet.
func NewClient(opts Options) (*Client, error) {
	if opts.Agent == "" {
		opts.Agent = "consort"
	}
	c := &Client{opts: opts}
	d := net.Dialer{Control: giveUp}
	dial := d.DialContext
	if path, ok := socketPath(opts.Server); ok {
		c.base = &url.URL{Scheme: "http", Host: "localhost"}
		dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) }
		c.dials = func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "unix", path) }
	} else {
		u, err := url.Parse(opts.Server)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fault.Invalid.Errorf("server %q is neither a URL nor the path of a socket; write https://host:port or /run/consort/api.sock", opts.Server)
		}
		c.base = &url.URL{Scheme: u.Scheme, Host: u.Host}
		c.dials = c.dialTCP
	}
	c.bulk = &http.Transport{
		DialContext:         dial,
		TLSClientConfig:     opts.TLS,
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     30 * time.Second,
		MaxIdleConnsPerHost: 8,
		// A file that is refused is not sent.
		ExpectContinueTimeout: 30 * time.Second,
		// A link that was cut is noticed, and what waits on it tried anew.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second},
	}
	c.http = &http.Client{Transport: c.bulk, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, nil
}

// Close drops idle connections. Watches end with their contexts.
func (c *Client) Close() { c.bulk.CloseIdleConnections() }

func socketPath(server string) (string, bool) {
	if rest, ok := strings.CutPrefix(server, "unix://"); ok {
		return rest, true
	}
	return server, filepath.IsAbs(server)
}

func (c *Client) dialTCP(ctx context.Context) (net.Conn, error) {
	host := c.base.Host
	if c.base.Port() == "" {
		port := map[string]string{"http": "80", "https": "443"}[c.base.Scheme]
		host = net.JoinHostPort(c.base.Hostname(), port)
	}
	plain := net.Dialer{Control: giveUp}
	if c.base.Scheme == "http" {
		return plain.DialContext(ctx, "tcp", host)
	}
	conf := &tls.Config{}
	if c.opts.TLS != nil {
		conf = c.opts.TLS.Clone()
	}
	if conf.ServerName == "" {
		conf.ServerName = c.base.Hostname()
	}
	conf.NextProtos = []string{"http/1.1"} // an Upgrade needs it
	d := tls.Dialer{NetDialer: &plain, Config: conf}
	return d.DialContext(ctx, "tcp", host)
}

// request is one call of the API.
type request struct {
	method string
	path   string
	query  url.Values
	header http.Header
	body   any // encoded as JSON unless nil
}

// do sends the request and decodes the answer into out unless it is nil. It
// returns the answer's header.
func (c *Client) do(ctx context.Context, r request, out any) (http.Header, error) {
	resp, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if out == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
		return resp.Header, nil
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, lost(ctx, r.method, true, c.what(r), err)
	}
	if raw, ok := out.(*[]byte); ok {
		*raw = data
		return resp.Header, nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return nil, fault.Internal.Errorf("%s: the answer is not what it should be: %w", c.what(r), err)
	}
	return resp.Header, nil
}

func (c *Client) what(r request) string { return r.method + " " + r.path }

// send returns an answer below 400, or the error. Reads are tried again while
// the plane is not there.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	var body []byte
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil {
			return nil, fault.Invalid.Errorf("%s: %w", c.what(r), err)
		}
	}
	for try := 0; ; try++ {
		resp, err := c.once(ctx, r, body)
		again := r.method == http.MethodGet && try < 4 && errors.Is(err, fault.Unavailable)
		if !again || !sleep(ctx, backoff(try, 2*time.Second)) {
			return resp, err
		}
	}
}

func (c *Client) once(ctx context.Context, r request, body []byte) (*http.Response, error) {
	if body != nil && r.header.Get("Content-Type") == "" {
		r.header = r.header.Clone()
		if r.header == nil {
			r.header = http.Header{}
		}
		r.header.Set("Content-Type", "application/json")
	}
	return c.sendBody(ctx, r, bytes.NewReader(body), int64(len(body)))
}

// sendBody sends the request with so many bytes of the body, once.
func (c *Client) sendBody(ctx context.Context, r request, body io.Reader, size int64) (*http.Response, error) {
	var wrote atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { wrote.Store(true) }})
	u := *c.base
	u.Path, u.RawQuery = "", r.query.Encode()
	if size == 0 {
		body = http.NoBody
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), body)
	if err != nil {
		return nil, fault.Invalid.Errorf("%s: %w", c.what(r), err)
	}
	req.ContentLength = size
	if err := setPath(req.URL, r.path); err != nil {
		return nil, err
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	c.identify(req.Header)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, lost(ctx, r.method, wrote.Load(), c.what(r), err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		defer resp.Body.Close()
		return nil, problemIn(resp)
	}
	return resp, nil
}

func (c *Client) identify(h http.Header) {
	h.Set("User-Agent", c.opts.Agent)
	if c.opts.Token != "" {
		h.Set("Authorization", "Bearer "+c.opts.Token)
	}
}

func setPath(u *url.URL, escaped string) error {
	p, err := url.PathUnescape(escaped)
	if err != nil {
		return fault.Invalid.Errorf("path %q: %w", escaped, err)
	}
	u.Path, u.RawPath = p, escaped
	return nil
}

// lost names the error of a request whose answer did not come.
func lost(ctx context.Context, method string, sent bool, what string, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // without the URL, which what holds already
	}
	switch {
	case sent && method != http.MethodGet:
		return fault.OutcomeUnknown.Errorf("%s: the reply was lost; read again before acting: %w", what, err)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fault.Unavailable.Errorf("%s: the plane cannot be reached: %w", what, err)
}

func problemIn(resp *http.Response) error {
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	p := new(Problem)
	if json.Unmarshal(data, p) == nil && p.Kind != "" {
		return p
	}
	kind := fault.Internal
	switch resp.StatusCode {
	case http.StatusNotFound:
		kind = fault.NotFound
	case http.StatusUnauthorized:
		kind = fault.Unauthenticated
	case http.StatusForbidden:
		kind = fault.Denied
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		kind = fault.Unavailable
	}
	return kind.Errorf("%s %s: the server answered %s", resp.Request.Method, resp.Request.URL.Path, resp.Status)
}

// backoff returns how long to wait before try n+1: doubling from 100 ms, never
// above most, and spread so that clients do not come back together.
func backoff(n int, most time.Duration) time.Duration {
	d := min(most, 100*time.Millisecond<<min(n, 16))
	return d/2 + rand.N(d/2+1)
}

// sleep waits and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

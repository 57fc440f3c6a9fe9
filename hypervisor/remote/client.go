package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// Client is a driver that another process serves.
type Client struct {
	connect func(context.Context) (net.Conn, error)
	http    *http.Client
	host    driver.Host
}

// Dial reaches the driver that is served on the unix socket at path.
func Dial(ctx context.Context, path string) (*Client, error) {
	return DialBy(ctx, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	})
}

// DialBy reaches a driver over connections of the caller's making, each to a
// place where one is served.
func DialBy(ctx context.Context, connect func(context.Context) (net.Conn, error)) (*Client, error) {
	c := &Client{connect: connect}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
	}}
	far := &host{c}
	d, err := far.Describe(ctx)
	if err != nil {
		c.Close()
		return nil, err
	}
	c.host = driver.Limit(far, d.Has)
	return c, nil
}

// Host returns the driver, with the abilities of the one that is served.
func (c *Client) Host() driver.Host { return c.host }

// Close gives up connections that are idle. Open displays and
// consoles stay open.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// errDial is a failure to connect: the other process heard nothing.
type errDial struct{ err error }

func (e errDial) Error() string { return e.err.Error() }
func (e errDial) Unwrap() error { return e.err }

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, errDial{err}
	}
	return conn, nil
}

// lost gives a failure of the connection its kind: what could not be said was
// not done; what was said may have been.
func lost(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	kind := fault.OutcomeUnknown
	var dial errDial
	if errors.As(err, &dial) {
		kind = fault.Unavailable
	}
	return kind.Errorf("%s in the driver's process: %w", name, err)
}

// post sends a call and returns the answer to it, which is a success.
func (c *Client) post(ctx context.Context, name string, query url.Values, body io.Reader) (*http.Response, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "http", Host: "driver", Path: "/" + name, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), body)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, lost(ctx, name, err)
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		return nil, refusal(ctx, name, res)
	}
	return res, nil
}

// refusal returns the error that an answer tells of.
func refusal(ctx context.Context, name string, res *http.Response) error {
	var f failure
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&f); err != nil {
		return lost(ctx, name, err)
	}
	return fault.Named(f.Kind).Errorf("%s", f.Text)
}

// ask makes a call of which everything fits into memory.
func (c *Client) ask(ctx context.Context, name string, q call, result any) error {
	body, err := json.Marshal(q)
	if err != nil {
		return err
	}
	res, err := c.post(ctx, name, nil, bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(result); err != nil {
		return lost(ctx, name, err)
	}
	return nil
}

// host implements every ability; Dial shows those that the far driver has.
type host struct{ c *Client }

// Describe implements driver.Host.
func (h *host) Describe(ctx context.Context) (d driver.Description, err error) {
	err = h.c.ask(ctx, "describe", call{}, &d)
	return d, err
}

// List implements driver.Host.
func (h *host) List(ctx context.Context) (all []driver.Machine, err error) {
	err = h.c.ask(ctx, "list", call{}, &all)
	return all, err
}

// Define implements driver.Host.
func (h *host) Define(ctx context.Context, def driver.Definition) error {
	return h.c.ask(ctx, "define", call{Def: &def}, new(any))
}

// Start implements driver.Host.
func (h *host) Start(ctx context.Context, id estate.MachineID) error {
	return h.c.ask(ctx, "start", call{ID: id}, new(any))
}

// Stop implements driver.Host.
func (h *host) Stop(ctx context.Context, id estate.MachineID, grace time.Duration) error {
	return h.c.ask(ctx, "stop", call{ID: id, Grace: grace}, new(any))
}

// Delete implements driver.Host.
func (h *host) Delete(ctx context.Context, id estate.MachineID) error {
	return h.c.ask(ctx, "delete", call{ID: id}, new(any))
}

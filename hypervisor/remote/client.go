package remote

import (
	"bufio"
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
	path string
	http *http.Client
	host driver.Host
}

// Dial reaches the driver that is served on the unix socket at path.
func Dial(ctx context.Context, path string) (*Client, error) {
	c := &Client{path: path}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
	}}
	far := &host{c}
	d, err := far.Describe(ctx)
	if err != nil {
		c.Close()
		return nil, err
	}
	c.host = driver.Limit(far, func(name estate.Capability) bool { return d.Can(name).Has })
	return c, nil
}

// Host returns the driver, with the abilities of the one that is served.
func (c *Client) Host() driver.Host { return c.host }

// Close gives up connections that are idle. Open displays stay open.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// errDial is a failure to connect: the other process heard nothing.
type errDial struct{ err error }

func (e errDial) Error() string { return e.err.Error() }
func (e errDial) Unwrap() error { return e.err }

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path)
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

// Attach implements driver.Hotplugger.
func (h *host) Attach(ctx context.Context, id estate.MachineID, disk driver.Disk) error {
	return h.c.ask(ctx, "attach", call{ID: id, Disk: &disk}, new(any))
}

// Detach implements driver.Hotplugger.
func (h *host) Detach(ctx context.Context, id estate.MachineID, name string) error {
	return h.c.ask(ctx, "detach", call{ID: id, Name: name}, new(any))
}

// Attached implements driver.Hotplugger.
func (h *host) Attached(ctx context.Context, id estate.MachineID) (names []string, err error) {
	err = h.c.ask(ctx, "attached", call{ID: id}, &names)
	return names, err
}

// Run implements driver.Guest.
func (h *host) Run(ctx context.Context, id estate.MachineID, cmd driver.Command) (out driver.Output, err error) {
	err = h.c.ask(ctx, "run", call{ID: id, Cmd: &cmd}, &out)
	return out, err
}

func diskOf(id estate.MachineID, disk string) url.Values {
	return url.Values{"id": {string(id)}, "disk": {disk}}
}

// Export implements driver.Transferer.
func (h *host) Export(ctx context.Context, id estate.MachineID, disk string, w io.Writer) error {
	res, err := h.c.post(ctx, "export", diskOf(id, disk), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(w, res.Body); err != nil {
		return lost(ctx, "export", err)
	}
	text := res.Trailer.Get(failed)
	if text == "" {
		return nil
	}
	var f failure
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return lost(ctx, "export", err)
	}
	return fault.Named(f.Kind).Errorf("%s", f.Text)
}

// Import implements driver.Transferer.
func (h *host) Import(ctx context.Context, id estate.MachineID, disk string, r io.Reader) error {
	// Hidden, so that a body without length is sent as it comes.
	res, err := h.c.post(ctx, "import", diskOf(id, disk), struct{ io.Reader }{r})
	if err == nil {
		err = res.Body.Close()
	}
	return err
}

// Display implements driver.Displayer. Its connection has one of its own.
func (h *host) Display(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	conn, err := h.c.dial(ctx)
	if err != nil {
		return nil, lost(ctx, "display", err)
	}
	screen, err := upgrade(ctx, conn, id)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return screen, nil
}

func upgrade(ctx context.Context, conn net.Conn, id estate.MachineID) (io.ReadWriteCloser, error) {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	u := url.URL{Scheme: "http", Host: "driver", Path: "/display", RawQuery: url.Values{"id": {string(id)}}.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", protocol)
	if err := req.Write(conn); err != nil {
		return nil, lost(ctx, "display", err)
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, lost(ctx, "display", err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return nil, refusal(ctx, "display", res)
	}
	if !stop() {
		return nil, ctx.Err()
	}
	return &buffered{conn, r}, nil
}

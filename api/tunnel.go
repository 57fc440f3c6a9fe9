package api

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"time"

	"consort.dev/consort/fault"
	"github.com/coder/websocket"
)

// Calls delivers what the plane asks of the hypervisor's agent until ctx ends,
// then closes the channel. It reconnects by itself; lost is told each time the
// connection breaks and may be nil. Each call waits only seconds for its
// OpenCall: take them from the channel at once and answer side by side.
func (c *Client) Calls(ctx context.Context, hypervisor string, lost func(error)) <-chan Call {
	out := make(chan Call)
	go func() {
		defer close(out)
		for try := 0; ; try++ {
			took, err := c.calls(ctx, hypervisor, out)
			if ctx.Err() != nil {
				return
			}
			if took {
				try = 0
			}
			if lost != nil {
				lost(err)
			}
			if !sleep(ctx, backoff(try, 5*time.Second)) {
				return
			}
		}
	}()
	return out
}

// calls follows one connection and reports whether it was ever there.
func (c *Client) calls(ctx context.Context, hypervisor string, out chan<- Call) (bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(quiet, cancel)
	defer silence.Stop()
	resp, err := c.once(ctx, request{method: http.MethodGet, path: hypervisorPath(hypervisor, "calls")}, nil)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(resp.Body)
	for {
		var call Call
		if err := lines.Decode(&call); err != nil {
			return true, ended(ctx, err)
		}
		silence.Reset(quiet)
		if call.ID == "" {
			continue // a sign of life
		}
		select {
		case out <- call:
		case <-ctx.Done():
			return true, ctx.Err()
		}
	}
}

// OpenCall answers a call with a tunnel of raw bytes: what is written here is
// read by whoever the plane called for, and the other way round. ctx bounds
// the opening only. A call that is not, or no longer, waiting is fault.NotFound.
func (c *Client) OpenCall(ctx context.Context, id string) (net.Conn, error) {
	conn, err := c.dials(ctx)
	if err != nil {
		return nil, fault.Unavailable.Errorf("open call: the plane cannot be reached: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	tunnel, err := c.upgrade(conn, CallPath(id))
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return tunnel, nil
}

// RefuseCall answers a call with the reason why there will be no tunnel, so
// that nobody waits for it.
func (c *Client) RefuseCall(ctx context.Context, id string, why error) error {
	_, err := answer[Empty](ctx, c, CallPath(id)+"/refuse", NewProblem(why))
	return err
}

// upgrade turns the fresh connection into a tunnel.
func (c *Client) upgrade(conn net.Conn, path string) (net.Conn, error) {
	u := &url.URL{Scheme: c.base.Scheme, Host: c.base.Host}
	if err := setPath(u, path); err != nil {
		return nil, err
	}
	req := &http.Request{Method: http.MethodPost, URL: u, Host: u.Host, Header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {TunnelUpgrade},
	}}
	c.identify(req.Header)
	if err := req.Write(conn); err != nil {
		return nil, fault.Unavailable.Errorf("open call: %w", err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, fault.Unavailable.Errorf("open call: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		return nil, problemIn(resp)
	}
	return Buffered(conn, r), nil
}

// Buffered returns conn with what r has read ahead of it given back.
func Buffered(conn net.Conn, r *bufio.Reader) net.Conn {
	if r.Buffered() == 0 {
		return conn
	}
	return &buffered{conn, r}
}

type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) {
	if b.r.Buffered() > 0 {
		return b.r.Read(p)
	}
	return b.Conn.Read(p)
}

// CloseWrite ends the tunnel in one direction.
func (b *buffered) CloseWrite() error {
	if h, ok := b.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return fault.Unsupported.Errorf("this connection closes in both directions only")
}

// Tunnel opens the session that the ticket is for, through the gateway. The
// ticket is used up, whatever happens. ctx bounds the opening only.
func (c *Client) Tunnel(ctx context.Context, ticket string) (net.Conn, error) {
	u := *c.base
	u.Path = TunnelPath
	header := http.Header{}
	c.identify(header)
	ws, resp, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{
		HTTPClient:   c.http,
		HTTPHeader:   header,
		Subprotocols: []string{TunnelProtocol, TicketProtocol + ticket},
	})
	switch {
	case err != nil && resp != nil && resp.StatusCode >= http.StatusBadRequest:
		return nil, problemIn(resp)
	case err != nil:
		return nil, fault.Unavailable.Errorf("open the tunnel: %w", err)
	}
	ws.SetReadLimit(-1)
	return websocket.NetConn(context.Background(), ws, websocket.MessageBinary), nil
}

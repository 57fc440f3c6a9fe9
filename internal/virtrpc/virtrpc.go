// Package virtrpc calls the daemon that manages the domains of a host. It puts
// around a client module what that lacks: deadlines, a connection that comes
// back, whole errors, and streams in both directions.
package virtrpc

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"syscall"

	lv "github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"

	"consort.dev/consort/fault"
)

// Dial opens a connection to a daemon.
type Dial func(context.Context) (net.Conn, error)

// Endpoint returns how to reach unix:///path or tcp://host:port.
func Endpoint(text string) (Dial, error) {
	u, err := url.Parse(text)
	var network, address string
	switch {
	case err != nil:
	case u.Scheme == "unix" && u.Host == "" && strings.HasPrefix(u.Path, "/"):
		network, address = "unix", u.Path
	case u.Scheme == "tcp" && u.Port() != "" && strings.Trim(u.Path, "/") == "":
		network, address = "tcp", u.Host
	}
	if network == "" {
		return nil, fault.Invalid.Errorf("%q is no daemon's address; give unix:///path/of/socket or tcp://host:port", text)
	}
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}, nil
}

// Client calls one daemon. It connects when it is first used, and again after
// the connection broke. It is safe for concurrent use.
//
// Errors are an *Error, with the kind that its code implies, where the daemon
// said no; fault.Unavailable where nothing was sent; and fault.OutcomeUnknown
// where an effect was ordered and no reply came. Questions that lose their
// reply are asked again once.
type Client struct {
	dial Dial
	uri  string

	turn chan struct{} // held while connecting
	mu   sync.Mutex
	live *link
	shut bool
}

// New returns a client that dials a daemon and opens a driver in it, such as
// qemu:///system.
func New(dial Dial, uri string) *Client {
	c := &Client{dial: dial, uri: uri, turn: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c
}

// Close ends the connection, and with it every call. Consoles and watches have
// connections of their own.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shut = true
	if c.live == nil {
		return nil
	}
	return c.live.wire.Close()
}

// link is one connection.
type link struct {
	lib  *lv.Libvirt
	wire *wire
}

// current returns the connection, which is made where there is none; fresh says
// that it was.
func (c *Client) current(ctx context.Context) (l *link, fresh bool, err error) {
	if l, err = c.alive(); l != nil || err != nil {
		return l, false, err
	}
	select {
	case <-c.turn:
		defer func() { c.turn <- struct{}{} }()
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	if l, err = c.alive(); l != nil || err != nil {
		return l, false, err
	}
	if l, err = c.open(ctx, func(*wire) {}); err != nil {
		return nil, false, err
	}
	go l.wire.keepAlive(pingEvery, silence)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		l.wire.Close()
		return nil, false, errShut
	}
	c.live = l
	return l, true, nil
}

var errShut = fault.Unavailable.Errorf("the connection to the daemon was closed by us")

func (c *Client) alive() (*link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return nil, errShut
	}
	if c.live != nil {
		select {
		case <-c.live.wire.gone:
			c.live = nil
		default:
		}
	}
	return c.live, nil
}

// open makes a connection; prepare says what its wire is to do besides.
func (c *Client) open(ctx context.Context, prepare func(*wire)) (*link, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, fault.Unavailable.Errorf("reach the daemon: %w", err)
	}
	w := newWire(conn)
	prepare(w)
	l := &link{lib: lv.NewWithDialer(dialers.NewAlreadyConnected(w)), wire: w}
	_, err = await(ctx, w, func() (struct{}, error) { return struct{}{}, l.lib.ConnectToURI(lv.ConnectURI(c.uri)) })
	if err != nil {
		w.Close()
		if e := refused(err); e != nil {
			return nil, fault.Unavailable.Errorf("open %s: %w", c.uri, e)
		}
		return nil, fault.Unavailable.Errorf("open %s: %w", c.uri, err)
	}
	return l, nil
}

// await runs a call of the module's, which knows no deadlines. One that is left
// behind ends with its reply or its connection.
func await[T any](ctx context.Context, w *wire, f func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	got := make(chan result, 1)
	go func() {
		v, err := f()
		got <- result{v, err}
	}()
	select {
	case r := <-got:
		return r.v, r.err
	case <-ctx.Done():
	case <-w.gone:
	}
	select {
	case r := <-got: // it came at the same moment
		return r.v, r.err
	default:
	}
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	return none, lv.ErrInterrupted
}

// ask calls the daemon for an answer.
func ask[T any](ctx context.Context, c *Client, what string, f func(*lv.Libvirt) (T, error)) (T, error) {
	return call(ctx, c, what, true, f)
}

// act calls the daemon for an effect.
func act(ctx context.Context, c *Client, what string, f func(*lv.Libvirt) error) error {
	_, err := call(ctx, c, what, false, func(l *lv.Libvirt) (struct{}, error) { return struct{}{}, f(l) })
	return err
}

func call[T any](ctx context.Context, c *Client, what string, harmless bool, f func(*lv.Libvirt) (T, error)) (T, error) {
	for try := 1; ; try++ {
		var none T
		if err := ctx.Err(); err != nil {
			return none, err
		}
		l, fresh, err := c.current(ctx)
		if err != nil {
			return none, err
		}
		v, err := await(ctx, l.wire, func() (T, error) { return f(l.lib) })
		if err == nil {
			return v, nil
		}
		if e := refused(err); e != nil {
			return none, e.kind().Errorf("%s: %w", what, e)
		}
		if ctx.Err() != nil {
			if harmless {
				return none, ctx.Err()
			}
			return none, fault.OutcomeUnknown.Errorf("%s: %w", what, err)
		}
		unsent := notSent(err)
		if try == 1 && !fresh && (harmless || unsent) {
			l.wire.Close()
			continue
		}
		l.wire.Close()
		if harmless || unsent {
			return none, fault.Unavailable.Errorf("%s: %w", what, err)
		}
		return none, fault.OutcomeUnknown.Errorf("%s: the reply was lost: %w", what, err)
	}
}

// notSent reports whether the daemon cannot have read the call: the module
// found the connection ended (EINVAL), or could not write all of it.
func notSent(err error) bool {
	var op *net.OpError
	return err == syscall.EINVAL || errors.As(err, &op) && op.Op == "write" || errors.Is(err, io.ErrClosedPipe)
}

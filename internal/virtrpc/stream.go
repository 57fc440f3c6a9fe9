package virtrpc

import (
	"cmp"
	"context"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"

	lv "github.com/digitalocean/go-libvirt"

	"consort.dev/consort/fault"
)

// console is a stream that a domain's console is on, in both directions. It has
// a connection of its own, so that a slow reader keeps nobody waiting.
type console struct {
	wire   *wire
	serial atomic.Uint32
	r      *io.PipeReader
	w      *io.PipeWriter

	mu     sync.Mutex
	opened bool
	early  []byte // what came before the daemon's word that it is open
}

func newConsole() *console {
	c := &console{}
	c.r, c.w = io.Pipe()
	return c
}

// Console opens the domain's console, of the device with that alias or, when
// empty, the first. Another reader is thrown out. The domain's end is the
// stream's.
func (c *Client) Console(ctx context.Context, uuid, device string) (io.ReadWriteCloser, error) {
	d, err := domain(uuid)
	if err != nil {
		return nil, err
	}
	con := newConsole()
	l, err := c.open(ctx, func(w *wire) { w.console = con })
	if err != nil {
		return nil, err
	}
	con.wire = l.wire
	// Without a writer the module leaves the stream's packets to the wire.
	_, err = await(ctx, l.wire, func() (struct{}, error) {
		return struct{}{}, l.lib.DomainOpenConsole(d, optional(device), nil, uint32(lv.DomainConsoleForce))
	})
	if err == nil {
		con.open()
		return con, nil
	}
	l.wire.Close()
	if e := refused(err); e != nil {
		return nil, e.kind().Errorf("open the console: %w", e)
	}
	return nil, fault.Unavailable.Errorf("open the console: %w", err)
}

// open begins the reading.
func (c *console) open() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened = true
}

// take takes up a packet of the daemon's. Nothing more is read from the
// connection until the reader has had it, but for packets that overtake the
// daemon's word that the console is open: nobody reads them until that is read.
func (c *console) take(status uint32, payload []byte) {
	c.mu.Lock()
	waits := !c.opened && status == statusContinue && len(payload) > 0
	if waits {
		c.early = append(c.early, payload...)
	}
	c.mu.Unlock()
	switch {
	case waits:
	case status == statusContinue && len(payload) > 0:
		c.w.Write(payload) // fails once the reader has gone; then so has the data
	case status == statusError:
		c.end(io.ErrUnexpectedEOF)
	default: // it is confirmed, or ends without data
		c.end(io.EOF)
	}
}

func (c *console) end(err error) { c.w.CloseWithError(err) }

func (c *console) Read(p []byte) (int, error) {
	c.mu.Lock()
	n := copy(p, c.early)
	c.early = c.early[n:]
	c.mu.Unlock()
	if n > 0 {
		return n, nil
	}
	return c.r.Read(p)
}

func (c *console) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		part := p[:min(len(p), maxPayload)]
		h := head{program: programDomains, procedure: procOpenConsole, kind: typeStream, serial: c.serial.Load(), status: statusContinue}
		if err := c.wire.send(h.packet(part)); err != nil {
			return n, err
		}
		n, p = n+len(part), p[len(part):]
	}
	return n, nil
}

// Close ends the connection, and the daemon the stream with it.
func (c *console) Close() error {
	c.r.Close()
	return c.wire.Close()
}

// Graphics opens a running domain's screen, the first for index 0, as a client
// of its own that needs no password. The daemon hands over one end of a pair of
// sockets, so its host must be ours and its endpoint a unix socket.
func (c *Client) Graphics(ctx context.Context, uuid string, index int) (net.Conn, error) {
	d, err := domain(uuid)
	if err != nil {
		return nil, err
	}
	passed := make(chan *os.File, 1)
	l, err := c.open(ctx, func(w *wire) { w.file = passed })
	if err != nil {
		return nil, err
	}
	defer l.wire.Close()
	_, err = await(ctx, l.wire, func() (struct{}, error) {
		return struct{}{}, l.lib.DomainOpenGraphicsFd(d, uint32(index), lv.DomainOpenGraphicsSkipauth)
	})
	if e := refused(err); e != nil {
		return nil, e.kind().Errorf("open the screen: %w", e)
	}
	select {
	case f := <-passed:
		defer f.Close()
		return net.FileConn(f)
	default:
		return nil, fault.Unavailable.Errorf("open the screen: the daemon passed none: %w", cmp.Or(err, io.ErrUnexpectedEOF))
	}
}

// lifecycleEvent is VIR_DOMAIN_EVENT_ID_LIFECYCLE.
const lifecycleEvent = 0

// Watch calls changed with the UUID of a domain that was defined, started,
// stopped or removed, until ctx ends, and then returns nil. A changed that is
// slow is told once of what happened several times. It has a connection of its
// own.
func (c *Client) Watch(ctx context.Context, changed func(uuid string)) error {
	var mu sync.Mutex
	var queue []string
	news := make(chan struct{}, 1)
	event := func(uuid string) {
		mu.Lock()
		defer mu.Unlock()
		for _, u := range queue {
			if u == uuid {
				return
			}
		}
		queue = append(queue, uuid)
		select {
		case news <- struct{}{}:
		default:
		}
	}
	l, err := c.open(ctx, func(w *wire) { w.event = event })
	if err != nil {
		return over(ctx, err)
	}
	defer l.wire.Close()
	go l.wire.keepAlive(pingEvery, silence)
	_, err = await(ctx, l.wire, func() (int32, error) { return l.lib.ConnectDomainEventCallbackRegisterAny(lifecycleEvent, nil) })
	if err != nil {
		if e := refused(err); e != nil {
			err = e.kind().Errorf("watch domains: %w", e)
		}
		return over(ctx, err)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wire.gone:
			return over(ctx, fault.Unavailable.Errorf("watch domains: the connection to the daemon has ended"))
		case <-news:
			mu.Lock()
			now := queue
			queue = nil
			mu.Unlock()
			for _, uuid := range now {
				changed(uuid)
			}
		}
	}
}

// over returns err, or nil where ctx has ended.
func over(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

package vnc

import (
	"bufio"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/presentation/driver"
)

// Sizes of buffers. A session has its own only for the heads of messages, since a
// gateway holds many idle ones; what an update is carried in is lent to it.
const (
	machineHeads = 4 << 10
	viewerHeads  = 512
	updateBuffer = 32 << 10
)

// relay is one session. Two goroutines read, one from each end; a third keeps
// the machine's screen awake. Whoever fails first ends it for all.
type relay struct {
	viewer, machine *end
	title           string
	policy          driver.Policy
	shut            func() bool // pictures alone cross
	events          chan driver.Event
	refused         sync.Map // texts already reported
	input           atomic.Bool
	extendedKeys    atomic.Bool // the machine takes scan codes
	resizes         atomic.Bool // the machine takes other sizes
	buffers         *sync.Pool  // of *bufio.Writer
	keys            bucket
	screen          screen
	flow            flow
	awake           awake
	clips           clips
	mark            *watermark   // nil without one
	touched         atomic.Int64 // when something was typed or pointed at, in nanoseconds since 1970
}

// screen is what is known of the framebuffer.
type screen struct {
	mu            sync.Mutex
	width, height int
	format        rfb.PixelFormat
	settled       bool // pixels were asked for: the format stays
	encodings     map[rfb.Encoding]bool
}

func (s *screen) size() (width, height int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.width, s.height
}

func newRelay(s driver.Session, buffers *sync.Pool) *relay {
	if s.Policy.Clipboard.MaxBytes == 0 {
		s.Policy.Clipboard.MaxBytes = estate.ClipboardBytes
	}
	return &relay{
		viewer:  newEnd(s.Viewer, viewerHeads),
		machine: newEnd(s.Machine, machineHeads),
		title:   s.Title,
		policy:  s.Policy,
		shut:    s.Shut,
		mark:    newWatermark(s.Policy.Watermark),
		events:  make(chan driver.Event, 16),
		buffers: buffers,
		awake:   awake{stirred: make(chan struct{}, 1)},
		screen:  screen{encodings: map[rfb.Encoding]bool{rfb.Raw: true}},
	}
}

// run carries the session and closes both ends before it returns.
func (r *relay) run(ctx context.Context, g rfb.Guard) error {
	stop := context.AfterFunc(ctx, r.close)
	defer stop()
	defer r.close()
	err := r.open(g)
	if err == nil {
		err = r.carry()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return r.outcome(err)
}

func (r *relay) close() {
	r.viewer.close()
	r.machine.close()
}

// outcome turns the first error into what Serve promises.
func (r *relay) outcome(err error) error {
	var g *gone
	switch {
	case errors.Is(err, errIdle):
		r.event(driver.Event{Name: driver.Idle})
		return nil
	case !errors.As(err, &g):
		return err
	case g.end == r.viewer:
		r.event(driver.Event{Name: driver.ViewerGone})
	default:
		r.event(driver.Event{Name: driver.MachineGone})
	}
	return nil
}

// open speaks both openings, the viewer's first: nobody who does not pass makes
// the machine do anything.
func (r *relay) open(g rfb.Guard) error {
	late := time.AfterFunc(openingTime, r.close)
	defer late.Stop()
	if _, err := rfb.Accept(r.viewer.r, r.viewer, g); err != nil {
		return err // a breach is already fault.Invalid or fault.Denied
	}
	r.event(driver.Event{Name: driver.ViewerAccepted})
	init, err := rfb.Open(r.machine.r, r.machine, rfb.Proof{})
	if err != nil {
		return blame(err)
	}
	r.screen.width, r.screen.height, r.screen.format = init.Width, init.Height, init.Format
	if r.title != "" {
		init.Name = r.title
	}
	return r.viewer.send(init)
}

// blame makes a breach the machine's.
func blame(err error) error {
	var g *gone
	if err == nil || errors.As(err, &g) {
		return err
	}
	return fault.Unavailable.Errorf("the machine's screen: %w", err)
}

// carry relays until somebody fails and returns who and why.
func (r *relay) carry() error {
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error
	)
	quit := make(chan struct{})
	work := func(f func() error) {
		wg.Go(func() {
			err := f()
			once.Do(func() { first = err; close(quit) })
			r.close()
		})
	}
	work(func() error { return r.fromViewer(quit) })
	work(func() error { return blame(r.fromMachine()) })
	work(func() error { return r.keepAwake(quit) })
	if r.policy.Idle > 0 {
		work(func() error { return r.idle(quit) })
	}
	wg.Wait()
	return first
}

func (r *relay) event(e driver.Event) { r.events <- e }

// refuse reports that something was held back, each reason once a session.
func (r *relay) refuse(why string) {
	if _, again := r.refused.LoadOrStore(why, true); !again {
		r.event(driver.Event{Name: driver.PolicyRefused, Text: why})
	}
}

// end is one connection. Reads have one goroutine; writes have many, each whole
// message under the lock.
type end struct {
	conn io.ReadWriteCloser
	r    *bufio.Reader
	mu   sync.Mutex
	once sync.Once
}

func newEnd(conn io.ReadWriteCloser, read int) *end {
	e := &end{conn: conn}
	e.r = bufio.NewReaderSize(tagged{e}, read)
	return e
}

func (e *end) close() { e.once.Do(func() { _ = e.conn.Close() }) } // there is nobody to tell

// Write implements io.Writer for the openings.
func (e *end) Write(b []byte) (int, error) { return tagged{e}.Write(b) }

// send writes whole messages.
func (e *end) send(ms ...rfb.Message) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return rfb.Write(tagged{e}, ms...)
}

// tagged marks an error of a connection with the end it happened at.
type tagged struct{ e *end }

func (t tagged) Read(b []byte) (int, error) {
	n, err := t.e.conn.Read(b)
	return n, t.mark(err)
}

func (t tagged) Write(b []byte) (int, error) {
	n, err := t.e.conn.Write(b)
	return n, t.mark(err)
}

func (t tagged) mark(err error) error {
	if err == nil {
		return nil
	}
	return &gone{t.e, err}
}

// gone is an end whose connection is over.
type gone struct {
	end *end
	err error
}

func (g *gone) Error() string { return g.err.Error() }
func (g *gone) Unwrap() error { return g.err }

package drivertest

import (
	"io"
	"sync"
)

// wire is one end of a connection in memory. Unlike net.Pipe it has room, as
// sockets have, so that both ends may write at once.
type wire struct {
	in, out *queue
	mu      sync.Mutex
	closed  bool
}

// newPair returns two ends.
func newPair() (a, b *wire) {
	x, y := newQueue(), newQueue()
	return &wire{in: x, out: y}, &wire{in: y, out: x}
}

func (w *wire) Read(b []byte) (int, error)  { return w.in.read(b) }
func (w *wire) Write(b []byte) (int, error) { return w.out.write(b) }

// Close ends both directions, as often as it is called.
func (w *wire) Close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.in.end()
	w.out.end()
	return nil
}

// stall has whoever writes to this end wait until it is closed.
func (w *wire) stall() {
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	w.in.stalled = true
}

// holds reports whether somebody waits to write to this end.
func (w *wire) holds() bool {
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	return w.in.waiting > 0
}

func (w *wire) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

type queue struct {
	mu    sync.Mutex
	more  *sync.Cond
	bytes []byte
	ended bool

	stalled bool
	waiting int // writers
}

func newQueue() *queue {
	q := &queue{}
	q.more = sync.NewCond(&q.mu)
	return q
}

func (q *queue) read(b []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.bytes) == 0 && !q.ended {
		q.more.Wait()
	}
	if len(q.bytes) == 0 {
		return 0, io.EOF
	}
	n := copy(b, q.bytes)
	q.bytes = q.bytes[n:]
	return n, nil
}

func (q *queue) write(b []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.stalled && !q.ended {
		q.waiting++
		q.more.Wait()
		q.waiting--
	}
	if q.ended {
		return 0, io.ErrClosedPipe
	}
	q.bytes = append(q.bytes, b...)
	q.more.Broadcast()
	return len(b), nil
}

func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.more.Broadcast()
}

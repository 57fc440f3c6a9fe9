package front

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// A retry spends a token. Each request brings retryShare of one, and time
	// brings retryReserve a second, so that a quiet service may retry at all and
	// a busy one asks its replicas at most a fifth more (Finagle's budget).
	retryShare   = .2
	retryReserve = 10
	retryMost    = 100 // tokens that can be saved up
	mostTries    = 3   // of one request
)

// What ends a request without a response of a replica.
var (
	errQueue  = errors.New("too many requests wait already")
	errWait   = errors.New("no replica had room in time")
	errTried  = errors.New("no other replica can be asked")
	errCut    = errors.New("the replica drains and its time is up")
	errClosed = errors.New("the front closes")
)

// dialError is a replica that was not reached: nothing was sent.
type dialError struct {
	replica string
	err     error
}

func (e *dialError) Error() string { return fmt.Sprintf("reach replica %s: %v", e.replica, e.err) }
func (e *dialError) Unwrap() error { return e.err }

// budget bounds retries. The pool's lock is over it.
type budget struct {
	tokens float64
	at     time.Time
	spent  int64
	denied int64
}

func (b *budget) deposit() { b.tokens = min(b.tokens+retryShare, retryMost) }

func (b *budget) spend(now time.Time) bool {
	if !b.at.IsZero() {
		b.tokens = min(b.tokens+retryReserve*now.Sub(b.at).Seconds(), retryMost)
	}
	b.at = now
	if b.tokens < 1 {
		b.denied++
		return false
	}
	b.tokens--
	b.spent++
	return true
}

// mayRetry spends a token of the budget.
func (p *pool) mayRetry(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.budget.spend(now)
}

// RoundTrip sends the request to a replica, and to another one when the first
// did not get it. It implements http.RoundTripper for the proxy.
func (f *Front) RoundTrip(req *http.Request) (*http.Response, error) {
	x := req.Context().Value(exchangeKey{}).(*exchange)
	var last error
	for try := 1; ; try++ {
		l, err := f.pool.acquire(req.Context(), x.want)
		if err != nil {
			if errors.Is(err, errTried) {
				err = last
			}
			return nil, err
		}
		x.lease = l
		res, again, err := f.attempt(l, req)
		if err == nil {
			return res, nil
		}
		l.done(time.Now())
		if !again || try == mostTries || !f.pool.mayRetry(time.Now()) {
			return nil, err
		}
		last = err
		x.want.tried = append(x.want.tried, l.replica)
	}
}

// attempt asks one replica. again says that another one may be asked instead.
func (f *Front) attempt(l *lease, req *http.Request) (res *http.Response, again bool, err error) {
	var sent reach
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{GotConn: sent.got})
	out := req.WithContext(ctx)
	out.URL = cloneURL(req.URL, l.replica.address)
	var part *part
	if req.Body != nil {
		part = newPart(req.Body)
		out.Body = part
	}
	res, err = l.replica.transport.RoundTrip(out)
	now := time.Now()
	if err == nil {
		l.answer(res.StatusCode, now)
		return res, false, nil
	}
	begun := part != nil && part.cut()
	if req.Context().Err() != nil {
		l.leave(now)
		return nil, false, context.Cause(req.Context())
	}
	var unreached *dialError
	switch {
	case errors.As(err, &unreached):
		l.fail("it cannot be reached", mostRefusals, now)
		return nil, !begun, err
	case isTimeout(err):
		l.fail("it does not answer in time", mostFailures, now)
		return nil, false, err // it has the request, and may be at work on it
	}
	l.fail("it breaks off", mostFailures, now)
	return nil, !begun && (sent.nothing() || idempotent(req.Method)), err
}

// idempotent reports whether asking twice is as good as asking once (RFC 9110, 9.2.2).
func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// link is a connection to a replica that counts what was written to it.
type link struct {
	net.Conn
	wrote atomic.Int64
}

// Write implements io.Writer.
func (l *link) Write(b []byte) (int, error) {
	n, err := l.Conn.Write(b)
	l.wrote.Add(int64(n))
	return n, err
}

// CloseWrite tells the replica that nothing more comes.
func (l *link) CloseWrite() error { return closeWrite(l.Conn) }

// reach remembers which connection a request got, and how much had been written
// to it before. The transport tells of it before RoundTrip returns.
type reach struct {
	mu     sync.Mutex
	link   *link
	before int64
}

func (s *reach) got(info httptrace.GotConnInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := info.Conn.(*link); ok {
		s.link, s.before = l, l.wrote.Load()
	}
}

// nothing reports whether no byte of the request has left. Requests that share
// a connection look as if it had, which is the safe side.
func (s *reach) nothing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link != nil && s.link.wrote.Load() == s.before
}

// part is a body as one attempt sees it: closing it leaves the body open for
// the next attempt, which may have it if this one never began to read.
type part struct {
	body io.ReadCloser

	mu    sync.Mutex
	begun bool
	over  bool
}

func newPart(body io.ReadCloser) *part { return &part{body: body} }

// Read implements io.Reader.
func (p *part) Read(b []byte) (int, error) {
	p.mu.Lock()
	if p.over {
		p.mu.Unlock()
		return 0, http.ErrBodyReadAfterClose
	}
	p.begun = true
	p.mu.Unlock()
	return p.body.Read(b)
}

// Close implements io.Closer.
func (p *part) Close() error {
	p.cut()
	return nil
}

// cut lets the attempt read no more, and reports whether it ever did.
func (p *part) cut() (begun bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	return p.begun
}

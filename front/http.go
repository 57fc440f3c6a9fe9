package front

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// exchangeKey is the key of a context's exchange.
type exchangeKey struct{}

// exchange is one request on its way through the front.
type exchange struct {
	began time.Time
	want  wish
	lease *lease // the last one it had, or nil
	whole bool   // the response went to its end
}

// ServeHTTP brings the request to a replica and the response back, and measures it.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect {
		http.Error(w, "this is no proxy for CONNECT", http.StatusMethodNotAllowed)
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	x := &exchange{began: time.Now(), want: wish{cancel: cancel}}
	if c, err := r.Cookie(f.o.Sticky); f.o.Sticky != "" && err == nil {
		x.want.sticky = c.Value
	}
	answer := &recorder{ResponseWriter: w, control: http.NewResponseController(w), stall: f.o.Limits.Stall}
	in := r.WithContext(context.WithValue(ctx, exchangeKey{}, x))
	if r.Body != nil && r.Body != http.NoBody {
		body := &upload{ReadCloser: r.Body, control: answer.control, stall: f.o.Limits.Stall}
		in.Body = body
		defer body.abandon()
	}
	f.meter.begin()
	defer func() { f.finish(x, r, answer) }() // also when the proxy gives up by a panic
	f.proxy.ServeHTTP(answer, in)
	x.whole = true
}

// finish gives the replica's place back and counts the request.
func (f *Front) finish(x *exchange, r *http.Request, answer *recorder) {
	now := time.Now()
	left := r.Context().Err() != nil // the client has gone
	e := event{method: r.Method, status: answer.status, took: now.Sub(x.began)}
	if x.lease != nil {
		e.replica = x.lease.replica.label()
		if !x.whole && !left {
			x.lease.fail("it breaks off", mostFailures, now)
		}
		x.lease.done(now)
	}
	switch {
	case answer.status == http.StatusSwitchingProtocols:
		e.took = answer.headed.Sub(x.began) // what follows is no response
	case left && (!x.whole || answer.status == 0 || answer.status == statusLeft):
		e.left = true
	case !x.whole:
		e.broken = true
	}
	f.meter.end(e)
}

// statusLeft is what is counted for a client who went away before the response
// began. Nobody gets it (nginx has the same number).
const statusLeft = 499

func newProxy(f *Front) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport:      f,
		Rewrite:        rewrite,
		ModifyResponse: f.stick,
		ErrorHandler:   f.refuse,
		BufferPool:     new(buffers),
		ErrorLog:       log.New(quietly{f}, "", 0),
	}
}

// rewrite makes the request that a replica gets. What says where the request
// came from is ours alone: nothing of it is taken over from outside, not even
// in a spelling that an application behind CGI would take for it.
func rewrite(r *httputil.ProxyRequest) {
	for name := range r.Out.Header {
		plain := strings.ReplaceAll(strings.ToLower(name), "_", "-")
		if plain == "forwarded" || plain == "x-real-ip" || strings.HasPrefix(plain, "x-forwarded") {
			delete(r.Out.Header, name)
		}
	}
	r.SetXForwarded()
	r.Out.Header.Set("Forwarded", forwarded(r.In))
	r.Out.URL.Scheme, r.Out.URL.Host = "http", "replica.invalid"
	r.Out.URL.RawQuery = r.In.URL.RawQuery // as it came: replicas have their own idea of a query
	r.Out.Trailer = r.In.Trailer           // the very map: it is filled when the body has been read
}

// forwarded is the header's one element (RFC 7239, 4 and 6).
func forwarded(r *http.Request) string {
	from, proto := "unknown", "http"
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		from = host
		if strings.Contains(host, ":") {
			from = `"[` + host + `]"`
		}
	}
	if r.TLS != nil {
		proto = "https"
	}
	host := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(r.Host)
	return "for=" + from + `;host="` + host + `";proto=` + proto
}

// stick gives a client the cookie of its replica.
func (f *Front) stick(res *http.Response) error {
	x := res.Request.Context().Value(exchangeKey{}).(*exchange)
	if f.o.Sticky == "" || x.lease.replica.token == x.want.sticky {
		return nil
	}
	c := http.Cookie{Name: f.o.Sticky, Value: x.lease.replica.token, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: res.Request.Header.Get("X-Forwarded-Proto") == "https"}
	res.Header.Add("Set-Cookie", c.String())
	return nil
}

// refuse answers in place of a replica.
func (f *Front) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var unreached *dialError
	var tooLong *http.MaxBytesError
	say := func(status int, text string) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text + "\n"))
	}
	switch {
	case errors.Is(err, errQueue), errors.Is(err, errWait), errors.Is(err, errClosed), errors.As(err, &unreached):
		w.Header().Set("Retry-After", "1")
		say(http.StatusServiceUnavailable, "the service has no room for this request now; try again in a second")
	case errors.Is(err, errCut):
		w.Header().Set("Retry-After", "1")
		say(http.StatusServiceUnavailable, "the part of the service that worked on this request was stopped")
	case r.Context().Err() != nil:
		w.WriteHeader(statusLeft)
	case errors.As(err, &tooLong):
		say(http.StatusRequestEntityTooLarge, "the request is too long")
	case isTimeout(err):
		say(http.StatusGatewayTimeout, "the service did not answer in time")
	default:
		say(http.StatusBadGateway, "the service broke off before it answered")
	}
}

// cloneURL returns the URL with another host.
func cloneURL(u *url.URL, host string) *url.URL {
	c := *u
	c.Host = host
	return &c
}

// recorder remembers what was answered, and bounds how long a client may take
// none of it.
type recorder struct {
	http.ResponseWriter
	control *http.ResponseController
	stall   time.Duration
	status  int // 0 until there is one
	headed  time.Time
	left    int64     // bytes of the body, where its length is known
	bound   time.Time // when the write deadline was set last
}

// Unwrap lets an http.ResponseController through.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.status, w.headed = status, time.Now()
		w.left, _ = strconv.ParseInt(w.Header().Get("Content-Length"), 10, 64) // without one the proxy flushes
		w.extend(w.headed)
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer. What is not yet the whole body goes out at once:
// a slow replica's first half must not wait for its second.
func (w *recorder) Write(b []byte) (int, error) {
	w.extend(time.Now())
	n, err := w.ResponseWriter.Write(b)
	if w.left -= int64(n); w.left > 0 && err == nil {
		err = w.control.Flush()
	}
	return n, err
}

// Hijack hands the connection to the proxy, which does so after a replica
// answered 101 and then writes by itself.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.status, w.headed = http.StatusSwitchingProtocols, time.Now()
	return w.control.Hijack()
}

// extend lets a client stall from now on; each second is often enough.
func (w *recorder) extend(now time.Time) {
	if now.Sub(w.bound) > min(time.Second, w.stall/8) {
		w.bound = now
		_ = w.control.SetWriteDeadline(now.Add(w.stall)) // a writer without deadlines is a test's
	}
}

// upload is a request's body that may not stall for long.
type upload struct {
	io.ReadCloser
	control *http.ResponseController
	stall   time.Duration
	ended   atomic.Bool // a transport may read on after its request has ended
}

// Read implements io.Reader.
func (u *upload) Read(b []byte) (int, error) {
	_ = u.control.SetReadDeadline(time.Now().Add(u.stall))
	n, err := u.ReadCloser.Read(b)
	if err == io.EOF {
		u.ended.Store(true)
		// From here on the server reads to learn that the client has gone, which
		// may take as long as the response does.
		_ = u.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// abandon bounds how long the server waits for what no replica wanted of the body.
func (u *upload) abandon() {
	if !u.ended.Load() {
		_ = u.control.SetReadDeadline(time.Now().Add(u.stall))
	}
}

// buffers are the proxy's, for bodies.
type buffers struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (p *buffers) Get() []byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, 32<<10)
}

// Put implements httputil.BufferPool.
func (p *buffers) Put(b []byte) { p.pool.Put(&b) }

// quietly takes what net/http would write to the process's standard error:
// clients that break off are no news.
type quietly struct{ f *Front }

// Write implements io.Writer.
func (q quietly) Write(b []byte) (int, error) {
	q.f.o.Log.Debug("front", "service", q.f.o.Service, "said", strings.TrimSpace(string(b)))
	return len(b), nil
}

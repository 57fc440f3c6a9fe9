// Package front stands before the replicas of one service: it chooses one for
// each request, keeps away from what is dead or slow, and measures every
// request where its user is.
package front

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"sync"
	"time"

	"consort.dev/consort/fault"
)

// Options are what a Front is given.
type Options struct {
	Service string

	// Dial reaches a replica's port, as through the agent of its host. Its
	// error means that nothing was sent. ctx bounds the dialling only.
	Dial func(ctx context.Context, replica string, port int) (net.Conn, error)

	HTTP2      bool         // replicas speak HTTP/2 without TLS, as gRPC servers do
	Sticky     string       // name of a cookie that keeps a client on its replica; none when empty
	Probe      *Probe       // nil: replicas are ready when they are set
	Objectives []Objective  // counted to the event
	Limits     Limits       // zero values have defaults
	Minute     func(Minute) // told of every minute that has ended; may be nil
	Random     func(n int) int
	Log        *slog.Logger
}

// Replica is one machine's part of the service.
type Replica struct {
	Name string // passed to Dial
	Port int    // passed to Dial

	// Share bounds the part of all requests that it gets, as a canary does;
	// 0 is no bound. It gives way where no other replica can answer.
	Share float64

	// Leaving gives it nothing new; it has left when its Standing is draining
	// with nothing in flight.
	Leaving bool
}

// Objective is a bound on a response. A request is good when it ends within it
// with a status below 500; a client who leaves before the bound is not counted,
// and one who leaves after it is a bad request.
type Objective struct {
	Name  string
	Bound time.Duration
}

// Limits keep one client, one replica or one bad hour from taking everything.
type Limits struct {
	PerReplica int           // requests in flight on one replica; 0 is no bound
	Queue      int           // requests that wait for a replica; 1024
	Wait       time.Duration // how long one waits; 5 s
	Connect    time.Duration // to reach a replica; 3 s
	Head       time.Duration // for a client to send the head of a request; 10 s
	Answer     time.Duration // for a replica to begin its response; 60 s
	Stall      time.Duration // without a byte of a body, in either direction; 30 s
	Idle       time.Duration // of a client's connection between requests; 2 min
}

func (l Limits) withDefaults() Limits {
	or := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	if l.Queue == 0 {
		l.Queue = 1024
	}
	or(&l.Wait, 5*time.Second)
	or(&l.Connect, 3*time.Second)
	or(&l.Head, 10*time.Second)
	or(&l.Answer, time.Minute)
	or(&l.Stall, 30*time.Second)
	or(&l.Idle, 2*time.Minute)
	return l
}

// Front is the front of one service. It is an http.Handler, and safe for
// concurrent use.
type Front struct {
	o     Options
	pool  *pool
	meter *meter
	proxy *httputil.ReverseProxy

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	work sync.WaitGroup
}

// New returns a front without replicas. Close ends it.
func New(o Options) (*Front, error) {
	if o.Dial == nil || o.Service == "" {
		return nil, fault.Invalid.Errorf("front: give it the name of a service and a way to dial")
	}
	for _, ob := range o.Objectives {
		if ob.Name == "" || ob.Bound <= 0 {
			return nil, fault.Invalid.Errorf("front of %s: objective %q needs a name and a bound above 0", o.Service, ob.Name)
		}
	}
	o.Limits = o.Limits.withDefaults()
	if o.Probe != nil {
		p := o.Probe.withDefaults()
		o.Probe = &p
	}
	if o.Random == nil {
		o.Random = rand.IntN
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	f := &Front{o: o, pool: newPool(o), meter: newMeter(o.Objectives, time.Now())}
	f.ctx, f.stop = context.WithCancel(context.Background())
	f.proxy = newProxy(f)
	f.work.Go(f.tick)
	return f, nil
}

// Set makes these the replicas. One that is not among them any more gets no
// new request, and what it has in flight goes on until it ends; one that is
// there already keeps its history, and is no longer draining.
func (f *Front) Set(replicas []Replica) error {
	seen := map[string]bool{}
	for _, r := range replicas {
		if r.Name == "" || r.Port <= 0 || r.Port > 65535 || r.Share < 0 || r.Share > 1 || seen[r.Name] {
			return fault.Invalid.Errorf("front of %s: replica %q needs a name of its own, a port, and a share between 0 and 1", f.o.Service, r.Name)
		}
		seen[r.Name] = true
	}
	came, went := f.pool.set(replicas, time.Now(), f.newReplica)
	for _, r := range came {
		if f.o.Probe != nil {
			f.work.Go(func() { f.probe(r) })
		}
	}
	for _, r := range went {
		f.meter.forget(r.Name)
		r.transport.CloseIdleConnections()
	}
	return nil
}

// Drain gives the replica no new request and returns when those in flight have
// ended. When ctx ends first the rest is cut off, which is fault.Busy. A
// replica that is not there has drained.
func (f *Front) Drain(ctx context.Context, replica string) error {
	r, idle := f.pool.drain(replica)
	if r == nil {
		return nil
	}
	defer r.transport.CloseIdleConnections()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		if n := f.pool.cut(r, errCut); n > 0 {
			return fault.Busy.Errorf("drain replica %s of %s: %d requests had not ended and were cut off", replica, f.o.Service, n)
		}
		return nil
	}
}

// Close cuts off what is in flight, reports the last minute as far as it went,
// and returns when everything that the front started has ended.
func (f *Front) Close() {
	f.stop()
	for _, r := range f.pool.close() {
		f.pool.cut(r, errClosed)
		r.transport.CloseIdleConnections()
	}
	f.work.Wait()
	f.report(append(f.meter.roll(time.Now()), f.meter.last(time.Now())))
}

// newReplica gives a replica its own connections.
func (f *Front) newReplica(r Replica) *replica {
	port := r.Port
	speak := new(http.Protocols)
	speak.SetHTTP1(!f.o.HTTP2)
	speak.SetUnencryptedHTTP2(f.o.HTTP2)
	token := sha256.Sum256([]byte(f.o.Service + "\x00" + r.Name))
	return &replica{
		Replica: r, leases: map[*lease]struct{}{}, gone: make(chan struct{}),
		address: net.JoinHostPort("replica.invalid", strconv.Itoa(port)), // names nobody: Dial decides
		token:   hex.EncodeToString(token[:8]),
		transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return f.dial(ctx, r.Name, port)
			},
			Protocols:              speak,
			DisableCompression:     true, // a body passes as it is
			MaxIdleConnsPerHost:    1024,
			IdleConnTimeout:        30 * time.Second, // under what servers usually keep (60 s and more), so that we close first
			ResponseHeaderTimeout:  f.o.Limits.Answer,
			ExpectContinueTimeout:  5 * time.Second,
			MaxResponseHeaderBytes: 256 << 10,
		},
	}
}

// dial reaches a replica. Its error says that nothing was sent.
func (f *Front) dial(ctx context.Context, name string, port int) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, f.o.Limits.Connect)
	defer cancel()
	conn, err := f.o.Dial(ctx, name, port)
	if err != nil {
		return nil, &dialError{name, err}
	}
	return &link{Conn: conn}, nil
}

// tick looks at the replicas and reports minutes.
func (f *Front) tick() {
	for t := time.NewTicker(time.Second); ; {
		select {
		case <-f.ctx.Done():
			t.Stop()
			return
		case now := <-t.C:
			for _, e := range f.pool.sweep(now) {
				f.o.Log.Warn("a replica gets no requests for a while", "service", f.o.Service, "replica", e.replica, "because", e.why, "for", e.pause)
			}
			f.report(f.meter.roll(now))
		}
	}
}

func (f *Front) report(minutes []Minute) {
	if f.o.Minute == nil {
		return
	}
	for _, m := range minutes {
		f.o.Minute(m)
	}
}

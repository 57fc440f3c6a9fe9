// Package remote runs a presentation provider in another process. Each call is
// a connection of its own that begins with one line of JSON; a session has two
// more, one for each end.
package remote

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"sync"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/presentation/driver"
)

// secretBytes is the randomness a provider may use up for one secret.
const secretBytes = 64

// maxLine bounds a line of JSON; files for native viewers travel in one.
const maxLine = 1 << 20

// What a connection is for.
const (
	callDescribe = "describe"
	callFile     = "file"
	callSecret   = "secret"
	callServe    = "serve"
	callViewer   = "viewer"
	callMachine  = "machine"
)

// request is the first line of a connection.
type request struct {
	Call    string         `json:"call"`
	Session int64          `json:"session,omitempty"` // of a viewer's or machine's end
	Handoff driver.Handoff `json:"handoff,omitzero"`
	Random  []byte         `json:"random,omitempty"`
	Title   string         `json:"title,omitempty"`
	Secret  string         `json:"secret,omitempty"`
	Policy  driver.Policy  `json:"policy,omitzero"`
	Shut    bool           `json:"shut,omitempty"` // the machine has no identity of its own yet
}

// news is what a caller says of a session that is being served.
type news struct {
	Own bool `json:"own"` // the machine has an identity of its own now
}

// reply is a line of the answer. A session has one with its number, one for
// each event, and a last one that is Done.
type reply struct {
	Session  int64                    `json:"session,omitempty"`
	Event    *driver.Event            `json:"event,omitempty"`
	Done     bool                     `json:"done,omitempty"`
	Kind     string                   `json:"kind,omitempty"` // of Error
	Error    string                   `json:"error,omitempty"`
	Offer    estate.PresentationOffer `json:"offer,omitzero"`
	Secreter bool                     `json:"secreter,omitempty"`
	File     driver.File              `json:"file,omitzero"`
	Secret   string                   `json:"secret,omitempty"`
}

func (r *reply) fail(err error) {
	if err != nil {
		r.Kind, r.Error = fault.KindOf(err).String(), err.Error()
	}
}

func (r *reply) err() error {
	if r.Error == "" {
		return nil
	}
	return fault.Named(r.Kind).Errorf("%s", r.Error)
}

// line is a connection that speaks lines and then bytes.
type line struct {
	net.Conn
	r *bufio.Reader
}

func newLine(c net.Conn) *line { return &line{c, bufio.NewReader(c)} }

// Read implements io.Reader after the lines.
func (l *line) Read(b []byte) (int, error) { return l.r.Read(b) }

func (l *line) say(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fault.Internal.Errorf("write a line: %w", err)
	}
	_, err = l.Write(append(b, '\n'))
	return err
}

func (l *line) hear(v any) error {
	var b []byte
	for {
		part, err := l.r.ReadSlice('\n')
		b = append(b, part...)
		if err == nil {
			return json.Unmarshal(b, v)
		}
		if err != bufio.ErrBufferFull {
			return err
		}
		if len(b) > maxLine {
			return fault.Invalid.Errorf("line of more than %d bytes", maxLine)
		}
	}
}

// Serve answers calls to p on l until ctx ends, and closes l. Whoever can
// connect may call: l is a socket in a folder of the caller's own.
func Serve(ctx context.Context, l net.Listener, p driver.Provider) error {
	s := &server{provider: p, waiting: map[int64]*ends{}}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fault.Unavailable.Errorf("accept calls: %w", err)
		}
		wg.Go(func() { s.answer(ctx, newLine(c)) })
	}
}

type server struct {
	provider driver.Provider
	mu       sync.Mutex
	last     int64
	waiting  map[int64]*ends
}

// ends is a session whose ends are still to come.
type ends struct{ viewer, machine chan *line }

func (s *server) answer(ctx context.Context, l *line) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var q request
	if err := l.hear(&q); err != nil {
		_ = l.Close()
		return
	}
	if q.Call == callViewer || q.Call == callMachine {
		s.attach(q, l)
		return
	}
	defer l.Close()
	var a reply
	var err error
	switch q.Call {
	case callDescribe:
		_, a.Secreter = driver.As[driver.Secreter](s.provider)
		a.Offer, err = s.provider.Describe(ctx)
	case callFile:
		a.File, err = s.provider.File(ctx, q.Handoff)
	case callSecret:
		if secreter, ok := driver.As[driver.Secreter](s.provider); ok {
			a.Secret, err = secreter.NewSecret(bytes.NewReader(q.Random))
		} else {
			err = fault.Unsupported.Errorf("viewers show no secret")
		}
	case callServe:
		err = s.serve(ctx, q, l)
	default:
		err = fault.Invalid.Errorf("call %q", q.Call)
	}
	a.Done = true
	a.fail(err)
	_ = l.say(a) // the caller may be gone
}

// attach gives a session one of its ends; one that nobody waits for is closed.
func (s *server) attach(q request, l *line) {
	s.mu.Lock()
	e := s.waiting[q.Session]
	s.mu.Unlock()
	if e == nil {
		_ = l.Close()
		return
	}
	to := e.viewer
	if q.Call == callMachine {
		to = e.machine
	}
	select {
	case to <- l:
	default:
		_ = l.Close() // a second one
	}
}

func (s *server) serve(ctx context.Context, q request, l *line) error {
	e := &ends{make(chan *line, 1), make(chan *line, 1)}
	s.mu.Lock()
	s.last++
	id := s.last
	s.waiting[id] = e
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.waiting, id)
		s.mu.Unlock()
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := l.say(reply{Session: id}); err != nil {
		return err
	}
	var own chan struct{}
	if q.Shut {
		own = make(chan struct{})
	}
	go func() {
		defer cancel() // what ends the reads is that the caller left
		for n, shut := (news{}), q.Shut; l.hear(&n) == nil; {
			if n.Own && shut {
				close(own)
				shut = false
			}
		}
	}()
	var viewer, machine *line
	for viewer == nil || machine == nil {
		select {
		case viewer = <-e.viewer:
		case machine = <-e.machine:
		case <-ctx.Done():
			for _, c := range []*line{viewer, machine} {
				if c != nil {
					_ = c.Close()
				}
			}
			return ctx.Err()
		}
	}
	return s.provider.Serve(ctx, driver.Session{
		Viewer: viewer, Machine: machine, Title: q.Title, Secret: q.Secret, Policy: q.Policy, Own: own,
		Report: func(e driver.Event) { _ = l.say(reply{Event: &e}) },
	})
}

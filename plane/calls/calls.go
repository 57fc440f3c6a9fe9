// Package calls lets the plane reach a machine through the agent of its
// hypervisor: the plane calls, the agent answers with a tunnel. Agents are
// never dialled.
package calls

import (
	"context"
	"encoding/hex"
	"io"
	"net"
	"sync"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/fault"
)

// answerLimit is how long an agent has to open a tunnel.
const answerLimit = 30 * time.Second

// comeback is how long one may wait for an agent that does not listen: one that
// has lost its plane tries again every 5 s at the latest.
const comeback = 6 * time.Second

// Broker brings callers and agents together. It is safe for concurrent use.
type Broker struct {
	random io.Reader

	mu      sync.Mutex
	lines   map[string]*line // by hypervisor
	came    chan struct{}    // closed when the next agent listens
	waiting map[string]*wait // by call
}

// line is one agent that listens for calls.
type line struct {
	calls chan api.Call
	ended chan struct{}
}

// wait is one caller whose tunnel is not there yet.
type wait struct {
	hypervisor string
	conn       chan net.Conn // unbuffered: a tunnel is handed over or closed
	refused    chan error    // holds the agent's reason
	ended      chan struct{} // the caller has gone
}

// New returns a broker that draws the names of calls from the random source.
func New(random io.Reader) *Broker {
	return &Broker{random: random, lines: map[string]*line{}, came: make(chan struct{}), waiting: map[string]*wait{}}
}

// Await returns when the hypervisor's agent listens, or when it is not worth
// waiting for any more. For callers who would rather wait than be refused: after
// a cut link, or at the plane's beginning, agents are about to come back.
func (b *Broker) Await(ctx context.Context, hypervisor string) {
	ctx, cancel := context.WithTimeout(ctx, comeback)
	defer cancel()
	for {
		b.mu.Lock()
		l, came := b.lines[hypervisor], b.came
		b.mu.Unlock()
		if l != nil {
			return
		}
		select {
		case <-came:
		case <-ctx.Done():
			return
		}
	}
}

// Dial calls the agent of the hypervisor and returns the tunnel it opens. The
// call's ID is chosen here. An agent that refuses gives the error; one that
// does not listen, goes away before it answers, or takes half a minute is
// fault.Unavailable; so is the end of ctx.
func (b *Broker) Dial(ctx context.Context, hypervisor string, call api.Call) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerLimit, fault.Unavailable.Errorf("nothing came in %s", answerLimit))
	defer cancel()
	var id [16]byte
	if _, err := io.ReadFull(b.random, id[:]); err != nil {
		return nil, fault.Internal.Errorf("name a call: %w", err)
	}
	call.ID = hex.EncodeToString(id[:])
	w := &wait{hypervisor, make(chan net.Conn), make(chan error, 1), make(chan struct{})}
	b.mu.Lock()
	l := b.lines[hypervisor]
	if l != nil {
		b.waiting[call.ID] = w
	}
	b.mu.Unlock()
	if l == nil {
		return nil, fault.Unavailable.Errorf("%s: the agent of hypervisor %s is not connected; see whether it runs", aim(call), hypervisor)
	}
	defer func() {
		b.mu.Lock()
		delete(b.waiting, call.ID)
		b.mu.Unlock()
		close(w.ended)
	}()
	told := l.calls
	for {
		select {
		case told <- call:
			told = nil
		case conn := <-w.conn:
			return conn, nil
		case err := <-w.refused:
			return nil, fault.KindOf(err).Errorf("%s: %w", aim(call), err)
		case <-l.ended:
			return nil, fault.Unavailable.Errorf("%s: the agent of hypervisor %s went away; try again", aim(call), hypervisor)
		case <-ctx.Done():
			return nil, fault.Unavailable.Errorf("%s: the agent of hypervisor %s did not answer: %w", aim(call), hypervisor, context.Cause(ctx))
		}
	}
}

// aim says what a call is for.
func aim(c api.Call) string {
	if c.Machine == "" {
		return "call for " + string(c.Verb)
	}
	return "reach machine " + string(c.Machine)
}

// Listen passes the calls for the hypervisor on to send until ctx ends or send
// fails. One agent listens at a time: a newer Listen ends an older one, which
// is fault.Conflict.
func (b *Broker) Listen(ctx context.Context, hypervisor string, send func(api.Call) error) error {
	l := &line{calls: make(chan api.Call), ended: make(chan struct{})}
	b.mu.Lock()
	if old := b.lines[hypervisor]; old != nil {
		close(old.ended)
	}
	b.lines[hypervisor] = l
	close(b.came)
	b.came = make(chan struct{})
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.lines[hypervisor] == l {
			delete(b.lines, hypervisor)
			close(l.ended)
		}
	}()
	for {
		select {
		case c := <-l.calls:
			if err := send(c); err != nil {
				return err
			}
		case <-l.ended:
			return fault.Conflict.Errorf("listen for calls to hypervisor %s: another agent took over", hypervisor)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Listening reports whether the hypervisor's agent listens for calls.
func (b *Broker) Listening(hypervisor string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines[hypervisor] != nil
}

// Answer takes the call for the hypervisor's agent: the function it returns
// hands the tunnel over, or closes it when the caller has gone. A call is taken
// once; one that does not wait, or waits for another hypervisor's agent, is
// fault.NotFound.
func (b *Broker) Answer(hypervisor, id string) (func(net.Conn), error) {
	w, err := b.take(hypervisor, id)
	if err != nil {
		return nil, err
	}
	return func(conn net.Conn) {
		select {
		case w.conn <- conn:
		case <-w.ended:
			conn.Close()
		}
	}, nil
}

// Refuse tells the caller why there will be no tunnel. Like Answer it takes the
// call, once.
func (b *Broker) Refuse(hypervisor, id string, why error) error {
	w, err := b.take(hypervisor, id)
	if err == nil {
		w.refused <- why
	}
	return err
}

// take returns the call that waits, and lets nobody else have it.
func (b *Broker) take(hypervisor, id string) (*wait, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.waiting[id]
	if w == nil || w.hypervisor != hypervisor {
		return nil, fault.NotFound.Errorf("answer a call: no call of that name waits for the agent of hypervisor %s", hypervisor)
	}
	delete(b.waiting, id)
	return w, nil
}

// Whose returns the hypervisor whose agent the call waits for, or "".
func (b *Broker) Whose(id string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w := b.waiting[id]; w != nil {
		return w.hypervisor
	}
	return ""
}

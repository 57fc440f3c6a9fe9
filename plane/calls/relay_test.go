package calls

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net"
	"testing"

	"consort.dev/consort/api"
	"consort.dev/consort/fault"
)

// loopback returns the two ends of a TCP connection: a pipe has no half-close.
func loopback(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// agentOf serves the calls of a hypervisor until the test ends.
func agentOf(t *testing.T, b *Broker, hypervisor string, serve func(net.Conn)) {
	t.Helper()
	got, end, cancel := listen(t, b, hypervisor)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case c := <-got:
				give, err := b.Answer(hypervisor, c.ID)
				if err != nil {
					continue
				}
				near, far := loopback(t)
				give(near)
				serve(far)
				far.Close()
			case <-end:
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

func answerWith(c net.Conn, err error) {
	r := api.StartReply{}
	if err != nil {
		r.Error = api.NewProblem(err)
	}
	_ = json.NewEncoder(c).Encode(r)
}

func legs() (from, to Leg) {
	return Leg{"a", api.Call{Verb: "send"}}, Leg{"b", api.Call{Verb: "receive"}}
}

func TestARelayCarriesAllAndReturnsTheReceiversWord(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	b := New(rand.Reader)
	agentOf(t, b, "a", func(c net.Conn) { c.Write(data) })
	var got []byte
	agentOf(t, b, "b", func(c net.Conn) {
		got, _ = io.ReadAll(c)
		answerWith(c, nil)
	})
	from, to := legs()
	var total int64
	if err := b.Relay(t.Context(), from, to, func(n int64) { total = n }); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) || total != int64(len(data)) {
		t.Errorf("the receiver got %d bytes, %d were told; want %d", len(got), total, len(data))
	}
}

func TestARelayFailsAsTheReceiverSays(t *testing.T) {
	for name, early := range map[string]bool{"at the end": false, "half-way": true} {
		t.Run(name, func(t *testing.T) {
			b := New(rand.Reader)
			agentOf(t, b, "a", func(c net.Conn) { c.Write(make([]byte, 32<<20)) })
			agentOf(t, b, "b", func(c net.Conn) {
				if !early {
					_, _ = io.Copy(io.Discard, c)
				}
				answerWith(c, fault.NoCapacity.Errorf("the disk is full"))
			})
			from, to := legs()
			err := b.Relay(t.Context(), from, to, nil)
			if !early && !errors.Is(err, fault.NoCapacity) {
				t.Errorf("got %v, want the receiver's reason", err)
			}
			// Its word may be lost when it hangs up while bytes still come.
			if early && !errors.Is(err, fault.NoCapacity) && !errors.Is(err, fault.Unavailable) {
				t.Errorf("got %v, want the receiver's reason, or unavailable", err)
			}
		})
	}
}

func TestARelayWithoutAWordFromTheReceiverHasFailed(t *testing.T) {
	b := New(rand.Reader)
	agentOf(t, b, "a", func(c net.Conn) { c.Write([]byte("data")) })
	agentOf(t, b, "b", func(c net.Conn) { _, _ = io.ReadAll(c) })
	from, to := legs()
	if err := b.Relay(t.Context(), from, to, nil); !errors.Is(err, fault.Unavailable) {
		t.Errorf("got %v, want unavailable", err)
	}
}

func TestARelayEndsWithItsContext(t *testing.T) {
	b := New(rand.Reader)
	hold := make(chan struct{})
	agentOf(t, b, "a", func(c net.Conn) { <-hold })
	agentOf(t, b, "b", func(c net.Conn) { _, _ = io.ReadAll(c) })
	ctx, cancel := context.WithCancel(t.Context())
	from, to := legs()
	done := make(chan error, 1)
	go func() { done <- b.Relay(ctx, from, to, nil) }()
	cancel()
	if err := <-done; !errors.Is(err, fault.Unavailable) {
		t.Errorf("got %v, want unavailable", err)
	}
	close(hold)
}

func TestARelayToNobodyBeginsNothing(t *testing.T) {
	b := New(rand.Reader)
	called := false
	agentOf(t, b, "a", func(net.Conn) { called = true })
	from, to := legs()
	if err := b.Relay(t.Context(), from, to, nil); !errors.Is(err, fault.Unavailable) || called {
		t.Errorf("got %v, and the sender was called: %v; want unavailable and no call", err, called)
	}
}

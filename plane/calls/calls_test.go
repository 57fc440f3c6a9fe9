package calls

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"consort.dev/consort/api"
	"consort.dev/consort/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// listen starts an agent and returns its calls and its end.
func listen(t *testing.T, b *Broker, hypervisor string) (<-chan api.Call, <-chan error, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	got, end := make(chan api.Call, 16), make(chan error, 1)
	go func() {
		end <- b.Listen(ctx, hypervisor, func(c api.Call) error { got <- c; return nil })
	}()
	for deadline := time.Now().Add(5 * time.Second); !b.Listening(hypervisor); {
		if time.Now().After(deadline) {
			t.Fatal("the agent never listened")
		}
	}
	return got, end, cancel
}

func TestACallIsAnsweredOnceAndOnlyByItsHypervisor(t *testing.T) {
	b := New(rand.Reader)
	got, end, cancel := listen(t, b, "a")
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, err := b.Dial(t.Context(), "a", api.Call{Verb: api.CallDisplay, Machine: "m"})
		done <- result{conn, err}
	}()
	call := <-got
	if _, err := b.Answer("b", call.ID); !errors.Is(err, fault.NotFound) {
		t.Errorf("another hypervisor's answer: got %v, want not-found", err)
	}
	give, err := b.Answer("a", call.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Answer("a", call.ID); !errors.Is(err, fault.NotFound) {
		t.Errorf("second answer: got %v, want not-found", err)
	}
	mine, theirs := net.Pipe()
	give(mine)
	if r := <-done; r.err != nil || r.conn != mine {
		t.Errorf("dial: got %v, %v; want the tunnel", r.conn, r.err)
	}
	theirs.Close()
	cancel()
	<-end
}

func TestDialWithoutAnAgentIsUnavailableAtOnce(t *testing.T) {
	_, err := New(rand.Reader).Dial(t.Context(), "a", api.Call{})
	if !errors.Is(err, fault.Unavailable) {
		t.Errorf("got %v, want unavailable", err)
	}
}

func TestAwaitReturnsOnceTheAgentListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(rand.Reader)
		ctx, cancel := context.WithCancel(t.Context())
		began, done := time.Now(), make(chan time.Duration, 1)
		go func() { b.Await(ctx, "a"); done <- time.Since(began) }()
		go func() { _ = b.Listen(ctx, "other", nil) }()
		time.Sleep(time.Second) // of the bubble's clock
		go func() { _ = b.Listen(ctx, "a", nil) }()
		if took := <-done; took != time.Second {
			t.Errorf("waited %s for an agent that listens after 1s", took)
		}
		began = time.Now()
		b.Await(ctx, "a")
		b.Await(ctx, "never")
		if took := time.Since(began); took != comeback {
			t.Errorf("waited %s for one that listens and one that never does, want %s", took, comeback)
		}
		cancel()
	})
}

func TestDialEndsWhenTheAgentGoesAway(t *testing.T) {
	b := New(rand.Reader)
	got, end, cancel := listen(t, b, "a")
	done := make(chan error, 1)
	go func() {
		_, err := b.Dial(t.Context(), "a", api.Call{})
		done <- err
	}()
	<-got
	cancel()
	<-end
	if err := <-done; !errors.Is(err, fault.Unavailable) {
		t.Errorf("got %v, want unavailable", err)
	}
}

func TestARefusedCallGivesTheAgentsReason(t *testing.T) {
	b := New(rand.Reader)
	got, end, cancel := listen(t, b, "a")
	done := make(chan error, 1)
	go func() {
		_, err := b.Dial(t.Context(), "a", api.Call{Machine: "m"})
		done <- err
	}()
	call := <-got
	if err := b.Refuse("b", call.ID, fault.Busy); !errors.Is(err, fault.NotFound) {
		t.Errorf("another hypervisor refuses: got %v, want not-found", err)
	}
	if err := b.Refuse("a", call.ID, fault.Conflict.Errorf("it is off")); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, fault.Conflict) || err.Error() != "reach machine m: it is off" {
		t.Errorf("got %v, want the agent's reason", err)
	}
	if err := b.Refuse("a", call.ID, fault.Busy); !errors.Is(err, fault.NotFound) {
		t.Errorf("twice: got %v, want not-found", err)
	}
	cancel()
	<-end
}

func TestATunnelForACallerWhoHasGoneIsClosed(t *testing.T) {
	b := New(rand.Reader)
	got, end, cancel := listen(t, b, "a")
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := b.Dial(ctx, "a", api.Call{})
		done <- err
	}()
	give, err := b.Answer("a", (<-got).ID)
	if err != nil {
		t.Fatal(err)
	}
	leave()
	<-done
	mine, theirs := net.Pipe()
	give(mine)
	if _, err := theirs.Read(make([]byte, 1)); err == nil {
		t.Error("the tunnel is still open")
	}
	theirs.Close()
	cancel()
	<-end
}

func TestANewerAgentTakesOver(t *testing.T) {
	b := New(rand.Reader)
	_, first, cancel1 := listen(t, b, "a")
	defer cancel1()
	ctx, cancel2 := context.WithCancel(t.Context())
	got, second := make(chan api.Call, 1), make(chan error, 1)
	go func() {
		second <- b.Listen(ctx, "a", func(c api.Call) error { got <- c; return nil })
	}()
	if err := <-first; !errors.Is(err, fault.Conflict) {
		t.Errorf("the older agent: got %v, want conflict", err)
	}
	dial, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := b.Dial(dial, "a", api.Call{})
		done <- err
	}()
	<-got
	stop()
	<-done
	cancel2()
	<-second
}

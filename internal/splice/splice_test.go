package splice_test

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"

	"consort.dev/consort/internal/splice"
)

// joined returns the outer ends of a join, and what is closed when it is over.
func joined(ctx context.Context) (left, right net.Conn, over chan struct{}) {
	left, a := net.Pipe()
	b, right := net.Pipe()
	over = make(chan struct{})
	go func() {
		defer close(over)
		splice.Join(ctx, a, b)
	}()
	return left, right, over
}

func TestBytesGoBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left, right, over := joined(t.Context())
		for _, way := range [][2]net.Conn{{left, right}, {right, left}} {
			go way[0].Write([]byte("word"))
			got := make([]byte, 4)
			if _, err := io.ReadFull(way[1], got); err != nil || string(got) != "word" {
				t.Errorf("read %q, %v; want word", got, err)
			}
		}
		left.Close()
		<-over
	})
}

func TestTheEndOfOneSideIsTheEndOfBoth(t *testing.T) {
	for _, right := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			one, other, over := joined(t.Context())
			if right {
				one, other = other, one
			}
			go func() {
				one.Write([]byte("last words"))
				one.Close()
			}()
			got, err := io.ReadAll(other)
			if err != nil || string(got) != "last words" {
				t.Errorf("read %q, %v; want the last words", got, err)
			}
			<-over
		})
	}
}

func TestTheContextEndsAJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		left, right, over := joined(ctx)
		cancel()
		<-over
		for _, c := range []net.Conn{left, right} {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("read after the end: %v, want EOF", err)
			}
		}
	})
}

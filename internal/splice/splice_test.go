package splice_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"runtime"
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

// Much goes through whole, in reads of any size, and a join that has become idle
// keeps nothing of it.
func TestAJoinIsSmallAgainAfterMuch(t *testing.T) {
	const joins, much = 100, 1 << 20
	used := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse + m.StackInuse)
	}
	sent := make([]byte, much)
	for i := range sent {
		sent[i] = byte(i * 7 >> 3)
	}
	got := make([]byte, much)
	ends := make([]net.Conn, 0, 2*joins)
	before := used()
	for i := range joins {
		left, right, over := joined(t.Context())
		ends = append(ends, left, right)
		defer func() { <-over }()
		go left.Write(sent)
		if _, err := io.ReadFull(right, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("join %d: what came is not what was sent: %v", i, err)
		}
		if _, err := left.Write([]byte("w")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(right, got[:1]); err != nil || got[0] != 'w' {
			t.Fatalf("join %d: read %q, %v; want the word after", i, got[0], err)
		}
	}
	each := (used() - before) / joins
	t.Logf("%d KiB for an idle join", each>>10)
	if each > 32<<10 {
		t.Errorf("an idle join takes %d KiB, want at most 32", each>>10)
	}
	runtime.KeepAlive(sent)
	runtime.KeepAlive(got)
	for _, c := range ends {
		c.Close()
	}
}

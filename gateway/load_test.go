package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/plane/store/etcd"
)

// The same race on a real engine.
func TestOneRedeemerWinsOnEmbeddedEtcd(t *testing.T) {
	if testing.Short() {
		t.Skip("starts an etcd")
	}
	dir, err := os.MkdirTemp("", "gw") // a short path, for its sockets
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	kv, err := etcd.Embed(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer kv.Close()
	w := newWorld(t)
	w.tickets.kv = kv
	s := w.session(t, "one")
	for range 5 {
		ticket := w.ticket(t, s)
		if n := race(200, func() error { _, err := w.tickets.redeem(context.Background(), ticket); return err }); n != 1 {
			t.Fatalf("winners = %d, want 1", n)
		}
	}
}

// TestIdleSessionsAreSmall opens many sessions, past their first frame, and
// wants at most 100 KiB of memory for each, besides what its viewer and its screen
// take, which are played in this process too.
func TestIdleSessionsAreSmall(t *testing.T) {
	if testing.Short() {
		t.Skip("measures memory, which the race detector takes for itself")
	}
	w := newWorld(t)
	s := w.session(t, "one")
	alone := held(t, func() net.Conn { return screen(t) })
	through := held(t, func() net.Conn {
		c, _, err := w.dial(w.ticket(t, s), nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	})
	eventually(t, "all left", func() bool { return w.Opened() == 0 })
	each := (through - alone) >> 10
	t.Logf("%d KiB for an idle session, besides %d for its viewer and its screen", each, alone>>10)
	if each > 100 {
		t.Errorf("an idle session takes %d KiB, want at most 100", each)
	}
}

// held returns how much memory each of many viewers takes that have their first
// frame and do nothing.
func held(t *testing.T, dial func() net.Conn) int64 {
	t.Helper()
	const n = 200
	used := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse + m.StackInuse)
	}
	viewers := make([]*rfb.Client, 0, n)
	before := used()
	for range n {
		c := dial()
		defer c.Close()
		v, err := look(c, rfb.Proof{})
		if err != nil {
			t.Fatal(err)
		}
		viewers = append(viewers, v)
	}
	each := (used() - before) / int64(n)
	runtime.KeepAlive(viewers)
	return each
}

// Many who knock without a ticket, or stop in the middle, cost others nothing.
func TestKnockingWithoutATicketDelaysNobody(t *testing.T) {
	w := newWorld(t)
	host := strings.TrimPrefix(w.web.URL, "http://")
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var refused, halves atomic.Int64
	for range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				c, err := net.Dial("tcp", host)
				if err != nil {
					continue
				}
				fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", api.TunnelPath, host)
				if i%2 == 0 { // stops in the middle
					halves.Add(1)
					c.Close()
					continue
				}
				fmt.Fprintf(c, "Sec-WebSocket-Protocol: %s, %s%s\r\n\r\n", api.TunnelProtocol, api.TicketProtocol, strings.Repeat("A", 43))
				if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil && resp.StatusCode == http.StatusForbidden {
					refused.Add(1)
					_, _ = io.Copy(io.Discard, resp.Body)
				}
				c.Close()
			}
		})
	}
	s := w.session(t, "one")
	worst := time.Duration(0)
	for range 20 {
		began := time.Now()
		c, _, err := w.dial(w.ticket(t, s), nil)
		if err == nil {
			_, err = look(c, rfb.Proof{})
		}
		if err != nil {
			t.Fatal(err)
		}
		worst = max(worst, time.Since(began))
		c.Close()
	}
	close(stop)
	wg.Wait()
	t.Logf("%d refused, %d half open; worst opening beside them %v", refused.Load(), halves.Load(), worst)
	if worst > 3*time.Second {
		t.Errorf("opening took %v beside those who knock", worst)
	}
	if refused.Load() == 0 || w.Opened() > 1 {
		t.Errorf("refused %d, open %d", refused.Load(), w.Opened())
	}
}

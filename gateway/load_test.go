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
// wants at most 160 KiB of memory for each: 100 for the gateway's half of this
// process, the rest for the viewers and screens that are played in it too.
func TestIdleSessionsAreSmall(t *testing.T) {
	w := newWorld(t)
	s := w.session(t, "one")
	n := 100
	if testing.Short() {
		n = 20
	}
	used := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	viewers := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range viewers {
			c.Close()
		}
		eventually(t, "all left", func() bool { return w.Opened() == 0 })
	}()
	before := used()
	for range n {
		c, _, err := w.dial(w.ticket(t, s), nil)
		if err != nil {
			t.Fatal(err)
		}
		viewers = append(viewers, c)
		if _, err := look(c, rfb.Proof{}); err != nil {
			t.Fatal(err)
		}
	}
	each := (used() - before) / uint64(n)
	t.Logf("%d KiB for an idle session, its viewer and its screen", each>>10)
	if each > 160<<10 {
		t.Errorf("an idle session takes %d KiB, want at most 160", each>>10)
	}
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

package vnc_test

import (
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/presentation/driver"
)

// keyToFrame measures the time from a key to the next picture, in milliseconds.
func keyToFrame(t *testing.T, conn net.Conn, n int) []float64 {
	t.Helper()
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	c, err := rfb.NewClient(conn, rfb.Proof{}, rfb.ZRLE, rfb.DesktopSize)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Request(false); err != nil {
		t.Fatal(err)
	}
	until(t, c, true, func(p [3]byte) bool { return p != [3]byte{} })
	var out []float64
	for i := range n {
		time.Sleep(time.Duration(150+rand.IntN(200)) * time.Millisecond)
		was := centre(c)
		began := time.Now()
		if err := c.Type(string(rune('a' + i%20))); err != nil {
			t.Fatal(err)
		}
		until(t, c, true, func(p [3]byte) bool { return p != was })
		out = append(out, float64(time.Since(began).Microseconds())/1000)
	}
	slices.Sort(out)
	return out
}

// TestTheMachineIsKeptAwake compares the time from a key to its picture with
// and without the relay: the relay must be faster than the machine alone.
func TestTheMachineIsKeptAwake(t *testing.T) {
	n := 15
	if os.Getenv("KEYS") != "" {
		n = 150
	}
	alone := keyToFrame(t, dial(t, boot(t)), n)
	s := serve(t, dial(t, boot(t)), driver.Session{})
	relayed := keyToFrame(t, s.viewer, n)
	t.Logf("key to picture: alone p50 %.1f p90 %.1f ms, relayed p50 %.1f p90 %.1f ms",
		alone[n/2], alone[n*9/10], relayed[n/2], relayed[n*9/10])
	if relayed[n/2] > alone[n/2]*2/3 {
		t.Errorf("relayed p50 = %.1f ms, want at most two thirds of %.1f", relayed[n/2], alone[n/2])
	}
}

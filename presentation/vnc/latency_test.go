package vnc_test

import (
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/presentation/driver"
)

// BenchmarkKeyToPicture is the time from a key to the picture it changes, with
// QEMU alone and through the relay, which keeps the machine awake. The pauses of
// somebody who types are not counted.
func BenchmarkKeyToPicture(b *testing.B) {
	b.Run("alone", func(b *testing.B) { keyToPicture(b, dial(b, boot(b))) })
	b.Run("relayed", func(b *testing.B) { keyToPicture(b, serve(b, dial(b, boot(b)), driver.Session{}).viewer) })
}

func keyToPicture(b *testing.B, conn net.Conn) {
	c, err := rfb.NewClient(conn, rfb.Proof{}, rfb.ZRLE, rfb.DesktopSize)
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Request(false); err != nil {
		b.Fatal(err)
	}
	until(b, c, true, func(p [3]byte) bool { return p != [3]byte{} })
	random := rand.New(rand.NewPCG(1, 1))
	b.ResetTimer()
	for i := range b.N {
		b.StopTimer()
		<-time.After(time.Duration(150+random.IntN(200)) * time.Millisecond)
		was := centre(c)
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		b.StartTimer()
		if err := c.Type(string(rune('a' + i%20))); err != nil {
			b.Fatal(err)
		}
		until(b, c, true, func(p [3]byte) bool { return p != was })
	}
}

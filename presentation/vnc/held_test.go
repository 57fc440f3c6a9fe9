package vnc_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/presentation/driver"
)

// scanSector fills the screen with the colour that has the number of the last
// byte that came from the keyboard, key releases too, but for prefixes: mode 13h,
// cli, poll port 0x64, read port 0x60, rep stosb, again.
var scanSector = []byte{
	0xb8, 0x13, 0x00, 0xcd, 0x10, 0xb8, 0x00, 0xa0, 0x8e, 0xc0, 0xfa, 0xb0, 0x01, 0x31, 0xff, 0xb9, 0x00,
	0xfa, 0xf3, 0xaa, 0xe4, 0x64, 0xa8, 0x01, 0x74, 0xfa, 0xe4, 0x60, 0x3c, 0xe0, 0x74, 0xf4, 0xeb, 0xeb,
}

// A key that is held stays down in a real guest while the relay keeps the machine
// awake, whatever form of keys the viewer speaks. QEMU takes the release of
// VoidSymbol for one of Delete.
func TestAHeldKeyStaysDown(t *testing.T) {
	const deleteKey, deleteCode = 0xffff, 0xd3
	for name, c := range map[string]struct {
		encodings []rfb.Encoding
		key       rfb.Key
	}{
		"by symbol": {[]rfb.Encoding{rfb.ZRLE, rfb.DesktopSize}, rfb.Key{Down: true, Sym: deleteKey}},
		"by code":   {[]rfb.Encoding{rfb.ZRLE, rfb.DesktopSize, rfb.ExtendedKey}, rfb.Key{Down: true, Sym: deleteKey, Code: deleteCode}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, dial(t, bootFrom(t, scanSector)), driver.Session{})
			s.viewer.SetDeadline(time.Now().Add(20 * time.Second))
			v, err := rfb.NewClient(s.viewer, rfb.Proof{}, c.encodings...)
			if err != nil {
				t.Fatal(err)
			}
			if err := v.Request(false); err != nil {
				t.Fatal(err)
			}
			until(t, v, true, func(p [3]byte) bool { return p == blue })
			if err := v.Send(c.key); err != nil {
				t.Fatal(err)
			}
			until(t, v, true, func(p [3]byte) bool { return p != blue })
			held := centre(v)

			// Twenty nudges, of which the guest must see none.
			s.viewer.SetDeadline(time.Now().Add(500 * time.Millisecond))
			for err == nil {
				if err = v.Request(true); err == nil {
					err = v.NextFrame()
				}
				if got := centre(v); got != held {
					t.Fatalf("the guest saw the colour %v after %v: the key was released", got, held)
				}
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			s.viewer.SetDeadline(time.Now().Add(20 * time.Second))
			up := c.key
			up.Down = false
			if err := v.Send(up); err != nil {
				t.Fatal(err)
			}
			until(t, v, false, func(p [3]byte) bool { return p != held })
		})
	}
}

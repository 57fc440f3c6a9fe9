// Package picture looks at a desktop as a viewer does.
package picture

import (
	"errors"
	"io"

	"consort.dev/consort/internal/rfb"
)

// FirstFrame reads one whole picture, which must show the desktop. It asks for an
// encoding that takes neither side much time: what is compressed takes QEMU longer
// than the host's socket, and so does what is not.
func FirstFrame(conn io.ReadWriteCloser) error {
	c, err := rfb.NewClient(conn, rfb.Proof{}, rfb.Hextile, rfb.Raw, rfb.DesktopSize)
	if err != nil {
		return err
	}
	if err := errors.Join(c.Request(false), c.Send(rfb.Key{Sym: nobodys})); err != nil {
		return err
	}
	if err := c.NextFrame(); err != nil {
		return err
	}
	if !drawn(c) {
		return errors.New("the first frame shows no desktop")
	}
	return nil
}

// nobodys is a key that nobody holds (VoidSymbol). Its release has QEMU draw soon,
// as the gateway does, and reaches no guest.
const nobodys = 0xffffff

// background is the root window's colour in the examples' images, which nothing
// before the desktop has.
var background = [3]uint8{0x2e, 0x6f, 0x8e}

// drawn reports whether a quarter of the picture has that colour.
func drawn(c *rfb.Client) bool {
	b := c.Size()
	var hits, all int
	for y := 0; y < b.Y; y += 8 {
		for x := 0; x < b.X; x += 8 {
			all++
			p := c.At(x, y)
			if near(p.R, background[0]) && near(p.G, background[1]) && near(p.B, background[2]) {
				hits++
			}
		}
	}
	return all > 0 && hits*4 >= all
}

func near(a, b uint8) bool { return max(a, b)-min(a, b) <= 8 }

package vnc

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"io"
	"strings"

	"consort.dev/consort/internal/rfb"
)

// watermark is a text that is drawn into every picture, over and over, so that a
// part of a photograph says who took it. The machine is asked for plain pixels
// only: what is drawn here depends on where a pixel is and on nothing else, so
// that however the machine cuts its pictures, the marks fit together.
type watermark struct {
	rows  [letterHeight][]bool // the text, a dot each
	zip   *zlib.Writer         // what browsers get is compressed, in one stream
	wire  bytes.Buffer
	pixel []byte // one row of a rectangle
}

// Sizes in pixels: of a dot, and of what lies between two texts.
const (
	dot          = 2
	besideText   = 48
	belowText    = 96
	letterWidth  = 5
	letterHeight = 7
)

// newWatermark returns nil for no text.
func newWatermark(text string) *watermark {
	if text == "" {
		return nil
	}
	m := &watermark{}
	for _, c := range strings.ToUpper(text) {
		columns, known := letters[c]
		if !known {
			columns = letters['.']
		}
		for row := range letterHeight {
			for x := range letterWidth {
				m.rows[row] = append(m.rows[row], columns[x]>>row&1 == 1)
			}
			m.rows[row] = append(m.rows[row], false)
		}
	}
	return m
}

// row returns which dots of the text lie on a line of the screen, and how far
// the text is moved there; nil between texts.
func (m *watermark) row(y int) (dots []bool, moved int) {
	const each = letterHeight*dot + belowText
	if at := y % each; at < letterHeight*dot {
		return m.rows[at/dot], y / each % 2 * (len(m.rows[0])*dot + besideText) / 2
	}
	return nil, 0
}

// marks reports whether a pixel belongs to the text.
func (m *watermark) marks(dots []bool, moved, x int) bool {
	at := (x + moved) % (len(dots)*dot + besideText) / dot
	return at < len(dots) && dots[at]
}

// carry reads a rectangle of plain pixels, draws the text into it and passes it
// on: compressed where the viewer takes that.
func (m *watermark) carry(w io.Writer, r *bufio.Reader, rect rfb.Rect, f rfb.PixelFormat, compressed bool) error {
	var to io.Writer = w
	if compressed {
		if m.zip == nil {
			m.zip, _ = zlib.NewWriterLevel(&m.wire, zlib.BestSpeed) // the level is one
		}
		m.wire.Reset()
		to, rect.Encoding = m.zip, rfb.Zlib
	}
	if err := rfb.Write(w, rect); err != nil {
		return err
	}
	size := int(f.Bytes())
	m.pixel = append(m.pixel[:0], make([]byte, int(rect.Area.Width)*size)...)
	for y := range int(rect.Area.Height) {
		if _, err := io.ReadFull(r, m.pixel); err != nil {
			return err
		}
		if dots, moved := m.row(int(rect.Area.Y) + y); dots != nil {
			for x := range int(rect.Area.Width) {
				if m.marks(dots, moved, int(rect.Area.X)+x) {
					shade(m.pixel[x*size:][:size], f)
				}
			}
		}
		if _, err := to.Write(m.pixel); err != nil {
			return err
		}
	}
	if !compressed {
		return nil
	}
	if err := m.zip.Flush(); err != nil {
		return err
	}
	if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(m.wire.Len()))); err != nil {
		return err
	}
	_, err := m.wire.WriteTo(w)
	return err
}

// shade makes a pixel lighter where it is dark and darker where it is light, by a
// fifth: it can be read on any ground, and what lies below it too.
func shade(b []byte, f rfb.PixelFormat) {
	var order binary.ByteOrder = binary.LittleEndian
	if f.BigEndian {
		order = binary.BigEndian
	}
	var p uint32
	switch len(b) {
	case 1:
		p = uint32(b[0])
	case 2:
		p = uint32(order.Uint16(b))
	case 4:
		p = order.Uint32(b)
	}
	for _, c := range [3]struct {
		most  uint16
		shift uint8
	}{{f.RedMax, f.RedShift}, {f.GreenMax, f.GreenShift}, {f.BlueMax, f.BlueShift}} {
		most := uint32(c.most)
		v := p >> c.shift & most
		if v > most/2 {
			v -= most / 5
		} else {
			v += most / 5
		}
		p = p&^(most<<c.shift) | v<<c.shift
	}
	switch len(b) {
	case 1:
		b[0] = byte(p)
	case 2:
		order.PutUint16(b, uint16(p))
	case 4:
		order.PutUint32(b, p)
	}
}

// letters are five columns of seven dots, the lowest bit at the top.
var letters = map[rune][letterWidth]byte{
	' ': {}, '-': {0x08, 0x08, 0x08, 0x08, 0x08}, '.': {0x00, 0x60, 0x60, 0x00, 0x00}, ':': {0x00, 0x36, 0x36, 0x00, 0x00}, '@': {0x3e, 0x41, 0x5d, 0x55, 0x1e},
	'0': {0x3e, 0x51, 0x49, 0x45, 0x3e}, '1': {0x00, 0x42, 0x7f, 0x40, 0x00}, '2': {0x72, 0x49, 0x49, 0x49, 0x46}, '3': {0x21, 0x41, 0x49, 0x4d, 0x33},
	'4': {0x18, 0x14, 0x12, 0x7f, 0x10}, '5': {0x27, 0x45, 0x45, 0x45, 0x39}, '6': {0x3c, 0x4a, 0x49, 0x49, 0x31}, '7': {0x41, 0x21, 0x11, 0x09, 0x07},
	'8': {0x36, 0x49, 0x49, 0x49, 0x36}, '9': {0x46, 0x49, 0x49, 0x29, 0x1e},
	'A': {0x7c, 0x12, 0x11, 0x12, 0x7c}, 'B': {0x7f, 0x49, 0x49, 0x49, 0x36}, 'C': {0x3e, 0x41, 0x41, 0x41, 0x22}, 'D': {0x7f, 0x41, 0x41, 0x41, 0x3e},
	'E': {0x7f, 0x49, 0x49, 0x49, 0x41}, 'F': {0x7f, 0x09, 0x09, 0x09, 0x01}, 'G': {0x3e, 0x41, 0x41, 0x51, 0x73}, 'H': {0x7f, 0x08, 0x08, 0x08, 0x7f},
	'I': {0x00, 0x41, 0x7f, 0x41, 0x00}, 'J': {0x20, 0x40, 0x41, 0x3f, 0x01}, 'K': {0x7f, 0x08, 0x14, 0x22, 0x41}, 'L': {0x7f, 0x40, 0x40, 0x40, 0x40},
	'M': {0x7f, 0x02, 0x1c, 0x02, 0x7f}, 'N': {0x7f, 0x04, 0x08, 0x10, 0x7f}, 'O': {0x3e, 0x41, 0x41, 0x41, 0x3e}, 'P': {0x7f, 0x09, 0x09, 0x09, 0x06},
	'Q': {0x3e, 0x41, 0x51, 0x21, 0x5e}, 'R': {0x7f, 0x09, 0x19, 0x29, 0x46}, 'S': {0x26, 0x49, 0x49, 0x49, 0x32}, 'T': {0x03, 0x01, 0x7f, 0x01, 0x03},
	'U': {0x3f, 0x40, 0x40, 0x40, 0x3f}, 'V': {0x1f, 0x20, 0x40, 0x20, 0x1f}, 'W': {0x3f, 0x40, 0x38, 0x40, 0x3f}, 'X': {0x63, 0x14, 0x08, 0x14, 0x63},
	'Y': {0x03, 0x04, 0x78, 0x04, 0x03}, 'Z': {0x61, 0x59, 0x49, 0x4d, 0x43},
}

package rfb

import (
	"bufio"
	"encoding/binary"
	"io"

	"consort.dev/consort/fault"
)

// CopyBody reads what follows the head of a rectangle and writes the same bytes
// to dst, without holding them. It knows how long every encoding is, so that a
// relay never loses its place, and checks what can be checked on the way. The
// caller has checked that the area lies inside the framebuffer.
func CopyBody(dst io.Writer, src *bufio.Reader, rect Rect, f PixelFormat) error {
	b := body{dst: dst, src: src, f: f}
	return noEOF(b.copyRect(rect))
}

type body struct {
	dst   io.Writer
	src   *bufio.Reader
	f     PixelFormat
	small [16]byte
}

func (b *body) copyRect(rect Rect) error {
	a := rect.Area
	switch rect.Encoding {
	case Raw:
		return b.copy(a.pixels() * b.f.Bytes())
	case CopyRect:
		return b.copy(4)
	case Hextile:
		return b.hextile(a)
	case Zlib, ZRLE:
		return b.deflated(a)
	case Tight, TightPNG:
		return b.tight(a)
	case Cursor:
		if a.Width > MaxCursor || a.Height > MaxCursor {
			return fault.Invalid.Errorf("cursor of %d by %d pixels", a.Width, a.Height)
		}
		return b.copy(a.pixels()*b.f.Bytes() + int64(a.Height)*int64((a.Width+7)/8))
	case DesktopName:
		n, err := b.number(4)
		if err == nil && n > MaxName {
			err = fault.Invalid.Errorf("desktop name of %d bytes", n)
		}
		if err != nil {
			return err
		}
		return b.copy(n)
	case ExtendedDesktopSize:
		head, err := b.next(4)
		if err == nil && head[0] > MaxScreens {
			err = fault.Invalid.Errorf("%d screens, at most %d", head[0], MaxScreens)
		}
		if err != nil {
			return err
		}
		return b.copy(16 * int64(head[0]))
	case LEDState:
		return b.copy(1)
	case DesktopSize, LastRect, ExtendedKey, PointerTypeChange, ExtendedMouseButtons:
		return nil
	}
	return fault.Invalid.Errorf("rectangle of encoding %d, which was not asked for", rect.Encoding)
}

// deflated copies a length and that many bytes, no more than the pixels could need.
func (b *body) deflated(a Area) error {
	n, err := b.number(4)
	if err != nil {
		return err
	}
	if most := a.pixels()*(b.f.Bytes()+1) + 1<<16; n > most {
		return fault.Invalid.Errorf("%d bytes for %d pixels", n, a.pixels())
	}
	return b.copy(n)
}

// hextile copies tiles of 16 by 16 pixels (RFC 6143, 7.7.4).
func (b *body) hextile(a Area) error {
	const raw, background, foreground, subrects, coloured = 1, 2, 4, 8, 16
	for y := 0; y < int(a.Height); y += 16 {
		for x := 0; x < int(a.Width); x += 16 {
			mask, err := b.number(1)
			if err != nil {
				return err
			}
			if mask&raw != 0 {
				w, h := min(16, int(a.Width)-x), min(16, int(a.Height)-y)
				if err := b.copy(int64(w*h) * b.f.Bytes()); err != nil {
					return err
				}
				continue
			}
			var n int64
			if mask&background != 0 {
				n += b.f.Bytes()
			}
			if mask&foreground != 0 {
				n += b.f.Bytes()
			}
			if err := b.copy(n); err != nil || mask&subrects == 0 {
				if err != nil {
					return err
				}
				continue
			}
			count, err := b.number(1)
			if err != nil {
				return err
			}
			each := int64(2)
			if mask&coloured != 0 {
				each += b.f.Bytes()
			}
			if err := b.copy(count * each); err != nil {
				return err
			}
		}
	}
	return nil
}

// Parts of a Tight control byte, from the high four bits.
const (
	tightFill     = 8
	tightJPEG     = 9
	tightPNG      = 10
	tightExplicit = 4 // a filter is named
	tightPalette  = 1
	tightGradient = 2
	tightMinimum  = 12 // shorter than this is not compressed
)

// tight copies a Tight rectangle.
func (b *body) tight(a Area) error {
	control, err := b.number(1)
	if err != nil {
		return err
	}
	switch kind := control >> 4; {
	case kind == tightFill:
		return b.copy(b.f.tightBytes())
	case kind == tightJPEG, kind == tightPNG:
		return b.compact()
	case kind > tightPNG:
		return fault.Invalid.Errorf("Tight control byte %#x", control)
	case kind&tightExplicit == 0:
		return b.tightBasic(a.pixels() * b.f.tightBytes())
	}
	filter, err := b.number(1)
	if err != nil {
		return err
	}
	switch filter {
	case 0, tightGradient:
		return b.tightBasic(a.pixels() * b.f.tightBytes())
	case tightPalette:
		n, err := b.number(1)
		if err != nil {
			return err
		}
		if err := b.copy((n + 1) * b.f.tightBytes()); err != nil {
			return err
		}
		return b.tightBasic(tightIndexed(a, n+1))
	}
	return fault.Invalid.Errorf("Tight filter %d", filter)
}

// tightIndexed is the size of pixels that are indexes in a palette of n: one
// bit each when n is 2, rows on byte borders; else one byte.
func tightIndexed(a Area, n int64) int64 {
	if n == 2 {
		return int64(a.Height) * int64((a.Width+7)/8)
	}
	return a.pixels()
}

func (b *body) tightBasic(size int64) error {
	if size < tightMinimum {
		return b.copy(size)
	}
	return b.compact()
}

// compact copies a length of up to 22 bits and that many bytes.
func (b *body) compact() error {
	var n int64
	for shift := 0; shift <= 14; shift += 7 {
		v, err := b.number(1)
		if err != nil {
			return err
		}
		if shift == 14 {
			n |= v << shift
			break
		}
		n |= v & 0x7f << shift
		if v&0x80 == 0 {
			break
		}
	}
	return b.copy(n)
}

// number copies n bytes and returns them as a number.
func (b *body) number(n int) (int64, error) {
	p, err := b.next(n)
	if err != nil {
		return 0, err
	}
	if n == 4 {
		return int64(binary.BigEndian.Uint32(p)), nil
	}
	return int64(p[0]), nil
}

// next copies n bytes and returns them until the next call.
func (b *body) next(n int) ([]byte, error) {
	p := b.small[:n]
	if _, err := io.ReadFull(b.src, p); err != nil {
		return nil, err
	}
	_, err := b.dst.Write(p)
	return p, err
}

// copy copies n bytes: what the reader has out of its own buffer, and the rest
// past it, into the buffer of a writer that has one.
func (b *body) copy(n int64) error {
	had := min(n, int64(b.src.Buffered()))
	p, err := b.src.Peek(int(had))
	if err != nil {
		return err
	}
	if _, err := b.dst.Write(p); err != nil {
		return err
	}
	if _, err := b.src.Discard(len(p)); err != nil || n == had {
		return err
	}
	_, err = io.CopyN(b.dst, b.src, n-had)
	return err
}

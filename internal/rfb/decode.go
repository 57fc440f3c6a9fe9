package rfb

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"image"
	"image/draw"
	"image/jpeg"
	"io"

	"consort.dev/consort/fault"
)

// inflater is a zlib stream that goes on from rectangle to rectangle. Servers
// flush at the end of each, so that reading what a rectangle holds never needs
// the next.
type inflater struct {
	in bytes.Buffer
	z  io.Reader
}

func (f *inflater) feed(b []byte) error {
	f.in.Write(b) // after what is left of a flush mark
	if f.z != nil {
		return nil
	}
	z, err := zlib.NewReader(&f.in)
	if err != nil {
		return fault.Invalid.Errorf("compressed pixels: %v", err)
	}
	f.z = z
	return nil
}

// take returns n bytes out of the compressed ones.
func (f *inflater) take(b []byte, n int64) ([]byte, error) {
	if err := f.feed(b); err != nil {
		return nil, err
	}
	out := make([]byte, n)
	if _, err := io.ReadFull(f.z, out); err != nil {
		return nil, fault.Invalid.Errorf("compressed pixels: %v", err)
	}
	return out, nil
}

// drawZRLE draws tiles of 64 by 64 pixels (RFC 6143, 7.7.6).
func (p *picture) drawZRLE(a Area, b []byte) error {
	if err := p.zrle.feed(b); err != nil {
		return err
	}
	r := bufio.NewReaderSize(p.zrle.z, 1<<12)
	for y := 0; y < int(a.Height); y += 64 {
		for x := 0; x < int(a.Width); x += 64 {
			t := tile{
				p: p, r: r, x: int(a.X) + x, y: int(a.Y) + y,
				w: min(64, int(a.Width)-x), h: min(64, int(a.Height)-y),
			}
			if err := t.draw(); err != nil {
				return fault.Invalid.Errorf("tile at %d,%d: %w", t.x, t.y, err)
			}
		}
	}
	return nil
}

type tile struct {
	p          *picture
	r          *bufio.Reader
	x, y, w, h int
	at         int // pixels drawn
	palette    [128]colour
}

func (t *tile) draw() error {
	kind, err := t.r.ReadByte()
	if err != nil {
		return err
	}
	n := int(kind & 0x7f)
	for i := range n {
		if t.palette[i], err = t.colour(); err != nil {
			return err
		}
	}
	switch {
	case kind == 0:
		return t.each(func() (colour, int, error) { c, err := t.colour(); return c, 1, err })
	case kind == 1:
		return t.put(t.palette[0], t.w*t.h)
	case kind <= 16:
		return t.packed(n)
	case kind == 128:
		return t.each(func() (colour, int, error) {
			c, err := t.colour()
			if err != nil {
				return c, 0, err
			}
			run, err := t.run()
			return c, run, err
		})
	case kind >= 130:
		return t.each(func() (colour, int, error) { return t.indexedRun(n) })
	}
	return fault.Invalid.Errorf("kind %d", kind)
}

// each draws runs until the tile is full.
func (t *tile) each(next func() (colour, int, error)) error {
	for t.at < t.w*t.h {
		c, run, err := next()
		if err != nil {
			return err
		}
		if err := t.put(c, run); err != nil {
			return err
		}
	}
	return nil
}

func (t *tile) put(c colour, run int) error {
	if t.at+run > t.w*t.h {
		return fault.Invalid.Errorf("run of %d pixels leaves the tile", run)
	}
	for range run {
		t.p.set(t.x+t.at%t.w, t.y+t.at/t.w, c)
		t.at++
	}
	return nil
}

func (t *tile) colour() (colour, error) {
	var b [3]byte
	_, err := io.ReadFull(t.r, b[:])
	return colourOf(b[:]), err
}

// run reads a length: bytes of 255 and one smaller, and one.
func (t *tile) run() (int, error) {
	n := 1
	for n <= t.w*t.h {
		b, err := t.r.ReadByte()
		if err != nil {
			return 0, err
		}
		n += int(b)
		if b != 255 {
			break
		}
	}
	return n, nil
}

func (t *tile) indexedRun(n int) (colour, int, error) {
	i, err := t.r.ReadByte()
	if err != nil {
		return colour{}, 0, err
	}
	run := 1
	if i&0x80 != 0 {
		if run, err = t.run(); err != nil {
			return colour{}, 0, err
		}
	}
	if int(i&0x7f) >= n {
		return colour{}, 0, fault.Invalid.Errorf("colour %d of %d", i&0x7f, n)
	}
	return t.palette[i&0x7f], run, nil
}

// packed draws indexes of 1, 2 or 4 bits, rows on byte borders.
func (t *tile) packed(n int) error {
	bits := 4
	if n <= 2 {
		bits = 1
	} else if n <= 4 {
		bits = 2
	}
	row := make([]byte, (t.w*bits+7)/8)
	for range t.h {
		if _, err := io.ReadFull(t.r, row); err != nil {
			return err
		}
		for x := range t.w {
			i := int(row[x*bits/8]>>(8-bits-x*bits%8)) & (1<<bits - 1)
			if err := t.put(t.palette[i], 1); err != nil {
				return err
			}
		}
	}
	return nil
}

// drawHextile draws a body that CopyBody has measured.
func (p *picture) drawHextile(a Area, b []byte) error {
	var back, fore colour
	pixel := func() colour { c := colourOf(b); b = b[4:]; return c }
	for y := 0; y < int(a.Height); y += 16 {
		for x := 0; x < int(a.Width); x += 16 {
			t := Area{a.X + uint16(x), a.Y + uint16(y), uint16(min(16, int(a.Width)-x)), uint16(min(16, int(a.Height)-y))}
			mask := b[0]
			b = b[1:]
			if mask&1 != 0 {
				p.raw(t, b)
				b = b[t.pixels()*4:]
				continue
			}
			if mask&2 != 0 {
				back = pixel()
			}
			if mask&4 != 0 {
				fore = pixel()
			}
			p.fill(int(t.X), int(t.Y), int(t.Width), int(t.Height), back)
			if mask&8 == 0 {
				continue
			}
			n := int(b[0])
			b = b[1:]
			for range n {
				c := fore
				if mask&16 != 0 {
					c = pixel()
				}
				sx, sy, sw, sh := int(b[0]>>4), int(b[0]&15), int(b[1]>>4)+1, int(b[1]&15)+1
				b = b[2:]
				if sx+sw > int(t.Width) || sy+sh > int(t.Height) {
					return fault.Invalid.Errorf("part of a tile at %d,%d leaves it", t.X, t.Y)
				}
				p.fill(int(t.X)+sx, int(t.Y)+sy, sw, sh, c)
			}
		}
	}
	return nil
}

// drawTight draws a body that CopyBody has measured.
func (p *picture) drawTight(a Area, b []byte) error {
	control := b[0]
	b = b[1:]
	for i := range p.tight {
		if control&(1<<i) != 0 {
			p.tight[i] = inflater{}
		}
	}
	switch kind := control >> 4; {
	case kind == tightFill:
		p.fill(int(a.X), int(a.Y), int(a.Width), int(a.Height), colour(b[:3]))
		return nil
	case kind == tightJPEG:
		return p.drawJPEG(a, uncompact(b))
	case kind >= tightPNG:
		return fault.Invalid.Errorf("Tight with PNG, which was not asked for")
	}
	filter := byte(0)
	if control>>4&tightExplicit != 0 {
		filter, b = b[0], b[1:]
	}
	z := &p.tight[control>>4&3]
	if filter == tightPalette {
		n := int64(b[0]) + 1
		palette := b[1 : 1+3*n]
		pixels, err := tightPixels(z, b[1+3*n:], tightIndexed(a, n))
		if err != nil {
			return err
		}
		return p.drawIndexed(a, palette, pixels)
	}
	pixels, err := tightPixels(z, b, a.pixels()*3)
	if err != nil {
		return err
	}
	if filter == tightGradient {
		ungradient(pixels, int(a.Width))
	}
	for i := range int(a.pixels()) {
		p.set(int(a.X)+i%int(a.Width), int(a.Y)+i/int(a.Width), colour(pixels[3*i:3*i+3]))
	}
	return nil
}

func tightPixels(z *inflater, b []byte, size int64) ([]byte, error) {
	if size < tightMinimum {
		return b[:size], nil
	}
	return z.take(uncompact(b), size)
}

// uncompact drops the length before compressed bytes.
func uncompact(b []byte) []byte {
	n := 1
	for n < 3 && b[n-1]&0x80 != 0 {
		n++
	}
	return b[n:]
}

func (p *picture) drawIndexed(a Area, palette, pixels []byte) error {
	n, w := len(palette)/3, int(a.Width)
	for y := range int(a.Height) {
		for x := range w {
			var i int
			if n == 2 {
				i = int(pixels[y*((w+7)/8)+x/8]>>(7-x%8)) & 1
			} else {
				i = int(pixels[y*w+x])
			}
			if i >= n {
				return fault.Invalid.Errorf("colour %d of %d", i, n)
			}
			p.set(int(a.X)+x, int(a.Y)+y, colour(palette[3*i:3*i+3]))
		}
	}
	return nil
}

// ungradient adds to each byte what its neighbours predict.
func ungradient(b []byte, width int) {
	at := func(i int, x, y int) int {
		if x < 0 || y < 0 {
			return 0
		}
		return int(b[3*(y*width+x)+i])
	}
	for k := range b {
		i, x, y := k%3, k/3%width, k/3/width
		guess := at(i, x-1, y) + at(i, x, y-1) - at(i, x-1, y-1)
		b[k] += byte(min(max(guess, 0), 255))
	}
}

func (p *picture) drawJPEG(a Area, b []byte) error {
	size, err := jpeg.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return fault.Invalid.Errorf("JPEG pixels: %v", err)
	}
	if size.Width != int(a.Width) || size.Height != int(a.Height) {
		return fault.Invalid.Errorf("JPEG of %d by %d pixels in a rectangle of %v", size.Width, size.Height, a)
	}
	img, err := jpeg.Decode(bytes.NewReader(b))
	if err != nil {
		return fault.Invalid.Errorf("JPEG pixels: %v", err)
	}
	draw.Draw(p.img, bounds(a), img, image.Point{}, draw.Src)
	return nil
}

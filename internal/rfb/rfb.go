// Package rfb speaks the remote framebuffer protocol, as viewer and as server:
// RFC 6143 and the extensions that today's viewers and servers use. Every
// length is bounded before memory is taken for it. What breaks the protocol is
// fault.Invalid; errors of the connection come back as they are.
package rfb

import (
	"bufio"
	"encoding/binary"
	"io"

	"consort.dev/consort/fault"
)

// Bounds on what the other side may send.
const (
	MaxSide      = 16384     // pixels of a framebuffer's side
	MaxPixels    = 1 << 26   // pixels of a framebuffer
	MaxCursor    = 1024      // pixels of a cursor's side
	MaxEncodings = 1024      // entries in SetEncodings; viewers send about 30
	MaxScreens   = 64        // screens of a layout
	MaxName      = 4096      // bytes of a desktop's name
	MaxReason    = 4096      // bytes of a refusal
	MaxFence     = 64        // bytes of a fence's payload, from the extension's text
	MaxText      = 256 << 20 // bytes of clipboard text that are skipped politely
)

// Encoding is how the pixels of a rectangle are written, or a pseudo-encoding:
// something a viewer declares and a server answers with a rectangle. Numbers
// are IANA's, https://www.iana.org/assignments/rfb.
type Encoding int32

// Encodings of pixels.
const (
	Raw      Encoding = 0
	CopyRect Encoding = 1
	Hextile  Encoding = 5
	Zlib     Encoding = 6
	Tight    Encoding = 7
	ZRLE     Encoding = 16
	TightPNG Encoding = -260
)

// Pseudo-encodings.
const (
	DesktopSize          Encoding = -223
	LastRect             Encoding = -224
	Cursor               Encoding = -239
	PointerTypeChange    Encoding = -257
	ExtendedKey          Encoding = -258
	Audio                Encoding = -259
	LEDState             Encoding = -261
	DesktopName          Encoding = -307
	ExtendedDesktopSize  Encoding = -308
	Fence                Encoding = -312
	ContinuousUpdates    Encoding = -313
	ExtendedMouseButtons Encoding = -316
	ExtendedClipboard    Encoding = -0x3f5e1a32 // 0xc0a1e5ce
)

// Level reports whether e asks for a JPEG quality or a degree of compression.
func (e Encoding) Level() bool { return e >= -32 && e <= -23 || e >= -256 && e <= -247 }

// Pixels reports whether a rectangle of this encoding carries pixels.
func (e Encoding) Pixels() bool {
	switch e {
	case Raw, CopyRect, Hextile, Zlib, Tight, ZRLE, TightPNG:
		return true
	}
	return false
}

// PixelFormat is how one pixel is written.
type PixelFormat struct {
	Bits, Depth                     uint8
	BigEndian, TrueColour           bool
	RedMax, GreenMax, BlueMax       uint16
	RedShift, GreenShift, BlueShift uint8
}

// XRGB is the format servers and viewers like best: four bytes, blue first.
func XRGB() PixelFormat {
	return PixelFormat{
		Bits: 32, Depth: 24, TrueColour: true, RedMax: 255, GreenMax: 255, BlueMax: 255,
		RedShift: 16, GreenShift: 8,
	}
}

// Bytes returns the size of a pixel.
func (f *PixelFormat) Bytes() int64 { return int64(f.Bits / 8) }

// check refuses formats that no real program uses.
func (f *PixelFormat) check() error {
	if f.Bits != 8 && f.Bits != 16 && f.Bits != 32 || f.Depth == 0 || f.Depth > f.Bits ||
		f.RedShift > 31 || f.GreenShift > 31 || f.BlueShift > 31 {
		return fault.Invalid.Errorf("pixel format of %d bits and depth %d", f.Bits, f.Depth)
	}
	return nil
}

// tightBytes is the size of a pixel inside Tight: three where a byte is padding.
func (f *PixelFormat) tightBytes() int64 {
	if f.Bits == 32 && f.Depth == 24 && f.TrueColour && f.RedMax == 255 && f.GreenMax == 255 && f.BlueMax == 255 {
		return 3
	}
	return f.Bytes()
}

func (f *PixelFormat) append(b []byte) []byte {
	b = append(b, f.Bits, f.Depth, bit(f.BigEndian), bit(f.TrueColour))
	b = binary.BigEndian.AppendUint16(b, f.RedMax)
	b = binary.BigEndian.AppendUint16(b, f.GreenMax)
	b = binary.BigEndian.AppendUint16(b, f.BlueMax)
	return append(b, f.RedShift, f.GreenShift, f.BlueShift, 0, 0, 0)
}

func parsePixelFormat(b []byte) (PixelFormat, error) {
	be := binary.BigEndian
	f := PixelFormat{
		Bits: b[0], Depth: b[1], BigEndian: b[2] != 0, TrueColour: b[3] != 0,
		RedMax: be.Uint16(b[4:]), GreenMax: be.Uint16(b[6:]), BlueMax: be.Uint16(b[8:]),
		RedShift: b[10], GreenShift: b[11], BlueShift: b[12],
	}
	return f, f.check()
}

// Area is a rectangle of pixels.
type Area struct{ X, Y, Width, Height uint16 }

// In reports whether the area lies inside a framebuffer of the size.
func (a Area) In(width, height int) bool {
	return int(a.X)+int(a.Width) <= width && int(a.Y)+int(a.Height) <= height
}

// Clip returns the part of the area inside a framebuffer of the size.
func (a Area) Clip(width, height int) Area {
	a.X, a.Width = clip(a.X, a.Width, width)
	a.Y, a.Height = clip(a.Y, a.Height, height)
	return a
}

func clip(at, size uint16, most int) (uint16, uint16) {
	at = uint16(min(int(at), most))
	return at, uint16(min(int(size), most-int(at)))
}

func (a Area) pixels() int64 { return int64(a.Width) * int64(a.Height) }

func (a Area) append(b []byte) []byte {
	for _, v := range []uint16{a.X, a.Y, a.Width, a.Height} {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return b
}

func parseArea(b []byte) Area {
	be := binary.BigEndian
	return Area{be.Uint16(b), be.Uint16(b[2:]), be.Uint16(b[4:]), be.Uint16(b[6:])}
}

// CheckSize refuses a framebuffer larger than any we serve.
func CheckSize(width, height int) error {
	if width > MaxSide || height > MaxSide || width*height > MaxPixels {
		return fault.Invalid.Errorf("framebuffer of %d by %d pixels", width, height)
	}
	return nil
}

// Message is anything that can be written to the other side.
type Message interface {
	// append writes the message in the wire's form after b.
	append(b []byte) []byte
}

// Write sends the messages in one write.
func Write(w io.Writer, ms ...Message) error {
	b := make([]byte, 0, 64)
	for _, m := range ms {
		b = m.append(b)
	}
	_, err := w.Write(b)
	return err
}

// take reads exactly n bytes, which the caller has bounded.
func take(r *bufio.Reader, n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

// skip reads n bytes and forgets them.
func skip(r *bufio.Reader, n int64) error {
	_, err := io.CopyN(io.Discard, r, n)
	return err
}

func bit(on bool) byte {
	if on {
		return 1
	}
	return 0
}

package rfb

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"image"
	"image/color"
	"image/draw"
	"io"
	"strings"

	"consort.dev/consort/fault"
)

// Client is a small viewer that keeps the picture. It is not safe for
// concurrent use, except that Send may run beside Next.
type Client struct {
	Init    ServerInit
	Frames  int           // updates with pixels
	Message func(Message) // called by Next for what is not a picture; may be nil
	conn    io.ReadWriteCloser
	reader  ServerReader
	picture picture
}

// NewClient opens a session on conn as a viewer that understands the encodings,
// or Raw, CopyRect, ZRLE and changes of size when there are none. The caller
// closes conn.
func NewClient(conn io.ReadWriteCloser, p Proof, encodings ...Encoding) (*Client, error) {
	c := &Client{conn: conn, reader: ServerReader{R: bufio.NewReaderSize(conn, 1<<15), TextLimit: 1 << 20}}
	var err error
	if c.Init, err = Open(c.reader.R, conn, p); err != nil {
		return nil, err
	}
	c.picture.resize(c.Init.Width, c.Init.Height)
	if len(encodings) == 0 {
		encodings = []Encoding{ZRLE, CopyRect, Raw, DesktopSize}
	}
	return c, c.Send(SetPixelFormat{XRGB()}, SetEncodings(encodings))
}

// Send writes messages.
func (c *Client) Send(ms ...Message) error { return Write(c.conn, ms...) }

// Request asks for the whole picture, or for what changed in it.
func (c *Client) Request(incremental bool) error {
	b := c.picture.img.Bounds()
	return c.Send(UpdateRequest{incremental, Area{Width: uint16(b.Dx()), Height: uint16(b.Dy())}})
}

// shifted are the characters that an American keyboard has on its upper half.
const shifted = `~!@#$%^&*()_+{}|:"<>?ABCDEFGHIJKLMNOPQRSTUVWXYZ`

// Type presses and releases the keys of a text, which is ASCII, as somebody
// does at an American keyboard.
func (c *Client) Type(text string) error {
	const enter, shift = 0xff0d, 0xffe1
	for _, k := range []byte(text) {
		sym := uint32(k)
		if k == '\n' {
			sym = enter
		}
		keys := []Message{Key{Down: true, Sym: sym}, Key{Sym: sym}}
		if strings.IndexByte(shifted, k) >= 0 {
			keys = []Message{Key{Down: true, Sym: shift}, keys[0], keys[1], Key{Sym: shift}}
		}
		if err := c.Send(keys...); err != nil {
			return err
		}
	}
	return nil
}

// Image returns a copy of the picture.
func (c *Client) Image() *image.RGBA {
	out := image.NewRGBA(c.picture.img.Bounds())
	copy(out.Pix, c.picture.img.Pix)
	return out
}

// At returns the colour of a pixel; outside the picture it is black.
func (c *Client) At(x, y int) color.RGBA { return c.picture.img.RGBAAt(x, y) }

// Size returns the size of the picture.
func (c *Client) Size() image.Point { return c.picture.img.Rect.Size() }

// Next reads one message and draws it when it is an update.
func (c *Client) Next() (Message, error) {
	m, err := c.reader.Read()
	if err != nil {
		return nil, err
	}
	if u, is := m.(Update); is {
		return m, c.update(u)
	}
	if c.Message != nil {
		c.Message(m)
	}
	return m, nil
}

// NextFrame reads until an update with pixels is drawn.
func (c *Client) NextFrame() error {
	for had := c.Frames; c.Frames == had; {
		if _, err := c.Next(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) update(u Update) error {
	pixels := false
	for i := 0; u.Rects == OpenEnded || i < int(u.Rects); i++ {
		rect, err := c.reader.Rect()
		if err != nil {
			return err
		}
		if rect.Encoding == LastRect {
			break
		}
		b := c.picture.img.Bounds()
		if rect.Encoding.Pixels() && !rect.Area.In(b.Dx(), b.Dy()) {
			return fault.Invalid.Errorf("rectangle %v outside a picture of %v", rect.Area, b.Size())
		}
		var body bytes.Buffer
		if err := CopyBody(&body, c.reader.R, rect, XRGB()); err != nil {
			return err
		}
		if err := c.picture.draw(rect, body.Bytes()); err != nil {
			return err
		}
		pixels = pixels || rect.Encoding.Pixels() && rect.Area.pixels() > 0
	}
	if pixels {
		c.Frames++
	}
	return nil
}

// picture is a framebuffer in the format XRGB.
type picture struct {
	img   *image.RGBA
	zrle  inflater
	zlib  inflater
	tight [4]inflater
}

func (p *picture) resize(width, height int) {
	old := p.img
	p.img = image.NewRGBA(image.Rect(0, 0, width, height))
	if old != nil {
		draw.Draw(p.img, old.Bounds(), old, image.Point{}, draw.Src)
	}
}

func (p *picture) draw(rect Rect, body []byte) error {
	a := rect.Area
	switch rect.Encoding {
	case DesktopSize, ExtendedDesktopSize:
		if err := CheckSize(int(a.Width), int(a.Height)); err != nil {
			return err
		}
		if rect.Encoding == DesktopSize || a.X != ResizedByViewer || a.Y == 0 {
			p.resize(int(a.Width), int(a.Height))
		}
		return nil
	case Raw:
		p.raw(a, body)
		return nil
	case CopyRect:
		from := image.Pt(int(binary.BigEndian.Uint16(body)), int(binary.BigEndian.Uint16(body[2:])))
		if !(Area{uint16(from.X), uint16(from.Y), a.Width, a.Height}).In(p.img.Rect.Dx(), p.img.Rect.Dy()) {
			return fault.Invalid.Errorf("copy from %v outside the picture", from)
		}
		draw.Draw(p.img, bounds(a), p.img, from, draw.Src)
		return nil
	case Zlib:
		pixels, err := p.zlib.take(body[4:], a.pixels()*4)
		if err == nil {
			p.raw(a, pixels)
		}
		return err
	case ZRLE:
		return p.drawZRLE(a, body[4:])
	case Hextile:
		return p.drawHextile(a, body)
	case Tight:
		return p.drawTight(a, body)
	}
	return nil // pseudo-encodings that change no pixel
}

func bounds(a Area) image.Rectangle {
	return image.Rect(int(a.X), int(a.Y), int(a.X)+int(a.Width), int(a.Y)+int(a.Height))
}

func (p *picture) raw(a Area, b []byte) {
	for y := range int(a.Height) {
		for x := range int(a.Width) {
			p.set(int(a.X)+x, int(a.Y)+y, colourOf(b))
			b = b[4:]
		}
	}
}

// colour is red, green, blue.
type colour [3]byte

// colourOf reads a pixel of which blue comes first; the fourth byte is padding.
func colourOf(b []byte) colour { return colour{b[2], b[1], b[0]} }

func (p *picture) set(x, y int, c colour) {
	i := p.img.PixOffset(x, y)
	p.img.Pix[i], p.img.Pix[i+1], p.img.Pix[i+2], p.img.Pix[i+3] = c[0], c[1], c[2], 255
}

func (p *picture) fill(x, y, width, height int, c colour) {
	for j := y; j < y+height; j++ {
		for i := x; i < x+width; i++ {
			p.set(i, j, c)
		}
	}
}

package crossing

import (
	"bufio"
	"bytes"
	"net"
	"slices"
	"sync"

	"consort.dev/consort/internal/rfb"
)

// mostRead is more than any text of the matrix: the desktop reads all there is.
const mostRead = 8 << 20

const allClips = rfb.ClipboardCaps | rfb.ClipboardRequest | rfb.ClipboardPeek | rfb.ClipboardNotify | rfb.ClipboardProvide

// desktop plays a machine's screen with a clipboard, and remembers whatever
// somebody put on that.
type desktop struct {
	extended bool // speaks the extended form to those who do
	late     bool // it asks for texts with request alone
	side     int  // of its picture

	saying sync.Mutex // one message at a time, and what it says
	copied string
	mu     sync.Mutex
	conn   net.Conn
	speaks bool     // the other end wants the extended form
	pasted []string // every text that came, the empty ones too
	keys   int      // that went down
	heard  int      // notices of a text
}

// look returns a new connection to the desktop's screen. It has room in it, as
// sockets have.
func (d *desktop) look() (net.Conn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	theirs, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	ours, err := l.Accept()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.conn, d.speaks = ours, false
	d.mu.Unlock()
	go func() {
		defer ours.Close()
		_ = d.serve(ours) // until the viewer goes
	}()
	return theirs, nil
}

func (d *desktop) serve(c net.Conn) error {
	r := bufio.NewReader(c)
	if _, err := rfb.Accept(r, c, rfb.Guard{}); err != nil {
		return err
	}
	if err := rfb.Write(c, rfb.ServerInit{Width: d.side, Height: d.side, Format: rfb.XRGB(), Name: "played"}); err != nil {
		return err
	}
	in := rfb.ViewerReader{R: r, TextLimit: mostRead}
	for {
		m, err := in.Read()
		if err != nil {
			return err
		}
		if err := d.handle(c, m); err != nil {
			return err
		}
	}
}

// say sends messages, whole.
func (d *desktop) say(c net.Conn, ms ...rfb.Message) error {
	d.saying.Lock()
	defer d.saying.Unlock()
	return rfb.Write(c, ms...)
}

func (d *desktop) handle(c net.Conn, m rfb.Message) error {
	switch m := m.(type) {
	case rfb.SetEncodings:
		if d.extended && slices.Contains(m, rfb.ExtendedClipboard) {
			return d.say(c, rfb.ClipboardMark{FromServer: true, Actions: allClips, HasText: true, MaxText: mostRead})
		}
	case rfb.Key:
		if m.Down {
			d.mu.Lock()
			d.keys++
			d.mu.Unlock()
		}
	case rfb.Text:
		d.paste(rfb.FromLatin1(m.Latin1))
	case rfb.ClipboardMark:
		return d.clip(c, m)
	case rfb.UpdateRequest:
		if !m.Incremental { // nothing ever changes
			return d.paint(c)
		}
	}
	return nil
}

func (d *desktop) clip(c net.Conn, m rfb.ClipboardMark) error {
	switch {
	case m.Does(rfb.ClipboardCaps):
		d.mu.Lock()
		d.speaks = true
		d.mu.Unlock()
	case m.Does(rfb.ClipboardProvide):
		d.paste(m.Text)
	case m.Does(rfb.ClipboardNotify) && !m.HasText:
		d.paste("")
	case m.Does(rfb.ClipboardNotify):
		d.mu.Lock()
		d.heard++
		d.mu.Unlock()
		if d.late {
			return nil
		}
		return d.say(c, rfb.ClipboardMark{FromServer: true, Actions: rfb.ClipboardRequest, HasText: true})
	case m.Does(rfb.ClipboardRequest):
		d.saying.Lock() // from here on, so that no older text comes after
		defer d.saying.Unlock()
		return rfb.Write(c, rfb.ClipboardMark{FromServer: true, Actions: rfb.ClipboardProvide, HasText: true, Text: d.copied})
	}
	return nil
}

func (d *desktop) paint(c net.Conn) error {
	d.saying.Lock()
	defer d.saying.Unlock()
	area := rfb.Area{Width: uint16(d.side), Height: uint16(d.side)}
	if err := rfb.Write(c, rfb.Update{Rects: 1}, rfb.Rect{Area: area}); err != nil {
		return err
	}
	_, err := c.Write(bytes.Repeat([]byte{0x90, 0x60, 0x30, 0}, d.side*d.side))
	return err
}

func (d *desktop) paste(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pasted = append(d.pasted, text)
}

// copy puts a text on the desktop's clipboard and tells its viewer.
func (d *desktop) copy(text string) error {
	d.saying.Lock()
	d.copied = text
	d.saying.Unlock()
	d.mu.Lock()
	c, speaks := d.conn, d.speaks
	d.mu.Unlock()
	if speaks {
		return d.say(c, rfb.ClipboardMark{FromServer: true, Actions: rfb.ClipboardNotify, HasText: true})
	}
	return d.say(c, rfb.Text{FromServer: true, Latin1: rfb.Latin1(text)})
}

// came returns the texts that came since forget.
func (d *desktop) came() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.pasted)
}

// forget forgets what came.
func (d *desktop) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pasted = nil
}

// pressed returns how many keys went down.
func (d *desktop) pressed() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.keys
}

// told returns how many texts it was told of.
func (d *desktop) told() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.heard
}

// request asks for the text it was told of.
func (d *desktop) request() error {
	d.mu.Lock()
	c := d.conn
	d.mu.Unlock()
	return d.say(c, rfb.ClipboardMark{FromServer: true, Actions: rfb.ClipboardRequest, HasText: true})
}

// agrees reports whether both ends speak the extended form.
func (d *desktop) agrees() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.speaks
}

package vnc

import (
	"bufio"
	"bytes"
	"net"
	"testing"

	"consort.dev/consort/internal/rfb"
)

// pipeOf returns the two ends of a connection with room in it, as sockets have.
func pipeOf(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// drawGrey plays a machine that draws each piece in an update of its own once it
// is asked, and returns the encodings that it was asked for.
func drawGrey(c net.Conn, grey byte, pieces []rfb.Area) (asked []rfb.Encoding) {
	r := bufio.NewReader(c)
	if _, err := rfb.Accept(r, c, rfb.Guard{}); err != nil {
		return nil
	}
	if rfb.Write(c, rfb.ServerInit{Width: wide, Height: high, Format: rfb.XRGB(), Name: "m"}) != nil {
		return nil
	}
	in := rfb.ViewerReader{R: r}
	for {
		m, err := in.Read()
		if err != nil {
			return asked
		}
		switch m := m.(type) {
		case rfb.SetEncodings:
			asked = m
		case rfb.UpdateRequest:
			for _, a := range pieces {
				if rfb.Write(c, rfb.Update{Rects: 1}, rfb.Rect{Area: a}) != nil {
					return asked
				}
				if _, err := c.Write(bytes.Repeat([]byte{grey}, int(a.Width)*int(a.Height)*4)); err != nil {
					return asked
				}
			}
			pieces = nil
		}
	}
}

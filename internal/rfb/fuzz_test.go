package rfb

import (
	"bufio"
	"bytes"
	"io"
	"testing"
)

// viewerSays and serverSays are seeds: one of each message.
func viewerSays() []Message {
	return []Message{
		SetPixelFormat{XRGB()}, SetEncodings{Raw, ZRLE, Tight, Fence, ExtendedClipboard},
		UpdateRequest{true, Area{1, 2, 3, 4}}, Key{Down: true, Sym: 'a'}, Key{Down: true, Sym: 'a', Code: 30},
		Pointer{1, 10, 20}, Text{Latin1: []byte("text")}, Continuous{true, Area{0, 0, 9, 9}},
		FenceMark{Flags: FenceRequest, Payload: []byte("1234")}, Resize{800, 600, []Screen{{ID: 1}}},
		ClipboardMark{Actions: ClipboardProvide, HasText: true, Text: "caf\u00e9\nau lait"},
		ClipboardMark{Actions: ClipboardCaps | ClipboardNotify, HasText: true, MaxText: 1 << 20},
		ClipboardMark{Actions: ClipboardRequest, HasText: true},
	}
}

func serverSays() []Message {
	return []Message{
		Update{0}, ColourMap{First: 1, Colours: make([]byte, 12)}, Bell{}, EndOfContinuous{},
		Text{FromServer: true, Latin1: []byte("text")},
		FenceMark{FromServer: true, Flags: FenceRequest, Payload: []byte("1234")},
		ClipboardMark{FromServer: true, Actions: ClipboardProvide, HasText: true, Text: "text"},
	}
}

// FuzzViewer feeds a server's side with what a viewer may send.
func FuzzViewer(f *testing.F) {
	for _, m := range viewerSays() {
		f.Add(m.append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v := ViewerReader{R: bufio.NewReader(bytes.NewReader(b)), TextLimit: 1 << 12}
		for {
			m, err := v.Read()
			if err != nil {
				return
			}
			again := ViewerReader{R: bufio.NewReader(bytes.NewReader(m.append(nil))), TextLimit: 1 << 12}
			if _, err := again.Read(); err != nil {
				t.Fatalf("%#v does not come back: %v", m, err)
			}
		}
	})
}

// FuzzServer feeds a viewer, decoders included, with what a server may send.
func FuzzServer(f *testing.F) {
	for _, m := range serverSays() {
		f.Add(m.append(nil), int8(0))
	}
	for e, body := range bodies() {
		head := Rect{Area{0, 0, 20, 20}, e}.append(Update{1}.append(nil))
		f.Add(append(head, body...), int8(0))
		if e == ZRLE { // decompressed, so that mutations reach the decoder
			f.Add(append([]byte{0}, bytes.Repeat([]byte{1, 2, 3}, 400)...), int8(1))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, how int8) {
		c := &Client{conn: closed{}, reader: ServerReader{R: bufio.NewReader(bytes.NewReader(b)), TextLimit: 1 << 12}}
		c.picture.resize(20, 20)
		if how == 1 {
			tile := tile{p: &c.picture, r: bufio.NewReader(bytes.NewReader(b)), w: 20, h: 20}
			_ = tile.draw()
			return
		}
		for {
			if _, err := c.Next(); err != nil {
				return
			}
			if s := c.picture.img.Bounds(); s.Dx()*s.Dy() > 1<<20 {
				return // a size that is allowed, and slow to fuzz
			}
		}
	})
}

// FuzzOpening feeds both sides' openings.
func FuzzOpening(f *testing.F) {
	f.Add([]byte("RFB 003.008\n\x01\x01"), "")
	f.Add([]byte("RFB 003.008\n\x01\x02\x00\x00\x00\x00\x00\x00\x00\x00"), "secret")
	f.Add([]byte("RFB 003.003\n\x00\x00\x00\x01\x01"), "")
	f.Add(append([]byte("RFB 003.007\n\x01\x01"), ServerInit{Width: 8, Height: 8, Format: XRGB(), Name: "x"}.append(nil)...), "")
	f.Add([]byte("RFB 003.008\n\x13\x00\x02\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01ab\x01"), "plain")
	f.Fuzz(func(t *testing.T, b []byte, password string) {
		g := Guard{Password: password, Random: zeros{}}
		if password == "plain" {
			g = Guard{Plain: func(name, password string) bool { return name == "a" }}
		}
		_, _ = Accept(bufio.NewReader(bytes.NewReader(b)), io.Discard, g)
		_, _ = Open(bufio.NewReader(bytes.NewReader(b)), io.Discard, Proof{Password: password})
	})
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// closed is a connection that nothing comes from.
type closed struct{}

func (closed) Read([]byte) (int, error)    { return 0, io.EOF }
func (closed) Write(b []byte) (int, error) { return len(b), nil }
func (closed) Close() error                { return nil }

package vnc_test

import (
	"bufio"
	"crypto/rand"
	"io"
	"sync"
	"testing"

	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/presentation/driver"
	"consort.dev/consort/presentation/drivertest"
	"consort.dev/consort/presentation/vnc"
)

func TestConformance(t *testing.T) {
	for name, forms := range map[string][2]bool{
		"classic clipboards": {false, false}, "extended clipboards": {true, true},
		"extended at the viewer": {true, false}, "extended at the machine": {false, true},
	} {
		t.Run(name, func(t *testing.T) {
			drivertest.Run(t, func(*testing.T) drivertest.Rig { return rig(vnc.New(vnc.Config{Random: rand.Reader}), forms) })
		})
	}
}

// rig plays ends of which the viewer, the machine speak the extended clipboard.
func rig(p driver.Provider, extended [2]bool) drivertest.Rig {
	return drivertest.Rig{
		Provider: p,
		Machine: func(c io.ReadWriteCloser) drivertest.Machine {
			m := &machine{conn: c, extended: extended[1]}
			go m.serve()
			return m
		},
		Viewer: func(c io.ReadWriteCloser, secret string) (drivertest.Viewer, error) {
			return openViewer(c, secret, extended[0])
		},
	}
}

const allClips = rfb.ClipboardCaps | rfb.ClipboardRequest | rfb.ClipboardPeek | rfb.ClipboardNotify | rfb.ClipboardProvide

// machine plays a small screen with a clipboard.
type machine struct {
	conn     io.ReadWriteCloser
	extended bool

	mu     sync.Mutex
	speaks bool // the other side wants the extended form
	typed  string
	pasted string
	copied string
}

func (m *machine) serve() error {
	r := bufio.NewReader(m.conn)
	if _, err := rfb.Accept(r, m.conn, rfb.Guard{}); err != nil {
		return err
	}
	if err := rfb.Write(m.conn, rfb.ServerInit{Width: 8, Height: 8, Format: rfb.XRGB(), Name: "small"}); err != nil {
		return err
	}
	in := rfb.ViewerReader{R: r, TextLimit: 1 << 20}
	for {
		msg, err := in.Read()
		if err == nil {
			err = m.handle(msg)
		}
		if err != nil {
			return err
		}
	}
}

func (m *machine) handle(msg rfb.Message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch msg := msg.(type) {
	case rfb.SetEncodings:
		for _, e := range msg {
			if e == rfb.ExtendedClipboard && m.extended {
				return rfb.Write(m.conn, rfb.ClipboardMark{FromServer: true, Actions: allClips, HasText: true, MaxText: 1 << 20})
			}
		}
	case rfb.Key:
		if msg.Down {
			m.typed += string(rune(msg.Sym))
		}
	case rfb.Text:
		m.pasted = rfb.FromLatin1(msg.Latin1)
	case rfb.ClipboardMark:
		switch {
		case msg.Does(rfb.ClipboardCaps):
			m.speaks = true
		case msg.Does(rfb.ClipboardNotify) && !msg.HasText:
			m.pasted = ""
		case msg.Does(rfb.ClipboardNotify):
			return rfb.Write(m.conn, rfb.ClipboardMark{FromServer: true, Actions: rfb.ClipboardRequest, HasText: true})
		case msg.Does(rfb.ClipboardRequest):
			return rfb.Write(m.conn, rfb.ClipboardMark{FromServer: true, Actions: rfb.ClipboardProvide, HasText: true, Text: m.copied})
		case msg.Does(rfb.ClipboardProvide):
			m.pasted = msg.Text
		}
	case rfb.UpdateRequest:
		if err := rfb.Write(m.conn, rfb.Update{Rects: 1}, rfb.Rect{Area: rfb.Area{Width: 8, Height: 8}}); err != nil {
			return err
		}
		_, err := m.conn.Write(make([]byte, 8*8*4))
		return err
	}
	return nil
}

func (m *machine) Typed() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.typed
}

func (m *machine) Pasted() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pasted
}

func (m *machine) Copy(text string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.copied = text
	if m.speaks {
		return rfb.Write(m.conn, rfb.ClipboardMark{FromServer: true, Actions: rfb.ClipboardNotify, HasText: true})
	}
	return rfb.Write(m.conn, rfb.Text{FromServer: true, Latin1: rfb.Latin1(text)})
}

func (m *machine) Break() error {
	_, err := m.conn.Write([]byte{77})
	return err
}

// viewer plays a viewer with a clipboard.
type viewer struct {
	*rfb.Client
	conn   io.Writer
	speaks bool
	text   string
	copied string
}

func openViewer(c io.ReadWriteCloser, secret string, extended bool) (*viewer, error) {
	encodings := []rfb.Encoding{rfb.Raw}
	if extended {
		encodings = append(encodings, rfb.ExtendedClipboard)
	}
	client, err := rfb.NewClient(c, rfb.Proof{Password: secret}, encodings...)
	if err != nil {
		return nil, err
	}
	v := &viewer{Client: client, conn: c}
	client.Message = v.message
	return v, v.Look()
}

func (v *viewer) message(m rfb.Message) {
	switch m := m.(type) {
	case rfb.Text:
		v.copied = rfb.FromLatin1(m.Latin1)
	case rfb.ClipboardMark:
		switch {
		case m.Does(rfb.ClipboardCaps):
			v.speaks = true
			v.Send(rfb.ClipboardMark{Actions: allClips, HasText: true, MaxText: 1 << 20})
		case m.Does(rfb.ClipboardNotify) && m.HasText:
			v.Send(rfb.ClipboardMark{Actions: rfb.ClipboardRequest, HasText: true})
		case m.Does(rfb.ClipboardRequest):
			v.Send(rfb.ClipboardMark{Actions: rfb.ClipboardProvide, HasText: true, Text: v.text})
		case m.Does(rfb.ClipboardProvide):
			v.copied = m.Text
		}
	}
}

func (v *viewer) Look() error {
	if err := v.Request(false); err != nil {
		return err
	}
	return v.NextFrame()
}

func (v *viewer) Type(key byte) error { return v.Client.Type(string(key)) }

func (v *viewer) Paste(text string) error {
	v.text = text
	if v.speaks {
		return v.Send(rfb.ClipboardMark{Actions: rfb.ClipboardNotify, HasText: true})
	}
	return v.Send(rfb.Text{Latin1: rfb.Latin1(text)})
}

func (v *viewer) Copied() string { return v.copied }

func (v *viewer) Ask(in bool) error {
	key := uint32(0x1008ff57) // XF86Copy
	if in {
		key = 0x1008ff6d // XF86Paste
	}
	return v.Send(rfb.Key{Down: true, Sym: key}, rfb.Key{Sym: key})
}

func (v *viewer) Break() error {
	_, err := v.conn.Write([]byte{77})
	return err
}

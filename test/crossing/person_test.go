package crossing

import (
	"slices"
	"sync"

	"consort.dev/consort/api"
	"consort.dev/consort/internal/rfb"
)

// person is somebody at a viewer that is played: it does what it is told at once,
// and remembers every text that came.
type person struct {
	*plane
	extended bool // the viewer speaks the extended form
	late     bool // it asks for texts with request alone

	tunnel interface{ Close() error }
	ended  chan struct{}

	mu     sync.Mutex // held over what is sent, so that no older text comes after
	client *rfb.Client
	agrees bool // the other end speaks the extended form too
	copied string
	came   []string
	heard  int // notices of a text
}

// name implements viewer.
func (*person) name() string { return "played" }

// speaks implements viewer.
func (v *person) speaks() bool { return v.extended }

// most implements viewer: rfb.Client has room for no more.
func (*person) most() int { return 1 << 20 }

// open implements viewer.
func (v *person) open() {
	v.Helper()
	s, err := v.plane.client.Connect(v.Context(), "default", desk, "")
	v.must(err)
	var t *api.Ticket
	v.until("there is a ticket", func() bool {
		t, err = v.plane.client.Ticket(v.Context(), "default", s.Metadata.Name, false)
		return err == nil
	})
	tunnel, err := v.plane.client.Tunnel(v.Context(), t.Ticket)
	v.must(err)
	v.Cleanup(func() { tunnel.Close() })
	encodings := []rfb.Encoding{rfb.Raw}
	if v.extended {
		encodings = append(encodings, rfb.ExtendedClipboard)
	}
	c, err := rfb.NewClient(tunnel, rfb.Proof{}, encodings...)
	v.must(err)
	c.Message = func(m rfb.Message) { v.hear(c, m) }
	v.client, v.came, v.heard, v.copied, v.agrees = c, nil, 0, "", false
	for range 2 { // both ends know how the other speaks before the second
		v.must(c.Request(false))
		v.must(c.NextFrame())
	}
	v.tunnel, v.ended = tunnel, make(chan struct{})
	go func(ended chan struct{}) {
		defer close(ended)
		for {
			if _, err := c.Next(); err != nil {
				return // it was left
			}
		}
	}(v.ended)
}

// leave implements viewer.
func (v *person) leave() {
	v.tunnel.Close()
	<-v.ended
}

// hear takes what comes that is no picture.
func (v *person) hear(c *rfb.Client, m rfb.Message) {
	v.mu.Lock()
	defer v.mu.Unlock()
	request := rfb.ClipboardMark{Actions: rfb.ClipboardRequest, HasText: true}
	switch m := m.(type) {
	case rfb.Text:
		v.came = append(v.came, rfb.FromLatin1(m.Latin1))
	case rfb.ClipboardMark:
		switch {
		case m.Does(rfb.ClipboardCaps):
			v.agrees = true
			_ = c.Send(rfb.ClipboardMark{Actions: allClips, HasText: true, MaxText: mostRead}) // Next says when the other end is gone
		case m.Does(rfb.ClipboardNotify) && m.HasText:
			v.heard++
			if !v.late {
				_ = c.Send(request)
			}
		case m.Does(rfb.ClipboardNotify):
			v.came = append(v.came, "")
		case m.Does(rfb.ClipboardRequest):
			_ = c.Send(rfb.ClipboardMark{Actions: rfb.ClipboardProvide, HasText: true, Text: v.copied})
		case m.Does(rfb.ClipboardProvide):
			v.came = append(v.came, m.Text)
		}
	}
}

func (v *person) send(ms ...rfb.Message) {
	v.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.must(v.client.Send(ms...))
}

// give implements viewer.
func (v *person) give(text string) {
	v.Helper()
	v.mu.Lock()
	v.copied = text
	agrees := v.agrees
	v.mu.Unlock()
	if agrees {
		v.send(rfb.ClipboardMark{Actions: rfb.ClipboardNotify, HasText: true})
		return
	}
	v.send(rfb.Text{Latin1: rfb.Latin1(text)})
}

// got implements viewer.
func (v *person) got() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.came)
}

// keep implements viewer.
func (*person) keep(string) {}

// ask presses the key that asks for a text: into the desktop, or out of it.
func (v *person) ask(in bool) {
	v.Helper()
	key := uint32(0x1008ff57) // XF86Copy
	if in {
		key = 0x1008ff6d // XF86Paste
	}
	v.send(rfb.Key{Down: true, Sym: key}, rfb.Key{Sym: key})
}

// told returns how many texts it was told of, or given.
func (v *person) told() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.heard
}

// request asks for the text it was told of.
func (v *person) request() {
	v.Helper()
	v.send(rfb.ClipboardMark{Actions: rfb.ClipboardRequest, HasText: true})
}

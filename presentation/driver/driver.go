// Package driver is the contract for presentation providers: ways in which a
// desktop reaches the person who works on it. A provider author reads this
// package and runs package drivertest; nothing else is needed.
//
// A provider holds no sockets and no tickets: the gateway has checked who the
// viewer is before Serve is called, and knows no protocol. The provider knows
// the protocol and keeps the policy on the wire. Every method is safe for
// concurrent use.
package driver

import (
	"context"
	"io"
	"time"

	"consort.dev/consort/estate"
)

// Provider is one way of presenting a desktop.
type Provider interface {
	// Describe says what the provider needs and offers. It is cheap and never
	// changes.
	Describe(ctx context.Context) (estate.PresentationOffer, error)

	// Serve carries one session until the viewer or the machine ends it, which
	// is success, or ctx ends, which returns ctx's error within a second. It
	// closes both ends before it returns. A viewer that breaks the protocol or
	// fails to show the secret is fault.Denied or fault.Invalid; a machine
	// that breaks it is fault.Unavailable. A viewer that does not read holds up
	// its own session only, and is not kept pictures for.
	Serve(ctx context.Context, s Session) error

	// File returns what a native viewer opens to reach the session at the
	// address. The secret is in it where the protocol has a place for one, and
	// then the file is for one use. An offer without File is fault.Unsupported.
	File(ctx context.Context, h Handoff) (File, error)
}

// Session is one person looking at one machine.
type Session struct {
	Viewer  io.ReadWriteCloser // towards the person
	Machine io.ReadWriteCloser // towards the machine, speaking the offer's protocol
	Title   string             // shown by viewers
	Secret  string             // what the viewer must show; empty when the way there proved it
	Policy  Policy
	Report  func(Event) // called in order, from one goroutine; may be nil

	// Own is closed once the machine has an identity of its own; nil when it has
	// one already. Until then pictures cross and nothing else does: what is typed,
	// pointed at, pasted or copied is dropped. A provider that cannot tell
	// pictures from the rest refuses such a session as fault.Unsupported.
	Own <-chan struct{}
}

// Shut reports whether pictures alone may cross now.
func (s *Session) Shut() bool {
	if s.Own == nil {
		return false
	}
	select {
	case <-s.Own:
		return false
	default:
		return true
	}
}

// Policy is what may cross. What is not allowed is denied. A provider that
// cannot keep a part of it refuses the session as fault.Unsupported; one whose
// offer Keeps refuses none.
type Policy struct {
	// Clipboard says what texts may cross. With Gesture one is held until its
	// viewer asks, by what the protocol has for that, and crosses once; the last
	// one counts. After TTL a text that crossed is taken back as far as the
	// protocol allows.
	Clipboard estate.Clipboard
	ViewOnly  bool // nothing typed or pointed at reaches the machine

	// Watermark is drawn into the picture, all over it; nothing when empty.
	Watermark string

	// Idle ends the session once nothing was typed or pointed at for so long; 0
	// does not. It ends with the event Idle, and is success.
	Idle time.Duration
}

// Event is something that happened in a session.
type Event struct {
	Name  EventName
	Bytes int64  // of a clipboard text
	Text  string // why something was refused
}

// EventName names an event.
type EventName string

// The events.
const (
	FirstFrame     EventName = "first-frame"   // the first pixels went to the viewer
	FirstInput     EventName = "first-input"   // the viewer's first key or button went to the machine
	ClipboardIn    EventName = "clipboard-in"  // text went to the machine
	ClipboardOut   EventName = "clipboard-out" // text went to the viewer
	PolicyRefused  EventName = "refused"       // something was held back; Text says what
	Idle           EventName = "idle"          // nothing was typed or pointed at for as long as the policy says
	ViewerGone     EventName = "viewer-gone"
	MachineGone    EventName = "machine-gone"
	ViewerAccepted EventName = "accepted" // the viewer showed the secret, or needed none
)

// Handoff is what a native viewer needs to know.
type Handoff struct {
	Host   string // address that viewers reach, usually loopback
	Port   int
	Title  string
	Secret string
	User   string // account in the guest, where the protocol asks for one
}

// File is a file a native viewer opens.
type File struct {
	Name    string // with its extension
	Type    string // media type
	Content []byte
}

// Secreter is implemented by providers whose viewers show a secret of a
// certain form.
type Secreter interface {
	// NewSecret returns a fresh secret of that form from the random source.
	NewSecret(random io.Reader) (string, error)
}

// As returns p, or the nearest provider inside p, as a T.
func As[T any](p Provider) (t T, ok bool) {
	for p != nil {
		if t, ok = p.(T); ok {
			return t, true
		}
		w, wraps := p.(interface{ Unwrap() Provider })
		if !wraps {
			break
		}
		p = w.Unwrap()
	}
	return t, false
}

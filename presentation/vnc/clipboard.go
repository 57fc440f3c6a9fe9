package vnc

import (
	"sync"
	"time"
	"unicode/utf8"

	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/presentation/driver"
)

// clips is the clipboard between the two ends. Text is taken whole from one
// end, judged, and then offered to the other in the form that end speaks.
type clips struct {
	mu              sync.Mutex
	viewer, machine clip
	gestures        gestures
}

// clip is one end's view: whether it speaks the extended form, and the text it
// was told of and may ask for.
type clip struct {
	extended bool
	told     bool
	text     string
	serial   int // grows with every text that crossed to this end
	held     held
}

func (r *relay) clipboardCaps(toViewer bool) rfb.ClipboardMark {
	return rfb.ClipboardMark{
		FromServer: toViewer, HasText: true, MaxText: uint32(r.policy.Clipboard.MaxBytes),
		Actions: rfb.ClipboardCaps | rfb.ClipboardRequest | rfb.ClipboardPeek | rfb.ClipboardNotify | rfb.ClipboardProvide,
	}
}

func (r *relay) clipboardFromViewer(m rfb.Message) error { return r.inwards().handle(m) }

func (r *relay) inwards() *clipSide {
	return &clipSide{
		r: r, from: r.viewer, to: r.machine, mine: &r.clips.viewer, other: &r.clips.machine, toViewer: true,
		allowed: r.policy.Clipboard.In && !r.policy.ViewOnly, event: driver.ClipboardIn,
		denied: "clipboard to the desktop: the context does not allow it",
	}
}

func (r *relay) clipboardFromMachine(m rfb.Message) error { return r.outwards().handle(m) }

func (r *relay) outwards() *clipSide {
	return &clipSide{
		r: r, from: r.machine, to: r.viewer, mine: &r.clips.machine, other: &r.clips.viewer,
		allowed: r.policy.Clipboard.Out, event: driver.ClipboardOut,
		denied: "clipboard from the desktop: the context does not allow it",
	}
}

// clipSide handles what one end says of the clipboard.
type clipSide struct {
	r           *relay
	from, to    *end
	mine, other *clip
	toViewer    bool // answers go to the viewer
	allowed     bool
	event       driver.EventName
	denied      string
}

func (s *clipSide) handle(m rfb.Message) error {
	if s.r.shut() {
		s.allowed, s.denied = false, "clipboard: the desktop has no identity of its own yet"
	}
	if t, classic := m.(rfb.Text); classic {
		return s.text(rfb.FromLatin1(t.Latin1), t.Skipped)
	}
	x := m.(rfb.ClipboardMark)
	switch {
	case x.Does(rfb.ClipboardCaps):
		return s.caps()
	case x.Does(rfb.ClipboardProvide):
		if !x.HasText {
			return nil
		}
		return s.text(x.Text, x.Skipped)
	case x.Does(rfb.ClipboardNotify):
		return s.notified(x.HasText)
	case x.Does(rfb.ClipboardRequest):
		return s.requested()
	case x.Does(rfb.ClipboardPeek):
		s.r.clips.mu.Lock()
		told := s.mine.told
		s.r.clips.mu.Unlock()
		return s.from.send(rfb.ClipboardMark{FromServer: s.toViewer, Actions: rfb.ClipboardNotify, HasText: told})
	}
	return nil
}

// caps notes that the end speaks the extended form. The machine, which is asked
// and not the asker, is told ours in answer.
func (s *clipSide) caps() error {
	if !s.r.policy.Clipboard.In && !s.r.policy.Clipboard.Out {
		return nil
	}
	s.r.clips.mu.Lock()
	s.mine.extended = true
	s.r.clips.mu.Unlock()
	if s.toViewer {
		return nil
	}
	return s.from.send(s.r.clipboardCaps(false))
}

// notified asks for a text that the end has, when it may cross.
func (s *clipSide) notified(hasText bool) error {
	if !hasText {
		return nil
	}
	if !s.allowed {
		s.r.refuse(s.denied)
		return nil
	}
	s.r.clips.mu.Lock()
	s.mine.held.text = nil // there is a newer one
	s.r.clips.mu.Unlock()
	return s.from.send(rfb.ClipboardMark{FromServer: s.toViewer, Actions: rfb.ClipboardRequest, HasText: true})
}

// requested hands the end the text it was told of.
func (s *clipSide) requested() error {
	s.r.clips.mu.Lock()
	told, text := s.mine.told, s.mine.text
	s.r.clips.mu.Unlock()
	if !told {
		return nil
	}
	return s.from.send(rfb.ClipboardMark{
		FromServer: s.toViewer, Actions: rfb.ClipboardProvide, HasText: true, Text: text,
	})
}

// text judges a text and offers it to the other end.
func (s *clipSide) text(text string, skipped int64) error {
	switch {
	case !s.allowed:
		s.r.refuse(s.denied)
		return nil
	case skipped > 0, int64(len(text)) > int64(s.r.policy.Clipboard.MaxBytes):
		s.r.refuse("clipboard: the text is longer than the context allows")
		return nil
	case !utf8.ValidString(text):
		s.r.refuse("clipboard: the text is not UTF-8")
		return nil
	case s.r.policy.Clipboard.Gesture && !s.asked(text):
		return nil
	}
	return s.hand(text)
}

// hand hands a text to the other end.
func (s *clipSide) hand(text string) error {
	s.r.clips.mu.Lock()
	extended := s.other.extended
	s.other.told, s.other.text = extended, text
	s.other.serial++
	serial := s.other.serial
	s.r.clips.mu.Unlock()
	if ttl := s.r.policy.Clipboard.TTL; ttl > 0 {
		time.AfterFunc(time.Duration(ttl), func() { s.takeBack(serial) })
	}
	s.r.event(driver.Event{Name: s.event, Bytes: int64(len(text))})
	if extended {
		return s.to.send(rfb.ClipboardMark{FromServer: !s.toViewer, Actions: rfb.ClipboardNotify, HasText: true})
	}
	return s.to.send(rfb.Text{FromServer: !s.toViewer, Latin1: rfb.Latin1(text)})
}

package vnc

import (
	"errors"
	"time"

	"consort.dev/consort/internal/rfb"
)

// Where texts are held until the person asks, these keys ask: of their own on
// some keyboards, which the portal presses for its buttons, or with Control and
// Alt. They are the viewer's, so no guest presses them, and do not reach one.
const (
	copyKey  = 0x1008ff57 // XF86Copy: what is held comes out
	pasteKey = 0x1008ff6d // XF86Paste: what is held goes in

	copyLetter  = 'c'
	pasteLetter = 'v'
)

// asking is how long a text may take to come that was asked for before.
const asking = 10 * time.Second

// held is a text that waits to be asked for, or somebody who waits for a text.
type held struct {
	text  *string
	until time.Time
}

// gestures is what is known of the keys that ask.
type gestures struct {
	control, alt bool
	down         map[uint32]bool // keys that were ours: their releases are too
}

// gesture takes a key that asks for a text, and reports whether it was one. The
// machine gets every other.
func (r *relay) gesture(k rfb.Key) (mine bool, err error) {
	g := &r.clips.gestures // used by the viewer's goroutine alone
	switch k.Sym {
	case 0xffe3, 0xffe4: // Control_L, Control_R
		g.control = k.Down
		return false, nil
	case 0xffe9, 0xffea: // Alt_L, Alt_R
		g.alt = k.Down
		return false, nil
	}
	if !k.Down {
		mine = g.down[k.Sym]
		delete(g.down, k.Sym)
		return mine, nil
	}
	var side *clipSide
	switch letter := k.Sym | 0x20; {
	case k.Sym == pasteKey, g.control && g.alt && letter == pasteLetter:
		side = r.inwards()
	case k.Sym == copyKey, g.control && g.alt && letter == copyLetter:
		side = r.outwards()
	default:
		return false, nil
	}
	if g.down == nil {
		g.down = map[uint32]bool{}
	}
	g.down[k.Sym] = true
	return true, side.ask()
}

// ask hands over the text that is held, or the one that comes within moments.
func (s *clipSide) ask() error {
	if s.r.shut() || !s.allowed {
		s.r.refuse(s.denied)
		return nil
	}
	h := &s.mine.held
	s.r.clips.mu.Lock()
	text := h.text
	h.text = nil
	if text == nil {
		h.until = time.Now().Add(asking)
	}
	s.r.clips.mu.Unlock()
	if text == nil {
		return nil
	}
	return s.hand(*text)
}

// asked reports whether somebody waits for the text. Otherwise it is held.
func (s *clipSide) asked(text string) bool {
	s.r.clips.mu.Lock()
	defer s.r.clips.mu.Unlock()
	h := &s.mine.held
	if time.Now().Before(h.until) {
		h.until = time.Time{}
		return true
	}
	h.text = &text
	return false
}

// takeBack empties the clipboard of the end that a text crossed to, unless
// another has since.
func (s *clipSide) takeBack(serial int) {
	s.r.clips.mu.Lock()
	late := s.other.serial != serial
	extended := s.other.extended
	if !late {
		s.other.told, s.other.text = false, ""
	}
	s.r.clips.mu.Unlock()
	if late {
		return
	}
	fromServer := !s.toViewer
	say := []rfb.Message{rfb.Text{FromServer: fromServer}}
	if extended {
		say[0] = rfb.ClipboardMark{FromServer: fromServer, Actions: rfb.ClipboardNotify}
		if fromServer { // browsers' viewers pass over a notice of nothing
			say = append(say, rfb.ClipboardMark{FromServer: true, Actions: rfb.ClipboardProvide, HasText: true})
		}
	}
	_ = s.to.send(say...) // an end that is gone has nothing to take back
}

// errIdle ends a session in which nobody did anything.
var errIdle = errors.New("nothing was typed or pointed at")

// idle ends the session once nothing was typed or pointed at for too long.
func (r *relay) idle(quit <-chan struct{}) error {
	r.touched.Store(time.Now().UnixNano())
	t := time.NewTimer(r.policy.Idle)
	defer t.Stop()
	for {
		select {
		case <-quit:
			return nil
		case <-t.C:
		}
		left := r.policy.Idle - time.Since(time.Unix(0, r.touched.Load()))
		if left <= 0 {
			return errIdle
		}
		t.Reset(left)
	}
}

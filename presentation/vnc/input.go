package vnc

import (
	"sync"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/presentation/driver"
)

// relayed are the encodings that a viewer may ask the machine for. What is left
// out is ended here (fences, continuous updates, the clipboard) or not carried
// at all (sound, power, relative pointers, video).
func relayed(e rfb.Encoding) bool {
	switch e {
	case rfb.DesktopSize, rfb.LastRect, rfb.Cursor, rfb.ExtendedKey, rfb.LEDState,
		rfb.DesktopName, rfb.ExtendedDesktopSize:
		return true
	}
	return e.Pixels() || e.Level()
}

// fromViewer handles what the viewer says until its connection is over.
func (r *relay) fromViewer(quit <-chan struct{}) error {
	in := rfb.ViewerReader{R: r.viewer.r, TextLimit: r.limit(r.policy.Clipboard.In)}
	for {
		m, err := in.Read()
		if err == nil {
			err = r.handle(m, quit)
		}
		if err != nil {
			return err
		}
	}
}

// limit is how much clipboard text is read in a direction.
func (r *relay) limit(allowed bool) int {
	if !allowed {
		return 0
	}
	return int(r.policy.Clipboard.MaxBytes)
}

func (r *relay) handle(m rfb.Message, quit <-chan struct{}) error {
	switch m := m.(type) {
	case rfb.SetPixelFormat:
		return r.setFormat(m)
	case rfb.SetEncodings:
		return r.setEncodings(m)
	case rfb.UpdateRequest:
		return r.request(m)
	case rfb.Continuous:
		return r.continuous(m)
	case rfb.FenceMark:
		return r.fence(m)
	case rfb.Resize:
		return r.resize(m)
	case rfb.Text, rfb.ClipboardMark:
		return r.clipboardFromViewer(m)
	case rfb.Key, rfb.Pointer:
		return r.inputFrom(m, quit)
	}
	return fault.Internal.Errorf("no rule for the viewer's %T", m)
}

// setFormat passes the viewer's format on. Later than the first request it is
// refused: updates on their way could not be told apart.
func (r *relay) setFormat(m rfb.SetPixelFormat) error {
	r.screen.mu.Lock()
	same, settled := r.screen.format == m.Format, r.screen.settled
	r.screen.format = m.Format
	r.screen.mu.Unlock()
	if same {
		return nil
	}
	if r.mark != nil && !m.Format.TrueColour {
		return fault.Invalid.Errorf("the viewer wants colours by number, and nothing can be drawn into those")
	}
	if settled {
		return fault.Invalid.Errorf("the viewer changed its pixel format after it asked for pixels")
	}
	return r.machine.send(m)
}

func (r *relay) setEncodings(m rfb.SetEncodings) error {
	var pass rfb.SetEncodings
	var answer []rfb.Message
	r.screen.mu.Lock()
	for _, e := range m {
		if relayed(e) && (r.mark == nil || !e.Pixels() && !e.Level()) {
			pass = append(pass, e)
		}
		news := !r.screen.encodings[e]
		r.screen.encodings[e] = true
		switch {
		case !news:
		case e == rfb.Fence:
			r.flow.fences()
			answer = append(answer, rfb.FenceMark{FromServer: true, Flags: rfb.FenceRequest | rfb.FenceBlockBefore})
		case e == rfb.ContinuousUpdates:
			answer = append(answer, rfb.EndOfContinuous{}) // says that we speak them
		case e == rfb.ExtendedClipboard && (r.policy.Clipboard.In || r.policy.Clipboard.Out):
			answer = append(answer, r.clipboardCaps(true))
		}
	}
	r.screen.mu.Unlock()
	if r.policy.Clipboard.In || r.policy.Clipboard.Out {
		pass = append(pass, rfb.ExtendedClipboard)
	}
	if err := r.machine.send(append(pass, rfb.Raw)); err != nil || len(answer) == 0 {
		return err
	}
	return r.viewer.send(answer...)
}

func (r *relay) request(m rfb.UpdateRequest) error {
	r.screen.mu.Lock()
	r.screen.settled = true
	m.Area = m.Area.Clip(r.screen.width, r.screen.height)
	r.screen.mu.Unlock()
	switch {
	case !m.Incremental: // it has no picture: the machine must not sleep on that
		return r.machine.send(append([]rfb.Message{m}, r.wake()...)...)
	case r.flow.pulls():
		return nil // it gets them without asking
	}
	return r.machine.send(m)
}

func (r *relay) continuous(m rfb.Continuous) error {
	r.screen.mu.Lock()
	r.screen.settled = true
	r.screen.mu.Unlock()
	was := r.flow.set(m)
	if was && !m.On {
		return r.viewer.send(rfb.EndOfContinuous{})
	}
	return r.pull()
}

// fence answers the viewer's fence, or takes its answer to ours. Everything is
// handled in order, so the answer may go at once.
func (r *relay) fence(m rfb.FenceMark) error {
	if m.Flags&rfb.FenceRequest == 0 {
		r.flow.answered(m.Payload, time.Now())
		return r.pull()
	}
	m.FromServer = true
	m.Flags &= rfb.FenceBlockBefore | rfb.FenceBlockAfter
	return r.viewer.send(m)
}

// resize passes the wish on to a machine that has shown it takes sizes, and
// otherwise says that it is prohibited, so that the viewer scales.
func (r *relay) resize(m rfb.Resize) error {
	w, h := r.screen.size()
	if r.resizes.Load() && !r.policy.ViewOnly && len(m.Screens) > 0 && rfb.CheckSize(int(m.Width), int(m.Height)) == nil {
		return r.machine.send(m)
	}
	r.screen.mu.Lock()
	understands := r.screen.encodings[rfb.ExtendedDesktopSize]
	r.screen.mu.Unlock()
	if !understands {
		return nil
	}
	return r.viewer.send(rfb.Layout{
		Reason: rfb.ResizedByViewer, Status: rfb.ResizeProhibited, Width: w, Height: h,
		Screens: []rfb.Screen{{Area: rfb.Area{Width: uint16(w), Height: uint16(h)}}},
	})
}

// inputFrom passes keys and the pointer on.
func (r *relay) inputFrom(m rfb.Message, quit <-chan struct{}) error {
	if k, is := m.(rfb.Key); is && r.policy.Clipboard.Gesture {
		if mine, err := r.gesture(k); mine || err != nil {
			return err
		}
	}
	r.touched.Store(time.Now().UnixNano())
	switch {
	case r.policy.ViewOnly:
		r.refuse("keys and pointer: this session only looks")
		return nil
	case r.shut():
		r.refuse("keys and pointer: the desktop has no identity of its own yet")
		return nil
	}
	acts := false
	switch in := m.(type) {
	case rfb.Key:
		r.keys.wait(quit)
		if !r.extendedKeys.Load() {
			in.Code = 0
		}
		m, acts = in, in.Down
	case rfb.Pointer:
		w, h := r.screen.size()
		in.X, in.Y = uint16(min(int(in.X), max(w-1, 0))), uint16(min(int(in.Y), max(h-1, 0)))
		m, acts = in, in.Buttons != 0
	}
	if err := r.act(m); err != nil {
		return err
	}
	if acts && r.input.CompareAndSwap(false, true) {
		r.event(driver.Event{Name: driver.FirstInput})
	}
	r.awake.stir(afterInput)
	return nil
}

// act sends what was done to the machine; a key in turn with the nudges.
func (r *relay) act(m rfb.Message) error {
	if k, is := m.(rfb.Key); is {
		r.awake.turn.Lock()
		defer r.awake.turn.Unlock()
		r.awake.key(k)
	}
	return r.machine.send(m)
}

// bucket holds back a viewer that types faster than any person or paste: the
// excess waits, nothing is lost.
type bucket struct {
	mu    sync.Mutex
	level float64
	at    time.Time
}

const (
	keysPerSecond = 1000
	keysAtOnce    = 2000
)

func (b *bucket) wait(quit <-chan struct{}) {
	b.mu.Lock()
	now := time.Now()
	b.level = max(0, b.level-keysPerSecond*now.Sub(b.at).Seconds()) + 1
	b.at = now
	over := b.level - keysAtOnce
	b.mu.Unlock()
	if over <= 0 {
		return
	}
	t := time.NewTimer(time.Duration(over / keysPerSecond * float64(time.Second)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-quit:
	}
}

package vnc

import (
	"encoding/binary"
	"sync"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/presentation/driver"
)

// fromMachine handles what the machine says until its connection is over.
func (r *relay) fromMachine() error {
	in := rfb.ServerReader{R: r.machine.r, TextLimit: r.limit(r.policy.Clipboard.Out)}
	shown := false
	for {
		m, err := in.Read()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case rfb.Update:
			pixels, err := r.update(&in, m)
			if err != nil {
				return err
			}
			if pixels && !shown {
				shown = true
				r.event(driver.Event{Name: driver.FirstFrame})
			}
			err = r.pull()
			if err != nil {
				return err
			}
			continue
		case rfb.Text, rfb.ClipboardMark:
			err = r.clipboardFromMachine(m)
		case rfb.Bell, rfb.ColourMap:
			err = r.viewer.send(m)
		default: // fences and continuous updates were not asked for
			err = fault.Invalid.Errorf("message %T, which was not asked for", m)
		}
		if err != nil {
			return err
		}
	}
}

// update carries one framebuffer update, rectangle by rectangle, and reports
// whether it had pixels.
func (r *relay) update(in *rfb.ServerReader, u rfb.Update) (pixels bool, err error) {
	r.viewer.mu.Lock()
	defer r.viewer.mu.Unlock()
	w := &counter{w: r.viewer.w}
	if err := rfb.Write(w, u); err != nil {
		return false, err
	}
	for i := 0; u.Rects == rfb.OpenEnded || i < int(u.Rects); i++ {
		rect, err := in.Rect()
		if err != nil {
			return false, err
		}
		format, err := r.check(rect)
		if err != nil {
			return false, err
		}
		if err := rfb.Write(w, rect); err != nil {
			return false, err
		}
		if err := rfb.CopyBody(w, in.R, rect, format); err != nil {
			return false, err
		}
		if rect.Encoding == rfb.LastRect {
			break
		}
		pixels = pixels || rect.Encoding.Pixels() && rect.Area.Width > 0 && rect.Area.Height > 0
	}
	if mark, wanted := r.flow.sent(w.n); wanted {
		if err := rfb.Write(w, mark); err != nil {
			return false, err
		}
	}
	return pixels, r.viewer.w.Flush()
}

// check lets a rectangle pass that was asked for and lies inside the screen,
// and remembers what it says of the screen.
func (r *relay) check(rect rfb.Rect) (rfb.PixelFormat, error) {
	s := &r.screen
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.encodings[rect.Encoding] || !relayed(rect.Encoding) {
		return s.format, fault.Invalid.Errorf("rectangle of encoding %d, which was not asked for", rect.Encoding)
	}
	w, h := int(rect.Area.Width), int(rect.Area.Height)
	switch rect.Encoding {
	case rfb.ExtendedDesktopSize:
		r.resizes.Store(true)
		if rect.Area.X == rfb.ResizedByViewer && rect.Area.Y != 0 {
			return s.format, nil // a refusal changes nothing
		}
		fallthrough
	case rfb.DesktopSize:
		if err := rfb.CheckSize(w, h); err != nil {
			return s.format, err
		}
		s.width, s.height = w, h
	case rfb.ExtendedKey:
		r.extendedKeys.Store(true)
	}
	if rect.Encoding.Pixels() && !rect.Area.In(s.width, s.height) {
		return s.format, fault.Invalid.Errorf("rectangle %v outside a screen of %d by %d", rect.Area, s.width, s.height)
	}
	return s.format, nil
}

// counter counts what an update takes on the wire.
type counter struct {
	w interface{ Write([]byte) (int, error) }
	n int
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += n
	return n, err
}

// pull asks the machine for the next update, on behalf of a viewer that wants
// them without asking and keeps up with them.
func (r *relay) pull() error {
	area, now := r.flow.ask()
	if !now {
		return nil
	}
	w, h := r.screen.size()
	return r.machine.send(rfb.UpdateRequest{Incremental: true, Area: area.Clip(w, h)})
}

// Bounds on what is on its way to a viewer that wants updates without asking.
// One update may always be on its way.
const (
	bytesOnTheWay   = 1 << 20
	updatesOnTheWay = 64 // two seconds at the 30 ms between a machine's updates
)

// flow says when the machine is asked. A fence goes after every update; its
// answer says that the viewer has handled it.
type flow struct {
	mu     sync.Mutex
	on     bool
	area   rfb.Area
	fenced bool
	asked  bool // one request is with the machine
	next   uint32
	bytes  int
	way    []int // sizes of the updates on their way, oldest first
}

func (f *flow) fences() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fenced = true
}

func (f *flow) pulls() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.on
}

// set switches and reports what was.
func (f *flow) set(m rfb.Continuous) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.on
	f.on, f.area, f.asked = m.On, m.Area, false
	return was
}

// sent notes an update of n bytes and returns the fence to send after it.
func (f *flow) sent(n int) (rfb.FenceMark, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = false
	if !f.on || !f.fenced {
		return rfb.FenceMark{}, false
	}
	f.next++
	f.bytes += n
	f.way = append(f.way, n)
	return rfb.FenceMark{
		FromServer: true, Flags: rfb.FenceRequest | rfb.FenceBlockBefore,
		Payload: binary.BigEndian.AppendUint32(nil, f.next),
	}, true
}

// answered takes the viewer's answer to a fence; it speaks for all before it.
func (f *flow) answered(payload []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(payload) != 4 {
		return
	}
	behind := int(f.next - binary.BigEndian.Uint32(payload))
	for len(f.way) > max(behind, 0) {
		f.bytes -= f.way[0]
		f.way = f.way[1:]
	}
}

// ask reports whether to ask now, and for what; then it is asked.
func (f *flow) ask() (rfb.Area, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	full := len(f.way) > 0 && (f.bytes >= bytesOnTheWay || len(f.way) >= updatesOnTheWay)
	if !f.on || f.asked || full {
		return rfb.Area{}, false
	}
	f.asked = true
	return f.area, true
}

// A QEMU that sees no input looks at its screen less and less often, and input
// makes it look too early: before the guest has drawn. Unless it is kept awake,
// a key's picture comes 80 ms later at the median; kept awake, 18 ms. What keeps
// it awake is the release of a key that nobody holds, which reaches no guest.
const (
	nudgeEvery = 25 * time.Millisecond
	nudgeFor   = 10 * time.Second
	voidKey    = 0xffffff // VoidSymbol
)

// keepAwake nudges the machine while the person is active.
func (r *relay) keepAwake(quit <-chan struct{}) error {
	for {
		select {
		case <-quit:
			return nil
		case <-r.typed:
		}
		if err := r.nudge(quit); err != nil {
			return err
		}
	}
}

// nudge goes on until the person has been quiet for a while.
func (r *relay) nudge(quit <-chan struct{}) error {
	tick, last := time.NewTicker(nudgeEvery), time.Now()
	defer tick.Stop()
	for time.Since(last) < nudgeFor {
		select {
		case <-quit:
			return nil
		case <-r.typed:
			last = time.Now()
		case <-tick.C:
			if err := r.machine.send(rfb.Key{Sym: voidKey}); err != nil {
				return err
			}
		}
	}
	return nil
}

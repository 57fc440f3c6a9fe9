package vnc

import (
	"bufio"
	"io"
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

// update carries one framebuffer update, rectangle by rectangle, through a buffer
// that it is lent, and reports whether it had pixels.
func (r *relay) update(in *rfb.ServerReader, u rfb.Update) (bool, error) {
	r.flow.began()
	r.viewer.mu.Lock()
	defer r.viewer.mu.Unlock()
	wire := &counter{w: tagged{r.viewer}}
	w := r.buffers.Get().(*bufio.Writer)
	w.Reset(wire)
	defer func() {
		w.Reset(nil)
		r.buffers.Put(w)
	}()
	pixels, err := r.rects(w, in, u)
	if err != nil {
		return false, err
	}
	if pixels >= smallChange {
		r.awake.stir(afterChange)
	}
	if mark, wanted := r.flow.sent(wire.n+int64(w.Buffered()), time.Now()); wanted {
		if err := rfb.Write(w, mark); err != nil {
			return false, err
		}
	}
	return pixels > 0, w.Flush()
}

// rects carries the update's rectangles and returns how many pixels they cover.
func (r *relay) rects(w *bufio.Writer, in *rfb.ServerReader, u rfb.Update) (pixels int, err error) {
	if err := rfb.Write(w, u); err != nil {
		return 0, err
	}
	for i := 0; u.Rects == rfb.OpenEnded || i < int(u.Rects); i++ {
		rect, err := in.Rect()
		if err != nil {
			return 0, err
		}
		format, err := r.check(rect)
		if err != nil {
			return 0, err
		}
		if err := r.rect(w, in.R, rect, format); err != nil {
			return 0, err
		}
		if rect.Encoding == rfb.LastRect {
			break
		}
		if rect.Encoding.Pixels() {
			pixels += int(rect.Area.Width) * int(rect.Area.Height)
		}
	}
	return pixels, nil
}

// rect carries one rectangle.
func (r *relay) rect(w *bufio.Writer, in *bufio.Reader, rect rfb.Rect, f rfb.PixelFormat) error {
	if r.mark != nil && rect.Encoding == rfb.Raw {
		r.screen.mu.Lock()
		compressed := r.screen.encodings[rfb.Zlib]
		r.screen.mu.Unlock()
		return r.mark.carry(w, in, rect, f, compressed)
	}
	if err := rfb.Write(w, rect); err != nil {
		return err
	}
	return rfb.CopyBody(w, in, rect, f)
}

// check lets a rectangle pass that was asked for and lies inside the screen,
// and remembers what it says of the screen.
func (r *relay) check(rect rfb.Rect) (rfb.PixelFormat, error) {
	s := &r.screen
	s.mu.Lock()
	defer s.mu.Unlock()
	unmarked := r.mark != nil && rect.Encoding.Pixels() && rect.Encoding != rfb.Raw
	if !s.encodings[rect.Encoding] || !relayed(rect.Encoding) || unmarked {
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

// counter counts what has gone to the wire.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// pull asks the machine for the next update, on behalf of a viewer that wants
// them without asking and keeps up with them.
func (r *relay) pull() error {
	area, now := r.flow.ask(false)
	if !now {
		return nil
	}
	w, h := r.screen.size()
	return r.machine.send(rfb.UpdateRequest{Incremental: true, Area: area.Clip(w, h)})
}

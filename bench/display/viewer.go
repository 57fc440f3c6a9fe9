package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"consort.dev/consort/bench/result"
	"consort.dev/consort/internal/rfb"
)

// browser are the encodings that noVNC 1.7.0 sends, in its order.
var browser = []rfb.Encoding{
	rfb.CopyRect, 50, rfb.Tight, rfb.TightPNG, rfb.ZRLE, 21, rfb.Hextile, 2, rfb.Zlib, rfb.Raw,
	-26, -254, rfb.DesktopSize, rfb.LastRect, rfb.ExtendedKey, rfb.LEDState,
	rfb.ExtendedDesktopSize, -309, rfb.Fence, rfb.ContinuousUpdates, rfb.DesktopName,
	rfb.ExtendedClipboard, rfb.ExtendedMouseButtons, 0x574d5664, rfb.Cursor,
}

// viewer asks as noVNC does: for one update after another, unless the server
// says that it sends them without being asked. It answers fences.
type viewer struct {
	client *rfb.Client
	conn   net.Conn
	frames chan time.Time // when updates with pixels came
	pushed atomic.Bool
	failed atomic.Pointer[error]
	wg     sync.WaitGroup

	mu sync.Mutex // of what is sent
}

// look opens a viewer on the connection and returns after its first frame.
func look(conn net.Conn) (*viewer, error) {
	c, err := rfb.NewClient(conn, rfb.Proof{}, browser...)
	if err != nil {
		return nil, err
	}
	v := &viewer{client: c, conn: conn, frames: make(chan time.Time, 1024)}
	c.Message = v.message
	if err := v.send(rfb.UpdateRequest{Area: v.all()}); err != nil {
		return nil, err
	}
	if err := c.NextFrame(); err != nil {
		return nil, err
	}
	v.wg.Go(func() {
		if err := v.read(); err != nil {
			v.failed.Store(&err)
		}
	})
	return v, nil
}

func (v *viewer) close() {
	v.conn.Close()
	v.wg.Wait()
}

func (v *viewer) all() rfb.Area {
	s := v.client.Size()
	return rfb.Area{Width: uint16(s.X), Height: uint16(s.Y)}
}

func (v *viewer) send(ms ...rfb.Message) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.client.Send(ms...)
}

func (v *viewer) message(m rfb.Message) {
	var err error
	switch m := m.(type) {
	case rfb.FenceMark:
		err = v.send(rfb.FenceMark{Flags: m.Flags & (rfb.FenceBlockBefore | rfb.FenceBlockAfter), Payload: m.Payload})
	case rfb.EndOfContinuous:
		v.pushed.Store(true)
		err = v.send(rfb.Continuous{On: true, Area: v.all()})
	}
	if err != nil {
		v.failed.Store(&err)
	}
}

func (v *viewer) read() error {
	ask := rfb.UpdateRequest{Incremental: true, Area: v.all()}
	if err := v.send(ask); err != nil {
		return err
	}
	for frames := v.client.Frames; ; {
		m, err := v.client.Next()
		if err != nil {
			return err
		}
		if _, is := m.(rfb.Update); !is {
			continue
		}
		if v.client.Frames > frames {
			frames = v.client.Frames
			select {
			case v.frames <- time.Now():
			default: // nobody looks
			}
		}
		if !v.pushed.Load() {
			if err := v.send(ask); err != nil {
				return err
			}
		}
	}
}

// press presses and releases a key.
func (v *viewer) press(key rune) error {
	return v.send(rfb.Key{Down: true, Sym: uint32(key), Code: codes[key]}, rfb.Key{Sym: uint32(key), Code: codes[key]})
}

// codes are the scan codes of the keys pressed.
var codes = map[rune]uint32{'r': 0x13, 'a': 0x1e}

// forget drops the updates that have come.
func (v *viewer) forget() {
	for {
		select {
		case <-v.frames:
		default:
			return
		}
	}
}

// next waits for an update.
func (v *viewer) next(ctx context.Context) (time.Time, error) {
	select {
	case t := <-v.frames:
		return t, nil
	case <-ctx.Done():
		if err := v.failed.Load(); err != nil {
			return time.Time{}, *err
		}
		return time.Time{}, fmt.Errorf("nothing comes any more: %w", ctx.Err())
	}
}

// keys presses keys as somebody who types does, and notes how long each takes
// until its update is here.
func (v *viewer) keys(ctx context.Context, n int, random *rand.Rand, s result.Samples, name string) error {
	for range n {
		if err := pause(ctx, time.Duration(150+random.IntN(200))*time.Millisecond); err != nil {
			return err
		}
		v.forget()
		began := time.Now()
		if err := v.press('a'); err != nil {
			return err
		}
		within, cancel := context.WithTimeout(ctx, 20*time.Second)
		at, err := v.next(within)
		cancel()
		if err != nil {
			return err
		}
		s.Add(name, float64(at.Sub(began).Microseconds())/1000)
	}
	return nil
}

// rate counts updates for so long while the guest redraws all the time, and
// returns how many came a second. It turns the redrawing on and off again.
func (v *viewer) rate(ctx context.Context, warm, long time.Duration) (perSecond float64, err error) {
	if err := v.press('r'); err != nil {
		return 0, err
	}
	if err := pause(ctx, warm); err != nil {
		return 0, err
	}
	v.forget()
	began, n := time.Now(), 0
	within, cancel := context.WithDeadline(ctx, began.Add(long))
	defer cancel()
	for {
		if _, err := v.next(within); err != nil {
			break // its time is over, or it has failed
		}
		n++
	}
	if failed := v.failed.Load(); failed != nil {
		return 0, *failed
	}
	perSecond = float64(n) / time.Since(began).Seconds()
	return perSecond, errors.Join(v.press('r'), v.still(ctx))
}

// still waits until updates have stopped: QEMU forgets what it has not read of a
// viewer that leaves.
func (v *viewer) still(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		within, end := context.WithTimeout(ctx, time.Second)
		_, err := v.next(within)
		end()
		if err != nil {
			break
		}
	}
	return ctx.Err()
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

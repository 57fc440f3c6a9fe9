package vnc

import (
	"sync"
	"time"

	"consort.dev/consort/internal/rfb"
)

// A QEMU that sees no input looks at its screen less and less often, 30 ms to 3 s
// apart, and input makes it look too early: before the guest has drawn. Unless it
// is kept awake, a key's picture comes 80 ms later at the median; kept awake,
// 18 ms. What keeps it awake is the release of a key that nobody holds, which
// reaches no guest.
const (
	nudgeEvery  = 25 * time.Millisecond
	afterInput  = 10 * time.Second
	afterChange = 2 * time.Second

	// A change of fewer pixels than a short line of text is a cursor that blinks,
	// or a clock: nobody is at work.
	smallChange = 4096

	voidKey  = 0xffffff // VoidSymbol
	voidCode = 0xffff   // the scan code of no key

	// QEMU looks at 16 bits of a symbol, and takes VoidSymbol for Delete.
	symbolBits = 0xffff
)

// awake is until when the person counts as active.
type awake struct {
	stirred chan struct{} // holds one: the time was short

	// Held from the look at the keys until the nudge is sent, and from the note of a
	// key until that is: a nudge that was due before a key must not come after it.
	turn sync.Mutex

	mu    sync.Mutex
	until time.Time
	held  bool // the key is down that a release of voidKey would release
}

// stir keeps the machine awake for so long from now.
func (a *awake) stir(d time.Duration) {
	a.mu.Lock()
	if t := time.Now().Add(d); t.After(a.until) {
		a.until = t
	}
	a.mu.Unlock()
	select {
	case a.stirred <- struct{}{}:
	default:
	}
}

// key notes a key on its way to the machine.
func (a *awake) key(k rfb.Key) {
	if k.Sym&symbolBits != voidKey&symbolBits {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held = k.Down
}

// state reports whether the time has not run out, and whether nudges must wait.
func (a *awake) state() (active, held bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Now().Before(a.until), a.held
}

// keepAwake nudges the machine while the person is active.
func (r *relay) keepAwake(quit <-chan struct{}) error {
	tick := time.NewTicker(nudgeEvery)
	defer tick.Stop()
	for {
		tick.Stop()
		select {
		case <-quit:
			return nil
		case <-r.awake.stirred:
		}
		tick.Reset(nudgeEvery)
		for active := true; active; active, _ = r.awake.state() {
			select {
			case <-quit:
				return nil
			case <-tick.C:
			}
			if err := r.nudge(); err != nil {
				return err
			}
		}
	}
}

// nudge wakes the machine, and asks a machine that is far away once more.
func (r *relay) nudge() error {
	r.awake.turn.Lock()
	defer r.awake.turn.Unlock()
	say := r.wake()
	if area, now := r.flow.ask(true); now {
		w, h := r.screen.size()
		say = append(say, rfb.UpdateRequest{Incremental: true, Area: area.Clip(w, h)})
	}
	if len(say) == 0 {
		return nil
	}
	return r.machine.send(say...)
}

// wake returns what wakes the machine: nothing, where that would release a key
// that is held.
func (r *relay) wake() []rfb.Message {
	if r.extendedKeys.Load() {
		return []rfb.Message{rfb.Key{Sym: voidKey, Code: voidCode}}
	}
	if _, held := r.awake.state(); held {
		return nil
	}
	return []rfb.Message{rfb.Key{Sym: voidKey}}
}

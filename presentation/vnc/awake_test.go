package vnc

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/presentation/driver"
)

// heard is what the machine was told.
type heard struct {
	mu  sync.Mutex
	all []rfb.Message
}

// hear listens at the machine's end.
func hear(o *opened) *heard {
	h := new(heard)
	go func() {
		for {
			m, err := o.fromViewer.Read()
			if err != nil {
				return
			}
			h.mu.Lock()
			h.all = append(h.all, m)
			h.mu.Unlock()
		}
	}()
	return h
}

// count returns how often the message was said.
func (h *heard) count(is func(rfb.Message) bool) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, m := range h.all {
		if is(m) {
			n++
		}
	}
	return n
}

func aNudge(m rfb.Message) bool {
	k, is := m.(rfb.Key)
	return is && (k == rfb.Key{Sym: voidKey} || k == rfb.Key{Sym: voidKey, Code: voidCode})
}

func say(t *testing.T, o *opened, ms ...rfb.Message) {
	t.Helper()
	if err := rfb.Write(o.viewer, ms...); err != nil {
		t.Fatal(err)
	}
}

// show has the machine send one update of raw pixels.
func show(t *testing.T, o *opened, width, height uint16) {
	t.Helper()
	if err := rfb.Write(o.machine, rfb.Update{Rects: 1}, rfb.Rect{Area: rfb.Area{Width: width, Height: height}}); err != nil {
		t.Fatal(err)
	}
	if _, err := o.machine.Write(make([]byte, 4*int(width)*int(height))); err != nil {
		t.Fatal(err)
	}
}

// The machine is nudged while the person is active, and left alone afterwards.
func TestNudgesStopWhenThePersonDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, driver.Policy{})
		drain(o.viewer)
		h := hear(o)
		time.Sleep(time.Minute)
		if n := h.count(aNudge); n != 0 {
			t.Errorf("nudges before any input = %d", n)
		}
		say(t, o, rfb.Key{Down: true, Sym: 'a'})
		time.Sleep(time.Second)
		if n := h.count(aNudge); n < 38 || n > 41 {
			t.Errorf("nudges in the first second = %d, want 40", n)
		}
		time.Sleep(time.Minute)
		if n := h.count(aNudge); n < 395 || n > 405 {
			t.Errorf("nudges in all = %d, want 400: ten seconds of them", n)
		}
	})
}

// A picture that changes by itself keeps the machine awake for a little while,
// also for those who only look; a cursor that blinks does not.
func TestAChangeKeepsTheMachineAwake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, driver.Policy{ViewOnly: true, Clipboard: estate.Clipboard{In: true}})
		drain(o.viewer)
		h := hear(o)
		say(t, o, rfb.Key{Down: true, Sym: 'a'}, rfb.Pointer{Buttons: 1})
		for range 60 {
			show(t, o, 8, 16)
			time.Sleep(time.Second)
		}
		if n := h.count(func(rfb.Message) bool { return true }); n != 0 {
			t.Errorf("what the machine heard beside a cursor that blinks: %v", h.all)
		}
		show(t, o, side, side)
		time.Sleep(time.Minute)
		if n, all := h.count(aNudge), len(h.all); n < 78 || n > 82 || all != n {
			t.Errorf("nudges after a change = %d of %d, want 80: two seconds of them", n, all)
		}
	})
}

// Whoever waits for the whole picture does not wait for a machine that sleeps.
func TestTheFirstRequestWakesTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, driver.Policy{ViewOnly: true})
		drain(o.viewer)
		h := hear(o)
		whole := rfb.UpdateRequest{Area: everywhere}
		say(t, o, whole, rfb.UpdateRequest{Incremental: true, Area: everywhere})
		synctest.Wait()
		want := []rfb.Message{whole, rfb.Key{Sym: voidKey}, rfb.UpdateRequest{Incremental: true, Area: everywhere}}
		if !slices.Equal(h.all, want) {
			t.Errorf("the machine heard %v, want %v", h.all, want)
		}
	})
}

// What wakes the machine must release no key: where symbols count, that would be
// Delete.
func TestNudgesReleaseNoKey(t *testing.T) {
	const deleteKey = 0xffff
	synctest.Test(t, func(t *testing.T) {
		o := open(t, driver.Policy{})
		drain(o.viewer)
		h := hear(o)
		say(t, o, rfb.SetEncodings{rfb.Raw, rfb.ExtendedKey}, rfb.Key{Down: true, Sym: deleteKey})
		time.Sleep(time.Second)
		if n := h.count(aNudge); n != 0 {
			t.Errorf("nudges while Delete is down = %d", n)
		}
		say(t, o, rfb.Key{Sym: deleteKey})
		time.Sleep(time.Second)
		if n := h.count(aNudge); n < 38 {
			t.Errorf("nudges after Delete is up = %d, want 40", n)
		}

		// A machine that takes scan codes is nudged with the code of no key.
		if err := rfb.Write(o.machine, rfb.Update{Rects: 1}, rfb.Rect{Encoding: rfb.ExtendedKey}); err != nil {
			t.Fatal(err)
		}
		say(t, o, rfb.Key{Down: true, Sym: deleteKey, Code: 0xd3})
		synctest.Wait() // a nudge was due at this very moment
		before := h.count(func(m rfb.Message) bool { return m == rfb.Key{Sym: voidKey} })
		time.Sleep(time.Second)
		if n := h.count(func(m rfb.Message) bool { return m == rfb.Key{Sym: voidKey, Code: voidCode} }); n < 38 {
			t.Errorf("nudges by scan code = %d, want 40", n)
		}
		if n := h.count(func(m rfb.Message) bool { return m == rfb.Key{Sym: voidKey} }); n != before {
			t.Errorf("nudges by symbol while Delete is down = %d", n-before)
		}
	})
}

// A key that goes down at the moment a nudge is due is not released by it.
func TestANudgeThatIsDueReleasesNoKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, driver.Policy{})
		drain(o.viewer)
		h := hear(o)
		down, up := rfb.Key{Down: true, Sym: 0xffff}, rfb.Key{Sym: 0xffff}
		const presses = 400
		for range presses {
			say(t, o, down)
			time.Sleep(nudgeEvery)
			say(t, o, up)
			time.Sleep(nudgeEvery)
		}
		synctest.Wait()
		held, nudges, early := false, 0, 0
		for _, m := range h.all {
			switch {
			case m == down, m == up:
				held = m == down
			case aNudge(m) && held:
				early++
			case aNudge(m):
				nudges++
			}
		}
		if early > 0 || nudges < presses/4 {
			t.Errorf("nudges while Delete was down = %d, while it was up = %d", early, nudges)
		}
	})
}

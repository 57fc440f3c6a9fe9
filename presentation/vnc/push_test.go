package vnc

import (
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/presentation/driver"
)

var everywhere = rfb.Area{Width: side, Height: side}

// watcher is a viewer that counts and keeps what it is sent.
type watcher struct {
	o       *opened
	answers time.Duration // fences are answered so late; never when negative
	updates atomic.Int64
	wg      sync.WaitGroup

	mu   sync.Mutex
	said []rfb.Message // all but updates
}

// watch reads at the viewer's end until it is closed.
func watch(t *testing.T, o *opened, answers time.Duration) *watcher {
	t.Helper()
	w := &watcher{o: o, answers: answers}
	w.wg.Go(w.read)
	t.Cleanup(func() {
		o.viewer.Close()
		w.wg.Wait()
	})
	return w
}

func (w *watcher) read() {
	in := rfb.ServerReader{R: w.o.fromMachine}
	for {
		m, err := in.Read()
		if err != nil {
			return
		}
		switch m := m.(type) {
		case rfb.Update:
			rect, err := in.Rect()
			if err != nil || rfb.CopyBody(io.Discard, in.R, rect, rfb.XRGB()) != nil {
				return
			}
			w.updates.Add(1)
			continue
		case rfb.FenceMark:
			if m.Flags&rfb.FenceRequest != 0 && w.answers >= 0 {
				w.wg.Go(func() {
					time.Sleep(w.answers)
					_ = rfb.Write(w.o.viewer, rfb.FenceMark{Flags: m.Flags &^ rfb.FenceRequest, Payload: m.Payload})
				})
			}
		}
		w.mu.Lock()
		w.said = append(w.said, m)
		w.mu.Unlock()
	}
}

func (w *watcher) heard() []rfb.Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.said)
}

// ticking plays a machine whose screen changes all the time, so far away: it
// answers a request at its next tick of 30 ms, and takes many as one.
func ticking(c net.Conn, in rfb.ViewerReader, away time.Duration) {
	asked, gone := make(chan struct{}, 1), make(chan struct{})
	later := func(do func()) {
		if away == 0 {
			do()
			return
		}
		go func() {
			time.Sleep(away)
			do()
		}()
	}
	go func() {
		defer close(gone)
		for {
			m, err := in.Read()
			if err != nil {
				return
			}
			if _, is := m.(rfb.UpdateRequest); is {
				later(func() {
					select {
					case asked <- struct{}{}:
					default:
					}
				})
			}
		}
	}()
	var writing sync.Mutex
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-gone:
			return
		}
		select {
		case <-asked:
			later(func() {
				writing.Lock()
				defer writing.Unlock()
				if rfb.Write(c, rfb.Update{Rects: 1}, rfb.Rect{Area: everywhere}) == nil {
					_, _ = c.Write(make([]byte, 4*side*side))
				}
			})
		default:
		}
	}
}

func push(t *testing.T, o *opened) {
	t.Helper()
	say(t, o, rfb.SetEncodings{rfb.Raw, rfb.Fence, rfb.ContinuousUpdates}, rfb.Continuous{On: true, Area: everywhere})
}

// Updates per second depend neither on how far away the viewer is, nor on how
// far the machine.
func TestFarViewersAndMachinesGiveAsManyUpdates(t *testing.T) {
	const ms = time.Millisecond
	for _, rtt := range []struct{ viewer, machine time.Duration }{
		{0, 0}, {50 * ms, 0}, {100 * ms, 0}, {200 * ms, 0}, {0, 50 * ms}, {0, 200 * ms}, {100 * ms, 100 * ms},
	} {
		synctest.Test(t, func(t *testing.T) {
			o := open(t, driver.Policy{})
			go ticking(o.machine, o.fromViewer, rtt.machine/2)
			w := watch(t, o, rtt.viewer)
			push(t, o)
			time.Sleep(2 * time.Second)
			before := w.updates.Load()
			time.Sleep(8 * time.Second)
			if got := float64(w.updates.Load()-before) / 8; got < 28 {
				t.Errorf("updates a second at %v = %.1f, want at least 28 of the machine's 33", rtt, got)
			}
			o.viewer.Close()
			o.machine.Close()
			time.Sleep(time.Second) // what is on the machine's way
		})
	}
}

// A viewer that answers no fence gets what may be on its way, and no more.
func TestAViewerThatFallsBehindIsNotBuried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, driver.Policy{})
		go ticking(o.machine, o.fromViewer, 0)
		w := watch(t, o, -1)
		push(t, o)
		time.Sleep(time.Minute)
		const weight = overhead + 4 + 12 + 4*side*side
		if got, most := w.updates.Load(), int64(firstWindow/weight+1); got != most {
			t.Errorf("updates without an answer = %d, want %d", got, most)
		}
	})
}

// A viewer that reads nothing holds up nobody but itself, and the session still
// ends when it is told to.
func TestAViewerThatNeverReadsSlowsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Config{Random: nothing{}})
		stuck, well := openWith(t, p, driver.Policy{}), openWith(t, p, driver.Policy{})
		for _, o := range []*opened{stuck, well} {
			go ticking(o.machine, o.fromViewer, 0)
		}
		w := watch(t, well, 0)
		push(t, well)
		say(t, stuck, rfb.SetEncodings{rfb.Raw}, rfb.Continuous{On: true, Area: everywhere}, rfb.Key{Down: true, Sym: 'a'})
		time.Sleep(8 * time.Second)
		if got := float64(w.updates.Load()) / 8; got < 28 {
			t.Errorf("updates a second beside a viewer that never reads = %.1f, want 33", got)
		}
		stuck.end()
		if err := <-stuck.done; err == nil {
			t.Error("Serve succeeded, want the context's error")
		}
	})
}

type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }

// Fences are answered in their place, with the flags we keep and all they carry.
func TestFencesAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, driver.Policy{})
		drain(o.machine)
		w := watch(t, o, -1)
		long := make([]byte, rfb.MaxFence)
		for i := range long {
			long[i] = byte(i)
		}
		say(t, o, rfb.SetEncodings{rfb.Raw, rfb.Fence})
		synctest.Wait()
		offer := w.heard()
		if len(offer) != 1 {
			t.Fatalf("after SetEncodings: %v, want one fence", offer)
		}
		say(t, o, rfb.FenceMark{Flags: rfb.FenceRequest},
			rfb.FenceMark{Flags: rfb.FenceRequest | rfb.FenceBlockAfter | 4 | 1<<20, Payload: long},
			rfb.FenceMark{Flags: rfb.FenceBlockAfter, Payload: []byte("an answer")})
		synctest.Wait()
		got := w.heard()[1:]
		want := []rfb.FenceMark{{FromServer: true, Payload: []byte{}}, {FromServer: true, Flags: rfb.FenceBlockAfter, Payload: long}}
		if len(got) != len(want) {
			t.Fatalf("answers = %v, want %v", got, want)
		}
		for i, m := range got {
			f := m.(rfb.FenceMark)
			if f.Flags != want[i].Flags || string(f.Payload) != string(want[i].Payload) {
				t.Errorf("answer %d = %+v, want %+v", i, f, want[i])
			}
		}
	})
}

// Whatever the order in which a viewer says what it understands and wants, it is
// told once what we speak, gets updates while they are on, and only then.
func TestUpdatesWithoutRequestsAreAgreedInAnyOrder(t *testing.T) {
	on, off := rfb.Continuous{On: true, Area: everywhere}, rfb.Continuous{}
	ask := rfb.UpdateRequest{Incremental: true, Area: everywhere}
	fence, continuous := rfb.SetEncodings{rfb.Raw, rfb.Fence}, rfb.SetEncodings{rfb.Raw, rfb.ContinuousUpdates}
	both := rfb.SetEncodings{rfb.Raw, rfb.ContinuousUpdates, rfb.Fence}
	for name, c := range map[string]struct {
		say    []rfb.Message
		ends   int  // EndOfContinuous
		fences bool // any came
		flows  bool // many updates
	}{
		"neither":              {[]rfb.Message{rfb.SetEncodings{rfb.Raw}, ask}, 0, false, false},
		"fences only":          {[]rfb.Message{fence, ask}, 0, true, false},
		"offered, not wanted":  {[]rfb.Message{both, ask}, 1, true, false},
		"both, then on":        {[]rfb.Message{both, on}, 1, true, true},
		"asked, then on":       {[]rfb.Message{both, ask, on, ask}, 1, true, true},
		"said again":           {[]rfb.Message{both, on, both, both}, 1, true, true},
		"fences first":         {[]rfb.Message{fence, continuous, on}, 1, true, true},
		"fences last":          {[]rfb.Message{continuous, on, both}, 1, true, true},
		"without fences":       {[]rfb.Message{continuous, on}, 1, false, true},
		"on before it is said": {[]rfb.Message{rfb.SetEncodings{rfb.Raw}, on, both}, 1, true, true},
		"off":                  {[]rfb.Message{both, on, off, ask}, 2, true, false},
		"off, never on":        {[]rfb.Message{both, off, ask}, 1, true, false},
		"off and on":           {[]rfb.Message{both, on, off, on}, 2, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := open(t, driver.Policy{})
				go ticking(o.machine, o.fromViewer, 0)
				w := watch(t, o, time.Millisecond)
				say(t, o, c.say...)
				time.Sleep(3 * time.Second)
				ends, fences := 0, false
				for _, m := range w.heard() {
					switch m.(type) {
					case rfb.EndOfContinuous:
						ends++
					case rfb.FenceMark:
						fences = true
					}
				}
				if ends != c.ends || fences != c.fences {
					t.Errorf("told %d times of updates without requests, fences %v; want %d, %v", ends, fences, c.ends, c.fences)
				}
				if n := w.updates.Load(); n > 80 != c.flows || n > 5 && !c.flows {
					t.Errorf("updates in three seconds = %d, want them to flow: %v", n, c.flows)
				}
			})
		})
	}
}

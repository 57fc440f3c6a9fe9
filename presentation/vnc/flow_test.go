package vnc

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"consort.dev/consort/internal/rfb"
)

// link plays a way to a viewer: so many bytes a second, in order, so far away,
// and a viewer that takes a while for each update. Its machine has an update of
// the size at each tick of 30 ms for which it was asked.
type link struct {
	rate   int // bytes a second
	rtt    time.Duration
	viewer time.Duration // to draw one update
	size   int
}

// arrival is an update on the link.
type arrival struct {
	mark        uint32
	sent, drawn time.Time
}

// run plays so long and returns the updates a second and the oldest picture seen,
// both of the second half.
func (l link) run(f *flow, long time.Duration) (perSecond float64, oldest time.Duration) {
	start := time.Unix(0, 0)
	f.fences()
	f.set(rfb.Continuous{On: true, Area: rfb.Area{Width: 9, Height: 9}})
	_, asked := f.ask(false)
	var (
		way       []arrival
		free      = start // when the link has carried everything
		drawn     = start // when the viewer has drawn everything
		updates   int
		answering []arrival
	)
	for now := start; now.Sub(start) < long; now = now.Add(time.Millisecond) {
		for len(way) > 0 && !way[0].drawn.After(now) {
			if way[0].drawn.Sub(start) > long/2 {
				updates++
				oldest = max(oldest, way[0].drawn.Sub(way[0].sent))
			}
			answering, way = append(answering, way[0]), way[1:]
		}
		for len(answering) > 0 && !answering[0].drawn.Add(l.rtt/2).After(now) {
			f.answered(binary.BigEndian.AppendUint32(nil, answering[0].mark), now)
			answering = answering[1:]
			if _, again := f.ask(false); again {
				asked = true
			}
		}
		if now.Sub(start)%(30*time.Millisecond) == 0 && asked {
			f.began()
			m, _ := f.sent(int64(l.size), now)
			if free.Before(now) {
				free = now
			}
			free = free.Add(time.Duration(float64(l.size) / float64(l.rate) * float64(time.Second)))
			there := free.Add(l.rtt / 2)
			if drawn.Before(there) {
				drawn = there
			}
			drawn = drawn.Add(l.viewer)
			way = append(way, arrival{binary.BigEndian.Uint32(m.Payload), now, drawn})
			_, asked = f.ask(false)
		}
	}
	return float64(updates) / (long / 2).Seconds(), oldest
}

const mega = 1 << 20

// A way that carries every update gets every update, however long it is; one
// that does not gets what it carries, and pictures that are not old.
func TestTheWindowFitsTheWay(t *testing.T) {
	for _, c := range []struct {
		link
		least  float64       // updates a second
		oldest time.Duration // on top of half a round trip
	}{
		{link{100 * mega, 0, 0, 20 << 10}, 33, 5 * time.Millisecond},
		{link{100 * mega, 50 * time.Millisecond, 0, 20 << 10}, 33, 5 * time.Millisecond},
		{link{100 * mega, 200 * time.Millisecond, 0, 20 << 10}, 33, 5 * time.Millisecond},
		{link{100 * mega, 400 * time.Millisecond, 0, 20 << 10}, 33, 5 * time.Millisecond},
		{link{100 * mega, 200 * time.Millisecond, 20 * time.Millisecond, 200 << 10}, 33, 40 * time.Millisecond},
		// A tenth and a half of what is drawn fits.
		{link{mega / 4, 50 * time.Millisecond, 0, 20 << 10}, 9, 250 * time.Millisecond},
		{link{mega, 100 * time.Millisecond, 0, 100 << 10}, 4.5, 350 * time.Millisecond},
		{link{mega, 20 * time.Millisecond, 0, 400 << 10}, 2, 800 * time.Millisecond},
		// The viewer draws five a second, and each is small.
		{link{100 * mega, 20 * time.Millisecond, 200 * time.Millisecond, 100}, 4, 900 * time.Millisecond},
	} {
		t.Run(fmt.Sprint(c.link), func(t *testing.T) {
			n, oldest := c.run(new(flow), 40*time.Second)
			if n < c.least {
				t.Errorf("updates a second = %.1f, want at least %v", n, c.least)
			}
			if oldest > c.oldest+c.rtt/2 {
				t.Errorf("a picture was %v old, want at most %v", oldest, c.oldest+c.rtt/2)
			}
		})
	}
}

// A way that becomes worse is noticed, and so is one that becomes better or longer.
func TestTheWindowFollowsTheWay(t *testing.T) {
	good := link{100 * mega, 100 * time.Millisecond, 0, 60 << 10}
	bad := link{mega / 2, 100 * time.Millisecond, 0, 60 << 10}
	long := link{100 * mega, 500 * time.Millisecond, 0, 60 << 10}
	f := new(flow)
	for i, c := range []struct {
		link
		least  float64
		oldest time.Duration
	}{{good, 33, 60 * time.Millisecond}, {bad, 5, 600 * time.Millisecond}, {good, 33, 60 * time.Millisecond}, {long, 25, 400 * time.Millisecond}} {
		f = &flow{window: f.window}
		f.window.since = time.Time{}.Add(time.Nanosecond)
		f.window.judge = 0
		n, oldest := c.run(f, 90*time.Second)
		if n < c.least || oldest > c.oldest {
			t.Errorf("leg %d: %.1f updates a second and a picture %v old, want %v and %v", i, n, oldest, c.least, c.oldest)
		}
	}
}

// FuzzFlow lets a viewer answer what it likes, when it likes.
func FuzzFlow(f *testing.F) {
	f.Add([]byte{0, 1, 2, 1, 2, 3, 0, 1})
	f.Fuzz(func(t *testing.T, steps []byte) {
		var l flow
		l.fences()
		now := time.Unix(0, 0)
		for i, s := range steps {
			now = now.Add(time.Duration(s) * time.Millisecond)
			switch s % 5 {
			case 0:
				l.set(rfb.Continuous{On: s&8 == 0})
			case 1:
				if _, yes := l.ask(s&16 != 0); yes && len(l.way) > 0 && l.load >= l.window.bytes() {
					t.Fatalf("step %d: asked with %d on the way, of %d", i, l.load, l.window.bytes())
				}
			case 2:
				l.began()
				l.sent(int64(s)<<14, now)
			case 3:
				l.answered(binary.BigEndian.AppendUint32(nil, l.next-uint32(s>>3)), now)
			case 4:
				l.answered(steps[i:min(i+4, len(steps))], now)
			}
			sum := 0
			for _, m := range l.way {
				sum += m.weight
			}
			if sum != l.load || l.window.bytes() < smallestWindow || l.window.bytes() > largestWindow {
				t.Fatalf("step %d: %d on the way, counted as %d, in a window of %d", i, sum, l.load, l.window.bytes())
			}
		}
	})
}

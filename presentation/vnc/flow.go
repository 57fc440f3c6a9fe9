package vnc

import (
	"encoding/binary"
	"sync"
	"time"

	"consort.dev/consort/internal/rfb"
)

// flow says when the machine is asked on behalf of a viewer that wants updates
// without asking. A fence goes after every update; its answer says that the
// viewer has handled it, and how long the way takes. While as much is on its way
// as the way carries, the machine is not asked: what changes meanwhile the
// machine merges into one update, so nothing waits here.
type flow struct {
	mu       sync.Mutex
	on       bool
	area     rfb.Area
	fenced   bool // the viewer answers fences
	asked    bool // a request is with the machine
	carrying bool // an update is on its way through
	next     uint32
	way      []mark // updates on their way, oldest first
	load     int    // what they weigh
	window   window
}

// mark is an update on its way.
type mark struct {
	weight int
	sent   time.Time
}

// marksOnTheWay bounds the marks kept: two seconds of updates at the 30 ms
// between a machine's.
const marksOnTheWay = 64

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

// began notes that an update has come; no other is asked for until it is sent.
func (f *flow) began() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked, f.carrying = false, true
}

// sent notes an update of n bytes and returns the fence to send after it.
func (f *flow) sent(n int64, now time.Time) (rfb.FenceMark, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.carrying = false
	if !f.on || !f.fenced {
		return rfb.FenceMark{}, false
	}
	f.next++
	m := mark{int(n) + overhead, now}
	f.way = append(f.way, m)
	f.load += m.weight
	return rfb.FenceMark{
		FromServer: true, Flags: rfb.FenceRequest | rfb.FenceBlockBefore,
		Payload: binary.BigEndian.AppendUint32(nil, f.next),
	}, true
}

// answered takes the viewer's answer to a fence; it speaks for all before it.
func (f *flow) answered(payload []byte, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(payload) != 4 {
		return
	}
	number := binary.BigEndian.Uint32(payload)
	behind := f.next - number
	if int64(behind) >= int64(len(f.way)) {
		return // of long ago, or of none that was sent
	}
	arrived := len(f.way) - int(behind)
	f.window.sample(now.Sub(f.way[arrived-1].sent), number, f.next, now)
	for _, m := range f.way[:arrived] {
		f.load -= m.weight
	}
	f.way = f.way[arrived:]
}

// ask reports whether to ask now, and for what; then it is asked. With again it
// may be asked already: a machine far away is asked anew before its last answer
// is here, or it would wait for us at each update. A machine that has not
// answered yet takes two requests as one.
func (f *flow) ask(again bool) (rfb.Area, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.on || f.carrying || f.asked && !again {
		return rfb.Area{}, false
	}
	if len(f.way) > 0 && (f.load >= f.window.bytes() || len(f.way) >= marksOnTheWay) {
		if !f.asked {
			f.window.fill(f.next)
		}
		return rfb.Area{}, false
	}
	f.asked = true
	return f.area, true
}

// Sizes of a window. One update may be on its way whatever it weighs.
const (
	overhead       = 4 << 10 // what an update weighs besides its bytes: handling it takes time too
	smallestWindow = overhead
	firstWindow    = 64 << 10
	largestWindow  = 4 << 20
)

// Times that tell a queue on the way from the way itself. A viewer takes tens of
// milliseconds to draw a large update.
const (
	littleQueue = 30 * time.Millisecond
	longQueue   = 80 * time.Millisecond
	baseLasts   = 30 * time.Second // then the way may have become longer
)

// window is how much may be on its way to a viewer. It grows while more is
// wanted and nothing queues, and shrinks when a round trip takes longer than the
// shortest of late: what queues on the way is delay that the person sees. TCP
// Vegas does so, and TigerVNC (common/rfb/Congestion.cxx).
type window struct {
	size          int // 0 is firstWindow
	base, earlier time.Duration
	since         time.Time // base is the shortest since then; earlier is the one before
	judge         uint32    // the next mark whose round trip judges the window
	filled        bool      // more was wanted than the window let go
	met           bool      // a queue was met: grow with care
}

func (w *window) bytes() int {
	if w.size == 0 {
		return firstWindow
	}
	return w.size
}

// fill notes that the window is full with the last mark: that one tells whether
// a wider one would do.
func (w *window) fill(last uint32) {
	if !w.filled {
		w.filled, w.judge = true, last
	}
}

// sample takes a round trip, known by the answer to a mark while the last one
// sent is another.
func (w *window) sample(rtt time.Duration, mark, last uint32, now time.Time) {
	if now.Sub(w.since) > baseLasts {
		w.earlier, w.base, w.since = w.base, rtt, now
		if w.earlier == 0 {
			w.earlier = rtt
		}
	}
	w.base = min(w.base, rtt)
	if int32(mark-w.judge) < 0 {
		return // sent before the window was what it is
	}
	way, size := min(w.base, w.earlier), w.bytes()
	switch queue := rtt - way; {
	case queue > max(longQueue, way/2):
		w.met = true
		size = int(float64(size) * float64(way) / float64(rtt))
	case queue > max(littleQueue, way/4):
		w.met = true
	case w.filled && w.met:
		size += size / 8
	case w.filled:
		size *= 2
	}
	w.size = min(max(size, smallestWindow), largestWindow)
	w.filled, w.judge = false, last+1
}

package vnc

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/presentation/driver"
)

// opened is a relay past both openings, with the tests at both ends.
type opened struct {
	viewer, machine net.Conn
	fromMachine     *bufio.Reader // what the viewer reads
	fromViewer      rfb.ViewerReader
	done            chan error
	end             context.CancelFunc // of Serve's context

	mu      sync.Mutex
	refused []string
}

func (o *opened) report(e driver.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if e.Name == driver.PolicyRefused {
		o.refused = append(o.refused, e.Text)
	}
}

const side = 64 // of the machine's screen

func open(t testing.TB, policy driver.Policy) *opened {
	t.Helper()
	return openWith(t, New(Config{Random: rand.Reader}), policy)
}

func openWith(t testing.TB, p *Provider, policy driver.Policy) *opened {
	t.Helper()
	o := &opened{done: make(chan error, 1)}
	var v, m net.Conn
	o.viewer, v = net.Pipe()
	o.machine, m = net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	o.end = cancel
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		o.done <- p.Serve(ctx, driver.Session{Viewer: v, Machine: m, Policy: policy, Report: o.report})
	}()
	t.Cleanup(func() {
		cancel()
		o.viewer.Close()
		o.machine.Close()
		<-ended
	})
	o.fromViewer = rfb.ViewerReader{R: bufio.NewReader(o.machine), TextLimit: 1 << 20}
	o.fromMachine = bufio.NewReaderSize(o.viewer, 1<<16)
	greeted := make(chan error, 1)
	go func() {
		_, err := rfb.Accept(o.fromViewer.R, o.machine, rfb.Guard{})
		if err == nil {
			err = rfb.Write(o.machine, rfb.ServerInit{Width: side, Height: side, Format: rfb.XRGB(), Name: "m"})
		}
		greeted <- err
	}()
	if _, err := rfb.Open(o.fromMachine, o.viewer, rfb.Proof{}); err != nil {
		t.Fatal(err)
	}
	if err := <-greeted; err != nil {
		t.Fatal(err)
	}
	return o
}

// drain reads and forgets what comes to an end, so that the other never waits.
func drain(c io.Reader) { go func() { _, _ = io.Copy(io.Discard, c) }() }

func TestAMachineCannotBreakOut(t *testing.T) {
	pixels := func(r rfb.Rect, n int) []byte {
		var b bytes.Buffer
		_ = rfb.Write(&b, rfb.Update{Rects: 1}, r)
		return append(b.Bytes(), make([]byte, n)...)
	}
	for name, say := range map[string][]byte{
		"pixels outside":     pixels(rfb.Rect{Area: rfb.Area{X: 60, Y: 0, Width: 8, Height: 8}}, 256),
		"pixels that wrap":   pixels(rfb.Rect{Area: rfb.Area{X: 65535, Y: 0, Width: 2, Height: 1}}, 256),
		"an encoding unsaid": pixels(rfb.Rect{Area: rfb.Area{Width: 8, Height: 8}, Encoding: rfb.ZRLE}, 256),
		"video":              pixels(rfb.Rect{Area: rfb.Area{Width: 8, Height: 8}, Encoding: 50}, 256),
		"a huge screen":      pixels(rfb.Rect{Area: rfb.Area{Width: 65535, Height: 65535}, Encoding: rfb.DesktopSize}, 256),
		"sound":              {255, 1, 0, 2, 0, 0, 0, 4, 1, 2, 3, 4},
		"file transfer":      append([]byte{7}, make([]byte, 64)...),
		"a fence":            append([]byte{248, 0, 0, 0, 0x80, 0, 0, 0, 0}, make([]byte, 16)...),
		"endless text":       append([]byte{3, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff}, make([]byte, 16)...),
	} {
		t.Run(name, func(t *testing.T) {
			o := open(t, driver.Policy{})
			drain(o.viewer)
			drain(o.machine)
			if err := rfb.Write(o.viewer, rfb.SetEncodings{rfb.Raw, rfb.DesktopSize, rfb.Fence, 50}); err != nil {
				t.Fatal(err)
			}
			go o.machine.Write(say)
			if err := <-o.done; fault.KindOf(err) != fault.Unavailable || err == nil {
				t.Errorf("Serve = %v, want %v", err, fault.Unavailable)
			}
		})
	}
}

func TestAViewerCannotBreakIn(t *testing.T) {
	for name, say := range map[string][]byte{
		"power":            {250, 0, 1, 2, 0, 0, 0, 0},
		"sound":            append([]byte{255, 1, 0, 0}, make([]byte, 16)...),
		"file transfer":    append([]byte{7}, make([]byte, 64)...),
		"giant encodings":  append([]byte{2, 0, 0xff, 0xff}, make([]byte, 64)...),
		"a late format":    append([]byte{3, 0, 0, 0, 0, 0, 0, 8, 0, 8, 0, 0, 0, 0, 8, 8, 0, 1, 0, 7, 0, 7, 0, 3, 0, 3, 6, 0, 0, 0}, make([]byte, 16)...),
		"format of 3 bits": append([]byte{0, 0, 0, 0, 3, 3, 0, 1}, make([]byte, 16)...),
		"endless text":     append([]byte{6, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff}, make([]byte, 16)...),
	} {
		t.Run(name, func(t *testing.T) {
			o := open(t, driver.Policy{})
			drain(o.viewer)
			drain(o.machine)
			go o.viewer.Write(say)
			if err := <-o.done; !errors.Is(err, fault.Invalid) {
				t.Errorf("Serve = %v, want %v", err, fault.Invalid)
			}
		})
	}
}

// The clipboard's matrix: nothing of a denied direction, in any form and size,
// reaches the other end as a single byte.
func TestDeniedClipboardIsSilence(t *testing.T) {
	forms := map[string]func(server bool, text string) rfb.Message{
		"classic": func(server bool, text string) rfb.Message {
			return rfb.Text{FromServer: server, Latin1: []byte(text)}
		},
		"handed over": func(server bool, text string) rfb.Message {
			return rfb.ClipboardMark{FromServer: server, Actions: rfb.ClipboardProvide, HasText: true, Text: text}
		},
		"told": func(server bool, text string) rfb.Message {
			return rfb.ClipboardMark{FromServer: server, Actions: rfb.ClipboardNotify, HasText: true}
		},
		"asked": func(server bool, text string) rfb.Message {
			return rfb.ClipboardMark{FromServer: server, Actions: rfb.ClipboardRequest, HasText: true}
		},
		"looked": func(server bool, text string) rfb.Message {
			return rfb.ClipboardMark{FromServer: server, Actions: rfb.ClipboardPeek}
		},
	}
	for form, say := range forms {
		for _, size := range []int{1, 1000, 300_000} {
			for _, fromServer := range []bool{false, true} {
				o := open(t, driver.Policy{Clipboard: estate.Clipboard{In: fromServer, Out: !fromServer}})
				canary := strings.Repeat("k", size)
				var got lockedBuffer
				from, to := o.viewer, io.Reader(o.fromViewer.R)
				if fromServer {
					from, to = o.machine, o.fromMachine
					drain(o.machine)
				} else {
					drain(o.viewer)
				}
				go io.Copy(&got, to)
				if err := rfb.Write(from, say(fromServer, canary)); err != nil {
					t.Fatal(err)
				}
				// A message that may cross, after it.
				last := rfb.Message(rfb.Key{Down: true, Sym: 'z'})
				if fromServer {
					last = rfb.Bell{}
				}
				if err := rfb.Write(from, last); err != nil {
					t.Fatal(err)
				}
				var want bytes.Buffer
				_ = rfb.Write(&want, last)
				for end := time.Now().Add(5 * time.Second); got.len() < want.Len() && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
				if !bytes.HasPrefix(got.bytes(), want.Bytes()) {
					t.Errorf("%s of %d bytes, from the machine %v: %.40q crossed", form, size, fromServer, got.bytes())
				}
			}
		}
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  []byte
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, b...)
	return len(b), nil
}

func (l *lockedBuffer) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b)
}

func (l *lockedBuffer) len() int { return len(l.bytes()) }

func TestAResizeThatCannotBeIsRefusedPolitely(t *testing.T) {
	o := open(t, driver.Policy{})
	drain(o.machine)
	if err := rfb.Write(o.viewer, rfb.SetEncodings{rfb.ExtendedDesktopSize}, rfb.Resize{Width: 800, Height: 600, Screens: []rfb.Screen{{}}}); err != nil {
		t.Fatal(err)
	}
	in := rfb.ServerReader{R: o.fromMachine}
	if m, err := in.Read(); err != nil || m != (rfb.Update{Rects: 1}) {
		t.Fatalf("%#v, %v", m, err)
	}
	got, err := in.Rect()
	want := rfb.Rect{Area: rfb.Area{X: rfb.ResizedByViewer, Y: rfb.ResizeProhibited, Width: side, Height: side}, Encoding: rfb.ExtendedDesktopSize}
	if err != nil || got != want {
		t.Errorf("answer = %+v, %v; want %+v", got, err, want)
	}
}

// FuzzRelay feeds the relay, past its openings, from both ends.
func FuzzRelay(f *testing.F) {
	var viewer, machine bytes.Buffer
	_ = rfb.Write(&viewer, rfb.SetEncodings{rfb.Raw, rfb.Fence, rfb.ContinuousUpdates, rfb.ExtendedClipboard},
		rfb.Continuous{On: true, Area: rfb.Area{Width: 9, Height: 9}}, rfb.FenceMark{Payload: []byte{0, 0, 0, 1}},
		rfb.FenceMark{Flags: rfb.FenceRequest, Payload: []byte("f")}, rfb.Continuous{}, rfb.Key{Down: true, Sym: 'a'}, rfb.Text{Latin1: []byte("t")},
		rfb.ClipboardMark{Actions: rfb.ClipboardProvide, HasText: true, Text: "text"})
	_ = rfb.Write(&machine, rfb.Update{Rects: 1}, rfb.Rect{Area: rfb.Area{Width: 1, Height: 1}})
	machine.Write([]byte{1, 2, 3, 4})
	_ = rfb.Write(&machine, rfb.Text{FromServer: true, Latin1: []byte("t")}, rfb.ClipboardMark{FromServer: true, Actions: rfb.ClipboardNotify, HasText: true})
	f.Add(viewer.Bytes(), machine.Bytes())
	f.Fuzz(func(t *testing.T, viewer, machine []byte) {
		o := open(t, driver.Policy{Clipboard: estate.Clipboard{In: true, Out: true, MaxBytes: 1 << 12}})
		drain(o.viewer)
		drain(o.machine)
		var wg sync.WaitGroup
		wg.Go(func() { o.viewer.Write(viewer) })
		wg.Go(func() { o.machine.Write(machine) })
		wg.Wait()
		o.viewer.Close()
		o.machine.Close()
		if err := <-o.done; err != nil && !errors.Is(err, fault.Invalid) {
			t.Errorf("Serve = %v, want the end or a breach", err)
		}
	})
}

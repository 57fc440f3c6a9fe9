package vnc_test

import (
	"context"
	"crypto/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/presentation/driver"
	"consort.dev/consort/presentation/vnc"
)

// browser are the encodings noVNC 1.7.0 sends, in its order.
var browser = []rfb.Encoding{
	rfb.CopyRect, 50, rfb.Tight, rfb.TightPNG, rfb.ZRLE, 21, rfb.Hextile, 2, rfb.Zlib, rfb.Raw,
	-26, -254, rfb.DesktopSize, rfb.LastRect, rfb.ExtendedKey, rfb.LEDState,
	rfb.ExtendedDesktopSize, -309, rfb.Fence, rfb.ContinuousUpdates, rfb.DesktopName,
	rfb.ExtendedClipboard, rfb.ExtendedMouseButtons, 0x574d5664, rfb.Cursor,
}

// session is a provider at work between two pipes.
type session struct {
	viewer  net.Conn // where the viewer sits
	machine net.Conn // where the machine sits
	done    chan error

	mu     sync.Mutex
	events []driver.Event
}

func serve(t testing.TB, machine net.Conn, s driver.Session) *session {
	t.Helper()
	out := &session{done: make(chan error, 1)}
	var viewer net.Conn
	out.viewer, viewer = pipe(t)
	if machine == nil {
		out.machine, machine = pipe(t)
	}
	s.Viewer, s.Machine = viewer, machine
	s.Report = func(e driver.Event) {
		out.mu.Lock()
		defer out.mu.Unlock()
		out.events = append(out.events, e)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { out.done <- vnc.New(vnc.Config{Random: rand.Reader}).Serve(ctx, s) }()
	t.Cleanup(func() {
		cancel()
		out.viewer.Close()
	})
	return out
}

// pipe returns the two ends of a connection with room in it, as sockets have.
func pipe(t testing.TB) (net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// saw returns the first event of the name.
func (s *session) saw(name driver.EventName) (driver.Event, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.Name == name {
			return e, true
		}
	}
	return driver.Event{}, false
}

// bootSector waits for a key and fills the screen with the colour that has its
// code: mode 13h, int 16h, rep stosb, again.
var bootSector = []byte{
	0xb8, 0x13, 0x00, 0xcd, 0x10, 0xb8, 0x00, 0xa0, 0x8e, 0xc0, 0xb3, 0x01,
	0x31, 0xff, 0xb9, 0x00, 0xfa, 0x88, 0xd8, 0xf3, 0xaa, 0x31, 0xc0, 0xcd, 0x16, 0x88, 0xc3, 0xeb, 0xef,
}

// boot starts a QEMU with the boot sector and returns the socket of its screen.
func boot(t testing.TB) string {
	t.Helper()
	return bootFrom(t, bootSector)
}

func bootFrom(t testing.TB, sector []byte) string {
	t.Helper()
	if testing.Short() {
		t.Skip("runs a QEMU")
	}
	path, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("there is no qemu-system-x86_64 here")
	}
	dir, err := os.MkdirTemp("", "vnc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	disk := make([]byte, 1440<<10)
	copy(disk, sector)
	disk[510], disk[511] = 0x55, 0xaa
	if err := os.WriteFile(filepath.Join(dir, "boot"), disk, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-nodefaults", "-machine", "pc,hpet=off", "-accel", "tcg", "-m", "16M", "-device", "VGA",
		"-drive", "if=floppy,format=raw,readonly=on,file="+filepath.Join(dir, "boot"), "-boot", "a",
		"-vnc", "unix:"+filepath.Join(dir, "s"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return filepath.Join(dir, "s")
}

func dial(t testing.TB, socket string) net.Conn {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; <-time.After(20 * time.Millisecond) {
		c, err := net.Dial("unix", socket)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			return c
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// centre is the colour in the middle of the picture.
func centre(c *rfb.Client) [3]byte {
	p := c.At(c.Size().X/2, c.Size().Y/2)
	return [3]byte{p.R, p.G, p.B}
}

// until reads frames until the middle of the picture is as wanted.
func until(t testing.TB, c *rfb.Client, ask bool, want func([3]byte) bool) {
	t.Helper()
	for !want(centre(c)) {
		if ask {
			if err := c.Request(true); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.NextFrame(); err != nil {
			t.Fatalf("after %d frames the middle is %v: %v", c.Frames, centre(c), err)
		}
	}
}

// blue is colour 1 of the standard palette, of six bits a channel.
var blue = [3]byte{0, 0, 0xa8}

func TestBrowserSeesARealMachine(t *testing.T) {
	for name, encodings := range map[string][]rfb.Encoding{
		"browser": browser,
		"zrle":    {rfb.ZRLE, rfb.DesktopSize}, "tight": {rfb.Tight, rfb.DesktopSize},
		"hextile": {rfb.Hextile, rfb.DesktopSize}, "zlib": {rfb.Zlib, rfb.DesktopSize}, "raw": {rfb.DesktopSize},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, dial(t, boot(t)), driver.Session{
				Title: "Ana's desktop", Policy: driver.Policy{Clipboard: estate.Clipboard{In: true, Out: true}},
			})
			if continuous := look(t, s, encodings); name == "browser" && !continuous {
				t.Error("continuous updates were not offered")
			}
			for _, e := range []driver.EventName{driver.ViewerAccepted, driver.FirstFrame, driver.FirstInput} {
				if _, ok := s.saw(e); !ok {
					t.Errorf("no event %q", e)
				}
			}
			s.viewer.Close()
			if err := <-s.done; err != nil {
				t.Errorf("Serve = %v, want success when the viewer goes", err)
			}
			if _, ok := s.saw(driver.ViewerGone); !ok {
				t.Error("no event viewer-gone")
			}
		})
	}
}

// look sees the screen turn blue, types and sees another colour. It reports
// whether continuous updates were offered.
func look(t *testing.T, s *session, encodings []rfb.Encoding) (continuous bool) {
	t.Helper()
	s.viewer.SetDeadline(time.Now().Add(20 * time.Second))
	c, err := rfb.NewClient(s.viewer, rfb.Proof{}, encodings...)
	if err != nil {
		t.Fatal(err)
	}
	if c.Init.Name != "Ana's desktop" {
		t.Errorf("name = %q", c.Init.Name)
	}
	c.Message = func(m rfb.Message) {
		switch m := m.(type) {
		case rfb.FenceMark:
			go c.Send(rfb.FenceMark{Flags: m.Flags &^ rfb.FenceRequest, Payload: m.Payload})
		case rfb.EndOfContinuous:
			continuous = true
			go c.Send(rfb.Continuous{On: true, Area: rfb.Area{Width: 4096, Height: 4096}})
		}
	}
	if err := c.Request(false); err != nil {
		t.Fatal(err)
	}
	if err := c.NextFrame(); err != nil {
		t.Fatal(err)
	}
	until(t, c, !continuous, func(p [3]byte) bool { return p == blue })
	if err := c.Send(rfb.Text{Latin1: []byte("text")}); err != nil {
		t.Fatal(err)
	}
	if err := c.Type("d"); err != nil {
		t.Fatal(err)
	}
	until(t, c, !continuous, func(p [3]byte) bool { return p != blue })
	return continuous
}

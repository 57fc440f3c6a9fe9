package vnc_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"io"
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

func serve(t *testing.T, machine io.ReadWriteCloser, s driver.Session) *session {
	t.Helper()
	out := &session{done: make(chan error, 1)}
	var viewer net.Conn
	out.viewer, viewer = net.Pipe()
	if machine == nil {
		out.machine, machine = pipe()
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

func pipe() (net.Conn, io.ReadWriteCloser) {
	a, b := net.Pipe()
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
func boot(t *testing.T) string {
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
	copy(disk, bootSector)
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

func dial(t *testing.T, socket string) net.Conn {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		c, err := net.Dial("unix", socket)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			return c
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// showing reads frames until most of the picture has the colour.
func showing(t *testing.T, c *rfb.Client, ask bool, want [3]byte) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		img := c.Image()
		n := 0
		for i := 0; i < len(img.Pix); i += 4 {
			if [3]byte(img.Pix[i:i+3]) == want {
				n++
			}
		}
		if n > len(img.Pix)/4*9/10 {
			return
		}
		if ask {
			if err := c.Request(true); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.NextFrame(); err != nil {
			t.Fatalf("after %d frames: %v", c.Frames, err)
		}
	}
	t.Fatalf("the picture never became %v; %d frames, %v", want, c.Frames, c.Image().At(5, 5))
}

// The standard palette's colours 1 (blue), 2 (green) and 4 (red), as a VGA of
// six bits a channel shows them.
var (
	blue  = [3]byte{0, 0, 0xa8}
	red   = [3]byte{0xa8, 0, 0}
	green = [3]byte{0, 0xa8, 0}
)

func TestBrowserSeesARealMachine(t *testing.T) {
	for name, encodings := range map[string][]rfb.Encoding{
		"browser": browser,
		"zrle":    {rfb.ZRLE, rfb.DesktopSize}, "tight": {rfb.Tight, rfb.DesktopSize},
		"hextile": {rfb.Hextile, rfb.DesktopSize}, "zlib": {rfb.Zlib, rfb.DesktopSize}, "raw": {rfb.DesktopSize},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, dial(t, boot(t)), driver.Session{Title: "Ana's desktop"})
			s.viewer.SetDeadline(time.Now().Add(40 * time.Second))
			c, err := rfb.NewClient(s.viewer, rfb.Proof{}, encodings...)
			if err != nil {
				t.Fatal(err)
			}
			if c.Init.Name != "Ana's desktop" {
				t.Errorf("name = %q", c.Init.Name)
			}
			continuous := false
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
			showing(t, c, !continuous, blue)
			c.Type("\x02") // Ctrl is not needed: the guest shows the code of any key
			c.Type("$")    // 0x24: a grey; the last key counts
			c.Type("D")
			if _, err := c.Next(); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			if name == "browser" && !continuous {
				t.Error("continuous updates were not offered")
			}
			for _, e := range []driver.EventName{driver.ViewerAccepted, driver.FirstFrame} {
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

var _ = bufio.NewReader
var _ = estate.MiB
var _, _ = red, green

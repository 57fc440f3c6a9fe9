package test

import (
	"fmt"
	"image"
	"image/draw"
	"image/png"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/test/guest"
	"consort.dev/consort/test/xserver"
)

// plain is a desktop whose context RDP can keep: texts go both ways.
const plain = "ana-plain"

// TestOtherPeoplesViewers opens one desktop with the viewers of others: by the
// file that 'consort connect' writes for remote-viewer, and, after one line of
// the blueprint was changed, by RDP with xfreerdp. Each sees what we see, and
// the change touches neither machine nor disk.
func TestOtherPeoplesViewers(t *testing.T) {
	guest.Needs(t, "remote-viewer", "xfreerdp", "Xvfb", "import")
	h := newHere(t)
	h.run("../examples/first-desktop/image.yaml", "testdata/viewers.yaml")
	ours := h.viewer(h.connect(plain, ""))
	typeInto(h, ours, "ls -la /etc\n")
	until(h, plain, "running", bootLimit, func(d *estate.Desktop) bool { return d.Status.State == estate.DesktopRunning })
	before, err := api.Get[estate.Machine](t.Context(), h.client, "default", plain)
	if err != nil {
		t.Fatal(err)
	}

	t.Run("remote-viewer", func(t *testing.T) {
		file := filepath.Join(h.dir, "plain.vv")
		h.connectCommand(t, "-o", file)
		screen := newScreen(t)
		waitFor(t, file)
		screen.start("remote-viewer", "--full-screen", file)
		screen.shows(h, func() image.Image { return picture(h, ours) })
	})

	change(h, "plain", func(b *estate.Blueprint) { b.Spec.Presentation = "rdp" })
	until(h, plain, "shown by rdp", time.Minute, func(d *estate.Desktop) bool { return d.Status.Presentation == "rdp" })

	t.Run("xfreerdp", func(t *testing.T) {
		out := h.connectCommand(t, "--forward=5987")
		user, password := lineWith(t, out, "user "), passwordIn(t, out)
		screen := newScreen(t)
		screen.start("xfreerdp", "/v:127.0.0.1:5987", "/u:"+user, "/p:"+password, "/cert:ignore", "/size:1280x800", "/log-level:WARN")
		screen.shows(h, func() image.Image { return picture(h, ours) })
	})

	after, err := api.Get[estate.Machine](t.Context(), h.client, "default", plain)
	if err != nil {
		t.Fatal(err)
	}
	if before.Metadata.UID != after.Metadata.UID || after.Status.Starts != 1 || fmt.Sprint(before.Spec.Hardware) != fmt.Sprint(after.Spec.Hardware) {
		t.Errorf("the swap of a presentation touched the machine: was %+v, is %+v", before.Spec, after.Spec)
	}
}

// connectCommand runs 'consort connect' and returns what it prints.
func (h *here) connectCommand(t *testing.T, args ...string) io.Reader {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(path, append([]string{"connect", plain, "--server", filepath.Join(h.dir, "run", "api.sock")}, args...)...)
	c.Stderr = h.log
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	return out
}

func waitFor(t *testing.T, file string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; settle(t.Context()) {
		if _, err := os.Stat(file); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s", file)
		}
	}
}

// screen is an X server for a viewer: as wide as the desktop, with room for a
// bar of 46 pixels above it, so that viewers that scale do not.
type screen struct {
	*testing.T
	display string
	said    strings.Builder
}

func newScreen(t *testing.T) *screen {
	t.Helper()
	return &screen{T: t, display: xserver.Start(t, "1280x846")}
}

func (s *screen) start(name string, args ...string) {
	s.Helper()
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), s.display)
	c.Stdout, c.Stderr = &s.said, &s.said
	if err := c.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { c.Process.Kill(); c.Wait() })
}

// shows waits until what ours shows stands somewhere on the screen. A viewer's
// own edges and pointer are allowed for.
func (s *screen) shows(h *here, ours func() image.Image) {
	s.Helper()
	var d float64
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); settle(s.Context()) {
		theirs := s.picture()
		if d = nearest(theirs, ours()); d < 0.02 {
			return
		}
		save(h, theirs, filepath.Base(s.Name())+".png")
	}
	s.Errorf("%.1f %% of the pictures differ; the viewer said: %s", 100*d, s.said.String())
}

// nearest returns how little of the part differs at the place in the whole where
// it fits best.
func nearest(whole image.Image, part image.Image) float64 {
	best := 1.0
	free := whole.Bounds().Size().Sub(part.Bounds().Size())
	canvas := image.NewRGBA(part.Bounds())
	for y := 0; y <= free.Y; y++ {
		for x := 0; x <= free.X; x += max(1, free.X/2) { // viewers begin left, centred or right
			draw.Draw(canvas, canvas.Bounds(), whole, image.Pt(x, y), draw.Src)
			best = min(best, differs(canvas, part))
		}
	}
	return best
}

func (s *screen) picture() image.Image {
	s.Helper()
	c := exec.Command("import", "-window", "root", "png:-")
	c.Env = append(os.Environ(), s.display)
	out, err := c.Output()
	if err != nil {
		s.Fatalf("import: %v", err)
	}
	m, err := png.Decode(strings.NewReader(string(out)))
	if err != nil {
		s.Fatal(err)
	}
	return m
}

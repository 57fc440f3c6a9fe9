package vnc_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"image"
	"image/jpeg"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/presentation/driver"
	"consort.dev/consort/presentation/vnc"
)

// TestAnotherMakersViewerGetsTheSamePicture runs Debian's vncsnapshot, which
// shows the one-time secret, against the relay in front of a real QEMU.
func TestAnotherMakersViewerGetsTheSamePicture(t *testing.T) {
	if _, err := exec.LookPath("vncsnapshot"); err != nil {
		t.Skip("there is no vncsnapshot here")
	}
	socket := boot(t)
	provider := vnc.New(vnc.Config{Random: rand.Reader})
	secret, err := provider.NewSecret(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}

	// Our own viewer first, which also waits until the guest has drawn.
	s := serve(t, dial(t, socket), driver.Session{})
	s.viewer.SetDeadline(time.Now().Add(30 * time.Second))
	own, err := rfb.NewClient(s.viewer, rfb.Proof{}, rfb.ZRLE, rfb.DesktopSize)
	if err != nil {
		t.Fatal(err)
	}
	if err := own.Request(false); err != nil {
		t.Fatal(err)
	}
	until(t, own, true, func(p [3]byte) bool { return p == blue })

	img := snapshot(t, provider, driver.Session{Machine: dial(t, socket), Secret: secret})
	if img.Bounds().Size() != own.Size() {
		t.Fatalf("size = %v, want %v", img.Bounds().Size(), own.Size())
	}
	if worst := farthest(img, own.Image()); worst > 8 { // what JPEG costs
		t.Errorf("a pixel differs by %d", worst)
	}
}

// snapshot lets vncsnapshot take a picture of the session.
func snapshot(t *testing.T, provider driver.Provider, s driver.Session) image.Image {
	t.Helper()
	l, display := listen(t)
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		s.Viewer = c
		done <- provider.Serve(t.Context(), s)
	}()
	dir := t.TempDir()
	passwd := filepath.Join(dir, "passwd")
	if err := os.WriteFile(passwd, rfb.PasswordFile(s.Secret), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out := filepath.Join(dir, "shot.jpg")
	cmd := exec.CommandContext(ctx, "vncsnapshot", "-passwd", passwd, "-quality", "100", "-nocursor", "127.0.0.1:"+strconv.Itoa(display), out)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("vncsnapshot: %v\n%s", err, text)
	}
	if err := <-done; err != nil {
		t.Errorf("Serve = %v", err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	img, err := jpeg.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// farthest returns by how much a channel differs at most, at every seventh pixel.
func farthest(img image.Image, mine *image.RGBA) int {
	worst := 0
	for y := 0; y < img.Bounds().Dy(); y += 7 {
		for x := 0; x < img.Bounds().Dx(); x += 7 {
			r, g, b, _ := img.At(x, y).RGBA()
			p := mine.Pix[mine.PixOffset(x, y):]
			for k, v := range []uint32{r, g, b} {
				worst = max(worst, abs(int(v>>8)-int(p[k])))
			}
		}
	}
	return worst
}

func abs(n int) int { return max(n, -n) }

// listen takes a port that the classic client can name: it counts displays
// from 5900.
func listen(t *testing.T) (net.Listener, int) {
	t.Helper()
	for display := 50; display < 100; display++ {
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(5900+display))
		if err == nil {
			t.Cleanup(func() { l.Close() })
			return l, display
		}
	}
	t.Skip("no port between 5950 and 5999 is free")
	return nil, 0
}

package stream

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/application/driver"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// TestTwoApplicationsOnARealGuest cuts a small and a large application for a
// real image and takes them through their life on a running machine.
func TestTwoApplicationsOnARealGuest(t *testing.T) {
	if testing.Short() {
		t.Skip("short: boots a machine")
	}
	g := boot(t, "m1")
	g.drawn(t)
	p := New(Config{Cache: cacheDir(t)})
	small := cut(t, p, "calculator", "galculator")
	large := cut(t, p, "writer", "libreoffice-writer", "fonts-liberation2")
	g.picture(t, "0-before")

	if err := p.Start(t.Context(), g, small, launch("galculator")); !errors.Is(err, fault.Conflict) {
		t.Errorf("Start of a layer not attached: %v, want a conflict", err)
	}
	cannotRead(t, g, small)

	eyes := cut(t, p, "eyes", "x11-utils")
	for _, l := range []driver.Layer{small, large, eyes, small} {
		began := time.Now()
		if err := p.Attach(t.Context(), g, l); err != nil {
			t.Fatalf("Attach %s: %v", l.Application, err)
		}
		t.Logf("attach %s (%s): %v", l.Application, l.Size, time.Since(began))
	}
	checkAttached(t, p, g, small, large, eyes)
	if status, _ := g.say(t, "ls /dev/disk/by-id; test -d /run/consort/layers/"+small.Digest.Hex()+"/usr"); status != 0 {
		t.Error("the layer is not where the guest mounts it")
	}

	began := time.Now()
	if err := p.Start(t.Context(), g, small, launch("galculator")); err != nil {
		t.Fatal(err)
	}
	t.Logf("start of the small one returned after %v", time.Since(began))
	window(t, g, eyes, "galculator", began)
	began = time.Now()
	if err := p.Start(t.Context(), g, large, launch("soffice", "--writer", "--norestore", "--nologo")); err != nil {
		t.Fatal(err)
	}
	t.Logf("start of the large one returned after %v", time.Since(began))
	window(t, g, eyes, "LibreOffice Writer", began)
	page(t, g, began)
	g.picture(t, "1-both")
	if err := p.Start(t.Context(), g, small, launch("galculator")); err != nil {
		t.Errorf("Start of one that runs: %v", err)
	}
	apart(t, g, small, large)

	began = time.Now()
	if err := p.Detach(t.Context(), g, large.Digest); err != nil {
		t.Fatal(err)
	}
	t.Logf("detach of the large one: %v", time.Since(began))
	cannotRead(t, g, large)
	checkAttached(t, p, g, small, eyes)
	if status, out := g.say(t, "cat /proc/[0-9]*/comm | grep -x galculator"); status != 0 {
		t.Errorf("the small one ended with the large one: %s", out)
	}
	for _, l := range []driver.Layer{small, small, eyes} {
		if err := p.Detach(t.Context(), g, l.Digest); err != nil {
			t.Fatal(err)
		}
	}
	cannotRead(t, g, small)
	checkAttached(t, p, g)
	g.picture(t, "2-after")
}

// TestAGuestThatIsNotEntitledHasNothingToRead puts a layer into one of two
// machines and asks root in both what disks there are and what is on them.
func TestAGuestThatIsNotEntitledHasNothingToRead(t *testing.T) {
	if testing.Short() {
		t.Skip("short: boots two machines")
	}
	entitled, other := boot(t, "entitled"), boot(t, "other")
	p := New(Config{Cache: cacheDir(t)})
	l := cut(t, p, "eyes", "x11-utils")
	if err := p.Attach(t.Context(), entitled, l); err != nil {
		t.Fatal(err)
	}
	// EROFS has E0F5E1E2 at 1024 (include/uapi/linux/magic.h), little-endian.
	look := `for disk in /sys/block/*; do
	name=${disk#/sys/block/}
	[ -e $disk/serial ] && echo "serial $(cat $disk/serial)"
	[ "$(dd if=/dev/$name bs=1 skip=1024 count=4 2>/dev/null | od -An -tx1 | tr -d ' ')" = e2e1f5e0 ] && echo "layer on $name"
done
ls /run/consort/layers/*/usr/bin 2>/dev/null
true`
	for _, c := range []struct {
		g    *guest
		want bool
	}{{entitled, true}, {other, false}} {
		_, out := c.g.say(t, look)
		for _, trace := range []string{"serial " + serial(l.Digest), "layer on vd", "xwininfo"} {
			if got := strings.Contains(out, trace); got != c.want {
				t.Errorf("root in guest %s finds %q: %v, want %v:\n%s", c.g.id, trace, got, c.want, out)
			}
		}
	}
}

// apart shows that what runs in the layer's namespace cannot write the system
// nor see the other layer, and that a command that ends at once says why.
func apart(t *testing.T, g *guest, own, other driver.Layer) {
	t.Helper()
	status, out := g.say(t, fmt.Sprintf(`exec 2>&1
unshare --mount --propagation slave /bin/sh /run/consort/enter.sh %s user /home/user /bin/sh -c '
for dir in /usr /etc /opt /var /usr/bin /sys; do touch $dir/written 2>/dev/null && echo "wrote $dir"; done
touch /home/user/mine || echo "cannot write home"
ls /run/consort 2>/dev/null && echo "sees layers"
test -e /usr/lib/libreoffice && echo "sees the other application"
test -x /usr/bin/galculator || echo "does not see its own"
test $(ps ax 2>/dev/null | wc -l) -lt 8 || echo "sees other processes"
id -u
true'`, own.Digest.Hex()))
	if status != 0 || strings.TrimSpace(out) != "1000" {
		t.Errorf("inside the namespace of %s beside %s: status %d, %q; want the person's number only", own.Application, other.Application, status, out)
	}
}

// cannotRead shows that not even root in the guest has the layer's disk.
func cannotRead(t *testing.T, g *guest, l driver.Layer) {
	t.Helper()
	_, out := g.say(t, `cat /sys/block/*/serial 2>/dev/null; ls /dev/disk/by-id /run/consort/layers 2>/dev/null; cat /proc/mounts; cat /proc/[0-9]*/comm; find / -xdev -name 'galculator*' 2>/dev/null`)
	for _, trace := range []string{serial(l.Digest), l.Digest.Hex(), "erofs", "soffice", "galculator"} {
		if l.Application == "writer" && (trace == "erofs" || trace == "galculator") {
			continue // the other layer is still there
		}
		if strings.Contains(out, trace) {
			t.Errorf("root in the guest still finds %q of %s:\n%s", trace, l.Application, out)
		}
	}
}

func checkAttached(t *testing.T, p *Provider, m driver.Machine, layers ...driver.Layer) {
	t.Helper()
	var want []estate.Digest
	for _, l := range layers {
		want = append(want, l.Digest)
	}
	slices.Sort(want)
	got, err := p.Attached(t.Context(), m)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Attached = %v, %v; want %v", got, err, want)
	}
}

// window waits until a window with the name is on the screen. xwininfo is not
// in the image either: eyes is its layer.
func window(t *testing.T, g *guest, eyes driver.Layer, name string, began time.Time) {
	t.Helper()
	line := "unshare --mount --propagation slave /bin/sh /run/consort/enter.sh " + eyes.Digest.Hex() + " user /home/user xwininfo -root -tree"
	for time.Since(began) < 3*time.Minute {
		if _, out := g.say(t, line); strings.Contains(out, name) {
			t.Logf("window %q after %v", name, time.Since(began))
			return
		}
		time.Sleep(300 * time.Millisecond)
	}
	g.picture(t, "no-window")
	_, out := g.say(t, line+"; cat /run/consort/log/*; systemctl status 'consort-app-*' | tail -30")
	t.Fatalf("no window %q after %v; the guest says: %s", name, time.Since(began), out)
}

// page waits until the empty page of the writer is drawn: a fifth of the screen,
// which its window fills, is white.
func page(t *testing.T, g *guest, began time.Time) {
	t.Helper()
	for time.Since(began) < 5*time.Minute {
		if white := g.white(t); white > 0.2 {
			t.Logf("page drawn after %v", time.Since(began))
			return
		}
		time.Sleep(time.Second)
	}
	g.picture(t, "no-page")
	t.Fatal("no page was drawn")
}

func launch(command ...string) driver.Launch {
	return driver.Launch{Command: command, User: "user", Home: "/home/user"}
}

// cut builds a layer for the image under test.
func cut(t *testing.T, p *Provider, name string, packages ...string) driver.Layer {
	t.Helper()
	image := os.Getenv("CONSORT_TEST_IMAGE")
	status := strings.TrimSuffix(image, filepath.Ext(image)) + ".status"
	began := time.Now()
	r := driver.Recipe{Application: name, Packages: packages, Suite: "bookworm", DpkgStatus: status}
	file, err := p.Build(t.Context(), r, t.TempDir(), func(estate.Work) {})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	size, err := io.Copy(h, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("cut %s: %v, %d bytes", name, time.Since(began), size)
	return driver.Layer{
		Application: name, Version: "1", Path: file, Size: estate.Bytes(size),
		Digest: estate.Digest(fmt.Sprintf("sha256:%x", h.Sum(nil))),
	}
}

package stream

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/application/driver"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/image"
	"consort.dev/consort/test/guest"
)

// TestTwoApplicationsOnARealGuest cuts two applications for a real image and
// takes them through their life on a running machine. The large one is the whole
// system's test, in folder test.
func TestTwoApplicationsOnARealGuest(t *testing.T) {
	content := guest.Small(t)
	g := boot(t, content, "m1")
	g.drawn(t)
	p := New(Config{Cache: cacheDir(t)})
	calculator := cut(t, p, content, "calculator", "galculator")
	eyes := cut(t, p, content, "eyes", "x11-utils")
	g.picture(t, "0-before")

	if err := p.Start(t.Context(), g, calculator, launch("galculator")); !errors.Is(err, fault.Conflict) {
		t.Errorf("Start of a layer not attached: %v, want a conflict", err)
	}
	cannotRead(t, g, calculator, "galculator", "erofs")
	attachTwiceAtOnce(t, p, g, calculator)
	for _, l := range []driver.Layer{calculator, eyes, calculator} {
		began := time.Now()
		if err := p.Attach(t.Context(), g, l); err != nil {
			t.Fatalf("Attach %s: %v", l.Application, err)
		}
		t.Logf("attach %s (%s): %v", l.Application, l.Size, time.Since(began))
	}
	checkAttached(t, p, g, calculator, eyes)
	if status, out := g.say(t, "ls /run/consort/layers; test -d /run/consort/layers/"+calculator.Digest.Hex()+"/usr"); status != 0 {
		t.Errorf("the layer is not where the guest mounts it: %s", out)
	}

	start(t, p, g, calculator, "galculator")
	window(t, g, eyes, "galculator")
	start(t, p, g, eyes, "xev")
	window(t, g, eyes, "Event Tester")
	g.picture(t, "1-both")
	start(t, p, g, calculator, "galculator") // runs already
	apart(t, g, calculator, eyes)
	detachOneByOne(t, p, g, calculator, eyes)
	g.picture(t, "2-after")

	// Where disks have no serial number, each is known by how it begins.
	g.nameless = true
	for _, l := range []driver.Layer{eyes, calculator} {
		if err := p.Attach(t.Context(), g, l); err != nil {
			t.Fatalf("Attach %s without a serial number: %v", l.Application, err)
		}
	}
	checkAttached(t, p, g, calculator, eyes)
	start(t, p, g, calculator, "galculator")
	start(t, p, g, eyes, "xev")
	detachOneByOne(t, p, g, calculator, eyes)
}

// attachTwiceAtOnce has the guest attach a layer while it does so already, as
// after a call that was given up: it is mounted once all the same.
func attachTwiceAtOnce(t *testing.T, p *Provider, g *machine, l driver.Layer) {
	t.Helper()
	if err := g.AttachDisk(t.Context(), driver.Disk{Name: serial(l.Digest), Path: l.Path, Size: l.Size}); err != nil {
		t.Fatal(err)
	}
	head, err := headOf(l.Path)
	if err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if _, err := run(t.Context(), g, "attach", l.Digest.Hex(), serial(l.Digest), fmt.Sprint(int64(l.Size)), head); err != nil {
				t.Errorf("attach %s twice at once: %v", l.Application, err)
			}
		})
	}
	both.Wait()
	if _, out := g.say(t, "grep -c ' /run/consort/layers/"+l.Digest.Hex()+" ' /proc/self/mounts"); strings.TrimSpace(out) != "1" {
		t.Errorf("%s is mounted %s times, want once", l.Application, strings.TrimSpace(out))
	}
	checkAttached(t, p, g, l)
}

// detachOneByOne shows that each takes its files and its processes with it, and
// nothing of the other.
func detachOneByOne(t *testing.T, p *Provider, g *machine, calculator, eyes driver.Layer) {
	t.Helper()
	detach(t, p, g, calculator)
	cannotRead(t, g, calculator, "galculator")
	checkAttached(t, p, g, eyes)
	if status, out := g.say(t, "cat /proc/[0-9]*/comm | grep -x xev"); status != 0 {
		t.Errorf("one ended with the other: %s", out)
	}
	detach(t, p, g, calculator) // is gone already
	detach(t, p, g, eyes)
	cannotRead(t, g, eyes, "xev", "erofs")
	checkAttached(t, p, g)
}

func start(t *testing.T, p *Provider, g *machine, l driver.Layer, command string) {
	t.Helper()
	began := time.Now()
	if err := p.Start(t.Context(), g, l, launch(command)); err != nil {
		t.Fatalf("Start %s: %v", command, err)
	}
	t.Logf("Start %s: %v", command, time.Since(began))
}

func detach(t *testing.T, p *Provider, g *machine, l driver.Layer) {
	t.Helper()
	began := time.Now()
	if err := p.Detach(t.Context(), g, l.Digest); err != nil {
		t.Fatalf("Detach %s: %v", l.Application, err)
	}
	t.Logf("Detach %s: %v", l.Application, time.Since(began))
}

// TestAGuestThatIsNotEntitledHasNothingToRead puts a layer into one of two
// machines and asks root in both what disks there are and what is on them.
func TestAGuestThatIsNotEntitledHasNothingToRead(t *testing.T) {
	content := guest.Small(t)
	entitled, other := boot(t, content, "entitled"), boot(t, content, "other")
	p := New(Config{Cache: cacheDir(t)})
	l := cut(t, p, content, "eyes", "x11-utils")
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
		g    *machine
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
func apart(t *testing.T, g *machine, own, other driver.Layer) {
	t.Helper()
	status, out := g.say(t, fmt.Sprintf(`exec 2>&1
unshare --mount --propagation slave /bin/sh /run/consort/enter.sh %s user /home/user /bin/sh -c '
for dir in /usr /etc /opt /var /usr/bin /sys; do touch $dir/written 2>/dev/null && echo "wrote $dir"; done
touch /home/user/mine || echo "cannot write home"
ls /run/consort 2>/dev/null && echo "sees layers"
test -e /usr/bin/xwininfo && echo "sees the other application"
test -x /usr/bin/galculator || echo "does not see its own"
test $(ps ax 2>/dev/null | wc -l) -lt 8 || echo "sees other processes"
id -u
true'`, own.Digest.Hex()))
	if status != 0 || strings.TrimSpace(out) != "1000" {
		t.Errorf("inside the namespace of %s beside %s: status %d, %q; want the person's number only", own.Application, other.Application, status, out)
	}
}

// cannotRead shows that not even root in the guest finds the layer's disk, nor
// any of the words.
func cannotRead(t *testing.T, g *machine, l driver.Layer, words ...string) {
	t.Helper()
	_, out := g.say(t, `cat /sys/block/*/serial 2>/dev/null; ls /dev/disk/by-id /run/consort/layers 2>/dev/null; cat /proc/mounts
cat /proc/[0-9]*/comm; find / -xdev -name 'galculator*' -o -xdev -name xev 2>/dev/null`)
	for _, trace := range append(words, serial(l.Digest), l.Digest.Hex()) {
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
func window(t *testing.T, g *machine, eyes driver.Layer, name string) {
	t.Helper()
	line := "unshare --mount --propagation slave /bin/sh /run/consort/enter.sh " + eyes.Digest.Hex() + " user /home/user xwininfo -root -tree"
	for began := time.Now(); time.Since(began) < patience; <-time.After(300 * time.Millisecond) {
		if _, out := g.say(t, line); strings.Contains(out, name) {
			t.Logf("window %q after %v", name, time.Since(began))
			return
		}
	}
	g.picture(t, "no-window")
	_, out := g.say(t, line+"; cat /run/consort/log/*; systemctl status 'consort-app-*' | tail -30")
	t.Fatalf("no window %q within %v; the guest says: %s", name, patience, out)
}

func launch(command ...string) driver.Launch {
	return driver.Launch{Command: command, User: "user", Home: "/home/user"}
}

// cut builds a layer for the image under test.
func cut(t *testing.T, p *Provider, content image.Entry, name string, packages ...string) driver.Layer {
	t.Helper()
	began := time.Now()
	r := driver.Recipe{Application: name, Packages: packages, Suite: content.Suite, DpkgStatus: content.Status}
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

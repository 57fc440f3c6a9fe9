package fleet

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/test/guest"
	"consort.dev/consort/test/nested"
	"consort.dev/consort/test/xserver"
)

// TestADesktopGoesRoundAllVendors carries a whole desktop from one vendor's
// hypervisor to the next and back: its system disk, its home, its address, and
// an application that is streamed to it. Where machines have no screen it is
// reached by the protocol that its guest serves.
func TestADesktopGoesRoundAllVendors(t *testing.T) {
	if os.Getenv("CONSORT_JOURNEYS") == "" {
		t.Skip("needs minutes and nested hosts: make test-moves")
	}
	guest.Needs(t, "xfreerdp", "vncsnapshot", "Xvfb")
	f := New(t, travelImage(t), "testdata/lan.yaml", "testdata/desktop.yaml")
	f.image("travel")
	f.desktop("ana", guestLimit)
	f.Libvirt("virt")
	f.Nested("xen", "xen", "", nested.Xen(t))
	machine := f.desktop("ana", time.Minute).Status.Machine
	f.Must("exec", machine, "--", "sh", "-c", "echo system > /root/kept; echo person > /home/user/kept; sync")
	card := f.Must("exec", machine, "--", "cat", "/sys/class/net/eth0/address")

	for _, hop := range []struct{ to, presentation string }{{"virt", "vnc"}, {"xen", "rdp"}, {"local", "vnc"}} {
		began := time.Now()
		t.Logf("to %s:\n%s", hop.to, f.Must("move", "desktop", "ana", "--to", hop.to))
		d := f.desktop("ana", guestLimit)
		t.Logf("%s has it after %v, reached by %s", hop.to, time.Since(began).Round(time.Second), d.Status.Presentation)
		if d.Status.Presentation != hop.presentation {
			t.Errorf("on %s it is reached by %q, want %q", hop.to, d.Status.Presentation, hop.presentation)
		}
		if got := f.Must("exec", machine, "--", "cat", "/root/kept", "/home/user/kept"); got != "system\nperson\n" {
			t.Errorf("on %s the files hold %q", hop.to, got)
		}
		if got := f.Must("exec", machine, "--", "cat", "/sys/class/net/eth0/address"); got != card {
			t.Errorf("on %s its network card is %q, was %q", hop.to, got, card)
		}
		var said error
		f.within(guestLimit, "its application has been brought there and starts", func() bool {
			_, err := f.Consort("start", "ana", "calculator")
			if err != nil && (said == nil || err.Error() != said.Error()) {
				t.Log(err)
			}
			said = err
			return err == nil
		})
		f.Must("exec", machine, "--", "pgrep", "-x", "galculator")
		f.seen(t, "ana", hop.presentation)
	}
}

// travelImage is the example's image that serves a protocol of its own, on a
// disk that is carried and hashed in less time.
func travelImage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../examples/first-desktop/image.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "image.yaml")
	of := strings.NewReplacer("name: debian-12-desktop", "name: travel", "size: 8Gi", "size: 2Gi")
	if err := os.WriteFile(path, []byte(of.Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// desktop waits until the desktop runs.
func (f *Fleet) desktop(name string, limit time.Duration) (d *estate.Desktop) {
	f.t.Helper()
	f.within(limit, "desktop "+name+" runs", func() bool {
		var err error
		d, err = api.Get[estate.Desktop](f.t.Context(), f.Client, "default", name)
		return err == nil && d.Status.State == estate.DesktopRunning
	})
	return d
}

// seen has a viewer that is not ours look at the desktop.
func (f *Fleet) seen(t *testing.T, desktop, presentation string) {
	t.Helper()
	const port, display = "5989", "89"
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	forward := exec.Command(path, "connect", desktop, "--forward="+port)
	forward.Env = append(os.Environ(), "CONSORT_SERVER="+f.socket())
	out, err := forward.StdoutPipe()
	if err == nil {
		err = forward.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { forward.Process.Kill(); forward.Wait() }()
	said := map[string]string{} // what it prints, by the first word of each line
	for lines := bufio.NewScanner(out); said["password"] == "" && lines.Scan(); {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		said[word] = rest
	}
	var viewer *exec.Cmd
	switch presentation {
	case "vnc":
		secret := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(secret, rfb.PasswordFile(said["password"]), 0o600); err != nil {
			t.Fatal(err)
		}
		viewer = exec.CommandContext(t.Context(), "vncsnapshot", "-passwd", secret, "127.0.0.1:"+display, filepath.Join(t.TempDir(), "seen.jpg"))
	case "rdp":
		viewer = exec.CommandContext(t.Context(), "xfreerdp", "/v:127.0.0.1:"+port, "/u:"+said["user"], "/p:"+said["password"], "/cert:ignore", "+auth-only")
		viewer.Env = append(os.Environ(), xserver.Start(t, "640x480")) // it wants one for that, too
	}
	if out, err := viewer.CombinedOutput(); err != nil {
		t.Errorf("%s does not see the desktop on its way through %v: %v\n%s", viewer.Args[0], said, err, out)
	}
}

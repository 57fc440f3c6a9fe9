package test

import (
	"encoding/json"
	"image"
	_ "image/jpeg" // what vncsnapshot writes
	"image/png"
	"io"
	"net/http"
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
)

// save keeps a picture to look at, when CONSORT_TEST_PICTURES names a folder.
func save(h *here, m image.Image, name string) {
	h.Helper()
	dir := os.Getenv("CONSORT_TEST_PICTURES")
	if dir == "" {
		return
	}
	f, err := os.Create(filepath.Join(dir, h.Name()+"-"+name))
	if err != nil {
		h.Error(err)
		return
	}
	defer f.Close()
	if err := png.Encode(f, m); err != nil {
		h.Error(err)
	}
}

// TestFirstDesktop is the first day of a new user, from the sign-in link to an
// application's window, with the clients of others looking at the same screen.
func TestFirstDesktop(t *testing.T) {
	guest.Needs(t, "node", "chromium", "vncsnapshot")
	h := newHere(t)
	const metrics = "127.0.0.1:19440"
	h.args = append(h.args, "--metrics", metrics)
	link := h.run("../examples/first-desktop")

	t.Run("the portal", func(t *testing.T) { throughThePortal(t, link) })
	t.Run("how long it took is told", func(t *testing.T) { measured(t, metrics) })
	h.T = t
	session := h.connect("ana-office", "")
	ours := h.viewer(session)
	before := picture(h, ours)

	t.Run("typing changes the picture", func(*testing.T) {
		typeInto(h, ours, "ls -la /etc\n")
		untilPicture(h, ours, "what was typed", time.Minute, func(p *image.RGBA) bool { return differs(before, p) > 0.005 })
	})
	t.Run("an independent viewer sees the same", func(t *testing.T) {
		theirs := h.snapshot(t, "ana-office")
		mine := picture(h, ours)
		save(h, mine, "ours.png")
		if d := differs(mine, theirs); d > 0.02 {
			t.Errorf("%.1f %% of the pictures differ", 100*d)
		}
	})
	t.Run("the large application shows its window", func(*testing.T) {
		if err := h.client.StartApplication(t.Context(), "default", "ana-office", "writer"); err != nil {
			t.Fatal(err)
		}
		// The terminal is a quarter of the screen, a page of text nearly half.
		p := untilPicture(h, ours, "the writer's page", 8*time.Minute, func(p *image.RGBA) bool { return white(p) > 0.4 })
		save(h, p, "writer.png")
	})
}

// white returns which share of the picture is white, 0 to 1.
func white(p *image.RGBA) float64 {
	r := p.Bounds()
	n := 0
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			if c := p.RGBAAt(x, y); min(c.R, c.G, c.B) > 250 {
				n++
			}
		}
	}
	return float64(n) / float64(max(1, r.Dx()*r.Dy()))
}

// throughThePortal does in Chromium what a person does.
func throughThePortal(t *testing.T, link string) {
	cmd := exec.Command("node", "test/live.mjs")
	cmd.Dir = "../web"
	cmd.Env = append(os.Environ(), "LINK="+link, "DESKTOP=Ana's office", "APPLICATION=Calculator")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var saw struct {
		Connected, Typed, Started bool
		FirstFrame                float64
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &saw); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !saw.Connected || !saw.Typed || !saw.Started {
		t.Errorf("the page saw %s", lines[len(lines)-1])
	}
}

// measured asks, as Prometheus would, how long the Connect of the portal took.
func measured(t *testing.T, at string) {
	r, err := http.Get("http://" + at + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	page, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`vdi_session_connects_total{outcome="shown"} 1`,
		`vdi_session_connect_duration_seconds_count{hypervisor="local"} 1`,
		`vdi_session_connect_phase_duration_seconds_count{hypervisor="local",phase="first-frame"} 1`,
	} {
		if !strings.Contains(string(page), want+"\n") {
			t.Errorf("the page has no line %q:\n%s", want, page)
		}
	}
}

// snapshot takes a picture with Debian's vncsnapshot through a forward.
func (h *here) snapshot(t *testing.T, desktop string) image.Image {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	const display = "88"
	forward := exec.Command(path, "connect", desktop, "--forward=5988", "--server", filepath.Join(h.dir, "run", "api.sock"))
	out, err := forward.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	forward.Stderr = h.log
	if err := forward.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { forward.Process.Kill(); forward.Wait() }()
	password := passwordIn(t, out)
	file, shot := filepath.Join(h.dir, "passwd"), filepath.Join(h.dir, "shot.jpg")
	if err := os.WriteFile(file, rfb.PasswordFile(password), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("vncsnapshot", "-quality", "95", "-passwd", file, "127.0.0.1:"+display, shot).CombinedOutput(); err != nil {
		t.Fatalf("vncsnapshot: %v\n%s", err, out)
	}
	f, err := os.Open(shot)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, _, err := image.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestSwappingALayerTouchesNothingElse changes one line of the blueprint at a
// time: the application's version is exchanged while the desktop runs, the
// presentation for the next session, the image at the next start. What the
// person wrote is there after each.
func TestSwappingALayerTouchesNothingElse(t *testing.T) {
	guest.Needs(t)
	h := newHere(t)
	h.run("../examples/small-desktop/image.yaml", "testdata/swap.yaml")
	session := h.connect("ana-swap", "")
	viewer := h.viewer(session)
	before := untilPicture(h, viewer, "a terminal", bootLimit, func(p *image.RGBA) bool { return white(p) > 0.2 })
	typeInto(h, viewer, "echo kept > mark; sync; ls -la /etc\n")
	untilPicture(h, viewer, "what was typed", time.Minute, func(p *image.RGBA) bool { return differs(before, p) > 0.005 })
	first := until(h, "ana-swap", "with its layer", bootLimit, func(m *estate.Machine) bool { return attached(m, "calculator") })

	// Another version of the application: exchanged on the running machine.
	change(h, "swap", func(b *estate.Blueprint) { b.Spec.Applications[0].Version = "2.1-eyes" })
	until(h, "ana-swap", "with the other version", 5*time.Minute, func(m *estate.Machine) bool {
		return attached(m, "calculator") && len(m.Status.Layers) == 1 && m.Status.Layers[0].Digest != first.Status.Layers[0].Digest
	})

	// No application at all.
	change(h, "swap", func(b *estate.Blueprint) { b.Spec.Applications = nil })
	m := until(h, "ana-swap", "without its layer", 2*time.Minute, func(m *estate.Machine) bool { return len(m.Status.Layers) == 0 })
	if m.Metadata.UID != first.Metadata.UID || m.Status.Starts != 1 {
		t.Errorf("machine %s with %d starts; want %s with 1", m.Metadata.UID, m.Status.Starts, first.Metadata.UID)
	}

	// Another image: a fresh system disk at the next start, the same home.
	h.importCopy("small-desktop", "other")
	change(h, "swap", func(b *estate.Blueprint) { b.Spec.Image = "other" })
	until(h, "ana-swap", "announcing the change", time.Minute, func(d *estate.Desktop) bool { return d.Status.Next != nil })
	change(h, "ana-swap", func(d *estate.Desktop) { d.Spec.Power = estate.Off })
	until(h, "ana-swap", "off", 3*time.Minute, func(d *estate.Desktop) bool {
		return d.Status.State == estate.DesktopOff && d.Status.Machine == ""
	})
	if got := h.inHome("home-ana-swap", "mark"); got != "kept\n" {
		t.Errorf("after the image's change the home holds %q, want %q", got, "kept\n")
	}
	h.connect("ana-swap", "")
	second, err := api.Get[estate.Machine](t.Context(), h.client, "default", "ana-swap")
	if err != nil {
		t.Fatal(err)
	}
	if second.Metadata.UID == first.Metadata.UID {
		t.Error("the machine is the old one")
	}
	if a, b := first.Spec.Hardware.Disks, second.Spec.Hardware.Disks; a[0].Image == b[0].Image || a[1] != b[1] {
		t.Errorf("disks were %+v, are %+v; want another image and the same home", a, b)
	}
}

// importCopy imports an image's system in another format: another content, and
// another layout on disk.
func (h *here) importCopy(of, name string) {
	h.Helper()
	from, err := api.Get[estate.Image](h.Context(), h.client, "default", of)
	if err != nil {
		h.Fatal(err)
	}
	raw := filepath.Join(h.dir, name+".raw")
	content := filepath.Join(guest.Cache(h), "images", from.Status.Digest.Hex())
	if out, err := exec.Command("qemu-img", "convert", "-f", string(from.Status.Format), "-O", "raw", content, raw).CombinedOutput(); err != nil {
		h.Fatalf("qemu-img: %v\n%s", err, out)
	}
	m := &estate.Image{Spec: estate.ImageSpec{Import: &estate.Import{Path: raw, Format: estate.Raw, Guest: from.Status.Guest}}}
	m.Head = estate.Head{APIVersion: estate.APIVersion, Kind: "Image", Metadata: estate.Metadata{Name: name, Project: "default"}}
	if err := h.client.Put(h.Context(), m, api.Write{}); err != nil {
		h.Fatal(err)
	}
	until(h, name, "imported", 5*time.Minute, func(m *estate.Image) bool { return m.Status.Digest != "" })
}

func attached(m *estate.Machine, application string) bool {
	for _, l := range m.Status.Layers {
		if l.Application == application && l.Attached {
			return true
		}
	}
	return false
}

// inHome reads a file of a volume whose machine is off.
func (h *here) inHome(volume, file string) string {
	h.Helper()
	v, err := api.Get[estate.Volume](h.Context(), h.client, "default", volume)
	if err != nil {
		h.Fatal(err)
	}
	disk := filepath.Join(h.dir, "agent", "volumes", v.Metadata.UID+".raw")
	out, err := exec.Command("debugfs", "-R", "cat /"+file, disk).Output()
	if err != nil {
		h.Fatal(err)
	}
	return string(out)
}

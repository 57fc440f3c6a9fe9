package test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/test/guest"
)

// binary is consort, built once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "consort-bin")
	if err != nil {
		return "", err
	}
	// Machines start the probe as a user of their own.
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "consort")
	out, err := exec.Command("go", "build", "-o", path, "../cmd/consort").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// here is a consort that runs in a state directory of its own.
type here struct {
	*testing.T
	dir    string
	client *api.Client
	cmd    *exec.Cmd
	log    *os.File
	env    []string
	flags  []string // of up, besides the usual
	args   []string // of consort up, besides
}

// newHere makes the directory; run starts consort.
func newHere(t *testing.T) *here {
	t.Helper()
	// Short, for unix sockets; open to pass, for machines' users.
	dir, err := os.MkdirTemp("", "ct")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	h := &here{T: t, dir: dir}
	if h.client, err = api.NewClient(api.Options{Server: filepath.Join(dir, "run", "api.sock")}); err != nil {
		t.Fatal(err)
	}
	if h.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.clean)
	return h
}

// run starts consort, applies the manifests, and returns the sign-in link.
func (h *here) run(apply ...string) string {
	h.Helper()
	path, err := binary()
	if err != nil {
		h.Fatal(err)
	}
	args := []string{"up", "-v", "--state", h.dir, "--images", filepath.Join(guest.Cache(h), "images"), "--listen", "127.0.0.1:0"}
	args = append(args, h.flags...)
	args = append(args, h.args...)
	for _, a := range apply {
		args = append(args, "--apply", a)
	}
	h.cmd = exec.Command(path, args...)
	h.cmd.Stderr, h.cmd.Env = h.log, append(os.Environ(), h.env...)
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		h.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		h.Fatal(err)
	}
	var said bytes.Buffer
	for lines := bufio.NewScanner(io.TeeReader(out, &said)); lines.Scan(); {
		if link := strings.TrimSpace(lines.Text()); strings.Contains(link, "#code=") {
			go io.Copy(io.Discard, out)
			return link
		}
	}
	h.cmd.Wait()
	h.Fatalf("consort ended before it was up:\n%s\n%s", said.String(), h.tail())
	return ""
}

// kill ends consort without a word, as kill -9 does.
func (h *here) kill() {
	h.cmd.Process.Kill()
	h.cmd.Wait()
}

// tail returns the end of consort's log.
func (h *here) tail() string {
	b, _ := os.ReadFile(h.log.Name())
	return string(b[max(0, len(b)-4000):])
}

// empty removes every pool, grant and desktop through the API, waits until their
// machines have gone, and reports whether consort runs.
func (h *here) empty() bool {
	if h.cmd == nil || h.cmd.ProcessState != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	grants, _, err := api.List[estate.Grant](ctx, h.client, api.Filter{})
	for _, g := range grants { // which hold pools
		err = errors.Join(err, h.client.Delete(ctx, g.Ref(), api.Write{}))
	}
	pools, _, e := api.List[estate.Pool](ctx, h.client, api.Filter{})
	err = errors.Join(err, e)
	for _, p := range pools { // which would make other seats
		err = errors.Join(err, h.client.Delete(ctx, p.Ref(), api.Write{}))
	}
	desktops, _, e := api.List[estate.Desktop](ctx, h.client, api.Filter{})
	err = errors.Join(err, e)
	for _, d := range desktops {
		err = errors.Join(err, h.client.Delete(ctx, d.Ref(), api.Write{}))
	}
	for err == nil {
		machines, _, e := api.List[estate.Machine](ctx, h.client, api.Filter{})
		if err = errors.Join(e, ctx.Err()); len(machines) == 0 {
			break
		}
		settle(ctx)
	}
	if err != nil {
		h.Errorf("clean up: %v\n%s", err, h.tail())
	}
	return true
}

// clean removes every desktop, then everything else.
func (h *here) clean() {
	h.empty()
	if h.cmd != nil && h.cmd.ProcessState == nil {
		h.cmd.Process.Signal(os.Interrupt)
		h.cmd.Wait()
	}
	if h.Failed() {
		h.Logf("the end of consort's log:\n%s", h.tail())
	}
	h.log.Close()
	exec.Command("pkill", "-9", "-f", h.dir).Run()
	for _, ns := range h.namespaces() {
		exec.Command("ip", "netns", "del", ns).Run()
	}
	os.RemoveAll(h.dir)
}

// namespaces returns the network namespaces whose DHCP servers keep their
// files in our state.
func (h *here) namespaces() []string {
	files, _ := filepath.Glob(filepath.Join(h.dir, "network", "*.pid"))
	for i, f := range files {
		files[i] = strings.TrimSuffix(filepath.Base(f), ".pid")
	}
	return files
}

// settle lets other processes run between two looks at a condition.
func settle(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(100 * time.Millisecond):
	}
}

// until waits for the object to hold the condition.
func until[T any](h *here, name, what string, limit time.Duration, holds func(*T) bool) *T {
	h.Helper()
	project := "default"
	if estate.KindOf[T]().Global {
		project = ""
	}
	ctx, cancel := context.WithTimeout(h.Context(), limit)
	defer cancel()
	var last *T
	for e := range api.Watch[T](ctx, h.client, project) {
		if e.Type == api.Is && any(e.Object).(estate.Resource).Header().Metadata.Name == name {
			if last = e.Object; holds(last) {
				return last
			}
		}
	}
	h.Fatalf("%s %s was not %s within %v; it is %+v\n%s", estate.KindOf[T]().Kind, name, what, limit, last, h.tail())
	return nil
}

// change changes an object's spec.
func change[T any](h *here, name string, change func(*T)) {
	h.Helper()
	if _, err := api.Modify(h.Context(), h.client, "default", name, func(v *T) error { change(v); return nil }); err != nil {
		h.Fatal(err)
	}
}

// connect presses Connect and waits until the session is ready.
func (h *here) connect(desktop, presentation string) *estate.Session {
	h.Helper()
	s, err := h.client.Connect(h.Context(), "default", desktop, presentation)
	if err != nil {
		h.Fatal(err)
	}
	return until(h, s.Metadata.Name, "ready", bootLimit, func(s *estate.Session) bool {
		return s.Status.State == estate.SessionReady || s.Status.State == estate.SessionOpen
	})
}

// bootLimit is generous: software emulation on a machine that does other things.
const bootLimit = 8 * time.Minute

// viewer opens the session and returns a viewer of our own.
func (h *here) viewer(s *estate.Session) *rfb.Client {
	h.Helper()
	t, err := h.client.Ticket(h.Context(), "default", s.Metadata.Name, false)
	if err != nil {
		h.Fatal(err)
	}
	conn, err := h.client.Tunnel(h.Context(), t.Ticket)
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { conn.Close() })
	c, err := rfb.NewClient(conn, rfb.Proof{})
	if err != nil {
		h.Fatal(err)
	}
	return c
}

// typeInto waits for the terminal, which comes after the desktop, clicks into its
// lower right, which other windows leave free, and types, no faster than a quick
// typist: a guest's keyboard holds 64 events.
func typeInto(h *here, c *rfb.Client, text string) {
	h.Helper()
	at := rfb.Pointer{X: 760, Y: 440}
	untilPicture(h, c, "a terminal", bootLimit, func(p *image.RGBA) bool {
		there := image.Rect(-8, -8, 8, 8).Add(image.Pt(int(at.X), int(at.Y)))
		return white(p.SubImage(there).(*image.RGBA)) > 0.5
	})
	press := at
	press.Buttons = 1
	if err := c.Send(at, press, at); err != nil {
		h.Fatal(err)
	}
	tick := time.NewTicker(40 * time.Millisecond)
	defer tick.Stop()
	for _, k := range text {
		<-tick.C
		if err := c.Type(string(k)); err != nil {
			h.Fatal(err)
		}
	}
}

// picture returns the whole screen as it is now.
func picture(h *here, c *rfb.Client) *image.RGBA {
	h.Helper()
	if err := c.Request(false); err != nil {
		h.Fatal(err)
	}
	if err := c.NextFrame(); err != nil {
		h.Fatal(err)
	}
	return c.Image()
}

// differs returns which share of two pictures differs, 0 to 1.
func differs(a, b image.Image) float64 {
	r := a.Bounds()
	if r != b.Bounds() {
		return 1
	}
	var n, all int
	for y := r.Min.Y; y < r.Max.Y; y += 2 {
		for x := r.Min.X; x < r.Max.X; x += 2 {
			all++
			r1, g1, b1, _ := a.At(x, y).RGBA()
			r2, g2, b2, _ := b.At(x, y).RGBA()
			if apart(r1, r2) || apart(g1, g2) || apart(b1, b2) {
				n++
			}
		}
	}
	return float64(n) / float64(all)
}

// apart allows for what JPEG does to a colour.
func apart(a, b uint32) bool { return max(a, b)-min(a, b) > 40<<8 }

// untilPicture waits until the screen holds the condition.
func untilPicture(h *here, c *rfb.Client, what string, limit time.Duration, holds func(*image.RGBA) bool) *image.RGBA {
	h.Helper()
	for deadline := time.Now().Add(limit); ; settle(h.Context()) {
		p := picture(h, c)
		if holds(p) {
			return p
		}
		if time.Now().After(deadline) {
			save(h, p, "late.png")
			h.Fatalf("the screen did not show %s within %v", what, limit)
		}
	}
}

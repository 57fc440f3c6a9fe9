package test

import (
	"context"
	"fmt"
	"image"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/agent/network"
	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/test/guest"
	"consort.dev/consort/test/island"
)

// backAgain bounds how long a host may take to be back once its link is.
const backAgain = time.Minute

// TestADesktopOnAHostThatNobodyReaches joins a host in a namespace that drops
// what begins outside, puts a real desktop on it, and works on it: screen,
// forward and application come through the streams that the host opened. A cut
// link and a killed plane cost the streams, never the machine.
func TestADesktopOnAHostThatNobodyReaches(t *testing.T) {
	guest.Needs(t)
	place := island.New(t)
	h := newHere(t)
	h.flags = []string{"--agents", place.Here + ":18441"}
	h.run("../examples/small-desktop/image.yaml", "testdata/swap.yaml")
	if _, err := api.Modify(t.Context(), h.client, "", "local", func(v *estate.Hypervisor) error { v.Spec.Drain = true; return nil }); err != nil {
		t.Fatal(err)
	}
	h.joinFrom(place, "far")
	began := time.Now()
	session := h.connect("ana-swap", "")
	viewer := h.viewer(session)
	untilPicture(h, viewer, "a terminal", bootLimit, func(p *image.RGBA) bool { return white(p) > 0.2 })
	t.Logf("its image fetched and its first picture drawn %s after Connect", time.Since(began).Round(time.Second))
	first := until(h, "ana-swap", "with its layer", bootLimit, func(m *estate.Machine) bool { return attached(m, "calculator") })
	if first.Spec.Hypervisor != "far" {
		t.Fatalf("the machine is on %s", first.Spec.Hypervisor)
	}
	if err := h.client.StartApplication(t.Context(), "default", "ana-swap", "calculator"); err != nil {
		t.Error(err)
	}
	h.banner(t)
	pids := h.machines()
	if len(pids) == 0 {
		t.Fatal("no process of the machine is found")
	}
	same := func(what string) {
		t.Helper()
		c := h.viewer(h.connect("ana-swap", ""))
		untilPicture(h, c, "the desktop after "+what, backAgain, func(p *image.RGBA) bool { return white(p) > 0.1 })
		m, err := api.Get[estate.Machine](t.Context(), h.client, "default", "ana-swap")
		if err != nil || m.Status.Starts != 1 || m.Metadata.UID != first.Metadata.UID || fmt.Sprint(h.machines()) != fmt.Sprint(pids) {
			t.Errorf("after %s: %d starts in the processes %s, %v; want one in %s", what, m.Status.Starts, h.machines(), err, pids)
		}
	}

	place.Link(false)
	until(h, "far", "lost", time.Minute, func(v *estate.Hypervisor) bool { return v.Status.State == estate.HypervisorLost })
	place.Link(true)
	up := time.Now()
	until(h, "far", "back", backAgain, func(v *estate.Hypervisor) bool { return v.Status.State == estate.HypervisorReady })
	t.Logf("back %s after the link", time.Since(up).Round(time.Millisecond))
	same("a cut link")

	h.kill()
	h.run()
	up = time.Now()
	h.hears("ana-swap")
	t.Logf("back %s after the plane", time.Since(up).Round(time.Millisecond))
	same("a killed plane")
}

// hears waits until the machine's agent answers calls. A plane that is back
// within the lease finds the agent joined as before, and is not told so.
func (h *here) hears(machine string) {
	h.Helper()
	for end := time.Now().Add(backAgain); ; settle(h.Context()) {
		_, err := h.client.Run(h.Context(), "default", machine, api.RunRequest{Args: []string{"true"}})
		if err == nil {
			return
		}
		if time.Now().After(end) {
			h.Fatalf("the agent of %s was not back within %v: %v", machine, backAgain, err)
		}
	}
}

// joinFrom starts an agent in the place, as an administrator would.
func (h *here) joinFrom(place *island.Place, name string) {
	h.Helper()
	path, err := binary()
	if err != nil {
		h.Fatal(err)
	}
	token, err := h.client.JoinToken(h.Context(), name, 0)
	if err != nil {
		h.Fatal(err)
	}
	state := filepath.Join(h.dir, name)
	if err := os.Mkdir(state, 0o711); err != nil {
		h.Fatal(err)
	}
	file := filepath.Join(state, "join-token")
	if err := os.WriteFile(file, []byte(token.Token), 0o600); err != nil {
		h.Fatal(err)
	}
	c := place.Inside(path, "agent", "-v", "--join", token.Server, "--token-file", file, "--state", state, "--labels", "site=far")
	log, err := os.Create(filepath.Join(state, "log"))
	if err != nil {
		h.Fatal(err)
	}
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { h.dismiss(c, state, log) })
	until(h, name, "joined", time.Minute, func(v *estate.Hypervisor) bool { return v.Status.State == estate.HypervisorReady })
}

// dismiss has the agent clean up, and ends it.
func (h *here) dismiss(c *exec.Cmd, state string, log *os.File) {
	h.empty()
	_ = c.Process.Signal(os.Interrupt)
	_ = c.Wait()
	if h.Failed() {
		text, _ := os.ReadFile(log.Name())
		h.Logf("the end of the agent's log:\n%s", text[max(0, len(text)-4000):])
	}
	log.Close()
	nets, err := network.Open(filepath.Join(state, "network"))
	if err == nil {
		err = nets.Close(context.Background())
	}
	if err != nil {
		h.Error(err)
	}
}

// banner reaches the desktop through a forward, as a viewer of others does.
func (h *here) banner(t *testing.T) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(path, "connect", "ana-swap", "--forward=0", "--server", filepath.Join(h.dir, "run", "api.sock"))
	c.Stderr = h.log
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	at := strings.Fields(lineWith(t, out, "listening on "))[0]
	conn, err := net.DialTimeout("tcp", at, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	said := make([]byte, 12)
	if _, err := io.ReadFull(conn, said); err != nil || !strings.HasPrefix(string(said), "RFB 003.008") {
		t.Errorf("through the forward comes %q, %v; want an RFB server", said, err)
	}
}

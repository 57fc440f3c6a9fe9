package test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/test/guest"
)

// needsTime skips a test that boots guests many times where it was not asked for.
func needsTime(t *testing.T) {
	t.Helper()
	if os.Getenv("CONSORT_JOURNEYS") == "" {
		t.Skip("boots guests many times: make test-moves")
	}
}

// there is a second host, with a consort of its own that joined.
type there struct {
	dir string
	cmd *exec.Cmd
	log *os.File
}

// join starts a second host named there; a second time it goes on where it was.
func (h *here) join(t *there) *there {
	h.Helper()
	path, err := binary()
	if err != nil {
		h.Fatal(err)
	}
	args := []string{"agent", "-v", "--images", filepath.Join(guest.Cache(h), "images")}
	if t == nil {
		t = &there{}
		if t.dir, err = os.MkdirTemp("", "cu"); err != nil {
			h.Fatal(err)
		}
		if err := os.Chmod(t.dir, 0o711); err != nil {
			h.Fatal(err)
		}
		if t.log, err = os.Create(filepath.Join(t.dir, "log")); err != nil {
			h.Fatal(err)
		}
		reply, err := h.client.JoinToken(h.Context(), "there", time.Hour)
		if err != nil {
			h.Fatal(err)
		}
		token := filepath.Join(t.dir, "token")
		if err := os.WriteFile(token, []byte(reply.Token), 0o600); err != nil {
			h.Fatal(err)
		}
		args = append(args, "--join", reply.Server, "--token-file", token)
		h.Cleanup(func() {
			h.empty() // while both hosts can still let go
			t.kill()
			if h.Failed() {
				b, _ := os.ReadFile(t.log.Name())
				h.Logf("the end of the second host's log:\n%s", b[max(0, len(b)-4000):])
			}
			t.log.Close()
			for _, pid := range t.machines() {
				exec.Command("kill", "-9", pid).Run()
			}
			os.RemoveAll(t.dir)
		})
	}
	t.cmd = exec.Command(path, append(args, "--state", t.dir)...)
	t.cmd.Stderr, t.cmd.Env = t.log, append(os.Environ(), h.env...)
	if err := t.cmd.Start(); err != nil {
		h.Fatal(err)
	}
	return t
}

func (t *there) kill() {
	t.cmd.Process.Kill()
	t.cmd.Wait()
}

// machines returns the processes of machines on the second host.
func (t *there) machines() []string {
	out, _ := exec.Command("pgrep", "-f", "qemu-system.*"+t.dir).Output()
	return strings.Fields(string(out))
}

// inGuest runs a command in the desktop's machine.
func (h *here) inGuest(desktop, script string) string {
	h.Helper()
	d, err := api.Get[estate.Desktop](h.Context(), h.client, "default", desktop)
	if err != nil {
		h.Fatal(err)
	}
	out, err := h.client.Run(h.Context(), "default", d.Status.Machine, api.RunRequest{Args: []string{"/bin/sh", "-c", script}})
	if err != nil {
		h.Fatal(err)
	}
	if out.Exit != 0 {
		h.Fatalf("%s ended with %d: %s", script, out.Exit, out.Stderr)
	}
	return string(out.Stdout)
}

// manifestToMove is a real desktop that is on no network.
const manifestToMove = `
apiVersion: consort.dev/v1
kind: Context
metadata: {name: alone, project: default}
spec: {colour: "#111111", trust: 1}
---
apiVersion: consort.dev/v1
kind: Blueprint
metadata: {name: mover, project: default}
spec: {image: small-desktop, presentation: vnc, context: alone, size: {cpus: 1, memory: 512Mi}, home: 64Mi}
---
apiVersion: consort.dev/v1
kind: Desktop
metadata: {name: ana, project: default}
spec: {blueprint: mover, person: admin, power: on}
`

// movingDesktop starts two hosts and a real desktop on the first.
func movingDesktop(t *testing.T) (*here, *there) {
	guest.Needs(t)
	h := newHere(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.args = []string{"--agents", l.Addr().String()}
	l.Close()
	file := filepath.Join(h.dir, "move.yaml")
	if err := os.WriteFile(file, []byte(manifestToMove), 0o644); err != nil {
		t.Fatal(err)
	}
	h.run("../examples/small-desktop/image.yaml", file)
	other := h.join(nil)
	until(h, "there", "ready", time.Minute, func(v *estate.Hypervisor) bool { return v.Status.State == estate.HypervisorReady })
	until(h, "ana", "running", 5*time.Minute, func(d *estate.Desktop) bool { return d.Status.State == estate.DesktopRunning })
	return h, other
}

// moveTo moves the desktop and returns the journal once it has ended.
func (h *here) moveTo(to string) *estate.Operation {
	h.Helper()
	reply, err := h.client.Move(h.Context(), estate.Ref{Kind: "Desktop", Project: "default", Name: "ana"}, api.MoveRequest{To: to})
	if err != nil {
		h.Fatal(err)
	}
	return h.moved(reply.Operation)
}

func (h *here) moved(operation string) *estate.Operation {
	h.Helper()
	return until(h, operation, "at its end", 10*time.Minute, func(o *estate.Operation) bool { return !o.Status.Ended.IsZero() })
}

// TestADesktopMovesToAnotherHostAndBack writes files on a real desktop, moves it
// to another host and back while everything is killed, and reads them again.
func TestADesktopMovesToAnotherHostAndBack(t *testing.T) {
	needsTime(t)
	h, other := movingDesktop(t)
	h.inGuest("ana", "echo system > /root/kept; echo person > /home/user/kept; dd if=/dev/urandom of=/root/random bs=1M count=8 2>/dev/null; sync")
	sum := h.inGuest("ana", "sha256sum /root/random")
	read := func() string {
		return h.inGuest("ana", "cat /root/kept /home/user/kept; sha256sum /root/random")
	}
	want := "system\nperson\n" + sum
	began := time.Now()
	op := h.moveTo("there")
	if op.Status.State != estate.OperationDone || op.Status.Note != "" {
		t.Fatalf("%+v", op.Status)
	}
	t.Logf("moved in %s; disks %+v", time.Since(began).Round(time.Second), op.Status.Disks)
	if got := read(); got != want {
		t.Errorf("after the move: %q, want %q", got, want)
	}
	if here, there := h.machines(), other.machines(); len(here) != 0 || len(there) != 1 {
		t.Errorf("processes %v here and %v there; want one there", here, there)
	}
	until(h, "ana", "running", time.Minute, func(d *estate.Desktop) bool { return d.Status.State == estate.DesktopRunning })

	rng, kills := campaign(t, 3)
	reply, err := h.client.Move(t.Context(), estate.Ref{Kind: "Desktop", Project: "default", Name: "ana"}, api.MoveRequest{To: "local"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range kills {
		<-time.After(time.Duration(rng.Int64N(int64(12 * time.Second)))) // the moment is the test's input
		if i%2 == 0 {
			h.kill()
			h.run()
		} else {
			other.kill()
			h.join(other)
		}
		if all := len(h.machines()) + len(other.machines()); all > 1 {
			t.Fatalf("%d copies run: here %v, there %v", all, h.machines(), other.machines())
		}
	}
	end := h.moved(reply.Operation)
	at, processes := "local", h.machines
	if end.Status.State != estate.OperationDone {
		at, processes = "there", other.machines
	}
	t.Logf("with %d kills: %s, it is on %s; %s", kills, end.Status.State, at, end.Status.Error)
	until(h, "ana", "running", 5*time.Minute, func(d *estate.Desktop) bool { return d.Status.State == estate.DesktopRunning })
	if got := read(); got != want {
		t.Errorf("after the way back: %q, want %q", got, want)
	}
	if one := processes(); len(one) != 1 || len(h.machines())+len(other.machines()) != 1 {
		t.Errorf("processes %v here and %v there; want one on %s", h.machines(), other.machines(), at)
	}
}

// TestAMoveIsToldOnTheCommandLine moves a desktop with the command.
func TestAMoveIsToldOnTheCommandLine(t *testing.T) {
	needsTime(t)
	h, _ := movingDesktop(t)
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	consort := func(args ...string) (string, error) {
		var out bytes.Buffer
		cmd := exec.CommandContext(t.Context(), path, append(args, "--server", filepath.Join(h.dir, "run", "api.sock"))...)
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		return out.String(), err
	}
	for _, c := range []struct {
		args  []string
		fails bool
		says  string
	}{
		{[]string{"move", "desktop", "ana", "--to", "nowhere"}, true, "there is no hypervisor nowhere"},
		{[]string{"move", "desktop", "ana", "--to", "local"}, true, "it is on local already"},
		{[]string{"drain", "hypervisor", "local", "--dry-run"}, false, "there"},
		{[]string{"drain", "hypervisor", "local"}, false, "the hashes are equal"},
		{[]string{"get", "hypervisors"}, false, "draining"},
		{[]string{"move", "desktop", "ana", "--to", "local"}, true, "drained"},
		{[]string{"undrain", "hypervisor", "local"}, false, "takes machines again"},
		{[]string{"get", "operations"}, false, "done"},
	} {
		out, err := consort(c.args...)
		if (err != nil) != c.fails || !strings.Contains(out, c.says) {
			t.Errorf("consort %s: %v\n%swant %q", strings.Join(c.args, " "), err, out, c.says)
		}
	}
}

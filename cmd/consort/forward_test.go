package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/manifest"
	"consort.dev/consort/presentation/fakescreen"
)

// office is an estate with one desktop whose machine runs.
const office = `
{apiVersion: consort.dev/v1, kind: Project, metadata: {name: default}, spec: {}}
---
{apiVersion: consort.dev/v1, kind: Person, metadata: {name: ana}, spec: {}}
---
{apiVersion: consort.dev/v1, kind: Context, metadata: {name: personal, project: default}, spec: {colour: "#2e6f8e", trust: 1}}
---
{apiVersion: consort.dev/v1, kind: Image, metadata: {name: tiny, project: default}, spec: {import: {path: /srv/tiny.raw, format: raw, guest: {}}}}
---
{apiVersion: consort.dev/v1, kind: Blueprint, metadata: {name: office, project: default}, spec: {image: tiny, presentation: fakescreen, context: personal}}
---
{apiVersion: consort.dev/v1, kind: Desktop, metadata: {name: ana-office, project: default}, spec: {blueprint: office, person: ana}}
---
apiVersion: consort.dev/v1
kind: Machine
metadata: {name: ana-office, project: default}
spec:
  power: "on"
  hardware:
    cpus: 1
    memory: 64Mi
    disks: [{name: root, image: "sha256:1111111111111111111111111111111111111111111111111111111111111111"}]
`

// newOffice is a house with the office in it.
func newOffice(t *testing.T) *house {
	t.Helper()
	h, err := newHouse(t.Cleanup)
	if err != nil {
		t.Fatal(err)
	}
	set, err := (&manifest.Loader{Stdin: strings.NewReader(office)}).Load("-")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.client.Apply(t.Context(), set.Resources(), false); err != nil {
		t.Fatal(err)
	}
	return h
}

// started is a command that runs.
type started struct {
	lines *bufio.Scanner
	stop  context.CancelFunc
	done  chan int
}

func (h *house) start(t *testing.T, args ...string) *started {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	r, w := io.Pipe()
	s := &started{bufio.NewScanner(r), stop, make(chan int, 1)}
	env := map[string]string{"CONSORT_SERVER": h.socket, "XDG_RUNTIME_DIR": t.TempDir()}
	go func() {
		code := run(ctx, args, terminal{strings.NewReader(""), w, io.Discard, false, func(k string) string { return env[k] }})
		w.Close()
		s.done <- code
	}()
	t.Cleanup(func() {
		stop()
		r.Close()
	})
	return s
}

// line returns the next line after a prefix.
func (s *started) line(t *testing.T, prefix string) string {
	t.Helper()
	for s.lines.Scan() {
		if rest, ok := strings.CutPrefix(s.lines.Text(), prefix); ok {
			return rest
		}
	}
	t.Fatalf("no line began with %q", prefix)
	return ""
}

func (s *started) ends(t *testing.T, want int) {
	t.Helper()
	go func() {
		for s.lines.Scan() {
		}
	}()
	select {
	case got := <-s.done:
		if got != want {
			t.Errorf("exit status %d, want %d", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the command does not end")
	}
}

func TestForwardGivesEveryViewerATicketOfItsOwn(t *testing.T) {
	h := newOffice(t)
	cmd := h.start(t, "connect", "ana-office", "--forward")
	address, _, _ := strings.Cut(cmd.line(t, "listening on "), " ")
	var passwords []string
	for range 2 {
		password := cmd.line(t, "password ")
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		v, err := fakescreen.OpenViewer(conn, password)
		if err != nil {
			t.Fatalf("a viewer with its password: %v", err)
		}
		if err := v.Look(); err != nil {
			t.Errorf("look: %v", err)
		}
		passwords = append(passwords, password)
		conn.Close()
	}
	if passwords[0] == passwords[1] {
		t.Error("two viewers had one password")
	}
	cmd.line(t, "password ")
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fakescreen.OpenViewer(conn, passwords[0]); err == nil {
		t.Error("a used password opened the desktop again")
	}
	cmd.stop()
	cmd.ends(t, 0)
}

func TestViewersFileIsSecretAndGoesAway(t *testing.T) {
	h := newOffice(t)
	file := filepath.Join(t.TempDir(), "office.vv")
	cmd := h.start(t, "connect", "ana-office", "--presentation", "vnc", "-o", file)
	cmd.line(t, "open ")
	var info os.FileInfo
	for deadline := time.Now().Add(10 * time.Second); info == nil; {
		info, _ = os.Stat(file)
		if time.Now().After(deadline) {
			t.Fatal("the file is not written")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode %v, want 0600", got)
	}
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), "type=vnc\nhost=127.0.0.1\n") || !strings.Contains(string(text), "password=") {
		t.Errorf("file = %q, %v", text, err)
	}
	cmd.stop()
	cmd.ends(t, 0)
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
}

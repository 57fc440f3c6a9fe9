package vsphere

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"consort.dev/consort/estate"
)

// simulatorDir is where the simulator is built.
var simulatorDir string

// simulator builds the simulator, as it is for everybody: with the race detector
// its own race would end it.
var simulator = sync.OnceValues(func() (program string, err error) {
	program = filepath.Join(simulatorDir, "vcsim")
	if out, err := exec.Command("go", "build", "-o", program, "./vcsim").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build vcsim: %w: %s", err, out)
	}
	return program, nil
})

// TestMain makes room for the simulator.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "vcsim-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	simulatorDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// vcsim is a simulated vCenter with one cluster of two hosts and one datastore.
type vcsim struct {
	at    string // its address
	dir   string
	ca    string // file with its certificate
	cert  *x509.Certificate
	creds string // file with a user it lets in

	orders  io.Writer
	answers *bufio.Scanner
}

const testUser, testPassword = "agent@vsphere.local", "not a word of English"

func simulate(t testing.TB) *vcsim { return serve(t) }

// serve starts the simulator. It ends with the test, or with the whole process.
func serve(t testing.TB, args ...string) *vcsim {
	t.Helper()
	program, err := simulator()
	if err != nil {
		t.Fatal(err)
	}
	s := &vcsim{dir: t.TempDir()}
	s.ca = filepath.Join(s.dir, "ca.pem")
	cmd := exec.Command(program, append([]string{"-user", testUser, "-password", testPassword, "-ca", s.ca}, args...)...)
	cmd.Env, cmd.Stderr = append(os.Environ(), "TMPDIR="+t.TempDir()), os.Stderr
	orders, err1 := cmd.StdinPipe()
	answers, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	s.orders, s.answers = orders, bufio.NewScanner(answers)
	if s.at, err = s.answer(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(s.ca)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if s.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	s.creds = s.file(t, "creds", testUser+"\n"+testPassword+"\n")
	return s
}

// tell gives the simulator an order and returns its answer: see package vcsim.
func (s *vcsim) tell(order string, args ...any) (string, error) {
	if _, err := fmt.Fprintf(s.orders, order+"\n", args...); err != nil {
		return "", err
	}
	return s.answer()
}

func (s *vcsim) answer() (string, error) {
	if !s.answers.Scan() {
		return "", errors.New("the simulator has ended")
	}
	verdict, rest, _ := strings.Cut(s.answers.Text(), " ")
	if verdict != "ok" {
		return "", fmt.Errorf("the simulator: %s", rest)
	}
	return rest, nil
}

func (s *vcsim) must(t testing.TB, order string, args ...any) string {
	t.Helper()
	answer, err := s.tell(order, args...)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// blind makes vCenter lose sight of a machine.
func (s *vcsim) blind(_ context.Context, id estate.MachineID) (see func(), err error) {
	_, err = s.tell("lose %s", id)
	return func() { s.tell("find %s", id) }, err
}

func (s *vcsim) file(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// config is how to open a host of the vCenter.
func (s *vcsim) config(query ...string) Config {
	q := append([]string{"ca=" + url.QueryEscape(s.ca)}, query...)
	return Config{Endpoint: "https://" + s.at + "/sdk?" + strings.Join(q, "&"), Credentials: s.creds, Dir: s.dir}
}

func (s *vcsim) open(t testing.TB, query ...string) *Host {
	t.Helper()
	h, err := open(t.Context(), s.config(query...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

package remote_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/presentation/driver"
	"consort.dev/consort/presentation/drivertest"
	"consort.dev/consort/presentation/fakescreen"
	"consort.dev/consort/presentation/remote"
)

// TestMain is also the other process, when the environment names its socket.
func TestMain(m *testing.M) {
	if path := os.Getenv("CONSORT_TEST_SOCKET"); path != "" {
		l, err := net.Listen("unix", path)
		if err == nil {
			err = remote.Serve(context.Background(), l, new(fakescreen.Provider))
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// elsewhere starts the other process and returns the provider in it.
func elsewhere(t *testing.T) (driver.Provider, *os.Process) {
	t.Helper()
	dir, err := os.MkdirTemp("", "remote") // t.TempDir's path is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CONSORT_TEST_SOCKET="+path)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	dial := func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", path) }
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		p, err := remote.Open(t.Context(), dial)
		if err == nil {
			return p, cmd.Process
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func TestConformance(t *testing.T) {
	p, _ := elsewhere(t)
	drivertest.Run(t, func(*testing.T) drivertest.Rig {
		return drivertest.Rig{
			Provider: p,
			Machine:  func(c io.ReadWriteCloser) drivertest.Machine { return fakescreen.StartMachine(c) },
			Viewer: func(c io.ReadWriteCloser, secret string) (drivertest.Viewer, error) {
				return fakescreen.OpenViewer(c, secret)
			},
		}
	})
}

func TestKilledProcessEndsItsSessions(t *testing.T) {
	p, process := elsewhere(t)
	viewing, viewer := net.Pipe()
	machines, machine := net.Pipe()
	fakescreen.StartMachine(machines)
	done := make(chan error, 1)
	go func() { done <- p.Serve(t.Context(), driver.Session{Viewer: viewer, Machine: machine}) }()
	v, err := fakescreen.OpenViewer(viewing, "")
	if err != nil {
		t.Fatal(err)
	}
	process.Kill()
	if err := <-done; !errors.Is(err, fault.Unavailable) {
		t.Errorf("Serve = %v, want %v", err, fault.Unavailable)
	}
	if err := v.Look(); err == nil {
		t.Error("the viewer's end is still open")
	}
	if _, err := p.Describe(t.Context()); !errors.Is(err, fault.Unavailable) {
		t.Errorf("Describe afterwards = %v, want %v", err, fault.Unavailable)
	}
}

package flaky_test

import (
	"errors"
	"io"
	"net"
	"testing"

	"consort.dev/consort/fault"
	"consort.dev/consort/presentation"
	"consort.dev/consort/presentation/driver"
	"consort.dev/consort/presentation/drivertest"
	"consort.dev/consort/presentation/fakescreen"
	"consort.dev/consort/presentation/flaky"
)

func TestConformance(t *testing.T) {
	drivertest.Run(t, func(*testing.T) drivertest.Rig {
		return drivertest.Rig{
			Provider: &flaky.Provider{Provider: new(fakescreen.Provider)},
			Machine:  func(c io.ReadWriteCloser) drivertest.Machine { return fakescreen.StartMachine(c) },
			Viewer: func(c io.ReadWriteCloser, secret string) (drivertest.Viewer, error) {
				return fakescreen.OpenViewer(c, secret)
			},
		}
	})
}

func TestLostRepliesAreAskedForAgain(t *testing.T) {
	p, err := presentation.Open(t.Context(), &flaky.Provider{Provider: new(fakescreen.Provider), Lose: 2})
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	for range 10 {
		if _, err := p.File(t.Context(), driver.Handoff{Host: "localhost", Port: 1}); err != nil {
			t.Fatalf("File = %v, want it asked for again", err)
		}
	}
}

func TestALostReplyOfServeIsNotServedTwice(t *testing.T) {
	p, err := presentation.Open(t.Context(), &flaky.Provider{Provider: new(fakescreen.Provider), Lose: 3})
	if err != nil {
		t.Fatal(err)
	}
	lost := 0
	for range 6 {
		viewing, viewer := net.Pipe()
		machines, machine := net.Pipe()
		fakescreen.StartMachine(machines)
		done := make(chan error, 1)
		go func() { done <- p.Serve(t.Context(), driver.Session{Viewer: viewer, Machine: machine}) }()
		if _, err := fakescreen.OpenViewer(viewing, ""); err != nil {
			t.Fatal(err)
		}
		viewing.Close()
		if err := <-done; errors.Is(err, fault.Unavailable) {
			lost++
		} else if err != nil {
			t.Errorf("Serve = %v", err)
		}
	}
	if lost != 2 {
		t.Errorf("lost replies = %d, want 2 of 6", lost)
	}
}

func TestACutMachineEndsTheSession(t *testing.T) {
	p := &flaky.Provider{Provider: new(fakescreen.Provider), Cut: 30}
	viewing, viewer := net.Pipe()
	machines, machine := net.Pipe()
	fakescreen.StartMachine(machines)
	done := make(chan error, 1)
	go func() { done <- p.Serve(t.Context(), driver.Session{Viewer: viewer, Machine: machine}) }()
	v, err := fakescreen.OpenViewer(viewing, "")
	for err == nil {
		err = v.Look()
	}
	if err := <-done; err != nil {
		t.Errorf("Serve = %v, want success: the machine is gone", err)
	}
}

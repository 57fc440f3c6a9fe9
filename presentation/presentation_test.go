package presentation_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/presentation"
	"consort.dev/consort/presentation/driver"
	"consort.dev/consort/presentation/fakescreen"
)

// careless is a provider that forgets all it may forget.
type careless struct {
	offer  estate.PresentationOffer
	policy chan driver.Policy
}

func (c *careless) Describe(context.Context) (estate.PresentationOffer, error) { return c.offer, nil }

func (c *careless) Serve(_ context.Context, s driver.Session) error {
	c.policy <- s.Policy
	for range 2 {
		s.Report(driver.Event{Name: driver.FirstFrame})
	}
	return fault.Invalid.Errorf("the viewer is odd")
}

func (c *careless) File(context.Context, driver.Handoff) (driver.File, error) {
	return driver.File{}, nil
}

func open(t *testing.T, d driver.Provider) *presentation.Provider {
	t.Helper()
	p, err := presentation.Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestACarelessDriverIsMadeGood(t *testing.T) {
	d := &careless{offer: estate.PresentationOffer{Name: "careless", Protocol: "none"}, policy: make(chan driver.Policy, 1)}
	p := open(t, d)
	viewing, viewer := net.Pipe()
	_, machine := net.Pipe()
	frames := 0
	err := p.Serve(t.Context(), presentation.Session{Viewer: viewer, Machine: machine, Report: func(presentation.Event) { frames++ }})
	if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "careless") {
		t.Errorf("Serve = %v, want the kind kept and the provider named", err)
	}
	if got := (<-d.policy).Clipboard.MaxBytes; got != estate.MiB {
		t.Errorf("longest text = %d, want 1 MiB when none is given", got)
	}
	if frames != 1 {
		t.Errorf("first frames = %d, want 1", frames)
	}
	viewing.SetReadDeadline(time.Now().Add(time.Second))
	if _, err := viewing.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the viewer's end: %v, want it closed", err)
	}
	if _, err := p.File(t.Context(), presentation.Handoff{Host: "localhost", Port: 1}); !errors.Is(err, fault.Unsupported) {
		t.Errorf("File = %v, want %v where none is offered", err, fault.Unsupported)
	}
	if _, err := p.NewSecret(strings.NewReader("")); !errors.Is(err, fault.Unsupported) {
		t.Errorf("NewSecret = %v, want %v where viewers show none", err, fault.Unsupported)
	}
}

func TestOffersWithoutANameAreRefused(t *testing.T) {
	for _, o := range []estate.PresentationOffer{{}, {Name: "x"}, {Name: "Not A Name", Protocol: "p"}} {
		if _, err := presentation.Open(t.Context(), &careless{offer: o}); !errors.Is(err, fault.Internal) {
			t.Errorf("Open with %+v = %v, want %v", o, err, fault.Internal)
		}
	}
}

func TestFilesLeadOnlyToHosts(t *testing.T) {
	p := open(t, new(fakescreen.Provider))
	for host, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "localhost": true, "desk.example.org": true,
		"": false, "a b": false, "x\npassword=y": false, "-oProxy": false, "a;b": false,
	} {
		_, err := p.File(t.Context(), presentation.Handoff{Host: host, Port: 5900})
		if (err == nil) != want {
			t.Errorf("host %q: %v, want allowed %v", host, err, want)
		}
	}
	for _, port := range []int{0, -1, 65536} {
		if _, err := p.File(t.Context(), presentation.Handoff{Host: "localhost", Port: port}); !errors.Is(err, fault.Invalid) {
			t.Errorf("port %d: %v, want %v", port, err, fault.Invalid)
		}
	}
}

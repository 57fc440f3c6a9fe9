package application_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"consort.dev/consort/application"
	"consort.dev/consort/application/driver"
	"consort.dev/consort/application/drivertest"
	"consort.dev/consort/application/fakeapps"
	"consort.dev/consort/application/flaky"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

const digest = estate.Digest("sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")

func clock() driver.Layer {
	return driver.Layer{Application: "clock", Version: "1", Digest: digest, Path: "/layers/clock", Size: 65536}
}

func launch() driver.Launch {
	return driver.Launch{Command: []string{"clock"}, User: "user", Home: "/home/user"}
}

func open(t *testing.T, drv driver.Provider, d application.Deadlines) *application.Provider {
	t.Helper()
	p, err := application.Open(t.Context(), drv, d)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLifeOfALayer(t *testing.T) {
	inner := fakeapps.New()
	p := open(t, inner, application.Deadlines{})
	m := drivertest.NewMachine("m1")
	err := errors.Join(
		p.Attach(t.Context(), m, clock()),
		p.Start(t.Context(), m, clock(), launch()),
	)
	if ps := inner.Guests.Processes("m1"); err != nil || len(ps) != 1 {
		t.Errorf("processes %v, error %v; want one", ps, err)
	}
	if ds, err := p.Attached(t.Context(), m); err != nil || !slices.Equal(ds, []estate.Digest{digest}) {
		t.Errorf("Attached = %v, %v", ds, err)
	}
	if err := p.Detach(t.Context(), m, digest); err != nil {
		t.Error(err)
	}
	if ds, err := p.Attached(t.Context(), m); err != nil || len(ds) != 0 {
		t.Errorf("Attached = %v, %v; want nothing", ds, err)
	}
}

func TestWhatCanNeverSucceedIsRefusedBeforeTheGuestHearsOfIt(t *testing.T) {
	p := open(t, fakeapps.New(), application.Deadlines{})
	attach := func(change func(*driver.Layer)) error {
		l := clock()
		change(&l)
		return p.Attach(t.Context(), deaf{t}, l)
	}
	start := func(change func(*driver.Launch)) error {
		app := launch()
		change(&app)
		return p.Start(t.Context(), deaf{t}, clock(), app)
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{attach(func(l *driver.Layer) { l.Digest = "sha1:00" }), "is not a digest"},
		{attach(func(l *driver.Layer) { l.Path = "layer" }), "not the absolute path"},
		{attach(func(l *driver.Layer) { l.Size = 100 }), "whole sectors"},
		{start(func(a *driver.Launch) { a.Command = nil }), "no command"},
		{start(func(a *driver.Launch) { a.Command = []string{"-c"} }), "begins with a dash"},
		{start(func(a *driver.Launch) { a.Command = []string{"a\nb"} }), "line break"},
		{start(func(a *driver.Launch) { a.User = "root" }), "do not run as root"},
		{start(func(a *driver.Launch) { a.User = "a b" }), "not an account"},
		{start(func(a *driver.Launch) { a.Home = "/home/../etc" }), "not a home"},
		{start(func(a *driver.Launch) { a.Home = "/" }), "not a home"},
		{p.Detach(t.Context(), deaf{t}, "sha256:short"), "is not a digest"},
		{build(p, driver.Recipe{DpkgStatus: "/s"}), "no packages"},
		{build(p, driver.Recipe{Packages: []string{"x"}}), "build the image again"},
		{build(p, driver.Recipe{Packages: []string{"-o=evil"}, DpkgStatus: "/s"}), "not a Debian package"},
		{build(p, driver.Recipe{Packages: []string{"../x"}, DpkgStatus: "/s"}), "not a Debian package"},
	} {
		if !errors.Is(c.err, fault.Invalid) || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("error %v (%v), want invalid: %q", c.err, fault.KindOf(c.err), c.want)
		}
	}
}

func TestErrorsSayWhatWasTriedAndKeepTheirKind(t *testing.T) {
	p := open(t, fakeapps.New(), application.Deadlines{})
	err := p.Start(t.Context(), drivertest.NewMachine("m1"), clock(), launch())
	if want := "start clock on machine m1: layer 0123456789ab is not attached"; fmt.Sprint(err) != want || !errors.Is(err, fault.Conflict) {
		t.Errorf("error %v (%v), want %q", err, fault.KindOf(err), want)
	}
}

func TestBuildingIsAskedOfThoseWhoCan(t *testing.T) {
	mute := open(t, struct{ driver.Provider }{fakeapps.New()}, application.Deadlines{})
	r := driver.Recipe{Application: "clock", Packages: []string{"clock"}, DpkgStatus: "/s"}
	if err := build(mute, r); mute.CanBuild() || !errors.Is(err, fault.Unsupported) {
		t.Errorf("CanBuild = %v, error %v; want unsupported", mute.CanBuild(), err)
	}
	wrapped := open(t, flaky.New(fakeapps.New(), flaky.Losses{}, 1), application.Deadlines{})
	if _, err := wrapped.Build(t.Context(), r, t.TempDir(), nil); !wrapped.CanBuild() || err != nil {
		t.Errorf("CanBuild = %v through a wrapper, error %v", wrapped.CanBuild(), err)
	}
}

func TestADeadlineLeavesTheOutcomeUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := fakeapps.New()
		inner.Wait = func(ctx context.Context, verb string, _ estate.MachineID) error {
			<-ctx.Done()
			return ctx.Err()
		}
		p := open(t, inner, application.Deadlines{Attach: 3 * time.Second})
		began := time.Now()
		err := p.Attach(t.Context(), drivertest.NewMachine("m1"), clock())
		if took := time.Since(began); !errors.Is(err, fault.OutcomeUnknown) || took != 3*time.Second {
			t.Errorf("error %v after %v, want an unknown outcome after 3s", err, took)
		}
	})
}

func TestCallsForOneMachineWaitForEachOther(t *testing.T) {
	var inside, most atomic.Int64
	inner := fakeapps.New()
	inner.Wait = func(_ context.Context, _ string, m estate.MachineID) error {
		if n := inside.Add(1); n > most.Load() {
			most.Store(n)
		}
		time.Sleep(time.Second)
		inside.Add(-1)
		return nil
	}
	run := func(machines int) (took time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			p := open(t, inner, application.Deadlines{Attach: time.Hour})
			began := time.Now()
			var wg sync.WaitGroup
			for i := range 6 {
				m := drivertest.NewMachine(estate.MachineID(fmt.Sprint(i % machines)))
				wg.Go(func() {
					if err := p.Attach(t.Context(), m, clock()); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			took = time.Since(began)
		})
		return took
	}
	if took := run(1); most.Load() != 1 || took != 6*time.Second {
		t.Errorf("one machine: %d at once, %v; want 1, 6s", most.Load(), took)
	}
	if took := run(6); took != time.Second {
		t.Errorf("six machines: %v, want 1s", took)
	}
}

func build(p *application.Provider, r driver.Recipe) error {
	_, err := p.Build(context.Background(), r, "/nowhere", nil)
	return err
}

// deaf is a machine that must not be spoken to.
type deaf struct{ t *testing.T }

func (d deaf) ID() estate.MachineID { return "deaf" }

func (d deaf) AttachDisk(context.Context, driver.Disk) error {
	d.t.Error("a disk was plugged in")
	return nil
}

func (d deaf) DetachDisk(context.Context, string) error {
	d.t.Error("a disk was taken out")
	return nil
}

func (d deaf) Disks(context.Context) ([]string, error) { return nil, nil }

func (d deaf) Run(context.Context, []string, []byte) (driver.Output, error) {
	d.t.Error("a command was run")
	return driver.Output{}, nil
}

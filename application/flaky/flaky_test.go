package flaky_test

import (
	"context"
	"errors"
	"testing"

	"consort.dev/consort/application/driver"
	"consort.dev/consort/application/drivertest"
	"consort.dev/consort/application/fakeapps"
	"consort.dev/consort/application/flaky"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

func TestLosingNothingKeepsEveryPromise(t *testing.T) {
	drivertest.Run(t, func(*testing.T) drivertest.Fixture {
		return fixture(func(p driver.Provider) driver.Provider { return flaky.New(p, flaky.Losses{}, 1) })
	})
}

func TestRetriesConvergeWhenCallsAndRepliesAreLost(t *testing.T) {
	lost := 0
	drivertest.Run(t, func(t *testing.T) drivertest.Fixture {
		return fixture(func(p driver.Provider) driver.Provider {
			f := flaky.New(p, flaky.Losses{Before: 0.3, After: 0.3}, 7)
			t.Cleanup(func() { lost += f.Lost() })
			return patient{f}
		})
	})
	if lost < 50 {
		t.Errorf("%d calls and replies lost, want many", lost)
	}
}

func TestALostReplyHasHadItsEffect(t *testing.T) {
	inner := fakeapps.New()
	p := flaky.New(inner, flaky.Losses{After: 1}, 1)
	m := drivertest.NewMachine("m1")
	l := driver.Layer{Digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
	if err := p.Attach(t.Context(), m, l); !errors.Is(err, fault.OutcomeUnknown) {
		t.Errorf("Attach = %v, want its outcome unknown", err)
	}
	if ds, err := inner.Attached(t.Context(), m); err != nil || len(ds) != 1 {
		t.Errorf("Attached = %v, %v; want the layer", ds, err)
	}
}

func fixture(wrap func(driver.Provider) driver.Provider) drivertest.Fixture {
	good := fakeapps.New()
	return drivertest.Fixture{
		Provider: wrap(good),
		Machine:  drivertest.NewMachines(nil).Get,
		Processes: func(id estate.MachineID) (ps []drivertest.Process) {
			for _, r := range good.Guests.Processes(id) {
				ps = append(ps, drivertest.Process(r))
			}
			return ps
		},
		Another: func() driver.Provider { return wrap(&fakeapps.Provider{Guests: good.Guests}) },
		Recipe:  driver.Recipe{Application: "clock", Packages: []string{"clock"}},
		Broken:  driver.Recipe{Application: "clock", Packages: []string{"absent"}},
	}
}

// patient tries again while that may help, as callers must.
type patient struct{ driver.Provider }

func (p patient) Unwrap() driver.Provider { return p.Provider }

func again(try func() error) (err error) {
	for range 40 {
		if err = try(); err == nil || !fault.KindOf(err).Temporary() {
			return err
		}
	}
	return err
}

func (p patient) Attach(ctx context.Context, m driver.Machine, l driver.Layer) error {
	return again(func() error { return p.Provider.Attach(ctx, m, l) })
}

func (p patient) Attached(ctx context.Context, m driver.Machine) (ds []estate.Digest, err error) {
	err = again(func() error {
		ds, err = p.Provider.Attached(ctx, m)
		return err
	})
	return ds, err
}

func (p patient) Start(ctx context.Context, m driver.Machine, l driver.Layer, app driver.Launch) error {
	return again(func() error { return p.Provider.Start(ctx, m, l, app) })
}

func (p patient) Detach(ctx context.Context, m driver.Machine, d estate.Digest) error {
	return again(func() error { return p.Provider.Detach(ctx, m, d) })
}

package drivertest

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"sync/atomic"
	"testing"

	"consort.dev/consort/application/driver"
	"consort.dev/consort/application/fakeapps"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// fixture puts p into a world of its own.
func fixture(p *fakeapps.Provider) Fixture {
	machines := NewMachines(nil)
	return Fixture{
		Provider: p,
		Machine:  machines.Get,
		Processes: func(id estate.MachineID) []Process {
			var ps []Process
			for _, r := range p.Guests.Processes(id) {
				ps = append(ps, Process(r))
			}
			return ps
		},
		Another: func() driver.Provider { return &fakeapps.Provider{Guests: p.Guests} },
		Recipe:  driver.Recipe{Application: "clock", Packages: []string{"clock"}},
		Broken:  driver.Recipe{Application: "clock", Packages: []string{"absent"}},
	}
}

// liar is a good provider with some methods replaced.
type liar struct {
	*fakeapps.Provider
	describe func(o *estate.DeliveryOffer)
	attach   func(context.Context, driver.Machine, driver.Layer) error
	attached func(context.Context, driver.Machine, []estate.Digest, error) ([]estate.Digest, error)
	start    func(context.Context, driver.Machine, driver.Layer, driver.Launch) error
	detach   func(context.Context, driver.Machine, estate.Digest) error
	build    func(driver.Recipe, string, error) error
}

// mute is a machine whose guest cannot be cut off: it never answers, and all is
// well.
type mute struct{ driver.Machine }

func (m mute) Run(context.Context, []string, []byte) (driver.Output, error) {
	return driver.Output{}, nil
}

// liars returns a provider that breaks each promise. Each gets good, the
// provider it spoils, in a world of its own.
func liars(good *fakeapps.Provider) map[string]*liar {
	var count atomic.Int64
	all := map[string]*liar{
		"DescribeHasAName":     {describe: func(o *estate.DeliveryOffer) { o.Name = "" }},
		"DescribeNeverChanges": {describe: func(o *estate.DeliveryOffer) { o.Version = string(rune('0' + count.Add(1))) }},
		"DisksAreDeclared":     {describe: func(o *estate.DeliveryOffer) { o.Needs = []estate.Capability{estate.CanGuest} }},
		"TheAgentIsDeclared":   {describe: func(o *estate.DeliveryOffer) { o.Agent = false }},
		"EndedContextEndsTheCall": {attach: func(ctx context.Context, m driver.Machine, l driver.Layer) error {
			return good.Attach(context.WithoutCancel(ctx), m, l)
		}},
		"BuildTwiceGivesTheSameBytes": {build: func(r driver.Recipe, file string, err error) error {
			if err == nil {
				return appendByte(file, count.Add(1))
			}
			return err
		}},
		"BuildThatFailsLeavesNothing": {build: func(_ driver.Recipe, dir string, err error) error {
			if err != nil {
				appendByte(dir+"/half", 1)
			}
			return err
		}},
	}
	maps.Copy(all, attachLiars(good))
	maps.Copy(all, attachedLiars(good))
	maps.Copy(all, startLiars(good))
	maps.Copy(all, detachLiars(good))
	return all
}

func attachLiars(good *fakeapps.Provider) map[string]*liar {
	var anybody driver.Machine // what an unclean provider remembers
	return map[string]*liar{
		"AttachMakesItStartable": {attach: func(context.Context, driver.Machine, driver.Layer) error { return nil }},
		"AttachTwiceIsOnce": {attach: func(ctx context.Context, m driver.Machine, l driver.Layer) error {
			if ds, _ := m.Disks(ctx); len(ds) == 1 {
				m.AttachDisk(ctx, driver.Disk{Name: "again"})
			}
			return good.Attach(ctx, m, l)
		}},
		"AttachReachesOneMachine": {
			attach: func(ctx context.Context, m driver.Machine, l driver.Layer) error {
				anybody = m
				return good.Attach(ctx, m, l)
			},
			attached: func(ctx context.Context, m driver.Machine, ds []estate.Digest, err error) ([]estate.Digest, error) {
				if len(ds) == 0 && err == nil && anybody != nil && anybody.ID() != m.ID() {
					return good.Attached(ctx, anybody)
				}
				return ds, err
			},
		},
		"AttachWithoutGuestIsUnavailable": {attach: func(ctx context.Context, m driver.Machine, l driver.Layer) error {
			return good.Attach(ctx, mute{m}, l)
		}},
	}
}

func attachedLiars(good *fakeapps.Provider) map[string]*liar {
	var anybody driver.Machine // what an unclean provider remembers
	touched := false
	return map[string]*liar{
		"FreshMachineHasNothingAttached": {attached: func(_ context.Context, m driver.Machine, ds []estate.Digest, err error) ([]estate.Digest, error) {
			if err == nil && !touched {
				ds = []estate.Digest{"sha256:ghost"}
			}
			return ds, err
		}, attach: func(ctx context.Context, m driver.Machine, l driver.Layer) error {
			touched = true
			return good.Attach(ctx, m, l)
		}, detach: func(ctx context.Context, m driver.Machine, d estate.Digest) error {
			touched = true
			return good.Detach(ctx, m, d)
		}},
		"AttachedIsSorted": {attached: func(_ context.Context, _ driver.Machine, ds []estate.Digest, err error) ([]estate.Digest, error) {
			slices.Reverse(ds)
			return ds, err
		}},
		"AttachedForgetsARestart": {attached: func(ctx context.Context, m driver.Machine, ds []estate.Digest, err error) ([]estate.Digest, error) {
			if disks, _ := m.Disks(ctx); err == nil && len(disks) == 0 && anybody != nil && anybody.ID() == m.ID() {
				ds = []estate.Digest{layer(1).Digest}
			}
			return ds, err
		}, attach: func(ctx context.Context, m driver.Machine, l driver.Layer) error {
			anybody = m
			return good.Attach(ctx, m, l)
		}, detach: func(ctx context.Context, m driver.Machine, d estate.Digest) error {
			anybody = nil
			return good.Detach(ctx, m, d)
		}},
		"AttachedIsTheGuestsNotOurs": {}, // see TestLiars: its other self knows nothing
		"AttachedWithoutGuestIsUnavailable": {attached: func(_ context.Context, _ driver.Machine, ds []estate.Digest, err error) ([]estate.Digest, error) {
			if errors.Is(err, fault.Unavailable) {
				err = nil
			}
			return ds, err
		}},
	}
}

func startLiars(good *fakeapps.Provider) map[string]*liar {
	var count atomic.Int64
	return map[string]*liar{
		"StartRunsTheCommand": {start: func(ctx context.Context, m driver.Machine, l driver.Layer, app driver.Launch) error {
			app.Command = app.Command[:1]
			return good.Start(ctx, m, l, app)
		}},
		"StartIsAsThePerson": {start: func(ctx context.Context, m driver.Machine, l driver.Layer, app driver.Launch) error {
			app.User = "root"
			return good.Start(ctx, m, l, app)
		}},
		"StartTwiceIsOnce": {start: func(ctx context.Context, m driver.Machine, l driver.Layer, app driver.Launch) error {
			err := good.Start(ctx, m, l, app)
			if err == nil && count.Add(1) > 1 {
				ps := good.Guests.Processes(m.ID())
				good.Guests.SetProcesses(m.ID(), append(ps, ps...))
			}
			return err
		}},
		"StartOfNothingAttachedIsConflict": {start: func(ctx context.Context, m driver.Machine, l driver.Layer, app driver.Launch) error {
			if err := good.Start(ctx, m, l, app); !errors.Is(err, fault.Conflict) {
				return err
			}
			return errors.New("something is wrong")
		}},
		"StartThatEndsIsStuck": {start: func(ctx context.Context, m driver.Machine, l driver.Layer, app driver.Launch) error {
			if err := good.Start(ctx, m, l, app); !errors.Is(err, fault.Stuck) {
				return err
			}
			return nil
		}},
		"StartWithoutGuestIsUnavailable": {start: func(ctx context.Context, m driver.Machine, l driver.Layer, app driver.Launch) error {
			return good.Start(ctx, mute{m}, l, app)
		}},
	}
}

func detachLiars(good *fakeapps.Provider) map[string]*liar {
	var count atomic.Int64
	return map[string]*liar{
		"DetachTakesTheLayerAway": {attached: func(_ context.Context, _ driver.Machine, ds []estate.Digest, err error) ([]estate.Digest, error) {
			if count.Load() > 0 && len(ds) == 0 {
				ds = []estate.Digest{layer(1).Digest}
			}
			return ds, err
		}, detach: func(ctx context.Context, m driver.Machine, d estate.Digest) error {
			count.Add(1)
			return good.Detach(ctx, m, d)
		}},
		"DetachTakesTheDiskOut": {detach: func(ctx context.Context, m driver.Machine, d estate.Digest) error {
			return good.Detach(ctx, keeper{m}, d)
		}},
		"DetachEndsTheProcesses": {detach: func(ctx context.Context, m driver.Machine, d estate.Digest) error {
			ps := good.Guests.Processes(m.ID())
			err := good.Detach(ctx, m, d)
			good.Guests.SetProcesses(m.ID(), ps)
			return err
		}},
		"DetachLeavesTheOthers": {detach: func(ctx context.Context, m driver.Machine, d estate.Digest) error {
			ds, err := good.Attached(ctx, m)
			for _, other := range ds {
				err = errors.Join(err, good.Detach(ctx, m, other))
			}
			return errors.Join(err, good.Detach(ctx, m, d))
		}},
		"DetachOfTheAbsentIsSuccess": {detach: func(ctx context.Context, m driver.Machine, d estate.Digest) error {
			if ds, err := good.Attached(ctx, m); err != nil || !slices.Contains(ds, d) {
				return errors.Join(err, fault.NotFound.Errorf("no layer %s", d.Short()))
			}
			return good.Detach(ctx, m, d)
		}},
		"DetachWithoutGuestIsUnavailable": {detach: func(ctx context.Context, m driver.Machine, d estate.Digest) error {
			return good.Detach(ctx, mute{m}, d)
		}},
	}
}

// keeper is a machine that keeps its disks.
type keeper struct{ driver.Machine }

func (keeper) DetachDisk(context.Context, string) error { return nil }

func appendByte(file string, n int64) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write([]byte{byte(n)})
	return err
}

// TestLiars breaks each promise in turn and wants the promise's check, and no
// other, to say so.
func TestLiars(t *testing.T) {
	for _, broken := range promises {
		if broken.name == "MachinesAtOnce" {
			continue // the race detector is its judge
		}
		t.Run(broken.name, func(t *testing.T) {
			for _, p := range promises {
				if p.name == "MachinesAtOnce" {
					continue
				}
				err := p.keeps(t.Context(), lie(t, broken.name))
				if p.name == broken.name && err == nil {
					t.Error("a broken provider passed")
				}
				// Every check but the first few stands on Attach.
				if p.name != broken.name && err != nil && broken.name != "AttachMakesItStartable" {
					t.Errorf("%s rejects it as well: %v", p.name, err)
				}
			}
		})
	}
}

// lie returns the world of the liar that breaks the promise.
func lie(t *testing.T, promise string) Fixture {
	t.Helper()
	good := fakeapps.New()
	f := fixture(good)
	l, found := liars(good)[promise]
	if !found {
		t.Fatal("no liar breaks this promise; write one")
	}
	l.Provider = good
	f.Provider = l
	if promise == "AttachedIsTheGuestsNotOurs" {
		f.Another = func() driver.Provider { return fakeapps.New() }
	}
	return f
}

func (l *liar) Describe(ctx context.Context) (estate.DeliveryOffer, error) {
	o, err := l.Provider.Describe(ctx)
	if l.describe != nil {
		l.describe(&o)
	}
	return o, err
}

func (l *liar) Attach(ctx context.Context, m driver.Machine, layer driver.Layer) error {
	if l.attach != nil {
		return l.attach(ctx, m, layer)
	}
	return l.Provider.Attach(ctx, m, layer)
}

func (l *liar) Attached(ctx context.Context, m driver.Machine) ([]estate.Digest, error) {
	ds, err := l.Provider.Attached(ctx, m)
	if l.attached != nil {
		return l.attached(ctx, m, ds, err)
	}
	return ds, err
}

func (l *liar) Start(ctx context.Context, m driver.Machine, layer driver.Layer, app driver.Launch) error {
	if l.start != nil {
		return l.start(ctx, m, layer, app)
	}
	return l.Provider.Start(ctx, m, layer, app)
}

func (l *liar) Detach(ctx context.Context, m driver.Machine, d estate.Digest) error {
	if l.detach != nil {
		return l.detach(ctx, m, d)
	}
	return l.Provider.Detach(ctx, m, d)
}

func (l *liar) Build(ctx context.Context, r driver.Recipe, dir string, report func(estate.Work)) (string, error) {
	file, err := l.Provider.Build(ctx, r, dir, report)
	switch {
	case l.build == nil:
		return file, err
	case err != nil:
		return file, l.build(r, dir, err)
	}
	return file, l.build(r, file, nil)
}

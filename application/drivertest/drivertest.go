// Package drivertest is what it means to be an application provider, as tests.
package drivertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/application/driver"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// Fixture is a provider and the world it works in.
type Fixture struct {
	Provider driver.Provider
	// Machine returns the running machine with the name, always the same one.
	// It begins without layers.
	Machine func(id estate.MachineID) *Machine
	// Processes returns what runs in the machine's guest, learned without the
	// provider.
	Processes func(id estate.MachineID) []Process
	// Another returns the provider as another process would have it: nothing
	// that the first one remembers, the same guests.
	Another func() driver.Provider
	// Recipe makes a layer; Broken none. They are needed by builders only.
	Recipe, Broken driver.Recipe
}

// Process is a program of a layer that runs in a guest.
type Process struct {
	Layer   estate.Digest
	User    string
	Command []string
}

// Run tests the provider that open returns. It calls open once per promise.
// Checks of an ability that the provider does not have are skipped, by name.
func Run(t *testing.T, open func(*testing.T) Fixture) {
	for _, p := range promises {
		t.Run(p.name, func(t *testing.T) {
			f := open(t)
			if _, builds := driver.As[driver.Builder](f.Provider); p.builder && !builds {
				t.Skip("the provider makes no layers")
			}
			limit := time.Minute
			if p.builder {
				limit = 10 * time.Minute // real packages are downloaded
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			if err := p.keeps(ctx, f); err != nil {
				t.Error(err)
			}
		})
	}
}

// A promise is one sentence of package driver. It is checked by a function that
// returns an error, not one that fails a test, so that the checks can be
// checked: see TestLiars.
type promise struct {
	name    string
	builder bool
	keeps   func(context.Context, Fixture) error
}

var promises = []promise{
	{"DescribeHasAName", false, describeHasAName},
	{"DescribeNeverChanges", false, describeNeverChanges},
	{"DisksAreDeclared", false, disksAreDeclared},
	{"TheAgentIsDeclared", false, theAgentIsDeclared},
	{"FreshMachineHasNothingAttached", false, freshMachineHasNothing},
	{"AttachMakesItStartable", false, attachMakesItStartable},
	{"AttachTwiceIsOnce", false, attachTwiceIsOnce},
	{"AttachReachesOneMachine", false, attachReachesOneMachine},
	{"AttachWithoutGuestIsUnavailable", false, attachWithoutGuest},
	{"AttachedIsSorted", false, attachedIsSorted},
	{"AttachedForgetsARestart", false, attachedForgetsARestart},
	{"AttachedIsTheGuestsNotOurs", false, attachedIsTheGuests},
	{"AttachedWithoutGuestIsUnavailable", false, attachedWithoutGuest},
	{"StartRunsTheCommand", false, startRunsTheCommand},
	{"StartIsAsThePerson", false, startIsAsThePerson},
	{"StartTwiceIsOnce", false, startTwiceIsOnce},
	{"StartOfNothingAttachedIsConflict", false, startOfNothing},
	{"StartThatEndsIsStuck", false, startThatEnds},
	{"StartWithoutGuestIsUnavailable", false, startWithoutGuest},
	{"DetachTakesTheLayerAway", false, detachTakesAway},
	{"DetachTakesTheDiskOut", false, detachTakesTheDiskOut},
	{"DetachEndsTheProcesses", false, detachEndsTheProcesses},
	{"DetachLeavesTheOthers", false, detachLeavesTheOthers},
	{"DetachOfTheAbsentIsSuccess", false, detachOfTheAbsent},
	{"DetachWithoutGuestIsUnavailable", false, detachWithoutGuest},
	{"EndedContextEndsTheCall", false, endedContext},
	{"MachinesAtOnce", false, machinesAtOnce},
	{"BuildTwiceGivesTheSameBytes", true, buildTwice},
	{"BuildThatFailsLeavesNothing", true, buildThatFails},
}

// layer returns a layer that differs from those of other numbers.
func layer(n int) driver.Layer {
	return driver.Layer{
		Application: fmt.Sprintf("app%d", n), Version: "1",
		Digest: estate.Digest("sha256:" + strings.Repeat(fmt.Sprintf("%016x", 15-n), 4)),
		Path:   os.DevNull, Size: 65536, // a file that is there; what it holds is no promise's matter
	}
}

func launch() driver.Launch {
	return driver.Launch{Command: []string{"/usr/bin/clock", "--large"}, User: "user", Home: "/home/user"}
}

func describeHasAName(ctx context.Context, f Fixture) error {
	o, err := f.Provider.Describe(ctx)
	if err == nil && o.Name == "" {
		err = errors.New("Describe gives no name")
	}
	return err
}

func describeNeverChanges(ctx context.Context, f Fixture) error {
	a, err1 := f.Provider.Describe(ctx)
	b, err2 := f.Provider.Describe(ctx)
	if a.Name != b.Name || a.Version != b.Version || a.Agent != b.Agent || !slices.Equal(a.Needs, b.Needs) {
		return fmt.Errorf("Describe = %+v, then %+v", a, b)
	}
	return errors.Join(err1, err2)
}

// live takes a layer through its life.
func live(ctx context.Context, f Fixture, m *Machine) error {
	return errors.Join(
		f.Provider.Attach(ctx, m, layer(1)),
		f.Provider.Start(ctx, m, layer(1), launch()),
		f.Provider.Detach(ctx, m, layer(1).Digest),
	)
}

func disksAreDeclared(ctx context.Context, f Fixture) error {
	o, err := f.Provider.Describe(ctx)
	m := f.Machine("m1")
	err = errors.Join(err, live(ctx, f, m))
	if m.Calls("AttachDisk") > 0 && !slices.Contains(o.Needs, estate.CanHotplug) {
		err = errors.Join(err, fmt.Errorf("it plugs disks in and does not declare %q", estate.CanHotplug))
	}
	return err
}

func theAgentIsDeclared(ctx context.Context, f Fixture) error {
	o, err := f.Provider.Describe(ctx)
	m := f.Machine("m1")
	err = errors.Join(err, live(ctx, f, m))
	if m.Calls("Run") > 0 && (!o.Agent || !slices.Contains(o.Needs, estate.CanGuest)) {
		err = errors.Join(err, fmt.Errorf("it runs commands and does not declare %q and an agent", estate.CanGuest))
	}
	return err
}

func freshMachineHasNothing(ctx context.Context, f Fixture) error {
	return holds(ctx, f.Provider, f.Machine("m1"))
}

func attachMakesItStartable(ctx context.Context, f Fixture) error {
	return errors.Join(
		f.Provider.Attach(ctx, f.Machine("m1"), layer(1)),
		holds(ctx, f.Provider, f.Machine("m1"), layer(1)),
	)
}

func attachTwiceIsOnce(ctx context.Context, f Fixture) error {
	m := f.Machine("m1")
	err := errors.Join(
		f.Provider.Attach(ctx, m, layer(1)),
		f.Provider.Attach(ctx, m, layer(1)),
	)
	disks, _ := m.Disks(ctx)
	if len(disks) > 1 {
		err = errors.Join(err, fmt.Errorf("two calls plugged in %v", disks))
	}
	return err
}

func attachReachesOneMachine(ctx context.Context, f Fixture) error {
	return errors.Join(
		f.Provider.Attach(ctx, f.Machine("m1"), layer(1)),
		holds(ctx, f.Provider, f.Machine("m2")),
	)
}

func attachWithoutGuest(ctx context.Context, f Fixture) error {
	m := f.Machine("m1")
	m.CutOff(true)
	return isKind(f.Provider.Attach(ctx, m, layer(1)), fault.Unavailable)
}

func attachedIsSorted(ctx context.Context, f Fixture) error {
	m := f.Machine("m1")
	var err error
	for n := range 8 {
		err = errors.Join(err, f.Provider.Attach(ctx, m, layer(n)))
	}
	ds, err2 := f.Provider.Attached(ctx, m)
	if len(ds) != 8 || !slices.IsSorted(ds) {
		err2 = errors.Join(err2, fmt.Errorf("Attached = %v, want 8, sorted", ds))
	}
	return errors.Join(err, err2)
}

func attachedForgetsARestart(ctx context.Context, f Fixture) error {
	m := f.Machine("m1")
	err := f.Provider.Attach(ctx, m, layer(1))
	m.Restart()
	return errors.Join(err, holds(ctx, f.Provider, m))
}

func attachedIsTheGuests(ctx context.Context, f Fixture) error {
	m := f.Machine("m1")
	return errors.Join(
		f.Provider.Attach(ctx, m, layer(1)),
		holds(ctx, f.Another(), m, layer(1)),
	)
}

func attachedWithoutGuest(ctx context.Context, f Fixture) error {
	m := f.Machine("m1")
	m.CutOff(true)
	_, err := f.Provider.Attached(ctx, m)
	return isKind(err, fault.Unavailable)
}

// started attaches and starts a layer.
func started(ctx context.Context, f Fixture, m *Machine, n int) error {
	return errors.Join(f.Provider.Attach(ctx, m, layer(n)), f.Provider.Start(ctx, m, layer(n), launch()))
}

// processes returns the processes of a layer.
func processes(f Fixture, id estate.MachineID, n int) []Process {
	return slices.DeleteFunc(slices.Clone(f.Processes(id)), func(p Process) bool { return p.Layer != layer(n).Digest })
}

func startRunsTheCommand(ctx context.Context, f Fixture) error {
	err := started(ctx, f, f.Machine("m1"), 1)
	ps := processes(f, "m1", 1)
	if len(ps) == 0 || !slices.Equal(ps[0].Command, launch().Command) {
		err = errors.Join(err, fmt.Errorf("the guest runs %v, want %v", ps, launch().Command))
	}
	return err
}

func startIsAsThePerson(ctx context.Context, f Fixture) error {
	err := started(ctx, f, f.Machine("m1"), 1)
	for _, p := range processes(f, "m1", 1) {
		if p.User != launch().User {
			err = errors.Join(err, fmt.Errorf("%v runs as %s, want %s", p.Command, p.User, launch().User))
		}
	}
	return err
}

func startTwiceIsOnce(ctx context.Context, f Fixture) error {
	m := f.Machine("m1")
	err := errors.Join(started(ctx, f, m, 1), f.Provider.Start(ctx, m, layer(1), launch()))
	if ps := processes(f, "m1", 1); len(ps) > 1 {
		err = errors.Join(err, fmt.Errorf("two calls started %d processes", len(ps)))
	}
	return err
}

func startOfNothing(ctx context.Context, f Fixture) error {
	return isKind(f.Provider.Start(ctx, f.Machine("m1"), layer(1), launch()), fault.Conflict)
}

func startThatEnds(ctx context.Context, f Fixture) error {
	m := f.Machine("m1")
	app := launch()
	app.Command = []string{"false"}
	return errors.Join(
		f.Provider.Attach(ctx, m, layer(1)),
		isKind(f.Provider.Start(ctx, m, layer(1), app), fault.Stuck),
	)
}

func startWithoutGuest(ctx context.Context, f Fixture) error {
	m := f.Machine("m1")
	err := f.Provider.Attach(ctx, m, layer(1))
	m.CutOff(true)
	return errors.Join(err, isKind(f.Provider.Start(ctx, m, layer(1), launch()), fault.Unavailable))
}

func detachTakesAway(ctx context.Context, f Fixture) error {
	m := f.Machine("m1")
	return errors.Join(
		f.Provider.Attach(ctx, m, layer(1)),
		f.Provider.Detach(ctx, m, layer(1).Digest),
		holds(ctx, f.Provider, m),
	)
}

func detachTakesTheDiskOut(ctx context.Context, f Fixture) error {
	m := f.Machine("m1")
	err := errors.Join(f.Provider.Attach(ctx, m, layer(1)), f.Provider.Detach(ctx, m, layer(1).Digest))
	if disks, _ := m.Disks(ctx); len(disks) > 0 {
		err = errors.Join(err, fmt.Errorf("the guest still has disks %v", disks))
	}
	return err
}

func detachEndsTheProcesses(ctx context.Context, f Fixture) error {
	m := f.Machine("m1")
	err := errors.Join(started(ctx, f, m, 1), f.Provider.Detach(ctx, m, layer(1).Digest))
	if ps := processes(f, "m1", 1); len(ps) > 0 {
		err = errors.Join(err, fmt.Errorf("the guest still runs %v", ps))
	}
	return err
}

func detachLeavesTheOthers(ctx context.Context, f Fixture) error {
	m := f.Machine("m1")
	err := errors.Join(
		f.Provider.Attach(ctx, m, layer(1)),
		started(ctx, f, m, 2),
		f.Provider.Detach(ctx, m, layer(1).Digest),
	)
	ds, err2 := f.Provider.Attached(ctx, m)
	if !slices.Contains(ds, layer(2).Digest) || len(processes(f, "m1", 2)) == 0 {
		err = errors.Join(err, fmt.Errorf("detaching one layer took another along: attached %v", ds))
	}
	return errors.Join(err, err2)
}

func detachOfTheAbsent(ctx context.Context, f Fixture) error {
	return f.Provider.Detach(ctx, f.Machine("m1"), layer(1).Digest)
}

func detachWithoutGuest(ctx context.Context, f Fixture) error {
	m := f.Machine("m1")
	err := f.Provider.Attach(ctx, m, layer(1))
	m.CutOff(true)
	return errors.Join(err, isKind(f.Provider.Detach(ctx, m, layer(1).Digest), fault.Unavailable))
}

func endedContext(ctx context.Context, f Fixture) error {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if err := f.Provider.Attach(ctx, f.Machine("m1"), layer(1)); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("Attach = %v, want context.Canceled", err)
	}
	return nil
}

// machinesAtOnce is for the race detector: each call has a goroutine and a
// machine of its own.
func machinesAtOnce(ctx context.Context, f Fixture) error {
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		m := f.Machine(estate.MachineID(fmt.Sprintf("m%d", i)))
		wg.Go(func() {
			for range 10 {
				errs[i] = errors.Join(errs[i], live(ctx, f, m), holds(ctx, f.Provider, m))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func buildTwice(ctx context.Context, f Fixture) error {
	b, _ := driver.As[driver.Builder](f.Provider)
	dir, err := os.MkdirTemp("", "layers")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var made [2]string
	for i := range made {
		file, err := b.Build(ctx, f.Recipe, dir, func(estate.Work) {})
		if err != nil {
			return err
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		made[i] = string(data)
	}
	if made[0] != made[1] {
		return errors.New("the same recipe gave two contents")
	}
	return nil
}

func buildThatFails(ctx context.Context, f Fixture) error {
	b, _ := driver.As[driver.Builder](f.Provider)
	dir, err := os.MkdirTemp("", "layers")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if _, err := b.Build(ctx, f.Broken, dir, func(estate.Work) {}); err == nil {
		return errors.New("a broken recipe was built")
	}
	left, err := os.ReadDir(dir)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("a failed build left %v", left)
	}
	return err
}

func holds(ctx context.Context, p driver.Provider, m driver.Machine, want ...driver.Layer) error {
	var ds []estate.Digest
	for _, l := range want {
		ds = append(ds, l.Digest)
	}
	slices.Sort(ds)
	got, err := p.Attached(ctx, m)
	if err == nil && !slices.Equal(got, ds) {
		err = fmt.Errorf("machine %s: Attached = %v, want %v", m.ID(), got, ds)
	}
	return err
}

func isKind(err error, want fault.Kind) error {
	if !errors.Is(err, want) {
		return fmt.Errorf("error %v is %v, want %v", err, fault.KindOf(err), want)
	}
	return nil
}

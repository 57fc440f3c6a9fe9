package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// verbs are promises of driver.Host.
var verbs = []promise{
	{name: "DescribeSaysWhoItIs", asks: true, keeps: describeSaysWhoItIs},
	{name: "DescribeIsStable", asks: true, keeps: describeIsStable},
	{name: "DeclaredIsImplemented", asks: true, keeps: declaredIsImplemented},
	{name: "ImplementedIsDeclared", asks: true, keeps: implementedIsDeclared},
	{name: "AbsenceHasAReason", asks: true, keeps: absenceHasAReason},
	{name: "CapabilitiesClaimNoEvidence", asks: true, keeps: capabilitiesClaimNoEvidence},
	{name: "CapabilitiesAreNamedOnce", asks: true, keeps: capabilitiesAreNamedOnce},
	{name: "CapabilitiesAreOfItsGuestTypes", asks: true, keeps: capabilitiesAreOfItsGuestTypes},
	{name: "CanceledReturns", keeps: canceledReturns},
	{name: "CutDefineIsFinishedByTheNext", keeps: cutDefineIsFinished},
	{name: "CutStartIsFinishedByTheNext", keeps: cutStartIsFinished},
	{name: "ConcurrentIsSafe", keeps: concurrentIsSafe},
	{name: "ListIsInOrderOfID", keeps: listIsInOrder},
	{name: "ListHasTheDefinition", keeps: listHasTheDefinition},
	{name: "ListHasWhatAnEarlierProcessDefined", keeps: listOutlivesTheProcess},
	{name: "ListSaysUnknownForWhatItCannotLearn", keeps: blindSaysUnknown},
	{name: "MachinesOutliveTheProcess", needs: estate.CanOutliveUs, keeps: machinesOutliveTheProcess},
	{name: "DefineMakesItOff", keeps: defineMakesItOff},
	{name: "DefineTwiceIsOnce", keeps: defineTwiceIsOnce},
	{name: "DefineLeavesARunningMachineAlone", keeps: defineLeavesRunningAlone},
	{name: "DefineUnequalIsExists", keeps: defineUnequalIsExists},
	{name: "DefineUnequalKeepsTheOld", keeps: defineUnequalKeepsTheOld},
	{name: "DefineLeavesTheBaseAlone", needs: estate.CanTransfer, keeps: baseIsLeftAlone},
	{name: "StartPowersOn", keeps: startPowersOn},
	{name: "StartTwiceIsOnce", keeps: startTwiceIsOnce},
	{name: "StartAtOnceByManyIsOnce", keeps: startByManyIsOnce},
	{name: "StartsAreCounted", keeps: startsAreCounted},
	{name: "StartUnknownIsNotFound", asks: true, keeps: startUnknownIsNotFound},
	{name: "StopPullsThePlug", keeps: stopPullsThePlug},
	{name: "StopWithGracePullsThePlugInTheEnd", keeps: stopWithGraceEnds},
	{name: "StopAsksTheGuest", os: true, needs: estate.CanGuest, keeps: stopAsksTheGuest},
	{name: "StopTwiceIsOnce", keeps: stopTwiceIsOnce},
	{name: "StopUnknownIsNotFound", asks: true, keeps: stopUnknownIsNotFound},
	{name: "DeleteRemoves", keeps: deleteRemoves},
	{name: "DeleteStopsARunningMachine", keeps: deleteStops},
	{name: "DeleteUnknownIsSuccess", asks: true, keeps: deleteUnknownIsSuccess},
	{name: "DeleteKeepsVolumes", keeps: deleteKeepsVolumes},
	{name: "DeleteForgetsTheStarts", keeps: deleteForgetsTheStarts},
	{name: "DeleteRemovesTheDisks", needs: estate.CanTransfer, keeps: deleteRemovesTheDisks},
}

func describeSaysWhoItIs(ctx context.Context, b Bench) error {
	d, err := b.Host.Describe(ctx)
	if err != nil {
		return err
	}
	if d.Provider == "" || d.Product == "" || d.Accelerator == "" || d.Because == "" {
		return fmt.Errorf("Describe = %+v, want all texts", d)
	}
	if d.Capacity.CPUs < 1 || d.Capacity.Memory < 1 || d.Capacity.Disk < 1 {
		return fmt.Errorf("capacity = %+v, want some of each", d.Capacity)
	}
	return nil
}

func describeIsStable(ctx context.Context, b Bench) error {
	one, err1 := b.Host.Describe(ctx)
	two, err2 := b.Host.Describe(ctx)
	if !reflect.DeepEqual(one.Capabilities, two.Capabilities) {
		return fmt.Errorf("capabilities = %+v, then %+v", one.Capabilities, two.Capabilities)
	}
	return errors.Join(err1, err2)
}

func declaredIsImplemented(ctx context.Context, b Bench) error {
	d, err := b.Host.Describe(ctx)
	for _, c := range driver.Abilities() {
		if d.Has(c) && !driver.Implements(b.Host, c) {
			return fmt.Errorf("the host declares %q and does not implement it", c)
		}
	}
	return err
}

func implementedIsDeclared(ctx context.Context, b Bench) error {
	d, err := b.Host.Describe(ctx)
	for _, c := range driver.Abilities() {
		if driver.Implements(b.Host, c) && !d.Has(c) {
			return fmt.Errorf("the host implements %q and does not declare it", c)
		}
	}
	return err
}

func absenceHasAReason(ctx context.Context, b Bench) error {
	d, err := b.Host.Describe(ctx)
	for _, c := range d.Capabilities {
		if !c.Has && c.Reason == "" {
			return fmt.Errorf("the host lacks %q and does not say why", c.Name)
		}
	}
	return err
}

func capabilitiesClaimNoEvidence(ctx context.Context, b Bench) error {
	d, err := b.Host.Describe(ctx)
	for _, c := range d.Capabilities {
		if c.Evidence != "" {
			return fmt.Errorf("the host says itself that %q is %s", c.Name, c.Evidence)
		}
	}
	return err
}

func capabilitiesAreNamedOnce(ctx context.Context, b Bench) error {
	type key struct {
		name      estate.Capability
		guestType string
	}
	seen := map[key]bool{}
	d, err := b.Host.Describe(ctx)
	for _, c := range d.Capabilities {
		if k := (key{c.Name, c.GuestType}); seen[k] {
			return fmt.Errorf("the host speaks twice of %q for guests of type %q", c.Name, c.GuestType)
		} else {
			seen[k] = true
		}
	}
	return err
}

func capabilitiesAreOfItsGuestTypes(ctx context.Context, b Bench) error {
	d, err := b.Host.Describe(ctx)
	for _, c := range d.Capabilities {
		if c.GuestType != "" && !slices.Contains(d.GuestTypes, c.GuestType) {
			return fmt.Errorf("the host speaks of %q for guests of type %q, which it does not make", c.Name, c.GuestType)
		}
	}
	return err
}

// prompt is how soon a call must return once its context has ended.
const prompt = 5 * time.Second

func canceledReturns(ctx context.Context, b Bench) error {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	_, list := b.Host.List(ctx)
	_, describe := b.Host.Describe(ctx)
	begin := time.Now()
	for name, err := range map[string]error{
		"Describe": describe,
		"List":     list,
		"Define":   b.Host.Define(ctx, b.def(first)),
		"Start":    b.Host.Start(ctx, first),
		"Stop":     b.Host.Stop(ctx, first, time.Minute),
		"Delete":   b.Host.Delete(ctx, first),
	} {
		if !errors.Is(err, context.Canceled) {
			return fmt.Errorf("%s = %v, want context.Canceled", name, err)
		}
	}
	if took := time.Since(begin); took > prompt {
		return fmt.Errorf("canceled calls took %v", took)
	}
	return nil
}

// cuts says how long calls are left to run before their context ends, given
// how long they take: to many a place between their beginning and their end.
func cuts(took time.Duration) []time.Duration {
	return []time.Duration{0, time.Millisecond, took / 8, took / 3, took * 2 / 3, took}
}

func cutDefineIsFinished(ctx context.Context, b Bench) error {
	begin := time.Now()
	if err := b.Host.Define(ctx, b.def(first)); err != nil {
		return err
	}
	for _, after := range cuts(time.Since(begin)) {
		if err := b.Host.Delete(ctx, first); err != nil {
			return err
		}
		short, cancel := context.WithTimeout(ctx, after)
		b.Host.Define(short, b.def(first)) // may or may not come to its end
		cancel()
		if err := steps(b.define(ctx, first), b.is(ctx, first, estate.Off, 0)); err != nil {
			return fmt.Errorf("Define cut after %v: %w", after, err)
		}
	}
	return nil
}

func cutStartIsFinished(ctx context.Context, b Bench) error {
	if err := b.Host.Define(ctx, b.def(first)); err != nil {
		return err
	}
	begin := time.Now()
	if err := b.Host.Start(ctx, first); err != nil {
		return err
	}
	for _, after := range cuts(time.Since(begin)) {
		if err := steps(b.remove(ctx, first), b.define(ctx, first)); err != nil {
			return err
		}
		short, cancel := context.WithTimeout(ctx, after)
		b.Host.Start(short, first) // may or may not come to its end
		cancel()
		if err := steps(b.start(ctx, first), b.is(ctx, first, estate.On, 1)); err != nil {
			return fmt.Errorf("Start cut after %v: %w", after, err)
		}
	}
	return nil
}

// concurrentIsSafe is for the race detector. Each method has a goroutine to
// itself: one that shared a goroutine would be ordered by the other's locks.
func concurrentIsSafe(ctx context.Context, b Bench) error {
	var wg sync.WaitGroup
	for _, call := range []func(){
		func() { b.Host.Define(ctx, b.def(first)) },
		func() { b.Host.Start(ctx, first) },
		func() { b.Host.Stop(ctx, first, 0) },
		func() { b.Host.List(ctx) },
		func() { b.Host.Describe(ctx) },
		func() { b.Host.Delete(ctx, first) },
	} {
		wg.Go(func() {
			for range 10 {
				call()
			}
		})
	}
	wg.Wait()
	return steps(b.remove(ctx, first), b.holds(ctx))
}

func listIsInOrder(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, third), b.define(ctx, first), b.define(ctx, second), b.holds(ctx, first, second, third))
}

func listHasTheDefinition(ctx context.Context, b Bench) error {
	want := b.def(first)
	if err := b.Host.Define(ctx, want); err != nil {
		return err
	}
	all, err := b.Host.List(ctx)
	if err == nil && (len(all) != 1 || !all[0].Def.Equal(want)) {
		err = fmt.Errorf("List = %+v, want one machine of %+v", all, want)
	}
	return err
}

func listOutlivesTheProcess(ctx context.Context, b Bench) error {
	if err := b.Host.Define(ctx, b.def(first)); err != nil {
		return err
	}
	h, err := b.Reopen()
	b.Host = h
	if err == nil {
		err = b.holds(ctx, first)()
	}
	return err
}

func machinesOutliveTheProcess(ctx context.Context, b Bench) error {
	if err := steps(b.define(ctx, first), b.start(ctx, first)); err != nil {
		return err
	}
	h, err := b.Reopen()
	b.Host = h
	if err == nil {
		err = b.is(ctx, first, estate.On, 1)()
	}
	return err
}

// A host that is blind to a machine does not say that it is off.
func blindSaysUnknown(ctx context.Context, b Bench) error {
	if b.Blind == nil {
		return skip("the bench cannot make the host blind to a machine")
	}
	if err := steps(b.define(ctx, first), b.start(ctx, first)); err != nil {
		return err
	}
	see, err := b.Blind(ctx, first)
	if err != nil {
		return err
	}
	defer see()
	return b.is(ctx, first, estate.PowerUnknown, 1)()
}

func defineMakesItOff(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.is(ctx, first, estate.Off, 0))
}

func defineTwiceIsOnce(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.define(ctx, first), b.holds(ctx, first))
}

func defineLeavesRunningAlone(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.define(ctx, first), b.is(ctx, first, estate.On, 1))
}

func defineUnequalIsExists(ctx context.Context, b Bench) error {
	other := b.def(first)
	other.CPUs++
	return steps(b.define(ctx, first), func() error { return isKind(b.Host.Define(ctx, other), fault.Exists) })
}

func defineUnequalKeepsTheOld(ctx context.Context, b Bench) error {
	if err := b.Host.Define(ctx, b.def(first)); err != nil {
		return err
	}
	other := b.def(first)
	other.CPUs++
	b.Host.Define(ctx, other)
	all, err := b.Host.List(ctx)
	if err == nil && (len(all) != 1 || !all[0].Def.Equal(b.def(first))) {
		err = fmt.Errorf("List = %+v, want the machine as it was", all)
	}
	return err
}

func baseIsLeftAlone(ctx context.Context, b Bench) error {
	before, err := b.read(b.Base.Path)
	if err != nil {
		return err
	}
	t, err := ability[driver.Transferer](b)
	if err != nil {
		return err
	}
	data := bytes.Repeat([]byte("n"), int(b.def(first).Disks[0].Size))
	if err := steps(b.define(ctx, first),
		func() error { return t.Import(ctx, first, "root", bytes.NewReader(data)) },
		b.start(ctx, first), b.stop(ctx, first, 0), b.remove(ctx, first)); err != nil {
		return err
	}
	after, err := b.read(b.Base.Path)
	if err == nil && !bytes.Equal(before, after) {
		err = errors.New("the base has changed")
	}
	return err
}

func startPowersOn(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.is(ctx, first, estate.On, 1))
}

func startTwiceIsOnce(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.start(ctx, first), b.is(ctx, first, estate.On, 1))
}

func startByManyIsOnce(ctx context.Context, b Bench) error {
	if err := b.Host.Define(ctx, b.def(first)); err != nil {
		return err
	}
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = b.Host.Start(ctx, first) })
	}
	wg.Wait()
	return errors.Join(append(errs, b.is(ctx, first, estate.On, 1)())...)
}

func startsAreCounted(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.stop(ctx, first, 0), b.start(ctx, first),
		b.is(ctx, first, estate.On, 2))
}

func startUnknownIsNotFound(ctx context.Context, b Bench) error {
	return isKind(b.Host.Start(ctx, nobody), fault.NotFound)
}

func stopPullsThePlug(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.stop(ctx, first, 0), b.is(ctx, first, estate.Off, 1))
}

// A little grace is not enough for any guest, deaf or not.
func stopWithGraceEnds(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.stop(ctx, first, 50*time.Millisecond),
		b.is(ctx, first, estate.Off, 1))
}

func stopAsksTheGuest(ctx context.Context, b Bench) error {
	if err := steps(b.define(ctx, first), b.start(ctx, first), b.booted(ctx, first)); err != nil {
		return err
	}
	grace, begin := b.Boot+10*time.Second, time.Now()
	if err := b.Host.Stop(ctx, first, grace); err != nil {
		return err
	}
	if took := time.Since(begin); took >= grace {
		return fmt.Errorf("a guest that goes when asked was waited for %v", took)
	}
	return b.is(ctx, first, estate.Off, 1)()
}

func stopTwiceIsOnce(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.stop(ctx, first, 0), b.stop(ctx, first, 0),
		b.is(ctx, first, estate.Off, 1))
}

func stopUnknownIsNotFound(ctx context.Context, b Bench) error {
	return isKind(b.Host.Stop(ctx, nobody, 0), fault.NotFound)
}

func deleteRemoves(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.define(ctx, second), b.remove(ctx, first), b.holds(ctx, second))
}

func deleteStops(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.remove(ctx, first), b.holds(ctx))
}

func deleteUnknownIsSuccess(ctx context.Context, b Bench) error { return b.Host.Delete(ctx, nobody) }

func deleteKeepsVolumes(ctx context.Context, b Bench) error {
	c, err := b.file("home.img", 'h')
	if err != nil {
		return err
	}
	def := b.def(first)
	def.Disks = append(def.Disks, driver.Disk{Name: "home", File: &c})
	if err := steps(func() error { return b.Host.Define(ctx, def) }, b.start(ctx, first), b.remove(ctx, first)); err != nil {
		return err
	}
	data, err := b.read(c.Path)
	if err == nil && (len(data) != int(c.Size) || slices.ContainsFunc(data, func(x byte) bool { return x != 'h' })) {
		err = errors.New("the volume is not as it was")
	}
	return err
}

func deleteForgetsTheStarts(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.remove(ctx, first), b.define(ctx, first),
		b.is(ctx, first, estate.Off, 0))
}

func deleteRemovesTheDisks(ctx context.Context, b Bench) error {
	t, err := ability[driver.Transferer](b)
	if err != nil {
		return err
	}
	size := b.def(first).Disks[0].Size
	data := bytes.Repeat([]byte("n"), int(size))
	var got bytes.Buffer
	if err := steps(b.define(ctx, first),
		func() error { return t.Import(ctx, first, "root", bytes.NewReader(data)) },
		b.remove(ctx, first), b.define(ctx, first),
		func() error { return t.Export(ctx, first, "root", &got) }); err != nil {
		return err
	}
	if bytes.Equal(got.Bytes(), data) {
		return errors.New("the disk of a deleted machine came back")
	}
	return nil
}

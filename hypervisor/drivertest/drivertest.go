// Package drivertest is what it means to be a hypervisor driver, as tests.
package drivertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// Bench is a host on trial and what the suite may use on it.
type Bench struct {
	Host driver.Host

	// Base boots on the host. Where Raw is set, it is what Base holds.
	Base driver.Content
	Raw  []byte

	// Dir is where the suite writes disk files that the host can open.
	Dir string

	// OS says that Base holds an operating system: a guest agent answers, it
	// goes when asked to, and it lets go of disks.
	OS bool

	// Boot is how long a guest may take until its agent answers.
	Boot time.Duration

	// Memory of a machine; 32Mi when zero.
	Memory estate.Bytes

	// Reopen returns the host as a new process would find it.
	Reopen func() (driver.Host, error)
}

// Run tests the driver that open returns. It calls open once per promise, and
// each host must start empty. A promise about an ability that the host does not
// declare, or that its base cannot show, is skipped by name.
func Run(t *testing.T, open func(*testing.T) Bench) {
	for _, p := range promises {
		p.run(t, open)
	}
}

// RunOS tests only what needs an operating system in the base: a host is held
// to the rest with a base that boots at once. The promises that only ask a
// running guest something share one host, for a boot takes long.
func RunOS(t *testing.T, open func(*testing.T) Bench) {
	asked := open(t)
	for _, p := range promises {
		switch {
		case p.asks:
			p.run(t, func(*testing.T) Bench { return asked })
		case p.os:
			p.run(t, open)
		}
	}
}

func (p promise) run(t *testing.T, open func(*testing.T) Bench) {
	t.Run(p.name, func(t *testing.T) {
		b := open(t)
		d, err := b.Host.Describe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if p.needs != "" && !d.Can(p.needs).Has {
			t.Skipf("the host does not declare %q: %s", p.needs, d.Can(p.needs).Reason)
		}
		if p.os && !b.OS {
			t.Skip("the base holds no operating system")
		}
		if err := p.keeps(t.Context(), b); err != nil {
			t.Error(err)
		}
	})
}

// A promise is one clause of package driver. It is checked by a function that
// returns an error, not one that fails a test, so that the checks can be
// checked: see TestLiars.
type promise struct {
	name  string
	needs estate.Capability
	os    bool // needs a base with an operating system
	asks  bool // only asks a guest, running or not yet: leaves it as it found it
	keeps func(context.Context, Bench) error
}

var promises = []promise{
	{name: "DescribeSaysWhoItIs", keeps: describeSaysWhoItIs},
	{name: "DescribeIsStable", keeps: describeIsStable},
	{name: "DeclaredIsImplemented", keeps: declaredIsImplemented},
	{name: "ImplementedIsDeclared", keeps: implementedIsDeclared},
	{name: "AbsenceHasAReason", keeps: absenceHasAReason},
	{name: "CanceledReturns", keeps: canceledReturns},
	{name: "CutDefineIsFinishedByTheNext", keeps: cutDefineIsFinished},
	{name: "CutStartIsFinishedByTheNext", keeps: cutStartIsFinished},
	{name: "ConcurrentIsSafe", keeps: concurrentIsSafe},

	{name: "ListIsInOrderOfID", keeps: listIsInOrder},
	{name: "ListHasTheDefinition", keeps: listHasTheDefinition},
	{name: "ListHasWhatAnEarlierProcessDefined", keeps: listOutlivesTheProcess},

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
	{name: "StartUnknownIsNotFound", keeps: startUnknownIsNotFound},

	{name: "StopPullsThePlug", keeps: stopPullsThePlug},
	{name: "StopWithGracePullsThePlugInTheEnd", keeps: stopWithGraceEnds},
	{name: "StopAsksTheGuest", os: true, needs: estate.CanGuest, keeps: stopAsksTheGuest},
	{name: "StopTwiceIsOnce", keeps: stopTwiceIsOnce},
	{name: "StopUnknownIsNotFound", keeps: stopUnknownIsNotFound},

	{name: "DeleteRemoves", keeps: deleteRemoves},
	{name: "DeleteStopsARunningMachine", keeps: deleteStops},
	{name: "DeleteUnknownIsSuccess", keeps: deleteUnknownIsSuccess},
	{name: "DeleteKeepsVolumes", keeps: deleteKeepsVolumes},
	{name: "DeleteForgetsTheStarts", keeps: deleteForgetsTheStarts},
	{name: "DeleteRemovesTheDisks", needs: estate.CanTransfer, keeps: deleteRemovesTheDisks},

	{name: "DisplayNamesItsProtocol", needs: estate.CanDisplay, keeps: displayNamesItsProtocol},
	{name: "DisplaySpeaksItsProtocol", needs: estate.CanDisplay, keeps: displaySpeaks},
	{name: "DisplaysAreConnectionsOfTheirOwn", needs: estate.CanDisplay, keeps: displaysAreTheirOwn},
	{name: "DisplayOfAMachineThatIsOffIsConflict", needs: estate.CanDisplay, keeps: displayOffIsConflict},
	{name: "DisplayUnknownIsNotFound", needs: estate.CanDisplay, keeps: displayUnknownIsNotFound},

	{name: "AttachShows", needs: estate.CanHotplug, keeps: attachShows},
	{name: "AttachedIsSorted", needs: estate.CanHotplug, keeps: attachedIsSorted},
	{name: "AttachTwiceIsOnce", needs: estate.CanHotplug, keeps: attachTwiceIsOnce},
	{name: "AttachAnotherIsExists", needs: estate.CanHotplug, keeps: attachAnotherIsExists},
	{name: "AttachAnotherUnderADefinedNameIsExists", needs: estate.CanHotplug, keeps: attachDefinedIsExists},
	{name: "AttachToAMachineThatIsOffIsConflict", needs: estate.CanHotplug, keeps: attachOffIsConflict},
	{name: "AttachUnknownIsNotFound", needs: estate.CanHotplug, keeps: attachUnknownIsNotFound},
	{name: "AttachBeyondTheSlotsIsNoCapacity", needs: estate.CanHotplug, keeps: attachFullIsNoCapacity},
	{name: "AttachedGoesWithThePower", needs: estate.CanHotplug, keeps: attachedGoesWithThePower},
	{name: "DetachTakesOut", os: true, needs: estate.CanHotplug, keeps: detachTakesOut},
	{name: "DetachLeavesTheOthers", os: true, needs: estate.CanHotplug, keeps: detachLeavesTheOthers},
	{name: "DetachAbsentIsSuccess", needs: estate.CanHotplug, keeps: detachAbsentIsSuccess},

	{name: "RunReturnsTheOutput", os: true, asks: true, needs: estate.CanGuest, keeps: runReturnsTheOutput},
	{name: "RunPassesTheInput", os: true, asks: true, needs: estate.CanGuest, keeps: runPassesTheInput},
	{name: "RunThatExitsUnequalToZeroIsNoError", os: true, asks: true, needs: estate.CanGuest, keeps: runExitIsNoError},
	{name: "RunBoundsTheOutput", os: true, asks: true, needs: estate.CanGuest, keeps: runBoundsTheOutput},
	{name: "RunWithoutAnAgentIsUnavailable", needs: estate.CanGuest, keeps: runWithoutAgentIsUnavailable},
	{name: "RunUnknownIsNotFound", needs: estate.CanGuest, keeps: runUnknownIsNotFound},

	{name: "ExportIsTheWholeDisk", needs: estate.CanTransfer, keeps: exportIsTheWholeDisk},
	{name: "ACopyBeginsAsItsBase", needs: estate.CanTransfer, keeps: copyBeginsAsBase},
	{name: "ExportOfARunningMachineIsConflict", needs: estate.CanTransfer, keeps: exportRunningIsConflict},
	{name: "ImportOfARunningMachineIsConflict", needs: estate.CanTransfer, keeps: importRunningIsConflict},
	{name: "ImportReplaces", needs: estate.CanTransfer, keeps: importReplaces},
	{name: "ImportReplacesAVolume", needs: estate.CanTransfer, keeps: importReplacesAVolume},
	{name: "ImportOfTooLittleIsRefused", needs: estate.CanTransfer, keeps: importShortIsRefused},
	{name: "ImportOfTooMuchIsRefused", needs: estate.CanTransfer, keeps: importLongIsRefused},
	{name: "ABrokenImportLeavesTheOld", needs: estate.CanTransfer, keeps: brokenImportLeavesTheOld},
	{name: "TransferOfAnUnknownDiskIsNotFound", needs: estate.CanTransfer, keeps: transferUnknownIsNotFound},
}

// The machines of the suite. Their order is not that of definition.
const (
	first  = estate.MachineID("0a000000-0000-4000-8000-000000000001")
	second = estate.MachineID("5b000000-0000-4000-8000-000000000002")
	third  = estate.MachineID("c3000000-0000-4000-8000-000000000003")
	nobody = estate.MachineID("ffffffff-ffff-4fff-8fff-ffffffffffff")
)

// diskSize is that of every disk the suite makes.
const diskSize = 2 * estate.MiB

// def returns the definition of a machine with one private disk.
func (b Bench) def(id estate.MachineID) driver.Definition {
	base, memory := b.Base, b.Memory
	if memory == 0 {
		memory = 32 * estate.MiB
	}
	return driver.Definition{
		ID: id, Name: "trial", CPUs: 1, Memory: memory,
		Screen: estate.Screen{Width: 640, Height: 480},
		Disks:  []driver.Disk{{Name: "root", Base: &base, Size: max(diskSize, base.Size)}},
	}
}

// file writes a disk file filled with one byte.
func (b Bench) file(name string, fill byte) (driver.Content, error) {
	data := make([]byte, diskSize)
	for i := range data {
		data[i] = fill
	}
	c := driver.Content{Path: filepath.Join(b.Dir, name), Format: estate.Raw, Size: diskSize}
	return c, os.WriteFile(c.Path, data, 0o600)
}

// extra returns a disk to attach.
func (b Bench) extra(name string) (driver.Disk, error) {
	c, err := b.file(name+".img", 'x')
	return driver.Disk{Name: name, File: &c, ReadOnly: true}, err
}

// steps runs each until one fails.
func steps(each ...func() error) error {
	for i, step := range each {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

func (b Bench) define(ctx context.Context, id estate.MachineID) func() error {
	return func() error { return b.Host.Define(ctx, b.def(id)) }
}

func (b Bench) start(ctx context.Context, id estate.MachineID) func() error {
	return func() error { return b.Host.Start(ctx, id) }
}

func (b Bench) stop(ctx context.Context, id estate.MachineID, grace time.Duration) func() error {
	return func() error { return b.Host.Stop(ctx, id, grace) }
}

func (b Bench) remove(ctx context.Context, id estate.MachineID) func() error {
	return func() error { return b.Host.Delete(ctx, id) }
}

// is checks that the machine is listed with this power and number of starts.
func (b Bench) is(ctx context.Context, id estate.MachineID, power estate.Power, starts int64) func() error {
	return func() error {
		all, err := b.Host.List(ctx)
		if err != nil {
			return err
		}
		for _, m := range all {
			if m.ID == id {
				if m.Power != power || m.Starts != starts {
					return fmt.Errorf("machine is %s after %d starts, want %s after %d", m.Power, m.Starts, power, starts)
				}
				return nil
			}
		}
		return fmt.Errorf("machine %s is not listed", id)
	}
}

// holds checks the IDs of all machines.
func (b Bench) holds(ctx context.Context, want ...estate.MachineID) func() error {
	return func() error {
		all, err := b.Host.List(ctx)
		if err != nil {
			return err
		}
		var got []estate.MachineID
		for _, m := range all {
			got = append(got, m.ID)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("List = %v, want %v", got, want)
		}
		return nil
	}
}

func isKind(err error, want fault.Kind) error {
	if !errors.Is(err, want) {
		return fmt.Errorf("error %v is %v, want %v", err, fault.KindOf(err), want)
	}
	return nil
}

// ability returns what the host's description promises it to be.
func ability[T any](b Bench) (T, error) {
	t, ok := driver.As[T](b.Host)
	if !ok {
		return t, fmt.Errorf("the host is no %v", reflect.TypeFor[T]())
	}
	return t, nil
}

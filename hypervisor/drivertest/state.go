package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// saves are promises of driver.Saver.
var saves = []promise{
	{name: "SavePowersOff", needs: estate.CanSave, keeps: savePowersOff},
	{name: "SaveOfAMachineThatIsOffIsSuccess", needs: estate.CanSave, keeps: saveOffIsSuccess},
	{name: "SaveUnknownIsNotFound", asks: true, needs: estate.CanSave, keeps: saveUnknownIsNotFound},
	{name: "StartAfterSaveIsCounted", needs: estate.CanSave, keeps: startAfterSaveIsCounted},
	{name: "StartGoesOnWhereSaveWas", os: true, needs: estate.CanSave, with: guest, keeps: startGoesOn},
	{name: "SavedMemoryIsUsedOnce", os: true, needs: estate.CanSave, with: guest, keeps: savedIsUsedOnce},
	{name: "ImportForgetsSavedMemory", os: true, needs: estate.CanSave, with: guest, also: estate.CanTransfer, keeps: importForgets},
	{name: "RevertForgetsSavedMemory", os: true, needs: estate.CanSave, with: guest, also: estate.CanSnapshot, keeps: revertForgets},
	{name: "ResizeForgetsSavedMemory", os: true, needs: estate.CanSave, with: guest, also: estate.CanResize, keeps: resizeForgets},
}

// resizes are promises of driver.Resizer.
var resizes = []promise{
	{name: "ResizeShows", needs: estate.CanResize, keeps: resizeShows},
	{name: "ResizeKeepsTheDisks", needs: estate.CanResize, with: transfer, keeps: resizeKeepsTheDisks},
	{name: "ResizeReachesTheGuest", os: true, needs: estate.CanResize, with: guest, keeps: resizeReachesTheGuest},
	{name: "DefineAgreesWithAResize", needs: estate.CanResize, keeps: defineAgreesWithAResize},
	{name: "ResizeOfARunningMachineIsConflict", asks: true, needs: estate.CanResize, keeps: resizeRunningIsConflict},
	{name: "ResizeUnknownIsNotFound", asks: true, needs: estate.CanResize, keeps: resizeUnknownIsNotFound},
}

// meters are promises of driver.Meter.
var meters = []promise{
	{name: "MeasureTellsSomething", asks: true, needs: estate.CanMeasure, keeps: measureTells},
	{name: "MeasureOnlyGrows", asks: true, needs: estate.CanMeasure, keeps: measureGrows},
	{name: "MeasureBeginsAtThePowerOn", os: true, needs: estate.CanMeasure, keeps: measureBeginsAtPowerOn},
	{name: "MeasureOfAMachineThatIsOffIsConflict", needs: estate.CanMeasure, keeps: measureOffIsConflict},
	{name: "MeasureUnknownIsNotFound", asks: true, needs: estate.CanMeasure, keeps: measureUnknownIsNotFound},
}

// guest is what it takes to see what a guest remembers.
var guest = []estate.Capability{estate.CanGuest}

func reader(data []byte) io.Reader { return bytes.NewReader(data) }

func (b Bench) save(ctx context.Context, id estate.MachineID) func() error {
	return func() error {
		s, err := ability[driver.Saver](b)
		if err == nil {
			err = s.Save(ctx, id)
		}
		return err
	}
}

func savePowersOff(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.save(ctx, first), b.is(ctx, first, estate.Off, 1))
}

func saveOffIsSuccess(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.save(ctx, first))
}

func saveUnknownIsNotFound(ctx context.Context, b Bench) error {
	return isKind(b.save(ctx, nobody)(), fault.NotFound)
}

func startAfterSaveIsCounted(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.save(ctx, first), b.start(ctx, first),
		b.is(ctx, first, estate.On, 2))
}

// remembers saves a guest that is up, takes steps, starts it and says whether
// it went on where it was. The machine has a second disk, data.
func (b Bench) remembers(ctx context.Context, meanwhile ...func() error) (bool, error) {
	def := b.def(first)
	def.Disks = append(def.Disks, driver.Disk{Name: "data", Size: diskSize})
	if err := steps(func() error { return b.Host.Define(ctx, def) }, b.start(ctx, first)); err != nil {
		return false, err
	}
	before, err := b.bootID(ctx, b.Host)
	if err != nil {
		return false, err
	}
	between := append(append([]func() error{b.save(ctx, first)}, meanwhile...), b.start(ctx, first))
	if err := steps(between...); err != nil {
		return false, err
	}
	after, err := b.bootID(ctx, b.Host)
	return after == before, err
}

// forgets checks that the guest of remembers does not.
func (b Bench) forgets(ctx context.Context, meanwhile ...func() error) error {
	goesOn, err := b.remembers(ctx, meanwhile...)
	if err == nil && goesOn {
		err = errors.New("the guest went on with memory that was to be forgotten")
	}
	return err
}

func startGoesOn(ctx context.Context, b Bench) error {
	goesOn, err := b.remembers(ctx)
	if err == nil && !goesOn {
		err = errors.New("the guest began anew")
	}
	return err
}

func savedIsUsedOnce(ctx context.Context, b Bench) error {
	return b.forgets(ctx, b.start(ctx, first), b.stop(ctx, first, 0))
}

func importForgets(ctx context.Context, b Bench) error {
	return b.forgets(ctx, b.imports(ctx, "data", reader(pattern(int(diskSize)))))
}

func revertForgets(ctx context.Context, b Bench) error {
	def := b.def(first)
	def.Disks = append(def.Disks, driver.Disk{Name: "data", Size: diskSize})
	if err := steps(func() error { return b.Host.Define(ctx, def) }, b.snapshot(ctx, first, "a")); err != nil {
		return err
	}
	return b.forgets(ctx, b.revert(ctx, first, "a"))
}

func resizeForgets(ctx context.Context, b Bench) error {
	return b.forgets(ctx, b.resize(ctx, first))
}

// larger is the first machine with more of both.
func (b Bench) larger() driver.Definition {
	def := b.def(first)
	def.CPUs, def.Memory = def.CPUs+1, def.Memory+32*estate.MiB
	return def
}

// resize makes the machine as large as larger is.
func (b Bench) resize(ctx context.Context, id estate.MachineID) func() error {
	return func() error {
		r, err := ability[driver.Resizer](b)
		if err == nil {
			err = r.Resize(ctx, id, b.larger().CPUs, b.larger().Memory)
		}
		return err
	}
}

func resizeShows(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.resize(ctx, first), func() error {
		all, err := b.Host.List(ctx)
		if err == nil && (len(all) != 1 || !all[0].Def.Equal(b.larger())) {
			err = fmt.Errorf("List = %+v, want one machine of %+v", all, b.larger())
		}
		return err
	})
}

func resizeKeepsTheDisks(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.fill(ctx, "root", 'r'), b.resize(ctx, first), b.filled(ctx, "root", 'r'))
}

func resizeReachesTheGuest(ctx context.Context, b Bench) error {
	g, err := ability[driver.Guest](b)
	if err != nil {
		return err
	}
	return steps(b.define(ctx, first), b.resize(ctx, first), b.start(ctx, first), b.booted(ctx, first), func() error {
		out, err := g.Run(ctx, first, driver.Command{Args: []string{"nproc"}})
		if want := fmt.Sprint(b.larger().CPUs); err == nil && strings.TrimSpace(string(out.Stdout)) != want {
			err = fmt.Errorf("nproc = %+v in the guest, want %s", out, want)
		}
		return err
	})
}

func defineAgreesWithAResize(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.resize(ctx, first), func() error { return b.Host.Define(ctx, b.larger()) })
}

func resizeRunningIsConflict(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first),
		func() error { return isKind(b.resize(ctx, first)(), fault.Conflict) })
}

func resizeUnknownIsNotFound(ctx context.Context, b Bench) error {
	return isKind(b.resize(ctx, nobody)(), fault.NotFound)
}

func (b Bench) measure(ctx context.Context, id estate.MachineID) (driver.Usage, error) {
	m, err := ability[driver.Meter](b)
	if err != nil {
		return driver.Usage{}, err
	}
	return m.Measure(ctx, id)
}

// numbers are those of a Usage that only grow.
func numbers(u driver.Usage) []int64 {
	return []int64{int64(u.CPU), int64(u.DiskRead), int64(u.DiskWritten), int64(u.Received), int64(u.Sent)}
}

func measureTells(ctx context.Context, b Bench) error {
	if err := steps(b.define(ctx, first), b.start(ctx, first)); err != nil {
		return err
	}
	u, err := b.measure(ctx, first)
	if err != nil {
		return err
	}
	told := 0
	for _, n := range append(numbers(u), int64(u.Memory)) {
		if n < -1 {
			return fmt.Errorf("Measure = %+v; what is not told is -1", u)
		}
		if n >= 0 {
			told++
		}
	}
	if told == 0 {
		return errors.New("Measure tells nothing")
	}
	return nil
}

func measureGrows(ctx context.Context, b Bench) error {
	if err := steps(b.define(ctx, first), b.start(ctx, first)); err != nil {
		return err
	}
	last, err := b.measure(ctx, first)
	for i := 0; i < 5 && err == nil; i++ {
		var now driver.Usage
		if now, err = b.measure(ctx, first); err != nil {
			break
		}
		for j, n := range numbers(now) {
			if n < numbers(last)[j] {
				return fmt.Errorf("Measure = %+v, then %+v", last, now)
			}
		}
		last = now
	}
	return err
}

// measureBeginsAtPowerOn has the machine use a while of CPU time, which a new
// power-on must forget.
func measureBeginsAtPowerOn(ctx context.Context, b Bench) error {
	if err := steps(b.define(ctx, first), b.start(ctx, first)); err != nil {
		return err
	}
	early, err := b.measure(ctx, first)
	if err != nil {
		return err
	}
	if early.CPU < 0 {
		return skip("the host does not tell CPU time")
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	late := early
	for end := time.Now().Add(b.Boot + 5*time.Second); late.CPU < 3*early.CPU+200*time.Millisecond; <-tick.C {
		if time.Now().After(end) {
			return skip("the base uses too little CPU time to tell")
		}
		if late, err = b.measure(ctx, first); err != nil {
			return err
		}
	}
	if err := steps(b.stop(ctx, first, 0), b.start(ctx, first)); err != nil {
		return err
	}
	again, err := b.measure(ctx, first)
	if err == nil && again.CPU >= late.CPU {
		err = fmt.Errorf("CPU time is %v after a new power-on, %v before", again.CPU, late.CPU)
	}
	return err
}

func measureOffIsConflict(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), func() error {
		_, err := b.measure(ctx, first)
		return isKind(err, fault.Conflict)
	})
}

func measureUnknownIsNotFound(ctx context.Context, b Bench) error {
	_, err := b.measure(ctx, nobody)
	return isKind(err, fault.NotFound)
}

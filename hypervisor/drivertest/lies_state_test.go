package drivertest

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

var snapshotLies = map[string]lie{
	"SnapshotShows": omits("Snapshot"),
	"SnapshotsAreInOrderOfAge": func(l *liar, _ *Bench) {
		l.snapshots = func(names []string) []string { return slices.Sorted(slices.Values(names)) }
	},
	"SnapshotUnderATakenNameIsExists": suppresses("Snapshot", fault.Exists),
	"SnapshotsAreToldWhileTheMachineRuns": func(l *liar, _ *Bench) {
		l.around["Snapshots"] = func(good func() error) error {
			if _, err := l.Host.Measure(context.Background(), first); err == nil {
				return fault.Conflict.Errorf("the machine runs")
			}
			return good()
		}
	},
	"RevertGivesBackTheDisks": omits("Revert"),
	"RevertLeavesVolumes": func(l *liar, b *Bench) {
		l.around["Revert"] = func(good func() error) error { // the volume is taken back too
			_, err := b.file("home.img", 'h')
			return errors.Join(err, good())
		}
	},
	"RevertKeepsTheSnapshot": func(l *liar, _ *Bench) {
		l.around["Revert"] = func(good func() error) error {
			return errors.Join(good(), l.Host.DropSnapshot(context.Background(), first, "a"))
		}
	},
	"RevertToAnUnknownNameIsNotFound": suppresses("Revert", fault.NotFound),
	"DropSnapshotForgetsIt":           omits("DropSnapshot"),
	"DropSnapshotLeavesTheDisks": func(l *liar, _ *Bench) {
		l.around["DropSnapshot"] = func(good func() error) error {
			return errors.Join(l.Host.Revert(context.Background(), first, "a"), good())
		}
	},
	"DropSnapshotLeavesTheOthers": func(l *liar, _ *Bench) {
		l.around["DropSnapshot"] = func(good func() error) error { // what is left is made anew
			ctx := context.Background()
			return errors.Join(good(), l.Host.DropSnapshot(ctx, first, "b"), l.Host.Snapshot(ctx, first, "b"))
		}
	},
	"DropSnapshotOfAnUnknownNameIsSuccess": func(l *liar, _ *Bench) {
		l.around["DropSnapshot"] = func(func() error) error { return fault.NotFound.Errorf("no such snapshot") }
	},
	"SnapshotOfARunningMachineIsConflict":      suppresses("Snapshot", fault.Conflict),
	"RevertOfARunningMachineIsConflict":        suppresses("Revert", fault.Conflict),
	"DropSnapshotOfARunningMachineIsConflict":  suppresses("DropSnapshot", fault.Conflict),
	"SnapshotOfAnUnknownMachineIsNotFound":     suppresses("Snapshot", fault.NotFound),
	"RevertOfAnUnknownMachineIsNotFound":       suppresses("Revert", fault.NotFound),
	"DropSnapshotOfAnUnknownMachineIsNotFound": suppresses("DropSnapshot", fault.NotFound),
	"SnapshotsOfAnUnknownMachineIsNotFound":    suppresses("Snapshots", fault.NotFound),
}

var stateLies = map[string]lie{
	"SavePowersOff": omits("Save"),
	"SaveOfAMachineThatIsOffIsSuccess": func(l *liar, _ *Bench) {
		l.around["Save"] = func(func() error) error { return fault.Conflict.Errorf("the machine is off") }
	},
	"SaveUnknownIsNotFound": suppresses("Save", fault.NotFound),
	"StartAfterSaveIsCounted": func(l *liar, _ *Bench) {
		saved := int64(0)
		l.around["Save"] = func(good func() error) error { saved++; return good() }
		l.list = func(all []driver.Machine) []driver.Machine {
			for i := range all {
				all[i].Starts -= saved // it only went on
			}
			return all
		}
	},
	"StartGoesOnWhereSaveWas": func(l *liar, _ *Bench) {
		l.around["Save"] = func(func() error) error { l.PowerOff(first); return nil }
	},
	"SavedMemoryIsUsedOnce":    remembersAlways,
	"ImportForgetsSavedMemory": remembersAlways,
	"RevertForgetsSavedMemory": remembersAlways,
	"ResizeForgetsSavedMemory": remembersAlways,

	"ResizeShows": omits("Resize"),
	"ResizeKeepsTheDisks": func(l *liar, _ *Bench) {
		l.around["Resize"] = func(good func() error) error { return errors.Join(afresh(l), good()) }
	},
	"ResizeReachesTheGuest": output(func(o *driver.Output) { o.Stdout = []byte("1\n") }),
	"DefineAgreesWithAResize": func(l *liar, _ *Bench) {
		l.define = once(l, func(context.Context, driver.Definition) error {
			return fault.Exists.Errorf("it was defined otherwise")
		})
	},
	"ResizeOfARunningMachineIsConflict": suppresses("Resize", fault.Conflict),
	"ResizeUnknownIsNotFound":           suppresses("Resize", fault.NotFound),

	"MeasureTellsSomething": measures(func(int) driver.Usage {
		return driver.Usage{CPU: -1, Memory: -1, DiskRead: -1, DiskWritten: -1, Received: -1, Sent: -1}
	}),
	"MeasureOnlyGrows": measures(func(n int) driver.Usage {
		return driver.Usage{Sent: estate.Bytes(100 - n)}
	}),
	"MeasureBeginsAtThePowerOn":            measures(func(n int) driver.Usage { return driver.Usage{CPU: time.Duration(n) * time.Second} }),
	"MeasureOfAMachineThatIsOffIsConflict": suppresses("Measure", fault.Conflict),
	"MeasureUnknownIsNotFound":             suppresses("Measure", fault.NotFound),

	"ConsoleHasWhatTheGuestSays": func(l *liar, _ *Bench) {
		l.console = func(conn io.ReadWriteCloser) io.ReadWriteCloser {
			conn.Close()
			return conn
		}
	},
	"ConsoleOpensAgain": func(l *liar, _ *Bench) {
		opened := false
		l.around["Console"] = func(good func() error) error {
			if opened {
				return fault.Busy.Errorf("someone had the console open")
			}
			opened = true
			return good()
		}
	},
	"ConsoleOfAMachineThatIsOffIsConflict": suppresses("Console", fault.Conflict),
	"ConsoleUnknownIsNotFound":             suppresses("Console", fault.NotFound),
}

// omits says that it did what it did not.
func omits(method string) lie {
	return func(l *liar, _ *Bench) { l.around[method] = func(func() error) error { return nil } }
}

// suppresses calls an error of one kind a success.
func suppresses(method string, kind fault.Kind) lie {
	return func(l *liar, _ *Bench) {
		l.around[method] = func(good func() error) error {
			if err := good(); !errors.Is(err, kind) {
				return err
			}
			return nil
		}
	}
}

// afresh makes the first machine anew.
func afresh(l *liar) error {
	ctx := context.Background()
	all, err := l.Host.List(ctx)
	if err != nil || len(all) == 0 {
		return err
	}
	return errors.Join(l.Host.Delete(ctx, first), l.Host.Define(ctx, all[0].Def))
}

// remembersAlways has the guest go on as though nothing had come between.
func remembersAlways(l *liar, _ *Bench) {
	l.run = func(context.Context, estate.MachineID, driver.Command) (driver.Output, error) {
		return driver.Output{Stdout: []byte("the same boot for ever\n")}, nil
	}
}

// measures tells of the n-th call, whatever is the case.
func measures(number func(n int) driver.Usage) lie {
	return func(l *liar, _ *Bench) {
		n := 0
		l.measure = func(driver.Usage) driver.Usage { n++; return number(n) }
	}
}

package drivertest

import (
	"context"
	"fmt"
	"slices"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// snapshots are promises of driver.Snapshotter.
var snapshots = []promise{
	{name: "SnapshotShows", needs: estate.CanSnapshot, keeps: snapshotShows},
	{name: "SnapshotsAreInOrderOfAge", needs: estate.CanSnapshot, keeps: snapshotsAreInOrder},
	{name: "SnapshotUnderATakenNameIsExists", needs: estate.CanSnapshot, keeps: snapshotTakenIsExists},
	{name: "SnapshotsAreToldWhileTheMachineRuns", needs: estate.CanSnapshot, keeps: snapshotsWhileRunning},
	{name: "RevertGivesBackTheDisks", needs: estate.CanSnapshot, with: transfer, keeps: revertGivesBack},
	{name: "RevertLeavesVolumes", needs: estate.CanSnapshot, with: transfer, keeps: revertLeavesVolumes},
	{name: "RevertKeepsTheSnapshot", needs: estate.CanSnapshot, keeps: revertKeepsTheSnapshot},
	{name: "RevertToAnUnknownNameIsNotFound", needs: estate.CanSnapshot, keeps: revertUnknownNameIsNotFound},
	{name: "DropSnapshotForgetsIt", needs: estate.CanSnapshot, keeps: dropForgets},
	{name: "DropSnapshotLeavesTheDisks", needs: estate.CanSnapshot, with: transfer, keeps: dropLeavesTheDisks},
	{name: "DropSnapshotLeavesTheOthers", needs: estate.CanSnapshot, with: transfer, keeps: dropLeavesTheOthers},
	{name: "DropSnapshotOfAnUnknownNameIsSuccess", needs: estate.CanSnapshot, keeps: dropUnknownNameIsSuccess},

	{name: "SnapshotOfARunningMachineIsConflict", asks: true, needs: estate.CanSnapshot, keeps: running(Bench.snapshot)},
	{name: "RevertOfARunningMachineIsConflict", needs: estate.CanSnapshot, keeps: revertRunningIsConflict},
	{name: "DropSnapshotOfARunningMachineIsConflict", needs: estate.CanSnapshot, keeps: dropRunningIsConflict},
	{name: "SnapshotOfAnUnknownMachineIsNotFound", asks: true, needs: estate.CanSnapshot, keeps: unknown(Bench.snapshot)},
	{name: "RevertOfAnUnknownMachineIsNotFound", asks: true, needs: estate.CanSnapshot, keeps: unknown(Bench.revert)},
	{name: "DropSnapshotOfAnUnknownMachineIsNotFound", asks: true, needs: estate.CanSnapshot, keeps: unknown(Bench.drop)},
	{name: "SnapshotsOfAnUnknownMachineIsNotFound", asks: true, needs: estate.CanSnapshot, keeps: snapshotsUnknownIsNotFound},
}

// transfer is what it takes to see what disks hold.
var transfer = []estate.Capability{estate.CanTransfer}

// snapper does something with a snapshot of a machine.
type snapper func(b Bench, ctx context.Context, id estate.MachineID, name string) func() error

// running checks that a running machine is fault.Conflict.
func running(do snapper) func(context.Context, Bench) error {
	return func(ctx context.Context, b Bench) error {
		return steps(b.define(ctx, first), b.start(ctx, first),
			func() error { return isKind(do(b, ctx, first, "a")(), fault.Conflict) })
	}
}

// unknown checks that an unknown machine is fault.NotFound.
func unknown(do snapper) func(context.Context, Bench) error {
	return func(ctx context.Context, b Bench) error { return isKind(do(b, ctx, nobody, "a")(), fault.NotFound) }
}

func (b Bench) snapshot(ctx context.Context, id estate.MachineID, name string) func() error {
	return func() error {
		s, err := ability[driver.Snapshotter](b)
		if err == nil {
			err = s.Snapshot(ctx, id, name)
		}
		return err
	}
}

func (b Bench) revert(ctx context.Context, id estate.MachineID, name string) func() error {
	return func() error {
		s, err := ability[driver.Snapshotter](b)
		if err == nil {
			err = s.Revert(ctx, id, name)
		}
		return err
	}
}

func (b Bench) drop(ctx context.Context, id estate.MachineID, name string) func() error {
	return func() error {
		s, err := ability[driver.Snapshotter](b)
		if err == nil {
			err = s.DropSnapshot(ctx, id, name)
		}
		return err
	}
}

// snapped checks the names of the first machine's snapshots.
func (b Bench) snapped(ctx context.Context, want ...string) func() error {
	return func() error {
		s, err := ability[driver.Snapshotter](b)
		if err != nil {
			return err
		}
		got, err := s.Snapshots(ctx, first)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("Snapshots = %q, want %q", got, want)
		}
		return err
	}
}

func snapshotShows(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.snapshot(ctx, first, "a"), b.snapped(ctx, "a"))
}

func snapshotsAreInOrder(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.snapshot(ctx, first, "b"), b.snapshot(ctx, first, "a"),
		b.snapshot(ctx, first, "c"), b.snapped(ctx, "b", "a", "c"))
}

func snapshotTakenIsExists(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.snapshot(ctx, first, "a"),
		func() error { return isKind(b.snapshot(ctx, first, "a")(), fault.Exists) })
}

func snapshotsWhileRunning(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.snapshot(ctx, first, "a"), b.start(ctx, first), b.snapped(ctx, "a"))
}

func revertGivesBack(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.fill(ctx, "root", 'o'), b.snapshot(ctx, first, "a"), b.fill(ctx, "root", 'n'),
		b.revert(ctx, first, "a"), b.filled(ctx, "root", 'o'))
}

func revertLeavesVolumes(ctx context.Context, b Bench) error {
	c, err := b.file("home.img", 'h')
	if err != nil {
		return err
	}
	def, data := b.def(first), pattern(int(diskSize))
	def.Disks = append(def.Disks, driver.Disk{Name: "home", File: &c})
	return steps(func() error { return b.Host.Define(ctx, def) }, b.snapshot(ctx, first, "a"),
		b.imports(ctx, "home", reader(data)), b.revert(ctx, first, "a"), b.content(ctx, "home", data))
}

func revertKeepsTheSnapshot(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.snapshot(ctx, first, "a"), b.revert(ctx, first, "a"), b.snapped(ctx, "a"))
}

func revertUnknownNameIsNotFound(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), func() error { return isKind(b.revert(ctx, first, "absent")(), fault.NotFound) })
}

func dropForgets(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.snapshot(ctx, first, "a"), b.drop(ctx, first, "a"), b.snapped(ctx))
}

func dropLeavesTheDisks(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.fill(ctx, "root", 'o'), b.snapshot(ctx, first, "a"), b.fill(ctx, "root", 'n'),
		b.drop(ctx, first, "a"), b.filled(ctx, "root", 'n'))
}

func dropLeavesTheOthers(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.fill(ctx, "root", 'o'), b.snapshot(ctx, first, "a"),
		b.fill(ctx, "root", 'm'), b.snapshot(ctx, first, "b"), b.fill(ctx, "root", 'n'),
		b.drop(ctx, first, "a"), b.revert(ctx, first, "b"), b.filled(ctx, "root", 'm'))
}

func dropUnknownNameIsSuccess(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.drop(ctx, first, "absent"))
}

func revertRunningIsConflict(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.snapshot(ctx, first, "a"), b.start(ctx, first),
		func() error { return isKind(b.revert(ctx, first, "a")(), fault.Conflict) })
}

func dropRunningIsConflict(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.snapshot(ctx, first, "a"), b.start(ctx, first),
		func() error { return isKind(b.drop(ctx, first, "a")(), fault.Conflict) })
}

func snapshotsUnknownIsNotFound(ctx context.Context, b Bench) error {
	s, err := ability[driver.Snapshotter](b)
	if err == nil {
		_, err = s.Snapshots(ctx, nobody)
	}
	return isKind(err, fault.NotFound)
}

package drivertest

import (
	"context"
	"errors"
	"fmt"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// moves are promises of driver.Mover.
var moves = []promise{
	{name: "MovesAreBetweenHostsOfOneValue", asks: true, needs: estate.CanMoveLive, keeps: movesHaveOneValue},
	{name: "ArriveRunsNothing", needs: estate.CanMoveLive, keeps: arriveRunsNothing},
	{name: "ArriveTwiceIsReady", needs: estate.CanMoveLive, keeps: arriveTwiceIsReady},
	{name: "DeleteForgetsWhatNeverCame", needs: estate.CanMoveLive, keeps: deleteForgetsWhatNeverCame},
	{name: "DepartRunsThere", needs: estate.CanMoveLive, keeps: departRunsThere},
	{name: "DepartShelvesHere", needs: estate.CanMoveLive, keeps: departShelvesHere},
	{name: "DepartCarriesTheMemory", os: true, needs: estate.CanMoveLive, with: guest, keeps: departCarriesTheMemory},
	{name: "DepartCarriesTheDisks", needs: estate.CanMoveLive, with: transfer, keeps: departCarriesTheDisks},
	{name: "DepartToNowhereLeavesItRunning", needs: estate.CanMoveLive, keeps: departToNowhere},
	{name: "DepartOfAMachineThatIsOffIsConflict", needs: estate.CanMoveLive, keeps: departOffIsConflict},
}

// there is the bench of the other host.
func (b Bench) there() Bench {
	b.Host, b.Other = b.Other, b.Host
	return b
}

// arrive makes the other host ready for the machine.
func (b Bench) arrive(ctx context.Context, def driver.Definition) (at string, err error) {
	if b.Other == nil {
		return "", skip("the bench has no other host to move to")
	}
	m, err := ability[driver.Mover](b.there())
	if err != nil {
		return "", err
	}
	return m.Arrive(ctx, def)
}

func (b Bench) depart(ctx context.Context, at string) error {
	m, err := ability[driver.Mover](b)
	if err != nil {
		return err
	}
	return m.Depart(ctx, first, at)
}

// move moves the first machine, which runs, to the other host.
func (b Bench) move(ctx context.Context) func() error {
	return func() error {
		at, err := b.arrive(ctx, b.def(first))
		if err != nil {
			return err
		}
		return b.depart(ctx, at)
	}
}

// runs checks that the machine is listed as running.
func (b Bench) runs(ctx context.Context, id estate.MachineID) func() error {
	return func() error {
		all, err := b.Host.List(ctx)
		for _, m := range all {
			if m.ID == id && m.Power == estate.On {
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("List = %+v, want machine %s running", all, id))
	}
}

func movesHaveOneValue(ctx context.Context, b Bench) error {
	if b.Other == nil {
		return skip("the bench has no other host to move to")
	}
	here, err1 := b.Host.Describe(ctx)
	there, err2 := b.Other.Describe(ctx)
	one, two := here.CanFor(b.GuestType, estate.CanMoveLive).Value, there.CanFor(b.GuestType, estate.CanMoveLive).Value
	if one == "" || one != two {
		return fmt.Errorf("the hosts' values are %q and %q, want the same", one, two)
	}
	return errors.Join(err1, err2)
}

func arriveRunsNothing(ctx context.Context, b Bench) error {
	if err := steps(b.define(ctx, first), b.start(ctx, first)); err != nil {
		return err
	}
	if _, err := b.arrive(ctx, b.def(first)); err != nil {
		return err
	}
	all, err := b.Other.List(ctx)
	for _, m := range all {
		if m.Power == estate.On {
			return fmt.Errorf("machine %s runs before it came", m.ID)
		}
	}
	return err
}

func arriveTwiceIsReady(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), func() error {
		_, err := b.arrive(ctx, b.def(first))
		return err
	}, b.move(ctx))
}

func deleteForgetsWhatNeverCame(ctx context.Context, b Bench) error {
	at, err := b.arrive(ctx, b.def(first))
	if err != nil {
		return err
	}
	return steps(b.define(ctx, first), b.start(ctx, first), b.there().remove(ctx, first), b.there().holds(ctx), func() error {
		if b.depart(ctx, at) == nil {
			return errors.New("a machine came that was not waited for any more")
		}
		return nil
	})
}

func departRunsThere(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.move(ctx), func() error { return b.there().runs(ctx, first)() })
}

// What is shelved is not listed, and an equal definition brings it back, off.
func departShelvesHere(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.move(ctx), b.holds(ctx), b.define(ctx, first), func() error {
		all, err := b.Host.List(ctx)
		if err == nil && (len(all) != 1 || all[0].Power != estate.Off) {
			err = fmt.Errorf("List = %+v, want one machine that is off", all)
		}
		return err
	})
}

func departCarriesTheMemory(ctx context.Context, b Bench) error {
	if err := steps(b.define(ctx, first), b.start(ctx, first)); err != nil {
		return err
	}
	before, err := b.bootID(ctx, b.Host)
	if err != nil {
		return err
	}
	if err := b.move(ctx)(); err != nil {
		return err
	}
	after, err := b.bootID(ctx, b.Other)
	if err == nil && after != before {
		err = errors.New("the guest began anew")
	}
	return err
}

func departCarriesTheDisks(ctx context.Context, b Bench) error {
	def, data := b.def(first), pattern(int(diskSize))
	def.Disks = append(def.Disks, driver.Disk{Name: "data", Size: diskSize})
	return steps(func() error { return b.Host.Define(ctx, def) }, b.imports(ctx, "data", reader(data)), b.start(ctx, first), func() error {
		at, err := b.arrive(ctx, def)
		if err == nil {
			err = b.depart(ctx, at)
		}
		return err
	}, func() error {
		return steps(b.there().stop(ctx, first, 0), b.there().content(ctx, "data", data))
	})
}

func departToNowhere(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), func() error {
		switch err := b.depart(ctx, "nowhere"); {
		case err == nil:
			return errors.New("the machine went nowhere")
		case errors.Is(err, fault.OutcomeUnknown):
			return fmt.Errorf("it cannot run there, so the outcome is known: %w", err)
		}
		return nil
	}, b.runs(ctx, first))
}

func departOffIsConflict(ctx context.Context, b Bench) error {
	at, err := b.arrive(ctx, b.def(first))
	if err != nil {
		return err
	}
	return steps(b.define(ctx, first), func() error { return isKind(b.depart(ctx, at), fault.Conflict) })
}

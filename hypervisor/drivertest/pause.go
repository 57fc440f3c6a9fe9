package drivertest

import (
	"context"
	"fmt"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// pauses are promises of driver.Pauser.
var pauses = []promise{
	{name: "PauseShows", needs: estate.CanPause, keeps: pauseShows},
	{name: "PauseTwiceIsOnce", needs: estate.CanPause, keeps: pauseTwiceIsOnce},
	{name: "PausedMachineUsesNoCPU", needs: estate.CanPause, with: []estate.Capability{estate.CanMeasure}, keeps: pausedUsesNoCPU},
	{name: "PausedMachineHasAScreen", needs: estate.CanPause, with: []estate.Capability{estate.CanDisplay}, keeps: pausedHasAScreen},
	{name: "PausedGuestIsUnavailable", os: true, needs: estate.CanPause, with: guest, keeps: pausedGuestIsUnavailable},
	{name: "StartGoesOnFromAPause", needs: estate.CanPause, keeps: startGoesOnFromPause},
	{name: "StartFromAPauseKeepsTheMemory", os: true, needs: estate.CanPause, with: guest, keeps: startKeepsMemory},
	{name: "StopOfAPausedMachinePowersOff", needs: estate.CanPause, keeps: stopOfPaused},
	{name: "PauseOfAMachineThatIsOffIsConflict", needs: estate.CanPause, keeps: pauseOffIsConflict},
	{name: "PauseUnknownIsNotFound", asks: true, needs: estate.CanPause, keeps: pauseUnknownIsNotFound},
}

func (b Bench) pause(ctx context.Context, id estate.MachineID) func() error {
	return func() error {
		p, err := ability[driver.Pauser](b)
		if err == nil {
			err = p.Pause(ctx, id)
		}
		return err
	}
}

// paused has the first machine run, and stand still.
func (b Bench) paused(ctx context.Context) func() error {
	return func() error { return steps(b.define(ctx, first), b.start(ctx, first), b.pause(ctx, first)) }
}

func pauseShows(ctx context.Context, b Bench) error {
	return steps(b.paused(ctx), b.is(ctx, first, estate.Paused, 1))
}

func pauseTwiceIsOnce(ctx context.Context, b Bench) error {
	return steps(b.paused(ctx), b.pause(ctx, first), b.start(ctx, first), b.is(ctx, first, estate.On, 1))
}

// standStill is for how long a machine's CPU is watched, and how much of it may
// go by: those who ask it how much it used make it answer. It may end what it was
// at first, so it is watched again before it is blamed.
const (
	standStill = 300 * time.Millisecond
	answering  = standStill / 20
	comeToRest = 5
)

func pausedUsesNoCPU(ctx context.Context, b Bench) error {
	m, err := ability[driver.Meter](b)
	if err != nil {
		return err
	}
	if err := b.paused(ctx)(); err != nil {
		return err
	}
	before, err := m.Measure(ctx, first)
	if err != nil {
		return err
	}
	if before.CPU < 0 {
		return skip("the host does not tell what CPU a machine used")
	}
	for try := 1; ; try++ {
		<-time.After(standStill)
		after, err := m.Measure(ctx, first)
		used := after.CPU - before.CPU
		switch {
		case err != nil || used <= answering:
			return err
		case try == comeToRest:
			return fmt.Errorf("a machine that stands still used %v of CPU in %v", used, standStill)
		}
		before = after
	}
}

func pausedHasAScreen(ctx context.Context, b Bench) error {
	if err := b.paused(ctx)(); err != nil {
		return err
	}
	conn, err := b.greet(ctx, first)
	if err == nil {
		err = conn.Close()
	}
	return err
}

func pausedGuestIsUnavailable(ctx context.Context, b Bench) error {
	g, err := ability[driver.Guest](b)
	if err != nil {
		return err
	}
	if err := steps(b.define(ctx, first), b.start(ctx, first), b.booted(ctx, first), b.pause(ctx, first)); err != nil {
		return err
	}
	_, err = g.Run(ctx, first, driver.Command{Args: []string{"true"}})
	return isKind(err, fault.Unavailable)
}

func startGoesOnFromPause(ctx context.Context, b Bench) error {
	return steps(b.paused(ctx), b.start(ctx, first), b.is(ctx, first, estate.On, 1))
}

func startKeepsMemory(ctx context.Context, b Bench) error {
	if err := steps(b.define(ctx, first), b.start(ctx, first)); err != nil {
		return err
	}
	before, err := b.bootID(ctx, b.Host)
	if err != nil {
		return err
	}
	if err := steps(b.pause(ctx, first), b.start(ctx, first)); err != nil {
		return err
	}
	after, err := b.bootID(ctx, b.Host)
	if err == nil && after != before {
		err = fmt.Errorf("the guest began anew: boot %q, was %q", after, before)
	}
	return err
}

func stopOfPaused(ctx context.Context, b Bench) error {
	return steps(b.paused(ctx), b.stop(ctx, first, time.Second), b.is(ctx, first, estate.Off, 1))
}

func pauseOffIsConflict(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), func() error { return isKind(b.pause(ctx, first)(), fault.Conflict) })
}

func pauseUnknownIsNotFound(ctx context.Context, b Bench) error {
	return isKind(b.pause(ctx, nobody)(), fault.NotFound)
}

// within tries until there is no error, for some seconds: a guest finds out of
// its devices in its own time.
func within(try func() error) error {
	end := time.Now().Add(20 * time.Second)
	for tick := time.NewTicker(100 * time.Millisecond); ; <-tick.C {
		err := try()
		if err == nil || time.Now().After(end) {
			tick.Stop()
			return err
		}
	}
}

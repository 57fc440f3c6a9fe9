package drivertest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// guests are promises of driver.Guest.
var guests = []promise{
	{name: "RunReturnsTheOutput", os: true, asks: true, needs: estate.CanGuest, keeps: runReturnsTheOutput},
	{name: "RunPassesTheInput", os: true, asks: true, needs: estate.CanGuest, keeps: runPassesTheInput},
	{name: "RunThatExitsUnequalToZeroIsNoError", os: true, asks: true, needs: estate.CanGuest, keeps: runExitIsNoError},
	{name: "RunBoundsTheOutput", os: true, asks: true, needs: estate.CanGuest, keeps: runBoundsTheOutput},
	{name: "RunWithoutAnAgentIsUnavailable", needs: estate.CanGuest, keeps: runWithoutAgentIsUnavailable},
	{name: "RunUnknownIsNotFound", asks: true, needs: estate.CanGuest, keeps: runUnknownIsNotFound},
}

// offFor is how many looks in a row see a machine off that is off for good, not
// between two lives.
const offFor = 20

// booted waits until the guest's agent answers, where it can be asked.
func (b Bench) booted(ctx context.Context, id estate.MachineID) func() error {
	return func() error {
		g, ok := driver.As[driver.Guest](b.Host)
		if !ok {
			return nil
		}
		end, off := time.Now().Add(b.Boot+time.Second), 0
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for ; ; <-tick.C {
			out, err := g.Run(ctx, id, driver.Command{Args: []string{"true"}})
			if err == nil && out.Exit == 0 {
				return nil
			}
			off++
			if !b.off(ctx, id) {
				off = 0
			}
			switch {
			case off == offFor:
				return wentOff{err}
			case time.Now().After(end):
				return fmt.Errorf("no guest agent within %v: %w", b.Boot, err)
			}
		}
	}
}

// off reports whether the host says that the machine is off.
func (b Bench) off(ctx context.Context, id estate.MachineID) bool {
	all, err := b.Host.List(ctx)
	return err == nil && slices.ContainsFunc(all, func(m driver.Machine) bool { return m.ID == id && m.Power == estate.Off })
}

// bootID returns what names the boot of a guest that is up: it stays while the
// guest's memory does.
func (b Bench) bootID(ctx context.Context, h driver.Host) (string, error) {
	b.Host = h
	g, err := ability[driver.Guest](b)
	if err != nil {
		return "", err
	}
	if err := b.booted(ctx, first)(); err != nil {
		return "", err
	}
	out, err := g.Run(ctx, first, driver.Command{Args: []string{"cat", "/proc/sys/kernel/random/boot_id"}})
	if err == nil && len(out.Stdout) == 0 {
		err = fmt.Errorf("the guest does not tell its boot_id: %+v", out)
	}
	return string(out.Stdout), err
}

// run runs a command in a guest that is up.
func (b Bench) run(ctx context.Context, cmd driver.Command) (driver.Output, error) {
	if err := steps(b.define(ctx, first), b.start(ctx, first), b.booted(ctx, first)); err != nil {
		return driver.Output{}, err
	}
	g, err := ability[driver.Guest](b)
	if err != nil {
		return driver.Output{}, err
	}
	return g.Run(ctx, first, cmd)
}

func runReturnsTheOutput(ctx context.Context, b Bench) error {
	out, err := b.run(ctx, driver.Command{Args: []string{"echo", "two", "words"}})
	if err == nil && string(out.Stdout) != "two words\n" {
		err = fmt.Errorf("Run = %+v, want two words", out)
	}
	return err
}

func runPassesTheInput(ctx context.Context, b Bench) error {
	input := bytes.Repeat([]byte("a secret\n"), 2000) // more than a serial line holds
	out, err := b.run(ctx, driver.Command{Args: []string{"cat"}, Stdin: input})
	if err == nil && !bytes.Equal(out.Stdout, input) {
		err = fmt.Errorf("Run returned %d bytes with exit %d, want the input of %d", len(out.Stdout), out.Exit, len(input))
	}
	return err
}

func runExitIsNoError(ctx context.Context, b Bench) error {
	out, err := b.run(ctx, driver.Command{Args: []string{"false"}})
	if err == nil && out.Exit != 1 {
		err = fmt.Errorf("Run = %+v, want exit 1", out)
	}
	return err
}

func runBoundsTheOutput(ctx context.Context, b Bench) error {
	out, err := b.run(ctx, driver.Command{Args: []string{"head", "-c", "2000000", "/dev/zero"}})
	if err == nil && len(out.Stdout) != 1<<20 {
		err = fmt.Errorf("Run returned %d bytes, want %d", len(out.Stdout), 1<<20)
	}
	return err
}

// A machine that is off has no agent that answers, whatever its base holds.
func runWithoutAgentIsUnavailable(ctx context.Context, b Bench) error {
	g, err := ability[driver.Guest](b)
	if err != nil {
		return err
	}
	return steps(b.define(ctx, first), func() error {
		_, err := g.Run(ctx, first, driver.Command{Args: []string{"true"}})
		return isKind(err, fault.Unavailable)
	}, func() error {
		if b.OS {
			return nil
		}
		if err := b.Host.Start(ctx, first); err != nil {
			return err
		}
		_, err := g.Run(ctx, first, driver.Command{Args: []string{"true"}})
		return isKind(err, fault.Unavailable)
	})
}

func runUnknownIsNotFound(ctx context.Context, b Bench) error {
	g, err := ability[driver.Guest](b)
	if err != nil {
		return err
	}
	_, err = g.Run(ctx, nobody, driver.Command{Args: []string{"true"}})
	return isKind(err, fault.NotFound)
}

package drivertest

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// consoles are promises of driver.Consoler.
var consoles = []promise{
	{name: "ConsoleHasWhatTheGuestSays", needs: estate.CanConsole, keeps: consoleSays},
	{name: "ConsoleOpensAgain", asks: true, needs: estate.CanConsole, keeps: consoleOpensAgain},
	{name: "ConsoleOfAMachineThatIsOffIsConflict", needs: estate.CanConsole, keeps: consoleOffIsConflict},
	{name: "ConsoleUnknownIsNotFound", asks: true, needs: estate.CanConsole, keeps: consoleUnknownIsNotFound},
}

func (b Bench) console(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
	c, err := ability[driver.Consoler](b)
	if err != nil {
		return nil, err
	}
	return c.Console(ctx, id)
}

// consoleSays presses return now and then: what was said before the console was
// open is lost, and who waits for a name says so again.
func consoleSays(ctx context.Context, b Bench) error {
	if b.Says == "" {
		return skip("it is not known what the base says on its console")
	}
	if err := steps(b.define(ctx, first), b.start(ctx, first)); err != nil {
		return err
	}
	conn, err := b.console(ctx, first)
	if err != nil {
		return err
	}
	late := time.AfterFunc(b.Boot+20*time.Second, func() { conn.Close() })
	defer late.Stop()
	defer conn.Close()
	typed := make(chan struct{})
	defer func() { <-typed }()
	done, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(typed)
		for tick := time.NewTicker(2 * time.Second); ; {
			select {
			case <-done.Done():
				tick.Stop()
				conn.Close()
				return
			case <-tick.C:
				io.WriteString(conn, "\r") // nobody may be listening yet
			}
		}
	}()
	var said strings.Builder
	for buf := make([]byte, 4096); !strings.Contains(said.String(), b.Says); {
		n, err := conn.Read(buf)
		said.Write(buf[:n])
		if err != nil {
			return fmt.Errorf("the console ends (%w) after %q, without %q", err, said.String(), b.Says)
		}
	}
	return nil
}

func consoleOpensAgain(ctx context.Context, b Bench) error {
	if err := steps(b.define(ctx, first), b.start(ctx, first)); err != nil {
		return err
	}
	for range 2 {
		conn, err := b.console(ctx, first)
		if err != nil {
			return err
		}
		if err := conn.Close(); err != nil {
			return err
		}
	}
	return nil
}

func consoleOffIsConflict(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), func() error {
		_, err := b.console(ctx, first)
		return isKind(err, fault.Conflict)
	})
}

func consoleUnknownIsNotFound(ctx context.Context, b Bench) error {
	_, err := b.console(ctx, nobody)
	return isKind(err, fault.NotFound)
}

package drivertest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

// watches are promises of driver.Watcher.
var watches = []promise{
	{name: "WatchTellsOfAStart", needs: estate.CanWatch, keeps: watchTellsOfAStart},
	{name: "WatchTellsOfAStop", needs: estate.CanWatch, keeps: watchTellsOfAStop},
	{name: "WatchTellsOfMachinesOfOthers", needs: estate.CanWatch, also: estate.CanSurvey, keeps: watchTellsOfOthers},
	{name: "WatchEndsWithItsContext", asks: true, needs: estate.CanWatch, keeps: watchEnds},
}

// soon is how soon a change is told, on a busy host.
const soon = 5 * time.Second

// told makes a change until it is told of: nobody says when watching has begun.
// Before each change, and after the last, reset takes back the one before.
func (b Bench) told(ctx context.Context, reset func() error, change func() (estate.MachineID, error)) error {
	w, err := ability[driver.Watcher](b)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	ids, ended := make(chan estate.MachineID), make(chan error, 1)
	go func() {
		ended <- w.Watch(ctx, func(id estate.MachineID) {
			select {
			case ids <- id:
			case <-ctx.Done():
			}
		})
	}()
	defer func() {
		cancel()
		<-ended
	}()
	for range 5 {
		if err := drained(ids, reset); err != nil {
			return err
		}
		want, err := change()
		if err != nil {
			return err
		}
		for late := time.After(soon); want != ""; {
			select {
			case id := <-ids:
				if id == want {
					return nil
				}
			case err := <-ended:
				ended <- err
				return fmt.Errorf("watching ended: %w", err)
			case <-late:
				want = ""
			}
		}
	}
	return errors.New("the change was not told of")
}

// drained does something, with nobody kept from telling of it, and waits until
// all has been told.
func drained(ids <-chan estate.MachineID, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	quiet := time.NewTimer(time.Hour)
	defer quiet.Stop()
	var err error
	for {
		select {
		case <-ids:
		case err = <-done:
			done = nil
			quiet.Reset(soon / 10)
		case <-quiet.C:
			return err
		}
	}
}

func watchTellsOfAStart(ctx context.Context, b Bench) error {
	if err := b.Host.Define(ctx, b.def(first)); err != nil {
		return err
	}
	return b.told(ctx, b.stop(ctx, first, 0), func() (estate.MachineID, error) { return first, b.Host.Start(ctx, first) })
}

func watchTellsOfAStop(ctx context.Context, b Bench) error {
	if err := b.Host.Define(ctx, b.def(first)); err != nil {
		return err
	}
	return b.told(ctx, b.start(ctx, first), func() (estate.MachineID, error) { return first, b.Host.Stop(ctx, first, 0) })
}

func watchTellsOfOthers(ctx context.Context, b Bench) error {
	if b.Stranger == nil {
		return skip("the bench makes no machines of others")
	}
	return b.told(ctx, func() error { return nil }, func() (estate.MachineID, error) { return b.Stranger(ctx) })
}

func watchEnds(ctx context.Context, b Bench) error {
	w, err := ability[driver.Watcher](b)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- w.Watch(ctx, func(estate.MachineID) {}) }()
	select {
	case err := <-ended:
		if err != nil {
			err = fmt.Errorf("Watch = %w at the end of its context, want nil", err)
		}
		return err
	case <-time.After(prompt):
		return errors.New("watching goes on after its context has ended")
	}
}

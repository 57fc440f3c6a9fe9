package drivertest

import (
	"context"
	"errors"
	"fmt"
	"io"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// displays are promises of driver.Displayer.
var displays = []promise{
	{name: "DisplayNamesItsProtocol", asks: true, needs: estate.CanDisplay, keeps: displayNamesItsProtocol},
	{name: "DisplaySpeaksItsProtocol", asks: true, needs: estate.CanDisplay, keeps: displaySpeaks},
	{name: "DisplaysAreConnectionsOfTheirOwn", asks: true, needs: estate.CanDisplay, keeps: displaysAreTheirOwn},
	{name: "DisplayOfAMachineThatIsOffIsConflict", needs: estate.CanDisplay, keeps: displayOffIsConflict},
	{name: "DisplayUnknownIsNotFound", asks: true, needs: estate.CanDisplay, keeps: displayUnknownIsNotFound},
}

func displayNamesItsProtocol(ctx context.Context, b Bench) error {
	d, err := b.Host.Describe(ctx)
	if err == nil && d.CanFor(b.GuestType, estate.CanDisplay).Value == "" {
		err = errors.New("the display's protocol has no name")
	}
	return err
}

// greetings are the first bytes a server of a display protocol says, where it
// speaks first.
var greetings = map[string]string{"rfb": "RFB 003."}

// greet opens the display and reads what it says first.
func (b Bench) greet(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
	d, err := ability[driver.Displayer](b)
	if err != nil {
		return nil, err
	}
	desc, err := b.Host.Describe(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := d.Display(ctx, id)
	if err != nil {
		return nil, err
	}
	want := greetings[desc.CanFor(b.GuestType, estate.CanDisplay).Value]
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		conn.Close()
		return nil, fmt.Errorf("the display says %q, %v; want %q", got, err, want)
	}
	return conn, nil
}

func displaySpeaks(ctx context.Context, b Bench) error {
	if err := steps(b.define(ctx, first), b.start(ctx, first)); err != nil {
		return err
	}
	conn, err := b.greet(ctx, first)
	if err == nil {
		err = conn.Close()
	}
	return err
}

func displaysAreTheirOwn(ctx context.Context, b Bench) error {
	if err := steps(b.define(ctx, first), b.start(ctx, first)); err != nil {
		return err
	}
	one, err := b.greet(ctx, first)
	if err != nil {
		return err
	}
	defer one.Close()
	two, err := b.greet(ctx, first)
	if err != nil {
		return err
	}
	return two.Close()
}

func displayOffIsConflict(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), func() error {
		_, err := b.greet(ctx, first)
		return isKind(err, fault.Conflict)
	})
}

func displayUnknownIsNotFound(ctx context.Context, b Bench) error {
	_, err := b.greet(ctx, nobody)
	return isKind(err, fault.NotFound)
}

package drivertest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// hotplugs are promises of driver.Hotplugger.
var hotplugs = []promise{
	{name: "AttachShows", needs: estate.CanHotplug, keeps: attachShows},
	{name: "AttachedIsSorted", needs: estate.CanHotplug, keeps: attachedIsSorted},
	{name: "AttachTwiceIsOnce", needs: estate.CanHotplug, keeps: attachTwiceIsOnce},
	{name: "AttachAnotherIsExists", needs: estate.CanHotplug, keeps: attachAnotherIsExists},
	{name: "AttachAnotherUnderADefinedNameIsExists", needs: estate.CanHotplug, keeps: attachDefinedIsExists},
	{name: "AttachToAMachineThatIsOffIsConflict", needs: estate.CanHotplug, keeps: attachOffIsConflict},
	{name: "AttachUnknownIsNotFound", asks: true, needs: estate.CanHotplug, keeps: attachUnknownIsNotFound},
	{name: "AttachBeyondTheSlotsIsNoCapacity", needs: estate.CanHotplug, keeps: attachFullIsNoCapacity},
	{name: "AttachedGoesWithThePower", needs: estate.CanHotplug, keeps: attachedGoesWithThePower},
	{name: "AttachedIsReadByTheGuest", os: true, needs: estate.CanHotplug, with: []estate.Capability{estate.CanGuest}, keeps: attachedIsRead},
	{name: "DetachTakesOut", os: true, needs: estate.CanHotplug, keeps: detachTakesOut},
	{name: "DetachLeavesTheOthers", os: true, needs: estate.CanHotplug, keeps: detachLeavesTheOthers},
	{name: "DetachAbsentIsSuccess", asks: true, needs: estate.CanHotplug, keeps: detachAbsentIsSuccess},
}

// attached checks the names of the attached disks.
func (b Bench) attached(ctx context.Context, want ...string) func() error {
	return func() error {
		p, err := ability[driver.Hotplugger](b)
		if err != nil {
			return err
		}
		got, err := p.Attached(ctx, first)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("Attached = %q, want %q", got, want)
		}
		return err
	}
}

func (b Bench) attach(ctx context.Context, name string) func() error {
	return func() error {
		p, err := ability[driver.Hotplugger](b)
		if err != nil {
			return err
		}
		d, err := b.extra(name)
		if err != nil {
			return err
		}
		return p.Attach(ctx, first, d)
	}
}

func (b Bench) detach(ctx context.Context, name string) func() error {
	return func() error {
		p, err := ability[driver.Hotplugger](b)
		if err != nil {
			return err
		}
		return p.Detach(ctx, first, name)
	}
}

func attachShows(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.attach(ctx, "one"), b.attached(ctx, "one"))
}

func attachedIsSorted(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first),
		b.attach(ctx, "b"), b.attach(ctx, "a"), b.attach(ctx, "c"), b.attached(ctx, "a", "b", "c"))
}

func attachTwiceIsOnce(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first),
		b.attach(ctx, "one"), b.attach(ctx, "one"), b.attached(ctx, "one"))
}

func attachAnotherIsExists(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.attach(ctx, "one"), func() error {
		p, err := ability[driver.Hotplugger](b)
		if err != nil {
			return err
		}
		other, err := b.extra("other")
		if err != nil {
			return err
		}
		other.Name = "one"
		return isKind(p.Attach(ctx, first, other), fault.Exists)
	})
}

func attachDefinedIsExists(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first),
		func() error { return isKind(b.attach(ctx, "root")(), fault.Exists) })
}

func attachOffIsConflict(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), func() error { return isKind(b.attach(ctx, "one")(), fault.Conflict) })
}

func attachUnknownIsNotFound(ctx context.Context, b Bench) error {
	p, err := ability[driver.Hotplugger](b)
	if err != nil {
		return err
	}
	d, err := b.extra("one")
	if err != nil {
		return err
	}
	return isKind(p.Attach(ctx, nobody, d), fault.NotFound)
}

// manySlots is more than any host has for disks that come and go.
const manySlots = 64

func attachFullIsNoCapacity(ctx context.Context, b Bench) error {
	if err := steps(b.define(ctx, first), b.start(ctx, first)); err != nil {
		return err
	}
	for i := range manySlots {
		if err := b.attach(ctx, fmt.Sprintf("d%d", i))(); err != nil {
			return isKind(err, fault.NoCapacity)
		}
	}
	return fmt.Errorf("%d disks were attached", manySlots)
}

func attachedGoesWithThePower(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.attach(ctx, "one"), b.stop(ctx, first, 0),
		b.attached(ctx), b.start(ctx, first), b.attached(ctx))
}

// seen is a script that tells of each disk in the guest whether it is only read,
// and how many of its first 16 bytes are as those of a disk to attach.
const seen = `for d in /sys/block/*; do echo $(cat $d/ro) $(head -c 16 /dev/${d##*/} | tr -dc x | wc -c); done 2>/dev/null`

// attachedIsRead asks the guest, since the host may take for attached what the
// guest never saw.
func attachedIsRead(ctx context.Context, b Bench) error {
	g, err := ability[driver.Guest](b)
	if err != nil {
		return err
	}
	return steps(b.define(ctx, first), b.start(ctx, first), b.booted(ctx, first), b.attach(ctx, "one"), func() error {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(b.Boot + time.Second); ; <-tick.C {
			out, err := g.Run(ctx, first, driver.Command{Args: []string{"/bin/sh", "-c", seen}})
			if err != nil || slices.Contains(strings.Split(string(out.Stdout), "\n"), "1 16") {
				return err
			}
			if time.Now().After(end) {
				return fmt.Errorf("the guest does not see it as a disk that is only read: %+v", out)
			}
		}
	})
}

func detachTakesOut(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.booted(ctx, first),
		b.attach(ctx, "one"), b.detach(ctx, "one"), b.attached(ctx))
}

func detachLeavesTheOthers(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.booted(ctx, first),
		b.attach(ctx, "one"), b.attach(ctx, "two"), b.detach(ctx, "one"), b.attached(ctx, "two"))
}

func detachAbsentIsSuccess(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), b.start(ctx, first), b.detach(ctx, "absent"))
}

package drivertest

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// joins are promises of Join.
var joins = []promise{
	{name: "CloneHasNoNetworkUntilItJoins", os: true, needs: estate.CanInstant, with: guest, keeps: noNetworkUntilJoin},
	{name: "JoinPlugsTheNetworkCardsIn", os: true, needs: estate.CanInstant, with: guest, keeps: joinPlugsIn},
	{name: "CloneHasItsTemplatesCardsAndALinkOnceItJoins", os: true, needs: estate.CanInstant, with: guest, keeps: cardsGetTheirLink},
	{name: "JoinTwiceIsOnce", needs: estate.CanInstant, keeps: joinTwiceIsOnce},
	{name: "JoinOfAMachineThatIsOffIsConflict", needs: estate.CanInstant, keeps: joinOffIsConflict},
	{name: "JoinUnknownIsNotFound", asks: true, needs: estate.CanInstant, keeps: joinUnknownIsNotFound},
}

func (b Bench) join(ctx context.Context, id estate.MachineID) func() error {
	return func() error {
		c, err := ability[driver.Cloner](b)
		if err == nil {
			err = c.Join(ctx, id)
		}
		return err
	}
}

// carded has a clone with a network card run, and returns the card's address.
func (b Bench) carded(ctx context.Context) (mac string, err error) {
	if b.NIC == nil {
		return "", skip("the bench makes no network cards")
	}
	nic, err := b.NIC()
	if err != nil {
		return "", err
	}
	def := b.cloneDef(first, "a")
	def.NICs = []driver.NIC{nic}
	return nic.MAC, steps(b.template(ctx, "a"), func() error { return b.Host.Define(ctx, def) }, b.start(ctx, first), b.booted(ctx, first))
}

// cards returns the addresses of the guest's network cards.
func (b Bench) cards(ctx context.Context) (string, error) {
	g, err := ability[driver.Guest](b)
	if err != nil {
		return "", err
	}
	out, err := g.Run(ctx, first, driver.Command{Args: []string{"/bin/sh", "-c", "cat /sys/class/net/*/address"}})
	return string(out.Stdout), err
}

func noNetworkUntilJoin(ctx context.Context, b Bench) error {
	mac, err := b.carded(ctx)
	if err != nil {
		return err
	}
	has, err := b.cards(ctx)
	if err == nil && strings.Contains(has, mac) {
		err = errors.New("a clone can be reached before it was told to join")
	}
	return err
}

func joinPlugsIn(ctx context.Context, b Bench) error {
	mac, err := b.carded(ctx)
	if err != nil {
		return err
	}
	return steps(b.join(ctx, first), func() error {
		return within(func() error {
			has, err := b.cards(ctx)
			if err == nil && !strings.Contains(has, mac) {
				err = fmt.Errorf("the guest has cards %q, want %s", has, mac)
			}
			return err
		})
	})
}

// looseMAC is the address of a card that is plugged in nowhere.
const looseMAC = "02:0a:00:00:00:99"

// links has the guest bring its network cards up, and say of each its address and
// whether it has a link.
const links = `for c in /sys/class/net/e*; do busybox ip link set ${c##*/} up; echo $(cat $c/address $c/carrier); done`

// linked checks that the guest has the template's card alone, with a link or not.
func (b Bench) linked(ctx context.Context, want string) func() error {
	return func() error {
		g, err := ability[driver.Guest](b)
		if err != nil {
			return err
		}
		out, err := g.Run(ctx, first, driver.Command{Args: []string{"/bin/sh", "-c", links}})
		if has := string(out.Stdout); err == nil && has != want {
			err = fmt.Errorf("the guest has cards and links %q, want %q", has, want)
		}
		return err
	}
}

func cardsGetTheirLink(ctx context.Context, b Bench) error {
	if b.NIC == nil {
		return skip("the bench makes no network cards")
	}
	nic, err := b.NIC()
	if err != nil {
		return err
	}
	def, clone := b.def(third), b.cloneDef(first, "a")
	def.NICs, clone.NICs = []driver.NIC{{MAC: looseMAC, Unplugged: true}}, []driver.NIC{nic}
	err = steps(func() error { return b.Host.Define(ctx, def) }, b.start(ctx, third), b.booted(ctx, third), b.freeze(ctx, third, "a"),
		func() error { return b.Host.Define(ctx, clone) }, b.start(ctx, first), b.booted(ctx, first), b.linked(ctx, looseMAC+" 0\n"), b.join(ctx, first))
	if err != nil {
		return err
	}
	return within(b.linked(ctx, looseMAC+" 1\n"))
}

func joinTwiceIsOnce(ctx context.Context, b Bench) error {
	return steps(b.template(ctx, "a"), b.clone(ctx, first, "a"), b.start(ctx, first), b.join(ctx, first), b.join(ctx, first))
}

func joinOffIsConflict(ctx context.Context, b Bench) error {
	return steps(b.define(ctx, first), func() error { return isKind(b.join(ctx, first)(), fault.Conflict) })
}

func joinUnknownIsNotFound(ctx context.Context, b Bench) error {
	return isKind(b.join(ctx, nobody)(), fault.NotFound)
}

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"consort.dev/consort/agent/network"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/guest/identity"
	"consort.dev/consort/hypervisor/driver"
)

const (
	project, lan = "bench", "lan"
	// ownLimit is how long a clone may take to become its own.
	ownLimit = 2 * time.Minute
	// ownLook is how often it is looked at meanwhile, as an agent does.
	ownLook = 20 * time.Millisecond
)

// own has clones become their own, one after the other, in the order that an
// agent does: first frame, identity, network card, address.
func (b *bench) own(ctx context.Context) error {
	net, err := network.Open(filepath.Join(b.dir, "n"))
	if err != nil {
		return err
	}
	defer net.Close(context.WithoutCancel(ctx))
	if err := net.Ensure(ctx, network.Network{Project: project, Name: lan, Subnet: netip.MustParsePrefix("10.76.0.0/24")}); err != nil {
		return err
	}
	for n := range b.owned {
		if err := b.ownOne(ctx, net, n); err != nil {
			return fmt.Errorf("clone %d: %w", n, err)
		}
	}
	return nil
}

func (b *bench) ownOne(ctx context.Context, net *network.Host, n int) (err error) {
	ctx, cancel := context.WithTimeout(ctx, ownLimit)
	defer cancel()
	def := b.machine(400+n, templateName)
	mac := estate.MACFor(def.ID, 0)
	port, err := net.Join(ctx, project, lan, network.Card{Machine: def.ID, MAC: mac})
	if err != nil {
		return err
	}
	def.NICs = []driver.NIC{{MAC: mac, Netns: port.Netns, Tap: port.Tap}}
	defer func() {
		after := context.WithoutCancel(ctx)
		err = errors.Join(err, b.host.Delete(after, def.ID), net.Leave(after, def.ID))
	}()
	began := time.Now()
	if err := errors.Join(b.host.Define(ctx, def), b.host.Start(ctx, def.ID), b.look(ctx, def.ID)); err != nil {
		return err
	}
	b.s.Since("own_first_frame", began)
	if err := until(ctx, func() error { return b.identify(ctx, def) }); err != nil {
		return err
	}
	b.s.Since("identity_ready", began)
	if err := b.host.Join(ctx, def.ID); err != nil {
		return err
	}
	err = until(ctx, func() error {
		_, err := net.Address(project, lan, mac)
		return err
	})
	b.s.Since("network_ready", began)
	return err
}

// until repeats what cannot be done yet.
func until(ctx context.Context, do func() error) error {
	for {
		err := do()
		if !errors.Is(err, fault.Unavailable) && !errors.Is(err, fault.NotFound) || ctx.Err() != nil {
			return err
		}
		pause(ctx, ownLook)
	}
}

func (b *bench) identify(ctx context.Context, def driver.Definition) error {
	seed := make([]byte, 64)
	rand.Read(seed) // never fails (crypto/rand)
	script, err := identity.Identity{
		Hostname: identity.Hostname(def.Name), Machine: strings.ReplaceAll(string(def.ID), "-", ""), Seed: seed, Now: time.Now(),
		Cards: []identity.Card{{Had: loose, Has: def.NICs[0].MAC}},
	}.Script()
	if err != nil {
		return err
	}
	out, err := b.host.Run(ctx, def.ID, driver.Command{Args: []string{"/bin/sh"}, Stdin: script})
	if err != nil {
		return err
	}
	return identity.Takes(out.Exit, out.Stdout, out.Stderr)
}

package agent

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/guest/identity"
	"consort.dev/consort/hypervisor/driver"
)

// cloneLook is how often a clone is looked at until it has an address, and
// agentLook until its agent, which runs already, has heard of us: for as long as
// cloneLong after its start.
const (
	agentLook = 20 * time.Millisecond
	cloneLook = 100 * time.Millisecond
	cloneLong = 20 * time.Second
)

// identityLimit is how long a guest may take to become its own; under software
// emulation on a loaded host it takes seconds.
const identityLimit = time.Minute

// settled reports whether the guest has an identity that the host knows of: a
// clone that was given one, or any machine that booted from an image.
func (k *keeper) settled(have driver.Machine) bool {
	rec, _ := k.agent.records.get(k.id)
	return have.Def.Template == "" || rec.Identity
}

// makeOwn gives a clone its identity, then its network cards. What has an
// identity keeps it.
func (k *keeper) makeOwn(ctx context.Context, m *estate.Machine, have driver.Machine) error {
	if !k.settled(have) {
		if err := k.identify(ctx, m, have.Def); err != nil {
			return err
		}
		err := k.agent.records.see(k.recordOf(m), func(r *record) { r.Identity = true })
		if err != nil {
			return err
		}
		k.agent.Log.Info("clone has its own identity", "machine", m.Metadata.Name)
	}
	if !k.guest.Own {
		k.guest.Agent, k.guest.Desktop, k.guest.Own = true, true, true
		k.guest.Hostname = identity.Hostname(m.Metadata.Name)
		k.asked = k.agent.Now()
	}
	return k.agent.Host.Join(ctx, k.id)
}

// identify has the guest take its identity, all of it or once more.
func (k *keeper) identify(ctx context.Context, m *estate.Machine, def driver.Definition) error {
	ctx, cancel := context.WithTimeout(ctx, identityLimit)
	defer cancel()
	seed := make([]byte, 64)
	rand.Read(seed) // never fails (crypto/rand)
	var cards []identity.Card
	for i, had := range templateCards(def.Template, len(def.NICs)) {
		cards = append(cards, identity.Card{Had: had.MAC, Has: def.NICs[i].MAC})
	}
	script, err := identity.Identity{
		Hostname: identity.Hostname(m.Metadata.Name),
		Machine:  strings.ReplaceAll(string(k.id), "-", ""),
		Seed:     seed,
		Now:      k.agent.Now(),
		Cards:    cards,
	}.Script()
	if err != nil {
		return err
	}
	out, err := k.agent.Host.Run(ctx, k.id, driver.Command{Args: []string{"/bin/sh"}, Stdin: script})
	if err != nil {
		return err
	}
	return identity.Takes(out.Exit, out.Stdout, out.Stderr)
}

// clockOff is how far a clone's clock may be off.
const clockOff = 3 * time.Second

// setClock sets the clock of a clone, which stands still while the clone does.
func (k *keeper) setClock(ctx context.Context, m *estate.Machine, have driver.Machine) {
	if have.Def.Template == "" || !k.guest.Own || k.behind.Abs() < clockOff {
		return
	}
	now := k.agent.Now()
	out, err := k.agent.Host.Run(ctx, k.id, driver.Command{Args: []string{"date", "-s", fmt.Sprintf("@%d.%09d", now.Unix(), now.Nanosecond())}})
	if err != nil || out.Exit != 0 {
		k.agent.Log.Warn("set a clone's clock", "machine", m.Metadata.Name, "behind", k.behind, "exit", out.Exit, "error", err)
	}
	k.behind = 0
}

// afresh takes a clone away that went off before it had an identity: booted, it
// would answer with its template's. Nobody has ever used it.
func (k *keeper) afresh(ctx context.Context, have driver.Machine) (gone bool, err error) {
	if have.Power != estate.Off || have.Starts == 0 || k.settled(have) {
		return false, nil
	}
	return true, k.agent.Host.Delete(ctx, k.id)
}

// standStill has a machine that is to be paused stand still once it is ready to be used.
func (k *keeper) standStill(ctx context.Context, m *estate.Machine, have driver.Machine) (driver.Machine, error) {
	ready := k.guest.Desktop && k.guest.Own && len(k.guest.Addresses) >= len(m.Spec.Hardware.NICs) &&
		!slices.ContainsFunc(k.layers, func(l estate.LayerState) bool { return !l.Attached })
	if m.Spec.Power != estate.Paused || have.Power != estate.On || !ready || !k.agent.Host.CanFor(m.Spec.Hardware.GuestType, estate.CanPause).Has {
		return have, nil
	}
	if err := k.agent.Host.Pause(ctx, k.id); err != nil {
		return have, err
	}
	k.agent.Log.Info("machine is paused", "machine", m.Metadata.Name)
	return k.agent.Host.Get(ctx, k.id)
}

package agent

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"consort.dev/consort/application"
	appdriver "consort.dev/consort/application/driver"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// desktopMark exists in a guest whose desktop is drawn (docs/guest.md).
const desktopMark = "/run/consort/desktop"

// silentLong is after which time a guest that never answered is asked seldom:
// it may have no agent.
const silentLong = 10 * time.Minute

// lookInside learns how far the guest is, brings its applications to it, and
// says when to look again.
func (k *keeper) lookInside(ctx context.Context, m *estate.Machine, have driver.Machine) time.Duration {
	switch have.Power {
	case estate.On:
	case estate.Paused:
		if !k.guest.Agent { // what an earlier agent learned before it had it stand still
			k.guest, k.layers = m.Status.Guest, m.Status.Layers
		}
		return lookEvery
	default:
		k.forgetGuest()
		return lookEvery
	}
	k.guest.Addresses = k.addresses(m)
	if !k.agent.Host.CanFor(m.Spec.Hardware.GuestType, estate.CanGuest).Has {
		return lookEvery
	}
	if have.Def.Template != "" && have.Starts == 1 && !k.guest.Own {
		k.guest.Desktop = true  // its template was drawn when it was saved
		k.observe(ctx, m, have) // so that the screen can be shown meanwhile
		err := k.makeOwn(ctx, m, have)
		if errors.Is(err, fault.Unavailable) && k.agent.Now().Sub(have.Started) < cloneLong {
			return agentLook
		}
		if err != nil {
			k.agent.Log.Warn("make a clone its own", "machine", m.Metadata.Name, "error", err)
			return bootLook
		}
		k.observe(ctx, m, have)
	}
	now := k.agent.Now()
	if !k.guest.Desktop || now.Sub(k.asked) >= guestLook {
		k.asked = now
		if have.Def.Template != "" && k.guest.Own {
			k.observe(ctx, m, have) // it may have stood still till now, and somebody waits
		}
		k.ask(ctx)
		k.setClock(ctx, m, have)
	}
	if !k.guest.Agent && !have.Started.IsZero() && now.Sub(have.Started) > silentLong {
		return guestLook
	}
	if !k.guest.Agent {
		return bootLook
	}
	if have.Def.Template != "" && len(k.guest.Addresses) < len(m.Spec.Hardware.NICs) && now.Sub(have.Started) < cloneLong {
		return cloneLook // its network card has just been plugged in
	}
	settled := k.keepLayers(ctx, m)
	if !k.guest.Desktop || !settled || len(k.guest.Addresses) < len(m.Spec.Hardware.NICs) {
		return bootLook
	}
	return lookEvery
}

// ask asks the guest whether its desktop is drawn, and who it is.
func (k *keeper) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := k.agent.Host.Run(ctx, k.id, driver.Command{Args: []string{"/bin/sh", "-c", "hostname; date +%s; test -e " + desktopMark}})
	if err != nil {
		return // it boots, or is busy: what was known stays
	}
	name, clock, _ := strings.Cut(strings.TrimSpace(string(out.Stdout)), "\n")
	k.behind = 0
	if at, err := strconv.ParseInt(clock, 10, 64); err == nil {
		k.behind = k.agent.Now().Sub(time.Unix(at, 0))
	}
	k.guest.Agent, k.guest.Own = true, true
	k.guest.Desktop = k.guest.Desktop || out.Exit == 0
	k.guest.Hostname = name
}

// addresses returns what DHCP gave to the machine's NICs.
func (k *keeper) addresses(m *estate.Machine) []netip.Addr {
	if k.agent.Network == nil {
		return nil
	}
	var all []netip.Addr
	for i, n := range m.Spec.Hardware.NICs {
		if addr, err := k.agent.Network.Address(m.Metadata.Project, n.Network, k.mac(n, i)); err == nil {
			all = append(all, addr)
		}
	}
	return all
}

// keepLayers attaches what is granted and detaches what is not, and reports
// whether nothing is left to do.
func (k *keeper) keepLayers(ctx context.Context, m *estate.Machine) bool {
	var states []estate.LayerState
	settled := true
	for name, p := range k.agent.Applications {
		granted := layersOf(m, name)
		had := slices.ContainsFunc(k.layers, func(s estate.LayerState) bool { return s.Attached })
		if len(granted) == 0 && !had && k.layers != nil {
			continue // nothing was ever there
		}
		attached, err := p.Attached(ctx, guestMachine{k})
		if err != nil {
			k.agent.Log.Warn("ask for attached layers", "machine", m.Metadata.Name, "error", err)
			settled = false
			continue
		}
		for _, d := range attached {
			if !slices.ContainsFunc(granted, func(l estate.Layer) bool { return l.Digest == d }) {
				if err := p.Detach(ctx, guestMachine{k}, d); err != nil {
					k.agent.Log.Warn("detach layer", "machine", m.Metadata.Name, "layer", d.Short(), "error", err)
					settled = false
				}
			}
		}
		for _, l := range granted {
			s := estate.LayerState{Application: l.Application, Digest: l.Digest, Attached: slices.Contains(attached, l.Digest)}
			if !s.Attached {
				err := k.attach(ctx, p, l)
				s.Attached, settled = err == nil, settled && err == nil
				if err != nil {
					s.Text = problem(err)
				}
			}
			states = append(states, s)
		}
	}
	if states == nil {
		states = []estate.LayerState{}
	}
	k.layers = states
	return settled
}

func layersOf(m *estate.Machine, delivery string) []estate.Layer {
	var all []estate.Layer
	for _, l := range m.Spec.Layers {
		if l.Delivery == delivery {
			all = append(all, l)
		}
	}
	return all
}

func (k *keeper) attach(ctx context.Context, p *application.Provider, l estate.Layer) error {
	layer, err := k.agent.layer(l)
	if err != nil {
		return err
	}
	return p.Attach(ctx, guestMachine{k}, layer)
}

// layer finds a layer's content on this host.
func (a *Agent) layer(l estate.Layer) (appdriver.Layer, error) {
	e, err := a.Images.Get(l.Digest)
	if errors.Is(err, fault.NotFound) {
		a.content.fetcher.look()
		return appdriver.Layer{}, fault.Unavailable.Errorf("waiting for layer %s of %s to come from another host", l.Digest.Short(), l.Application)
	}
	if err != nil {
		return appdriver.Layer{}, err
	}
	return appdriver.Layer{Application: l.Application, Version: l.Version, Digest: l.Digest, Path: e.Path, Size: e.Record.Size}, nil
}

// guestMachine is a machine as application providers may use it: it attaches
// layers that were granted and nothing else.
type guestMachine struct{ k *keeper }

// ID implements the application layer's Machine.
func (g guestMachine) ID() estate.MachineID { return g.k.id }

// AttachDisk implements the application layer's Machine.
func (g guestMachine) AttachDisk(ctx context.Context, d appdriver.Disk) error {
	m, _ := g.k.latest()
	granted := slices.ContainsFunc(m.Spec.Layers, func(l estate.Layer) bool {
		e, err := g.k.agent.Images.Get(l.Digest)
		return err == nil && e.Path == d.Path
	})
	if !granted {
		return fault.Denied.Errorf("attach %s to machine %s: that layer was not granted", d.Name, m.Metadata.Name)
	}
	return g.k.agent.Host.Attach(ctx, g.k.id, driver.Disk{
		Name: d.Name, ReadOnly: true,
		File: &driver.Content{Path: d.Path, Format: estate.Raw, Size: d.Size},
	})
}

// DetachDisk implements the application layer's Machine.
func (g guestMachine) DetachDisk(ctx context.Context, name string) error {
	return g.k.agent.Host.Detach(ctx, g.k.id, name)
}

// Disks implements the application layer's Machine.
func (g guestMachine) Disks(ctx context.Context) ([]string, error) {
	return g.k.agent.Host.Attached(ctx, g.k.id)
}

// Run implements the application layer's Machine.
func (g guestMachine) Run(ctx context.Context, args []string, stdin []byte) (appdriver.Output, error) {
	out, err := g.k.agent.Host.Run(ctx, g.k.id, driver.Command{Args: args, Stdin: stdin})
	return appdriver.Output{Exit: out.Exit, Stdout: out.Stdout, Stderr: out.Stderr}, err
}

// start starts an application for a call.
func (a *Agent) start(ctx context.Context, k *keeper, l estate.Layer, launch appdriver.Launch) error {
	m, _ := k.latest()
	if !slices.Contains(m.Spec.Layers, l) {
		return fault.Denied.Errorf("application %s was not granted to machine %s", l.Application, m.Metadata.Name)
	}
	p := a.Applications[l.Delivery]
	if p == nil {
		return fault.Unsupported.Errorf("this host has no %s to deliver application %s", l.Delivery, l.Application)
	}
	layer, err := a.layer(l)
	if err != nil {
		return err
	}
	began := a.Now()
	err = p.Start(ctx, guestMachine{k}, layer, launch)
	if err == nil || errors.Is(err, fault.OutcomeUnknown) {
		k.launched(ctx, estate.Launch{Application: l.Application, Hypervisor: a.Hypervisor, At: began, Took: estate.Duration(a.Now().Sub(began))})
	}
	if errors.Is(err, fault.Conflict) {
		return fault.Busy.Errorf("application %s is still being brought to the desktop; try again in a moment: %w", l.Application, err)
	}
	return err
}

// Package fakeapps is an application provider in memory: it keeps the promises
// of a provider towards guests that exist only here.
package fakeapps

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"consort.dev/consort/application/driver"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// Process is an application that runs in a guest.
type Process struct {
	Layer   estate.Digest
	User    string
	Command []string
}

// Guests is what the guests hold. Providers that share it see the same guests,
// as two processes would. Its zero value is empty.
type Guests struct {
	mu       sync.Mutex
	mounts   map[estate.MachineID]map[estate.Digest]bool
	programs map[estate.MachineID][]Process
}

// Processes returns what runs on the machine.
func (g *Guests) Processes(id estate.MachineID) []Process {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.programs[id])
}

// SetProcesses replaces what runs on the machine, behind the provider's back.
func (g *Guests) SetProcesses(id estate.MachineID, ps []Process) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.programs == nil {
		g.programs = map[estate.MachineID][]Process{}
	}
	g.programs[id] = slices.Clone(ps)
}

// Provider attaches layers to guests in memory.
type Provider struct {
	// Guests is where the layers go.
	Guests *Guests
	// Wait, when set, is called before each effect; its error is the outcome.
	// Tests use it to make guests slow or broken.
	Wait func(ctx context.Context, verb string, m estate.MachineID) error
}

// New returns a provider over guests of its own.
func New() *Provider { return &Provider{Guests: new(Guests)} }

// Describe implements driver.Provider.
func (p *Provider) Describe(ctx context.Context) (estate.DeliveryOffer, error) {
	return estate.DeliveryOffer{
		Name:    "fakeapps",
		Version: "1",
		Needs:   []estate.Capability{estate.CanHotplug, estate.CanGuest},
		Agent:   true,
	}, ctx.Err()
}

// Attach implements driver.Provider.
func (p *Provider) Attach(ctx context.Context, m driver.Machine, l driver.Layer) error {
	if err := p.reach(ctx, "attach", m); err != nil {
		return err
	}
	if err := m.AttachDisk(ctx, driver.Disk{Name: disk(l.Digest), Path: l.Path, Size: l.Size}); err != nil {
		return err
	}
	p.Guests.mu.Lock()
	defer p.Guests.mu.Unlock()
	if p.Guests.mounts == nil {
		p.Guests.mounts = map[estate.MachineID]map[estate.Digest]bool{}
		p.Guests.programs = map[estate.MachineID][]Process{}
	}
	if p.Guests.mounts[m.ID()] == nil {
		p.Guests.mounts[m.ID()] = map[estate.Digest]bool{}
	}
	p.Guests.mounts[m.ID()][l.Digest] = true
	return nil
}

// Attached implements driver.Provider.
func (p *Provider) Attached(ctx context.Context, m driver.Machine) ([]estate.Digest, error) {
	if err := p.reach(ctx, "attached", m); err != nil {
		return nil, err
	}
	disks, err := m.Disks(ctx)
	if err != nil {
		return nil, err
	}
	p.Guests.mu.Lock()
	defer p.Guests.mu.Unlock()
	var ds []estate.Digest
	for d := range p.Guests.mounts[m.ID()] {
		if slices.Contains(disks, disk(d)) {
			ds = append(ds, d)
		} else {
			p.Guests.forget(m.ID(), d) // the machine was restarted
		}
	}
	slices.Sort(ds)
	return ds, nil
}

// Start implements driver.Provider. The command "false" ends at once.
func (p *Provider) Start(ctx context.Context, m driver.Machine, l driver.Layer, app driver.Launch) error {
	attached, err := p.Attached(ctx, m)
	if err != nil {
		return err
	}
	if err := p.reach(ctx, "start", m); err != nil {
		return err
	}
	if !slices.Contains(attached, l.Digest) {
		return fault.Conflict.Errorf("layer %s is not attached", l.Digest.Short())
	}
	if filepath.Base(app.Command[0]) == "false" {
		return fault.Stuck.Errorf("%s ended at once with exit status 1", app.Command[0])
	}
	p.Guests.mu.Lock()
	defer p.Guests.mu.Unlock()
	for _, r := range p.Guests.programs[m.ID()] {
		if r.Layer == l.Digest {
			return nil
		}
	}
	p.Guests.programs[m.ID()] = append(p.Guests.programs[m.ID()], Process{l.Digest, app.User, slices.Clone(app.Command)})
	return nil
}

// Detach implements driver.Provider.
func (p *Provider) Detach(ctx context.Context, m driver.Machine, layer estate.Digest) error {
	if err := p.reach(ctx, "detach", m); err != nil {
		return err
	}
	p.Guests.mu.Lock()
	p.Guests.forget(m.ID(), layer)
	p.Guests.mu.Unlock()
	return m.DetachDisk(ctx, disk(layer))
}

// Build implements driver.Builder: the content is the recipe, spelled out.
func (p *Provider) Build(ctx context.Context, r driver.Recipe, dir string, report func(estate.Work)) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	report(estate.Work{Phase: "write", Step: 1, Steps: 1})
	if slices.Contains(r.Packages, "absent") {
		return "", fault.Invalid.Errorf("no package is called %q", "absent")
	}
	content := make([]byte, 4096)
	copy(content, fmt.Sprintf("%s %s %s\n", r.Application, r.Suite, strings.Join(r.Packages, " ")))
	f, err := os.CreateTemp(dir, "layer-*")
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		os.Remove(f.Name())
		return "", err
	}
	report(estate.Work{Phase: "write", Step: 1, Steps: 1, Percent: 100})
	return f.Name(), nil
}

// reach asks the guest for a sign of life.
func (p *Provider) reach(ctx context.Context, verb string, m driver.Machine) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.Wait != nil {
		if err := p.Wait(ctx, verb, m.ID()); err != nil {
			return err
		}
	}
	_, err := m.Run(ctx, []string{"true"}, nil)
	return err
}

// forget is called with the lock held.
func (g *Guests) forget(id estate.MachineID, d estate.Digest) {
	delete(g.mounts[id], d)
	if len(g.programs[id]) == 0 {
		return
	}
	g.programs[id] = slices.DeleteFunc(g.programs[id], func(r Process) bool { return r.Layer == d })
}

func disk(d estate.Digest) string { return "l-" + d.Hex()[:16] }

// Package application brings applications to running desktops. Its Provider
// wraps a driver and holds everything drivers would otherwise repeat:
// validation, deadlines, one call at a time for each machine, and the naming of
// errors.
package application

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"consort.dev/consort/application/driver"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// Deadlines bound how long a provider may take. A zero field means a
// generous one: guests may run without hardware virtualisation, where starting
// a program takes seconds.
type Deadlines struct {
	Attach, Attached, Start, Detach, Build time.Duration
}

// Provider brings applications to machines through a driver. It is safe for
// concurrent use; calls for the same machine wait for each other.
type Provider struct {
	drv       driver.Provider
	offer     estate.DeliveryOffer
	deadlines Deadlines

	mu    sync.Mutex
	turns map[estate.MachineID]*turn
}

// turn is the right to work on a machine, and how many want it.
type turn struct {
	token chan struct{}
	users int
}

// Open returns the provider that drv drives.
func Open(ctx context.Context, drv driver.Provider, d Deadlines) (*Provider, error) {
	offer, err := drv.Describe(ctx)
	if err != nil {
		return nil, fmt.Errorf("open application provider: %w", err)
	}
	if offer.Name == "" {
		return nil, fault.Internal.Errorf("open application provider: it has no name")
	}
	return &Provider{drv: drv, offer: offer, deadlines: d.orDefault(), turns: map[estate.MachineID]*turn{}}, nil
}

func (d Deadlines) orDefault() Deadlines {
	return Deadlines{
		Attach:   cmp.Or(d.Attach, 2*time.Minute),
		Attached: cmp.Or(d.Attached, 30*time.Second),
		Start:    cmp.Or(d.Start, 2*time.Minute),
		Detach:   cmp.Or(d.Detach, time.Minute),
		Build:    cmp.Or(d.Build, time.Hour),
	}
}

// Offer returns what the provider says of itself.
func (p *Provider) Offer() estate.DeliveryOffer { return p.offer }

// CanBuild reports whether the provider makes layers itself.
func (p *Provider) CanBuild() bool {
	_, ok := driver.As[driver.Builder](p.drv)
	return ok
}

// Attach brings the layer to the machine and returns once the application can
// be started there. A layer attached already is success.
func (p *Provider) Attach(ctx context.Context, m driver.Machine, l driver.Layer) error {
	err := checkLayer(l)
	if err == nil && !path.IsAbs(l.Path) {
		err = fault.Invalid.Errorf("%q is not the absolute path of its content", l.Path)
	}
	if err == nil && (l.Size <= 0 || l.Size%512 != 0) {
		err = fault.Invalid.Errorf("a content of %d bytes is no disk; it must be whole sectors of 512 bytes", l.Size)
	}
	if err == nil {
		err = p.on(ctx, m, p.deadlines.Attach, func(ctx context.Context) error { return p.drv.Attach(ctx, m, l) })
	}
	return name(err, "attach %s %s to machine %s", l.Application, l.Version, m.ID())
}

// Attached returns the layers that can be started on the machine now, sorted.
func (p *Provider) Attached(ctx context.Context, m driver.Machine) (ds []estate.Digest, err error) {
	err = p.on(ctx, m, p.deadlines.Attached, func(ctx context.Context) error {
		ds, err = p.drv.Attached(ctx, m)
		return err
	})
	return ds, name(err, "list the applications attached to machine %s", m.ID())
}

// Start starts the application on the desktop and returns once its process
// runs. One that runs is success; a layer that is not attached is
// fault.Conflict.
func (p *Provider) Start(ctx context.Context, m driver.Machine, l driver.Layer, app driver.Launch) error {
	err := errors.Join(checkLayer(l), checkLaunch(app))
	if err == nil {
		err = p.on(ctx, m, p.deadlines.Start, func(ctx context.Context) error { return p.drv.Start(ctx, m, l, app) })
	}
	return name(err, "start %s on machine %s", l.Application, m.ID())
}

// Detach ends the application's processes and takes its layer away. An absent
// layer is success.
func (p *Provider) Detach(ctx context.Context, m driver.Machine, layer estate.Digest) error {
	var err error
	if text := layer.Problem(); text != "" {
		err = fault.Invalid.Errorf("%s", text)
	} else {
		err = p.on(ctx, m, p.deadlines.Detach, func(ctx context.Context) error { return p.drv.Detach(ctx, m, layer) })
	}
	return name(err, "detach layer %s from machine %s", layer.Short(), m.ID())
}

// Build makes a layer in a file of its own under dir and returns its path. A
// provider that makes no layers is fault.Unsupported. report may be nil.
func (p *Provider) Build(ctx context.Context, r driver.Recipe, dir string, report func(estate.Work)) (string, error) {
	b, ok := driver.As[driver.Builder](p.drv)
	if !ok {
		return "", fault.Unsupported.Errorf("cut %s into a layer: provider %s makes no layers", r.Application, p.offer.Name)
	}
	if report == nil {
		report = func(estate.Work) {}
	}
	if err := checkRecipe(r); err != nil {
		return "", name(err, "cut %s into a layer", r.Application)
	}
	ctx, cancel := context.WithTimeout(ctx, p.deadlines.Build)
	defer cancel()
	file, err := b.Build(ctx, r, dir, report)
	return file, name(ended(ctx, err), "cut %s into a layer", r.Application)
}

// on does work on a machine under a deadline, alone.
func (p *Provider) on(ctx context.Context, m driver.Machine, d time.Duration, work func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	done, err := p.wait(ctx, m.ID())
	if err != nil {
		return ended(ctx, err)
	}
	defer done()
	return ended(ctx, work(ctx))
}

// wait returns once nobody else works on the machine; done lets the next one in.
func (p *Provider) wait(ctx context.Context, id estate.MachineID) (done func(), err error) {
	p.mu.Lock()
	t := p.turns[id]
	if t == nil {
		t = &turn{token: make(chan struct{}, 1)}
		p.turns[id] = t
	}
	t.users++
	p.mu.Unlock()
	leave := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(p.turns, id)
		}
	}
	select {
	case t.token <- struct{}{}:
		return func() { <-t.token; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// ended gives an error that came of our own deadline the kind a caller can act
// on: the effect may or may not have happened.
func ended(ctx context.Context, err error) error {
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) && fault.KindOf(err) == fault.Internal {
		return fault.OutcomeUnknown.Errorf("it took too long: %w", err)
	}
	return err
}

// name says what was tried, keeping the kind.
func name(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}

func checkLayer(l driver.Layer) error {
	if text := l.Digest.Problem(); text != "" {
		return fault.Invalid.Errorf("%s", text)
	}
	return nil
}

func checkLaunch(app driver.Launch) error {
	switch {
	case len(app.Command) == 0 || app.Command[0] == "":
		return fault.Invalid.Errorf("no command; give the application one")
	case strings.HasPrefix(app.Command[0], "-"):
		return fault.Invalid.Errorf("command %q begins with a dash", app.Command[0])
	case slices.ContainsFunc(app.Command, func(s string) bool { return strings.ContainsAny(s, "\x00\n") }):
		return fault.Invalid.Errorf("a word of the command holds a line break or a zero byte")
	case app.User == "" || strings.Trim(app.User, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" || app.User[0] == '-':
		return fault.Invalid.Errorf("%q is not an account in a guest", app.User)
	case app.User == "root":
		return fault.Invalid.Errorf("applications do not run as root")
	case !path.IsAbs(app.Home) || path.Clean(app.Home) != app.Home || app.Home == "/" || strings.ContainsAny(app.Home, "\x00\n"):
		return fault.Invalid.Errorf("%q is not a home; give a clean absolute path", app.Home)
	}
	return nil
}

func checkRecipe(r driver.Recipe) error {
	switch {
	case len(r.Packages) == 0:
		return fault.Invalid.Errorf("no packages; name at least one")
	case !path.IsAbs(r.DpkgStatus):
		return fault.Invalid.Errorf("the image has no list of installed packages; build the image again")
	}
	for _, pkg := range r.Packages {
		if pkg == "" || strings.ContainsAny(pkg[:1], "-+.") || strings.ContainsAny(pkg, " \t\n\x00/") {
			return fault.Invalid.Errorf("%q is not a Debian package; write name or name=version", pkg)
		}
	}
	return nil
}

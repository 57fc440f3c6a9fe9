package hypervisor

import (
	"context"
	"slices"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// Freeze makes a running machine the template of that name; it is no machine any more.
func (h *Host) Freeze(ctx context.Context, id estate.MachineID, name string) error {
	c, err := keeping[driver.Cloner](ctx, h, id, estate.CanInstant)
	if err == nil && !diskRule.MatchString(name) {
		err = fault.Invalid.Errorf("%q does not name a template: lower-case letters, digits and dashes", name)
	}
	if err == nil {
		err = h.act(ctx, saveLimit, func(ctx context.Context) error { return c.Freeze(ctx, id, name) }, nil)
	}
	return h.named(err, "make template %s of machine %s", name, id)
}

// Templates returns the host's templates, in order of name.
func (h *Host) Templates(ctx context.Context) ([]driver.Template, error) {
	all, err := ask(ctx, h, "", estate.CanInstant, func(ctx context.Context, c driver.Cloner) ([]driver.Template, error) { return c.Templates(ctx) })
	return all, h.named(err, "list templates")
}

// Template returns one template. An unknown name is fault.NotFound.
func (h *Host) Template(ctx context.Context, name string) (driver.Template, error) {
	all, err := h.Templates(ctx)
	if err != nil {
		return driver.Template{}, err
	}
	i := slices.IndexFunc(all, func(t driver.Template) bool { return t.Name == name })
	if i < 0 {
		return driver.Template{}, fault.NotFound.Errorf("hypervisor %s has no template %s", h.name, name)
	}
	return all[i], nil
}

// DropTemplate forgets a template; machines that go on from it stay.
func (h *Host) DropTemplate(ctx context.Context, name string) error {
	err := effect(ctx, h, "", estate.CanInstant, func(ctx context.Context, c driver.Cloner) error { return c.DropTemplate(ctx, name) }, nil)
	return h.named(err, "drop template %s", name)
}

// Join plugs a clone's network cards in.
func (h *Host) Join(ctx context.Context, id estate.MachineID) error {
	err := effect(ctx, h, id, estate.CanInstant, func(ctx context.Context, c driver.Cloner) error { return c.Join(ctx, id) }, nil)
	return h.named(err, "plug in the network cards of machine %s", id)
}

// Pause has the guest of a running machine stand still; Start has it go on.
func (h *Host) Pause(ctx context.Context, id estate.MachineID) error {
	err := effect(ctx, h, id, estate.CanPause, func(ctx context.Context, p driver.Pauser) error { return p.Pause(ctx, id) },
		func(ctx context.Context) (bool, error) {
			m, err := h.Get(ctx, id)
			return err == nil && m.Power == estate.Paused, err
		})
	return h.named(err, "pause machine %s", id)
}

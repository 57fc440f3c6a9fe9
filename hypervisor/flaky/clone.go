package flaky

import (
	"context"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

// Freeze implements driver.Cloner.
func (h *host) Freeze(ctx context.Context, id estate.MachineID, name string) error {
	return ability(ctx, h, func(c driver.Cloner) error { return c.Freeze(ctx, id, name) })
}

// Templates implements driver.Cloner.
func (h *host) Templates(ctx context.Context) (all []driver.Template, err error) {
	err = ability(ctx, h, func(c driver.Cloner) (err error) { all, err = c.Templates(ctx); return err })
	return all, err
}

// DropTemplate implements driver.Cloner.
func (h *host) DropTemplate(ctx context.Context, name string) error {
	return ability(ctx, h, func(c driver.Cloner) error { return c.DropTemplate(ctx, name) })
}

// Join implements driver.Cloner.
func (h *host) Join(ctx context.Context, id estate.MachineID) error {
	return ability(ctx, h, func(c driver.Cloner) error { return c.Join(ctx, id) })
}

// Pause implements driver.Pauser.
func (h *host) Pause(ctx context.Context, id estate.MachineID) error {
	return ability(ctx, h, func(p driver.Pauser) error { return p.Pause(ctx, id) })
}

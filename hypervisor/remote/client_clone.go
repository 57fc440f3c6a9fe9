package remote

import (
	"context"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

// Freeze implements driver.Cloner.
func (h *host) Freeze(ctx context.Context, id estate.MachineID, name string) error {
	return h.c.ask(ctx, "freeze", call{ID: id, Name: name}, new(any))
}

// Templates implements driver.Cloner.
func (h *host) Templates(ctx context.Context) (all []driver.Template, err error) {
	err = h.c.ask(ctx, "templates", call{}, &all)
	return all, err
}

// DropTemplate implements driver.Cloner.
func (h *host) DropTemplate(ctx context.Context, name string) error {
	return h.c.ask(ctx, "drop-template", call{Name: name}, new(any))
}

// Join implements driver.Cloner.
func (h *host) Join(ctx context.Context, id estate.MachineID) error {
	return h.c.ask(ctx, "join", call{ID: id}, new(any))
}

// Pause implements driver.Pauser.
func (h *host) Pause(ctx context.Context, id estate.MachineID) error {
	return h.c.ask(ctx, "pause", call{ID: id}, new(any))
}

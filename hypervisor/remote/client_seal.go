package remote

import (
	"context"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

// Key implements driver.Sealer.
func (h *host) Key(ctx context.Context, id estate.MachineID) (key driver.Key, err error) {
	err = h.c.ask(ctx, "key", call{ID: id}, &key)
	return key, err
}

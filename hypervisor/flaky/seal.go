package flaky

import (
	"context"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

// Key implements driver.Sealer.
func (h *host) Key(ctx context.Context, id estate.MachineID) (key driver.Key, err error) {
	err = ability(ctx, h, func(s driver.Sealer) (err error) { key, err = s.Key(ctx, id); return err })
	return key, err
}

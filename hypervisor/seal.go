package hypervisor

import (
	"context"
	"errors"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// Key tells which key a sealed machine writes with, and whether it is still there.
func (h *Host) Key(ctx context.Context, id estate.MachineID) (driver.Key, error) {
	key, err := ask(ctx, h, id, estate.CanEncryptDisk, func(ctx context.Context, s driver.Sealer) (driver.Key, error) { return s.Key(ctx, id) })
	return key, h.named(err, "ask which key machine %s has", id)
}

// unsealed returns fault.Unsupported for a sealed machine: what it holds is never
// kept, copied or carried away, nor anything put there. One that is not there is
// left to the driver.
func (h *Host) unsealed(ctx context.Context, id estate.MachineID) error {
	if !h.desc.Has(estate.CanEncryptDisk) {
		return nil
	}
	m, err := h.Get(ctx, id)
	switch {
	case errors.Is(err, fault.NotFound):
		return nil
	case err == nil && m.Def.Sealed:
		err = fault.Unsupported.Errorf("the machine is sealed: what it holds is lost when it ends, and is kept nowhere before; delete it, and make another")
	}
	return err
}

// keeping is ability for what keeps, or carries away, what a machine holds.
func keeping[T any](ctx context.Context, h *Host, id estate.MachineID, c estate.Capability) (t T, err error) {
	if t, err = ability[T](ctx, h, id, c); err == nil {
		err = h.unsealed(ctx, id)
	}
	return t, err
}

// opened is keeping for an act that may be repeated: each time, the machine must
// not be sealed.
func opened[T any](h *Host, id estate.MachineID, act func(context.Context, T) error) func(context.Context, T) error {
	return func(ctx context.Context, t T) error {
		if err := h.unsealed(ctx, id); err != nil {
			return err
		}
		return act(ctx, t)
	}
}

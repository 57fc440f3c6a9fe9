package qemu

import (
	"context"

	"consort.dev/consort/estate"
)

// Resize implements driver.Resizer.
func (h *Host) Resize(ctx context.Context, id estate.MachineID, cpus int, memory estate.Bytes) error {
	m, err := h.existing(ctx, id)
	if err != nil {
		return err
	}
	defer h.done(m)
	if err := m.mustBeOff(); err != nil {
		return err
	}
	r := m.record()
	r.Def.CPUs, r.Def.Memory, r.Saved = cpus, memory, nil
	if err := m.save(r); err != nil {
		return err
	}
	return m.sweep()
}

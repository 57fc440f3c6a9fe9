package fakehost

import (
	"context"
	"crypto/rand"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// Key implements driver.Sealer.
func (h *Host) Key(ctx context.Context, id estate.MachineID) (driver.Key, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.machine(id)
	if err == nil && !m.Def.Sealed {
		err = fault.Invalid.Errorf("machine %s is not sealed", id)
	}
	if err != nil {
		return driver.Key{}, err
	}
	return driver.Key{ID: m.key, Held: m.Power != estate.Off || m.Starts == 0}, ctx.Err()
}

// seal gives a machine that is being made its key.
func (m *machine) seal() {
	if m.Def.Sealed {
		m.key = rand.Text()
	}
}

// spent says why a machine that is off is not started again.
func (m *machine) spent() error {
	if m.Def.Sealed && m.Starts > 0 {
		return fault.Conflict.Errorf("machine %s is sealed and was started before: its key is gone", m.ID)
	}
	return nil
}

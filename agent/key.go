package agent

import (
	"context"
	"errors"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// keepKey tells which key a sealed machine writes with, and reports whether it is
// gone: then nothing more is done to the machine, which is off for good. Whoever
// had it made has it removed.
func (k *keeper) keepKey(ctx context.Context, m *estate.Machine, have driver.Machine) (lost bool, err error) {
	if !m.Spec.Sealed || !have.Def.Sealed {
		return false, nil // there is none yet
	}
	key, err := k.agent.Host.Key(ctx, k.id)
	if err != nil {
		return false, err
	}
	return !key.Held, k.tell(ctx, m, func(s *estate.MachineStatus) {
		s.Key = key.ID
		if key.Held {
			return
		}
		s.Power, s.Guest, s.Layers, s.Display = estate.Off, estate.GuestStatus{}, nil, ""
		s.Waiting = "its key is gone: what it wrote is lost, and it does not start again"
		if s.Lost.IsZero() {
			s.Lost = k.agent.Now()
		}
	})
}

// noteKey tells which key goes, before it does: afterwards nobody knows.
func (k *keeper) noteKey(ctx context.Context, m *estate.Machine) error {
	if !m.Spec.Sealed {
		return nil
	}
	key, err := k.agent.Host.Key(ctx, k.id)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return k.tellOfKey(ctx, m, func(s *estate.MachineStatus) { s.Key = key.ID })
}

// tellLost tells that the key of a machine that was removed is gone.
func (k *keeper) tellLost(ctx context.Context, m *estate.Machine) error {
	if !m.Spec.Sealed {
		return nil
	}
	return k.tellOfKey(ctx, m, func(s *estate.MachineStatus) {
		s.Power = estate.Off
		if s.Key != "" && s.Lost.IsZero() {
			s.Lost = k.agent.Now()
		}
	})
}

// tellOfKey is tell for a machine that may have been forgotten meanwhile.
func (k *keeper) tellOfKey(ctx context.Context, m *estate.Machine, change func(*estate.MachineStatus)) error {
	err := k.tell(ctx, m, change)
	if errors.Is(err, fault.NotFound) || errors.Is(err, fault.Stale) {
		return nil
	}
	return err
}

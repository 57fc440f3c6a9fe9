package agent_test

import (
	"testing"

	"consort.dev/consort/estate"
)

// TestASealedMachineRunsOnce has one go off: it is not started again, and what
// became of its key is told, also when it is removed.
func TestASealedMachineRunsOnce(t *testing.T) {
	h := newHouse(t)
	h.employ()
	m := h.order(func(m *estate.Machine) { m.Spec.Sealed = true })
	h.running()
	h.until("the key is named", func() bool { return h.status().Key != "" && h.status().Lost.IsZero() })
	have, _ := h.held(m)
	if !have.Def.Sealed {
		t.Fatalf("the host has %+v, want it sealed", have.Def)
	}
	key := h.status().Key
	h.memory.PowerOff(have.ID)
	h.want(func(s *estate.MachineSpec) { s.Layers = nil; s.Epoch++ }) // look soon
	h.until("the key is lost", func() bool { return !h.status().Lost.IsZero() && h.status().Power == estate.Off })
	if now, _ := h.held(m); now.Starts != 1 || h.status().Key != key {
		t.Errorf("it was started %d times and key %s is lost, want once and %s", now.Starts, h.status().Key, key)
	}
}

func TestATemplateForSealedMachinesIsOpen(t *testing.T) {
	h := newHouse(t)
	h.employ()
	m := h.order(func(m *estate.Machine) { clone(m); m.Spec.Sealed = true })
	h.running()
	have, _ := h.held(m)
	templates, err := h.memory.Templates(t.Context())
	if err != nil || len(templates) != 1 || templates[0].Def.Sealed || !have.Def.Sealed || have.Def.Template != templates[0].Name {
		t.Errorf("the machine is %+v, templates are %+v, %v; want it sealed, and to go on from one that is not", have.Def, templates, err)
	}
}

package agent_test

import (
	"context"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// TestTheFirstStartAfterEachPowerOnIsMeasured starts an application twice after
// each start of its machine, once with another agent.
func TestTheFirstStartAfterEachPowerOnIsMeasured(t *testing.T) {
	h := newHouse(t)
	slow, fails := 300*time.Millisecond, false
	h.apps.Wait = func(_ context.Context, verb string, _ estate.MachineID) error {
		switch {
		case verb == "start" && fails:
			return fault.Stuck.Errorf("it ended at once")
		case verb == "start":
			time.Sleep(slow)
		}
		return nil
	}
	kill := h.employ()
	writer := h.layer("writer")
	m := h.order(func(m *estate.Machine) { m.Spec.Layers = []estate.Layer{writer} })
	for round := 1; round <= 3; round++ {
		h.until("the layer is attached", func() bool { ls := h.status().Layers; return len(ls) == 1 && ls[0].Attached })
		if round == 3 {
			kill()
			h.employ()
			fails = true
			if err := h.start(m, writer); err == nil {
				t.Error("an application that ends at once was started")
			}
			fails = false
		}
		for range 2 {
			h.must(h.start(m, writer))
		}
		h.until("the start is told", func() bool { return len(h.status().Launches) == round })
		h.want(func(s *estate.MachineSpec) { s.Power = estate.Off })
		h.until("it is off", func() bool { return h.status().Power == estate.Off })
		h.want(func(s *estate.MachineSpec) { s.Power = estate.On })
	}
	all := h.status().Launches
	for i, l := range all {
		if took := time.Duration(l.Took); l.Application != "writer" || l.Hypervisor != "here" || took < slow || took > soon {
			t.Errorf("start %d is told as %+v, want writer here in %s or a little more", i, l, slow)
		}
		if i > 0 && !l.At.After(all[i-1].At) {
			t.Errorf("start %d was at %s, before the one that came before", i, l.At)
		}
	}
	if len(all) != 3 {
		t.Errorf("%d starts are told, want 3: of six that worked, those after the first of a power-on may have found it running", len(all))
	}
}

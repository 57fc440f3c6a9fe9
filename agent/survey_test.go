package agent_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

const stranger = estate.MachineID("11111111-1111-4111-8111-111111111111")

// adopt has the plane adopt what the agent found.
func (h *house) adopt(id estate.MachineID) *estate.Machine {
	h.t.Helper()
	h.until("it is found", func() bool { return len(h.hypervisor().Found) == 1 && h.hypervisor().Found[0].ID == id })
	client, err := api.NewClient(api.Options{Server: h.plane.URL})
	h.must(err)
	defer client.Close()
	m, err := client.Adopt(h.t.Context(), "here", api.AdoptRequest{ID: id, Project: "p", Name: "ana-office"})
	h.must(err)
	return m
}

func TestAMachineOfOthersIsSeenAdoptedAndGivenBackUntouched(t *testing.T) {
	h := newHouse(t)
	h.must(h.store.Create(t.Context(), &estate.Project{Head: estate.Head{Kind: "Project", Metadata: estate.Metadata{Name: "p"}}}))
	h.memory.Plant(estate.Found{ID: stranger, Name: "payroll", Power: estate.On, CPUs: 2, Memory: estate.GiB})
	h.employ()
	m := h.adopt(stranger)
	h.until("it is ours and reported", func() bool { return h.status().Power == estate.On && h.status().Is(estate.Ready) })
	have, here := h.held(m)
	if !here || have.Starts > 1 || have.Def.Name != "payroll" {
		t.Errorf("the host has %+v", have)
	}
	started := have.Started
	h.until("it is no longer a stranger", func() bool { return len(h.hypervisor().Found) == 0 })

	h.must(h.store.Delete(t.Context(), m.Ref(), 0))
	h.until("it is let go", func() bool {
		_, err := h.store.Load(t.Context(), m.Ref())
		return errors.Is(err, fault.NotFound)
	})
	found, err := h.memory.Survey(t.Context())
	h.must(err)
	if len(found) != 1 || found[0].Power != estate.On || found[0].Name != "payroll" {
		t.Errorf("given back: %+v", found)
	}
	if started.IsZero() {
		t.Error("it never ran while it was ours")
	}
}

func TestWhatAVendorsConsoleChangedIsToldAndNotUndone(t *testing.T) {
	h := newHouse(t)
	h.employ()
	m := h.order(nil)
	h.running()
	h.want(func(s *estate.MachineSpec) { s.Power = estate.Off })
	h.until("it is off", func() bool { return h.status().Power == estate.Off })
	id := estate.MachineID(m.Metadata.UID)
	h.must(h.memory.Resize(t.Context(), id, 4, 2*estate.GiB))
	h.until("the drift is told", func() bool {
		return h.status().Is("Drifted") && strings.Contains(h.status().Get("Drifted").Text, "it has 4 CPUs where 2 are wanted; it has 2Gi of memory where 1Gi is wanted")
	})
	if have, _ := h.held(m); have.Def.CPUs != 4 {
		t.Errorf("it has %d CPUs: the change was undone", have.Def.CPUs)
	}
	h.must(h.memory.Resize(t.Context(), id, 2, estate.GiB))
	h.until("the drift is over", func() bool { return !h.status().Is("Drifted") && h.status().Get("Drifted").Text == "" })
}

func TestAnUnknownPowerStateTriggersNothing(t *testing.T) {
	h := newHouse(t)
	h.employ()
	m := h.order(nil)
	h.running()
	id := estate.MachineID(m.Metadata.UID)
	h.must(h.memory.Stop(t.Context(), id, 0))
	see, err := h.memory.Blind(t.Context(), id)
	h.must(err)
	h.until("it is told", func() bool { return h.status().Power == estate.PowerUnknown })
	before, _ := h.held(m)
	looked := time.Now()
	h.want(func(s *estate.MachineSpec) { s.Layers = nil; s.Epoch++ }) // one more look
	h.until("it was looked at again", func() bool { return h.status().Epoch == 6 })
	if after, _ := h.held(m); after.Starts > before.Starts {
		t.Errorf("it was started %s after nobody could tell whether it ran", time.Since(looked))
	}
	see()
	h.until("it runs again", func() bool { return h.status().Power == estate.On })
}

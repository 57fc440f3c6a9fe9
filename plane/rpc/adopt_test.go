package rpc

import (
	"errors"
	"testing"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
)

const (
	payroll = estate.MachineID("11111111-1111-4111-8111-111111111111")
	passed  = estate.MachineID("22222222-2222-4222-8222-222222222222")
	hazy    = estate.MachineID("33333333-3333-4333-8333-333333333333")
)

// finds has the agent of hypervisor a tell of machines that are not ours.
func (p *plane) finds() {
	p.t.Helper()
	_, err := store.Modify(p.t.Context(), p.store, "", "a", func(h *estate.Hypervisor) error {
		h.Status.Found = []estate.Found{
			{ID: payroll, Name: "payroll", Power: estate.On, CPUs: 2, Memory: 512 * estate.MiB, Disks: []estate.FoundDisk{{Name: "vda", Size: estate.GiB}}},
			{ID: passed, Name: "passthrough", Power: estate.Off, CPUs: 1, Memory: 64 * estate.MiB, Obstacle: "it has a device of the host's"},
			{ID: hazy, Name: "hazy", Power: estate.PowerUnknown, CPUs: 1, Memory: 64 * estate.MiB},
		}
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

func TestAnAdoptedMachineKeepsItsUUIDAndItsPower(t *testing.T) {
	p := start(t)
	p.office()
	p.finds()
	m, err := p.as("root").Adopt(t.Context(), "a", api.AdoptRequest{ID: payroll, Project: "p", Name: "pay"})
	if err != nil {
		t.Fatal(err)
	}
	stored, err := store.Get[estate.Machine](t.Context(), p.store, "p", "pay")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*estate.Machine{m, stored} {
		if m.Metadata.UID != string(payroll) || m.Spec.Power != estate.On || !m.Spec.Adopted || m.Spec.Hypervisor != "a" || m.Spec.Epoch != 1 {
			t.Errorf("adopted %+v %+v", m.Metadata, m.Spec)
		}
	}
	if hw := stored.Spec.Hardware; hw.CPUs != 2 || hw.Memory != 512*estate.MiB || len(hw.Disks) != 1 || hw.Disks[0].Name != "vda" {
		t.Errorf("its hardware is %+v", hw)
	}
	_, err = p.as("root").Adopt(t.Context(), "a", api.AdoptRequest{ID: payroll, Project: "p", Name: "again"})
	if !errors.Is(err, fault.Exists) {
		t.Errorf("adopting it under another name: %v, want exists", err)
	}
}

func TestAdoptRefuses(t *testing.T) {
	p := start(t)
	p.office()
	p.finds()
	for _, c := range []struct {
		who  string
		id   estate.MachineID
		name string
		want fault.Kind
	}{
		{"root", passed, "one", fault.Unsupported},
		{"root", hazy, "two", fault.Conflict},
		{"root", "44444444-4444-4444-8444-444444444444", "three", fault.NotFound},
		{"root", payroll, "Not A Name", fault.Invalid},
		{"ana", payroll, "four", fault.NotFound},
		{"agent-a", payroll, "five", fault.Denied},
	} {
		_, err := p.as(c.who).Adopt(t.Context(), "a", api.AdoptRequest{ID: c.id, Project: "p", Name: c.name})
		if !errors.Is(err, c.want) {
			t.Errorf("%s adopts %s as %q: %v, want %v", c.who, c.id, c.name, err, c.want)
		}
	}
	if _, err := p.as("root").Adopt(t.Context(), "a", api.AdoptRequest{ID: payroll, Project: "p", Name: "dry", DryRun: true}); err != nil {
		t.Error(err)
	}
	all, _, err := store.List[estate.Machine](t.Context(), p.store, "")
	if err != nil || len(all) != 0 {
		t.Errorf("%d machines stored, %v; want none", len(all), err)
	}
}

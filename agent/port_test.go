package agent_test

import (
	"context"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/fakehost"
)

// joiner is a host that joins machines to networks in the form given.
type joiner struct {
	*fakehost.Host
	form string
}

// Describe implements driver.Host.
func (j joiner) Describe(ctx context.Context) (driver.Description, error) {
	d, err := j.Host.Describe(ctx)
	d.Capabilities = append(d.Capabilities, estate.CapabilityReport{Name: estate.CanNetwork, Has: true, Value: j.form})
	return d, err
}

func TestAHostThatHasNetworksIsToldTheirNames(t *testing.T) {
	h := newHouse(t)
	h.host = joiner{h.memory, estate.NetworkByName}
	h.employ()
	m := h.order(func(m *estate.Machine) { m.Spec.Hardware.NICs = []estate.NIC{{Network: "lan"}} })
	h.until("it runs", func() bool { return h.status().Power == estate.On })
	have, _ := h.held(m)
	want := driver.NIC{Name: "lan", MAC: estate.MACFor(estate.MachineID(m.Metadata.UID), 0)}
	if len(have.Def.NICs) != 1 || have.Def.NICs[0] != want {
		t.Errorf("its NICs are %+v, want %+v", have.Def.NICs, want)
	}
	if can := h.hypervisor().Can(estate.CanNetwork); !can.Has {
		t.Errorf("the plane is told that it has no networks: %s", can.Reason)
	}
}

func TestAHostWhoseNetworksWeMakeNeedsOurHelp(t *testing.T) {
	h := newHouse(t)
	h.host = joiner{h.memory, estate.NetworkByBridge}
	h.employ()
	h.order(func(m *estate.Machine) { m.Spec.Hardware.NICs = []estate.NIC{{Network: "lan"}} })
	h.until("it says what is missing", func() bool {
		return h.status().Waiting == "no networks on this host: tests make no networks"
	})
	if can := h.hypervisor().Can(estate.CanNetwork); can.Has || can.Reason != "tests make no networks" {
		t.Errorf("the plane is told %+v", can)
	}
}

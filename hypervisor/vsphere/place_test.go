package vsphere

import (
	"errors"
	"strings"
	"testing"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

func TestAPlaceThatIsNotSaidIsAskedFor(t *testing.T) {
	s := simulate(t)
	for query, want := range map[string]string{
		"host=elsewhere": `no host is named "elsewhere": there are DC0_C0_H0, DC0_C0_H1`,
		"datacenter=DC9": `no datacenter is named "DC9": there are DC0`,
		"cluster=C9":     `no cluster is named "C9": there are DC0_C0`,
		"datastore=nfs":  `no datastore is named "nfs": there are LocalDS_0`,
	} {
		_, err := Open(t.Context(), s.config(query))
		if !errors.Is(err, fault.Invalid) || err.Error() != want {
			t.Errorf("%s: Open = %v, want %s", query, err, want)
		}
	}
}

// vSphere HA would start a machine that we have started elsewhere by then.
func TestMachinesThatHAWouldStartAreRefused(t *testing.T) {
	s := simulate(t)
	h := s.open(t)
	def := definition(s.base(t))
	ha := func(on bool) {
		t.Helper()
		cluster := object.NewClusterComputeResource(h.client, h.place.compute)
		task, err := cluster.Reconfigure(t.Context(), &types.ClusterConfigSpecEx{DasConfig: &types.ClusterDasConfigInfo{Enabled: &on}}, true)
		if err == nil {
			err = task.Wait(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Define(t.Context(), def); err != nil {
		t.Fatal(err)
	}
	theirs, err := stranger(h)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ha(true)
	other := def
	other.ID = "5b000000-0000-4000-8000-000000000002"
	for what, err := range map[string]error{
		"Define": h.Define(t.Context(), other),
		"Start":  h.Start(t.Context(), def.ID),
	} {
		if !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "vSphere HA of cluster DC0_C0") {
			t.Errorf("%s = %v, want a conflict with vSphere HA", what, err)
		}
	}
	if err := h.Adopt(t.Context(), theirs); !errors.Is(err, fault.Unsupported) {
		t.Errorf("Adopt = %v, want unsupported", err)
	}
	if found, err := h.Survey(t.Context()); err != nil || len(found) != 1 || !strings.Contains(found[0].Obstacle, "vSphere HA") {
		t.Errorf("Survey = %+v, %v; want HA for an obstacle", found, err)
	}
	ha(false)
	if err := errors.Join(h.Define(t.Context(), other), h.Start(t.Context(), def.ID)); err != nil {
		t.Error(err)
	}
}

// Of a machine whose configuration is out of reach, the inventory has the name.
func TestAMachineOutOfReachIsStillOurs(t *testing.T) {
	h := &Host{place: place{scope: "here", hosts: []types.ManagedObjectReference{{Type: "HostSystem", Value: "host-1"}}}}
	read := func(name, host string) *vm {
		return newVM(types.ObjectContent{PropSet: []types.DynamicProperty{
			{Name: "name", Val: name},
			{Name: "runtime.connectionState", Val: types.VirtualMachineConnectionStateInaccessible},
			{Name: "runtime.powerState", Val: types.VirtualMachinePowerStatePoweredOff},
			{Name: "runtime.host", Val: types.ManagedObjectReference{Type: "HostSystem", Value: host}},
		}})
	}
	v := read(vmName(driver.Definition{ID: someID, Name: "desk"}), "host-1")
	if !h.owns(v) || v.rec.ID != someID || v.power() != estate.PowerUnknown {
		t.Errorf("read as %+v, %s; want ours, unknown", v, v.power())
	}
	if h.owns(read("desk", "host-1")) || h.owns(read(vmName(driver.Definition{ID: someID}), "host-2")) {
		t.Error("a machine of others, or of another place, is ours")
	}
}

// Whoever clones a machine in vSphere copies our note with it.
func TestACloneIsNotOurs(t *testing.T) {
	rec := option(recordKey, record{ID: someID, Scope: "here"}).GetOptionValue()
	read := func(uuid string) *vm {
		return newVM(types.ObjectContent{PropSet: []types.DynamicProperty{
			{Name: "config.uuid", Val: uuid}, {Name: extra(recordKey), Val: *rec},
		}})
	}
	h := &Host{place: place{scope: "here"}}
	if !h.owns(read(strings.ToUpper(string(someID)))) || h.owns(read("5b000000-0000-4000-8000-000000000002")) {
		t.Error("a note is worth something under its own UUID only")
	}
}

func TestNamesFitVSphere(t *testing.T) {
	for name, want := range map[string]string{
		"desk":                   "desk (" + string(someID) + ")",
		"":                       "(" + string(someID) + ")",
		`a/b\c%`:                 "a-b-c- (" + string(someID) + ")",
		strings.Repeat("ä", 100): strings.Repeat("ä", 20) + " (" + string(someID) + ")",
	} {
		got := vmName(driver.Definition{ID: someID, Name: name})
		if got != want || len(got) > maxName {
			t.Errorf("vmName(%q) = %q of %d bytes, want %q", name, got, len(got), want)
		}
		if id, ok := idInName(got); !ok || id != someID {
			t.Errorf("idInName(%q) = %q, %v", got, id, ok)
		}
	}
}

// A network is joined by the vendor's own name for it.
func TestCardsJoinNetworksByName(t *testing.T) {
	s := simulate(t)
	h := s.open(t)
	def := definition(s.base(t))
	for _, c := range []struct {
		nic  driver.NIC
		want error
	}{
		{driver.NIC{MAC: "02:00:00:00:00:01", Tap: "tap0"}, fault.Unsupported},
		{driver.NIC{MAC: "02:00:00:00:00:01", Name: "no such"}, fault.Invalid},
		{driver.NIC{MAC: "02:00:00:00:00:01", Name: "DC0_DVPG0"}, nil},
	} {
		def.NICs = []driver.NIC{c.nic}
		if err := h.Define(t.Context(), def); !errors.Is(err, c.want) {
			t.Errorf("Define with %+v = %v, want %v", c.nic, err, c.want)
		}
	}
	v, err := h.existing(t.Context(), someID)
	if err != nil || len(v.nics()) != 1 || v.nics()[0].MAC != "02:00:00:00:00:01" {
		t.Errorf("the machine has %+v, %v", v, err)
	}
}

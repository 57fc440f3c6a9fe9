package fleet

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/test/nested"
)

// witness asks a hypervisor's own tool, which is not ours, whether it runs a
// machine.
type witness func(id string) (running bool, err error)

func virsh(args ...string) witness {
	return func(id string) (bool, error) {
		out, err := exec.Command("virsh", append(args, "list", "--uuid", "--state-running")...).CombinedOutput()
		if err != nil {
			return false, fmt.Errorf("virsh: %w: %s", err, out)
		}
		return strings.Contains(string(out), id), nil
	}
}

func virshInside(h *nested.Host, uri string) witness {
	return func(id string) (bool, error) {
		out, err := h.Run(context.Background(), nil, "virsh", "-c", uri, "list", "--uuid", "--state-running")
		return strings.Contains(string(out.Stdout), id), err
	}
}

// process looks for the machine's process on this host, by what kernel shows.
func process(dir string) witness {
	return func(id string) (bool, error) {
		out, err := exec.Command("pgrep", "-f", "-a", "^[^ ]*qemu-system.*"+id).Output()
		if err != nil && len(out) > 0 {
			return false, err
		}
		return strings.Contains(string(out), dir), nil
	}
}

// machine makes a machine of an image and waits for its guest.
func (f *Fleet) machine(name, on, image string) *estate.Machine {
	f.t.Helper()
	img := f.image(image)
	m := &estate.Machine{
		Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Machine", Metadata: estate.Metadata{Name: name, Project: "default", Finalizers: []string{estate.AgentFinalizer}}},
		Spec: estate.MachineSpec{Only: on, Power: estate.On, Hardware: estate.Hardware{
			CPUs: 1, Memory: 512 * estate.MiB, Disks: []estate.Disk{{Name: "root", Image: img.Status.Digest}},
		}},
	}
	if err := f.Client.Put(f.t.Context(), m, api.Write{Create: true}); err != nil {
		f.t.Fatal(err)
	}
	return f.answering(name)
}

// guestLimit is how long a guest may take to answer inside two emulations.
const guestLimit = 12 * time.Minute

// answering waits until the machine's guest answers.
func (f *Fleet) answering(name string) (m *estate.Machine) {
	f.t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var err error
	for end := time.Now().Add(guestLimit); ; <-tick.C {
		m, err = api.Get[estate.Machine](f.t.Context(), f.Client, "default", name)
		if err == nil && m.Status.Guest.Agent && m.Status.Power == estate.On {
			return m
		}
		if time.Now().After(end) {
			f.t.Fatalf("the guest of %s does not answer within %v: %v, %+v", name, guestLimit, err, m.Status)
		}
	}
}

// everyPair goes once from each of four hypervisors to each other one, and once
// between each and Xen's other type of guest; from local back to local.
var everyPair = []string{
	"virt", "local", "xen", "local", "kvm", "virt", "xen", "virt", "kvm", "xen", "kvm", "local",
	"xen/pv", "virt", "xen/pv", "kvm", "xen/pv", "local",
}

// TestAMachineGoesRoundAllVendors carries a guest with a file from one vendor's
// hypervisor to the next and back to the first, and asks the vendors' own tools
// where it runs. CONSORT_PAIRS=all takes every ordered pair.
func TestAMachineGoesRoundAllVendors(t *testing.T) {
	if os.Getenv("CONSORT_JOURNEYS") == "" {
		t.Skip("needs minutes and nested hosts: make test-moves")
	}
	f := New(t, "testdata/tiny.yaml")
	daemon := f.Libvirt("virt")
	xen := nested.Xen(t)
	f.Nested("xen", "xen", "", xen)
	witnesses := map[string]witness{
		"local": process(f.Dir + "/up/"), "virt": virsh("-c", "qemu+unix:///system?socket="+daemon.Socket), "xen": virshInside(xen, "xen:///system"),
	}
	path := []string{"virt", "xen", "local"}
	if os.Getenv("CONSORT_PAIRS") == "all" {
		kvm := nested.KVM(t)
		f.Nested("kvm", "libvirt", "qemu:///system", kvm)
		witnesses["kvm"] = virshInside(kvm, "qemu:///system")
		path = everyPair
	}
	id := f.machine("traveller", "local", "tiny").Metadata.UID
	f.Must("exec", "traveller", "--", "sh", "-c", "echo carried along > /root/luggage; sync")
	for _, hop := range path {
		began := time.Now()
		to, guestType, _ := strings.Cut(hop, "/")
		t.Logf("to %s:\n%s", hop, f.Must("move", "machine", "traveller", "--to", to, "--guest-type", guestType))
		m := f.answering("traveller")
		t.Logf("%s has it after %v", hop, time.Since(began).Round(time.Second))
		if guestType != "" {
			if got := f.Must("exec", "traveller", "--", "cat", "/sys/hypervisor/guest_type"); !strings.EqualFold(strings.TrimSpace(got), guestType) {
				t.Errorf("its kernel says that it is a guest of type %q, want %s", got, guestType)
			}
		}
		if m.Spec.Hypervisor != to || m.Spec.Moving != nil || m.Metadata.UID != id {
			t.Errorf("it is %+v", m.Spec)
		}
		if got := f.Must("exec", "traveller", "--", "cat", "/root/luggage"); got != "carried along\n" {
			t.Errorf("on %s the file holds %q", to, got)
		}
		for name, asks := range witnesses {
			running, err := asks(id)
			if err != nil || running != (name == to) {
				t.Errorf("%s itself says that it runs it: %v, %v; it should run on %s", name, running, err, to)
			}
		}
	}
	f.hashesAreEqual(t, len(path))
}

// hashesAreEqual checks that every move told a digest of what it carried.
func (f *Fleet) hashesAreEqual(t *testing.T, moves int) {
	t.Helper()
	all, _, err := api.List[estate.Operation](t.Context(), f.Client, api.Filter{Project: "default"})
	if err != nil || len(all) != moves {
		t.Fatalf("%d operations, %v; want %d", len(all), err, moves)
	}
	for _, o := range all {
		if o.Status.State != estate.OperationDone || len(o.Status.Disks) != 1 || o.Status.Disks[0].Digest == "" {
			t.Errorf("%s is %s with %+v", o.Metadata.Name, o.Status.State, o.Status.Disks)
		}
	}
}

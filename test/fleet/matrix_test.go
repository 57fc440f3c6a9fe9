package fleet

import (
	"flag"
	"path/filepath"
	"strconv"
	"testing"

	"consort.dev/consort/test/nested"
)

var (
	matrixOut = flag.String("matrix", "", "measure all hypervisors and write the result to this file")
	workloads = flag.String("program", "", "the guest's workloads, built static")
	repeats   = flag.Int("repeats", 5, "how often each workload runs on each hypervisor")
)

// TestMatrix measures every hypervisor that is real here, twice, and shows what
// differs between the two runs. It is what make bench-matrix runs, and measures
// nothing without -matrix.
func TestMatrix(t *testing.T) {
	if *matrixOut == "" {
		t.Skip("a measurement, not a test: make bench-matrix")
	}
	f := New(t, "../../examples/small-desktop/image.yaml", "testdata/lan.yaml")
	f.Libvirt("libvirt")
	f.UML("uml")
	f.Nested("kvm", "libvirt", "qemu:///system", nested.KVM(t))
	f.Nested("xen", "xen", "", nested.Xen(t))
	f.image("small-desktop")
	for run := range 2 {
		args := []string{"matrix", "run", "--image", "small-desktop", "--network", "lan", "--program", *workloads, "--repeats", strconv.Itoa(*repeats)}
		if run == 0 {
			args = append(args, "--out", filepath.Clean(*matrixOut))
		}
		t.Logf("run %d:\n%s", run+1, f.Must(args...))
	}
	t.Logf("the second run against the first:\n%s", f.Must("matrix", "diff"))
}

package fleet

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"consort.dev/consort/test/nested"
)

var (
	matrixOut = flag.String("matrix", "", "measure all hypervisors and write the result to this file")
	workloads = flag.String("program", "", "the guest's workloads, built static")
	repeats   = flag.Int("repeats", 5, "how often each workload runs on each hypervisor")
	runs      = flag.Int("runs", 2, "how many runs; the last two are compared")
	columns   = flag.String("on", "local,libvirt,uml,kvm,xen/pvh", "which hypervisors")
)

// TestMatrix measures every hypervisor that is real here, twice, and shows what
// differs between the two runs. It is what make bench-matrix runs, and measures
// nothing without -matrix. What was measured is kept, whatever fails.
func TestMatrix(t *testing.T) {
	if *matrixOut == "" {
		t.Skip("a measurement, not a test: make bench-matrix")
	}
	f := New(t, "../../examples/bench-guest/image.yaml", "testdata/lan.yaml")
	f.image("bench-guest")
	var on []string
	for _, column := range strings.Split(*columns, ",") {
		name, _, _ := strings.Cut(column, "/")
		if joined(f, name) {
			on = append(on, column)
		}
	}
	base := strings.TrimSuffix(filepath.Clean(*matrixOut), ".json")
	for run := range *runs {
		out := base + ".json"
		if run > 0 {
			out = fmt.Sprintf("%s-again-%d.json", base, run)
		}
		f.measure(on, out)
	}
	if *runs < 2 {
		return
	}
	diff := f.Must("matrix", "diff")
	t.Logf("the last run against the one before:\n%s", diff)
	if err := os.WriteFile(base+"-diff.txt", []byte(diff), 0o644); err != nil {
		t.Error(err)
	}
}

// measure runs the matrix once; its progress is shown as it goes.
func (f *Fleet) measure(on []string, out string) {
	f.t.Helper()
	path, err := program()
	if err != nil {
		f.t.Fatal(err)
	}
	cmd := exec.CommandContext(f.t.Context(), path, "matrix", "run", "--image", "bench-guest", "--network", "lan", "--memory", "256Mi",
		"--hypervisors", strings.Join(on, ","), "--program", *workloads, "--repeats", strconv.Itoa(*repeats), "--out", out)
	cmd.Env = append(os.Environ(), "CONSORT_SERVER="+f.socket())
	var table, wrong bytes.Buffer
	cmd.Stdout, cmd.Stderr = &table, io.MultiWriter(os.Stderr, &wrong)
	if err := cmd.Run(); err != nil {
		f.t.Errorf("consort matrix run: %v: %s", err, lastLine(wrong.String()))
	}
	f.t.Logf("%s:\n%s", out, table.String())
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// joined has a hypervisor join and reports whether it did: one that cannot fails
// the test, and the others are measured all the same.
func joined(f *Fleet, name string) (is bool) {
	joins := map[string]func(){
		"local":   func() {},
		"libvirt": func() { f.Libvirt("libvirt") },
		"uml":     func() { f.UML("uml") },
		"kvm":     func() { f.Nested("kvm", "libvirt", "qemu:///system", nested.KVM(f.t)) },
		"xen":     func() { f.Nested("xen", "xen", "", nested.Xen(f.t)) },
	}
	join, known := joins[name]
	if !known {
		f.t.Fatalf("there is no hypervisor %s here", name)
	}
	if is = f.survives(join); !is {
		f.t.Errorf("%s did not join; the others are measured without it", name)
	}
	return is
}

// survives does something and reports whether it came to its end; what would
// end the test fails it and no more.
func (f *Fleet) survives(do func()) (is bool) {
	t := f.t
	f.t = patient{t}
	defer func() {
		f.t = t
		if gone := recover(); gone != nil && gone != errPatient {
			panic(gone)
		}
	}()
	do()
	return true
}

// patient is a test that goes on after what would end it, once recovered.
type patient struct{ testing.TB }

var errPatient = errors.New("what would end the test")

// Fatal notes the failure and leaves whatever was at work.
func (p patient) Fatal(args ...any) {
	p.TB.Helper()
	p.TB.Error(args...)
	panic(errPatient)
}

// Fatalf is Fatal with a format.
func (p patient) Fatalf(format string, args ...any) {
	p.TB.Helper()
	p.TB.Errorf(format, args...)
	panic(errPatient)
}

// FailNow is Fatal without a word.
func (p patient) FailNow() {
	p.TB.Fail()
	panic(errPatient)
}

func TestOneThatDoesNotJoinEndsNothing(t *testing.T) {
	tried := &silent{TB: t}
	f := &Fleet{t: tried}
	if f.survives(func() { f.t.Fatal("no") }) || !tried.failed {
		t.Errorf("what ends a test is survived; failed is %v", tried.failed)
	}
	if !f.survives(func() {}) || f.t != testing.TB(tried) {
		t.Error("what goes well is not survived")
	}
}

// silent is a test that may fail without failing its own.
type silent struct {
	testing.TB
	failed bool
}

// Error notes the failure.
func (s *silent) Error(...any) { s.failed = true }

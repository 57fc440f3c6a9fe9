package confinement

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"consort.dev/consort/agent/confine"
	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/qemu"
	"consort.dev/consort/test/guest"
)

const (
	emulator  = "qemu-system-x86_64"
	siblingID = estate.MachineID("0c9e3c54-1111-4222-8333-444455556666")
	takenID   = estate.MachineID("0c9e3c54-1111-4222-8333-444455556667")
	wayID     = estate.MachineID("0c9e3c54-1111-4222-8333-444455556668")
)

// fewest is how many ways are tried at least.
const fewest = 60

// TestNothingGetsOutOfAMachinesProcess starts a program in the place of QEMU:
// with the user, the capabilities, the namespaces, the file tree, the Landlock
// rules and the system call filters of a real machine's process, QEMU's own
// among them. It tries each way out there is; none leads out. Without all that,
// the same program gets out by most.
func TestNothingGetsOutOfAMachinesProcess(t *testing.T) {
	guest.Needs(t)
	if os.Geteuid() != 0 {
		t.Skip("only root gives processes users and namespaces of their own")
	}
	s := newSite(t)
	probe := s.build()
	ways := strings.Fields(run(t, exec.Command(probe, "ways")))
	host := s.inPlaceOf(probe)
	before := s.state()

	s.compare(s.meet(host))
	var tried, out, free int
	for _, way := range ways {
		tried++
		if said := s.try(host, way); strings.Contains(said, "out: ") {
			out++
			t.Errorf("%s led out: %s", way, said)
		}
	}
	if after := s.state(); after != before {
		t.Errorf("what was to be got at is not as it was:\n%s\nbefore:\n%s", after, before)
	}
	for _, way := range ways {
		if said := s.unconfined(probe, way); strings.Contains(said, "out: ") {
			free++
		} else {
			t.Logf("held without confinement: %s: %s", way, strings.TrimSpace(said))
		}
	}
	t.Logf("%d ways out tried: %d led out, %d without confinement", tried, out, free)
	if path := os.Getenv("CONSORT_FIGURES"); path != "" { // see bench/contexts
		figures := fmt.Appendf(nil, `{"escapes_tried": %d, "escapes_succeeded": %d, "escapes_succeeded_unconfined": %d}`, tried, out, free)
		must(t, os.WriteFile(path, figures, 0o644))
	}
	if tried < fewest || 2*free < tried {
		t.Errorf("%d ways tried and %d led out without confinement; want %d and half of them at least", tried, free, fewest)
	}
}

// site is a host with a machine on it, and much that a program may want.
type site struct {
	*testing.T
	dir     string
	cfg     qemu.Config
	sibling *qemu.Host
	pid     int // of its machine's process
	victim  *exec.Cmd
	goals   goals
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "cnf")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o711))
	s := &site{T: t, dir: dir}
	s.sibling = s.open("s", emulator, 0)
	must(t, s.define(s.sibling, siblingID, "sibling"))
	must(t, s.sibling.Start(t.Context(), siblingID))
	s.goals = goals{
		Version: strings.TrimSpace(run(t, exec.Command(emulator, "--version"))),
		Dir:     filepath.Join(dir, "open"), Stray: filepath.Join(dir, "open", "theirs"), Secret: filepath.Join(dir, "secret"),
		Machines: filepath.Join(dir, "s", "m"), Sibling: filepath.Join(dir, "s", "m", string(siblingID)),
		Block: blockDevice(),
	}
	at := filepath.Join(dir, "s", "r", string(siblingID))
	s.goals.Control, s.goals.Screen, s.goals.Agent = filepath.Join(at, "qmp"), filepath.Join(at, "display"), filepath.Join(at, "agent")
	s.goals.Record = filepath.Join(s.goals.Sibling, "machine.json")
	s.goals.Disk = diskOf(t, s.goals.Sibling)
	must(t, os.Mkdir(s.goals.Dir, 0o777))
	must(t, os.Chmod(s.goals.Dir, 0o777))
	must(t, os.WriteFile(s.goals.Stray, []byte("x"), 0o666))
	must(t, os.WriteFile(s.goals.Secret, []byte("x"), 0o600))
	s.pid = s.processOf(filepath.Join(dir, "s"), siblingID)
	s.goals.SiblingPID = s.pid
	s.answer()
	s.share()
	s.goals.Filters = filtersOf(t, s.pid)
	return s
}

// open opens a host whose machines run that program, each in a file tree of
// their own.
func (s *site) open(name, program string, firstUID int) *qemu.Host {
	s.Helper()
	c, err := confine.New(s.Context(), program, "--version")
	must(s.T, err)
	by, lacks := c.Report()
	s.Logf("confined by %s; %s", by, lacks)
	h, err := qemu.Open(s.Context(), qemu.Config{
		Dir: filepath.Join(s.dir, name, "m"), RunDir: filepath.Join(s.dir, name, "r"), Program: program,
		FirstUID: firstUID, Accelerator: "tcg", Confiner: c,
	})
	must(s.T, err)
	s.Cleanup(func() {
		all, err := h.List(context.Background())
		for _, m := range all {
			err = errors.Join(err, h.Delete(context.Background(), m.ID))
		}
		if err := errors.Join(err, h.Close()); err != nil {
			s.Error(err)
		}
	})
	return h
}

func (s *site) define(h *qemu.Host, id estate.MachineID, name string) error {
	return h.Define(s.Context(), driver.Definition{
		ID: id, Name: name, CPUs: 1, Memory: 32 * estate.MiB, Disks: []driver.Disk{{Name: "root", Size: estate.MiB}},
	})
}

// inPlaceOf returns a host that takes the probe for QEMU. Its machines have other
// users than the sibling's.
func (s *site) inPlaceOf(probe string) *qemu.Host { return s.open("p", probe, 1<<30+1000) }

// try has the program, started as a machine's process is, try one way out, and
// returns what it said of it.
func (s *site) try(h *qemu.Host, way string) string {
	s.Helper()
	must(s.T, s.define(h, wayID, way))
	defer func() { must(s.T, h.Delete(s.Context(), wayID)) }()
	if err := h.Start(s.Context(), wayID); err == nil {
		s.Fatalf("%s: the program passed for QEMU", way)
	}
	said, err := os.ReadFile(filepath.Join(s.dir, "p", "m", string(wayID), "qemu.log"))
	must(s.T, err)
	if !strings.HasPrefix(string(said), "trying "+way+"\n") || bytes.Contains(said, []byte("not filtered")) {
		s.Fatalf("%s was not tried: %q", way, said)
	}
	return string(said)
}

// unconfined has the program try one way out as root, in mounts and with a host
// name of its own, so that this host stays as it is.
func (s *site) unconfined(probe, way string) string {
	s.Helper()
	dir := filepath.Join(s.dir, "p", "r", way)
	must(s.T, os.Mkdir(dir, 0o755))
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, probe+"-free", "-name", "guest="+way)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS}
	out, _ := cmd.CombinedOutput() // that it was held is an answer, too
	if !bytes.HasPrefix(out, []byte("trying ")) {
		s.Fatalf("%s was not tried: %q", way, out)
	}
	return string(out)
}

// state is all that there is to be got at, as it is now.
func (s *site) state() string {
	var b strings.Builder
	for _, path := range []string{s.goals.Disk, s.goals.Record, s.goals.Secret, s.goals.Stray, s.goals.Dir, s.goals.Machines} {
		info, err := os.Stat(path)
		must(s.T, err)
		fmt.Fprintln(&b, path, info.Mode(), info.Size(), info.ModTime().Format(time.RFC3339Nano), info.Sys().(*syscall.Stat_t).Uid)
	}
	seen, err := s.sibling.List(s.Context())
	must(s.T, err)
	for _, m := range seen {
		fmt.Fprintln(&b, m.ID, m.Power, m.Starts)
	}
	return b.String()
}

// meet returns the process that the program is in the place of QEMU, once it has
// on itself what QEMU puts on itself. The process ends with the test.
func (s *site) meet(h *qemu.Host) (pid int) {
	s.Helper()
	must(s.T, s.define(h, takenID, "stay"))
	begun := make(chan error, 1)
	ctx, cancel := context.WithCancel(s.Context())
	go func() { begun <- h.Start(ctx, takenID) }()
	s.Cleanup(func() {
		if pid != 0 {
			must(s.T, unix.Kill(pid, unix.SIGKILL)) // it does not listen as QEMU does
		}
		cancel()
		<-begun
		must(s.T, h.Delete(context.Background(), takenID))
	})
	for end := time.Now().Add(time.Minute); ; {
		said, _ := os.ReadFile(filepath.Join(s.dir, "p", "m", string(takenID), "qemu.log")) // there when it has begun
		if strings.Contains(string(said), "here\n") {
			pid = s.processOf(filepath.Join(s.dir, "p"), takenID)
			return pid
		}
		if time.Now().After(end) {
			s.Fatalf("the program says %q", said)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// compare holds what the program is against what a machine's process is.
func (s *site) compare(pid int) {
	s.Helper()
	real, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	must(s.T, err)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(s.T, err)
	self := string(b)
	for _, what := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Groups"} {
		line := regexp.MustCompile(`(?m)^` + what + `:.*$`)
		if a, b := line.FindString(self), line.FindString(string(real)); a != b || a == "" {
			s.Errorf("the program has %q, and a machine's process %q", a, b)
		}
	}
	for what, want := range map[string]string{"CapBnd": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2", "Groups": ""} {
		if got := regexp.MustCompile(`(?m)^` + what + `:[ \t]*(.*?)[ \t]*$`).FindStringSubmatch(self); got == nil || got[1] != want {
			s.Errorf("%s is %v, want %s", what, got, want)
		}
	}
	for _, ns := range []string{"mnt", "pid", "net", "ipc", "uts"} {
		ours, err := os.Readlink("/proc/self/ns/" + ns)
		must(s.T, err)
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", s.pid, ns))
		must(s.T, err)
		its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
		must(s.T, err)
		if ours == theirs || ours == its || theirs == its {
			s.Errorf("namespace %s: of the host %s, of a machine's process %s, of the program %s; want three", ns, ours, theirs, its)
		}
	}
}

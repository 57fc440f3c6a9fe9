package confinement

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
)

// goals are what the probe is told of: see there.
type goals struct {
	Version string

	Disk, Record, Machines, Secret, Dir, Stray, Block, Sibling string
	Victim, SiblingPID                                         int
	TCP, UDP, Abstract, API, Control, Screen, Agent            string
	Memory                                                     int
	Filters                                                    [][]unix.SockFilter
}

// build makes the probe, once to stand for QEMU with what QEMU puts on itself,
// and once, with -free after its name, without.
func (s *site) build() string {
	s.Helper()
	probe := filepath.Join(s.dir, "probe")
	s.goals.Victim = s.sacrifice()
	free := s.goals
	free.Filters = nil
	for path, g := range map[string]goals{probe: s.goals, probe + "-free": free} {
		order, err := json.Marshal(g)
		must(s.T, err)
		build := exec.Command("go", "build", "-o", path, "-ldflags", "-X main.order="+base64.StdEncoding.EncodeToString(order), "./probe")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		run(s.T, build)
	}
	return probe
}

// sacrifice starts a process of root that has nothing to do with machines. It is
// the probe too, since its memory begins at a known place.
func (s *site) sacrifice() int {
	s.Helper()
	path := filepath.Join(s.dir, "victim")
	build := exec.Command("go", "build", "-o", path, "-ldflags", "-X main.order="+base64.StdEncoding.EncodeToString([]byte("{}")), "./probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	run(s.T, build)
	cmd := exec.Command(path, "victim")
	out, err := cmd.StdoutPipe()
	must(s.T, err)
	must(s.T, cmd.Start())
	s.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		s.Fatal(err)
	}
	return cmd.Process.Pid
}

// answer listens wherever a program may knock.
func (s *site) answer() {
	s.Helper()
	s.goals.API, s.goals.Abstract = filepath.Join(s.dir, "api"), "consort-probe-"+filepath.Base(s.dir)
	for _, at := range []struct {
		network, address string
		said             *string
	}{{"unix", s.goals.API, nil}, {"unix", "@" + s.goals.Abstract, nil}, {"tcp", "127.0.0.1:0", &s.goals.TCP}} {
		l, err := net.Listen(at.network, at.address)
		must(s.T, err)
		if at.said != nil {
			*at.said = l.Addr().String()
		}
		s.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
	}
	must(s.T, os.Chmod(s.goals.API, 0o666))
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(s.T, err)
	s.goals.UDP = udp.LocalAddr().String()
	s.Cleanup(func() { udp.Close() })
}

// share makes memory that every process of this host may attach.
func (s *site) share() {
	s.Helper()
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o666)
	must(s.T, err)
	s.goals.Memory = id
	s.Cleanup(func() {
		if _, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil); err != nil {
			s.Error(err)
		}
	})
}

// processOf returns the process of a machine of the host in dir.
func (s *site) processOf(dir string, id estate.MachineID) int {
	s.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(s.T, err)
	for _, path := range lines {
		b, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(b), dir) && strings.Contains(string(b), string(id)) {
			var pid int
			if _, err := fmt.Sscanf(path, "/proc/%d/", &pid); err == nil {
				return pid
			}
		}
	}
	s.Fatalf("no process of machine %s", id)
	return 0
}

// filtersOf returns the filters that a process has put on itself: all but the
// first, which it began with. The kernel counts them from the oldest on, though
// ptrace(2) says otherwise.
func filtersOf(t *testing.T, pid int) (all [][]unix.SockFilter) {
	t.Helper()
	runtime.LockOSThread() // ptrace(2) is of a thread
	defer runtime.UnlockOSThread()
	must(t, unix.PtraceSeize(pid))
	must(t, unix.PtraceInterrupt(pid))
	// Whoever awaits the end of this child of ours may be told of the stop instead.
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		must(t, err)
		if strings.Contains(string(b), "State:\tt") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("process %d does not stop:\n%s", pid, b)
		}
	}
	defer func() { must(t, unix.PtraceDetach(pid)) }()
	get := func(i int, into []unix.SockFilter) (int, error) {
		var p unsafe.Pointer
		if into != nil {
			p = unsafe.Pointer(&into[0])
		}
		n, _, e := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, uintptr(pid), uintptr(i), uintptr(p), 0, 0)
		if e != 0 {
			return 0, e
		}
		return int(n), nil
	}
	for i := 0; ; i++ {
		n, err := get(i, nil)
		if err == unix.ENOENT {
			break
		}
		must(t, err)
		f := make([]unix.SockFilter, n)
		_, err = get(i, f)
		must(t, err)
		all = append(all, f)
	}
	if len(all) < 2 {
		t.Fatalf("a machine's process has %d filters, want ours and QEMU's own", len(all))
	}
	return all[1:]
}

// blockDevice returns a device that holds one of this host's file systems, as
// far as there is one.
func blockDevice() string {
	found, _ := filepath.Glob("/sys/class/block/*")
	for _, path := range found {
		if _, err := os.Stat("/dev/" + filepath.Base(path)); err == nil {
			return "/dev/" + filepath.Base(path)
		}
	}
	return "/dev/none"
}

func diskOf(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.Contains(e.Name(), "root") && info.Mode().IsRegular() {
			return filepath.Join(dir, e.Name())
		}
	}
	t.Fatalf("%s holds no disk: %v", dir, entries)
	return ""
}

func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return string(out)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

package qemu

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// numbered confines a process as far as threads' numbers are concerned: it has
// its own.
type numbered struct{}

func (numbered) Start(cmd *exec.Cmd, _ ...string) error {
	cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWPID
	return cmd.Start()
}

func (numbered) Report() (by, lacks string) { return "numbers of its own", "" }

// TestACloneGivesWayForItsFirstMoments looks at what the kernel knows of a
// clone's threads and of its session, confined and not.
func TestACloneGivesWayForItsFirstMoments(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root takes a nice value back")
	}
	for name, c := range map[string]Confiner{"as it is": nil, "with numbers of its own": numbered{}} {
		t.Run(name, func(t *testing.T) {
			cfg := place(t)
			cfg.Confiner = c
			h := open(t, cfg)
			frozen(t, h, definition(base(t, cfg)))
			began := time.Now()
			pid, err := h.machines[cloneID].pid()
			if err != nil {
				t.Fatal(err)
			}
			own := niceOf(t, os.Getpid())
			if threads, session := slowed(t, pid, own+yieldBy), autogroup(t, pid); threads != 1 || session > 0 && session != yieldBy {
				t.Errorf("of a clone with one processor %d threads give way by %d, and its session by %d", threads, yieldBy, session)
			}
			if has := small(t, pid); !has {
				t.Error("a clone's process gets huge pages")
			}
			for slowed(t, pid, own+yieldBy) > 0 || autogroup(t, pid) > 0 {
				if time.Since(began) > time.Minute {
					t.Fatalf("it still gives way after %v", time.Since(began))
				}
				time.Sleep(50 * time.Millisecond)
			}
			if took := time.Since(began); took < yieldFor/2 {
				t.Errorf("it gave way for %v, want %v", took, yieldFor)
			}
			if small(t, os.Getpid()) {
				t.Error("we get no huge pages any more")
			}
		})
	}
}

// TestAMachineThatBootsGivesNoWay is the other machine: it is somebody's, and
// writes to all of its memory.
func TestAMachineThatBootsGivesNoWay(t *testing.T) {
	cfg := place(t)
	h := open(t, cfg)
	def := definition(base(t, cfg))
	if err := h.Define(t.Context(), def); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context(), someID); err != nil {
		t.Fatal(err)
	}
	pid, err := h.machines[someID].pid()
	if err != nil {
		t.Fatal(err)
	}
	if n := slowed(t, pid, niceOf(t, os.Getpid())+yieldBy); n > 0 || autogroup(t, pid) > 0 {
		t.Errorf("%d threads of it give way, and its session by %d", n, autogroup(t, pid))
	}
	if small(t, pid) {
		t.Error("its process gets no huge pages")
	}
}

// slowed counts the threads of a process with that nice value, 19 at most.
func slowed(t *testing.T, pid, nice int) (n int) {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if id, err := strconv.Atoi(task.Name()); err == nil && id != pid && niceOf(t, id) == min(nice, 19) {
			n++
		}
	}
	return n
}

func niceOf(t *testing.T, thread int) int {
	t.Helper()
	is, err := unix.Getpriority(unix.PRIO_PROCESS, thread)
	if err != nil && err != syscall.ESRCH {
		t.Fatal(err)
	}
	return 20 - is // getpriority(2)
}

// autogroup is the nice value of a process's session, 0 where the kernel has none.
func autogroup(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/autogroup", pid)) // "/autogroup-25 nice 10"
	if err != nil || len(b) == 0 {
		return 0
	}
	f := strings.Fields(string(b))
	is, err := strconv.Atoi(f[len(f)-1])
	if err != nil {
		t.Fatalf("autogroup %q", b)
	}
	return is
}

// small reports whether the process gets no huge pages.
func small(t *testing.T, pid int) bool {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "THP_enabled:") {
		t.Skip("this kernel knows no huge pages")
	}
	return strings.Contains(string(b), "THP_enabled:\t0")
}

// Package confine starts processes that reach nothing of the host they run on:
// who takes one over has won that process and no more.
package confine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"consort.dev/consort/fault"
	"consort.dev/consort/internal/leash"
)

// wall is one of the things that hold a process in. Each holds by itself, so
// that a hole in one is not a way out.
type wall int

const (
	files      wall = 1 << iota // it sees its program, its folder, and little else
	namespaces                  // it sees no other process, no network, no other's memory
	landlock                    // what it sees, it may use only as it must
	calls                       // it may not ask the kernel for what it never needs
	limits                      // it may not take all threads and open files
)

// walls names them, for people, in the order in which they are tried.
var walls = []struct {
	wall
	name string
}{
	{files, "own file tree"}, {namespaces, "own namespaces"}, {landlock, "Landlock"}, {calls, "filtered system calls"}, {limits, "limits on threads and open files"},
}

// Confiner starts processes of one program. New makes one.
type Confiner struct {
	program string // its absolute path
	loader  string // what loads it; empty for one that needs none
	up      wall   // those this host can put up
	lacks   []string
}

// trialLimit bounds one trial of the program.
const trialLimit = 20 * time.Second

// New returns what confines processes of that program. It runs the program with
// the arguments, which must end at once and well, as "--version" does: what this
// host cannot do is left out, and Report says so. A program that is not there is
// fault.NotFound.
func New(ctx context.Context, program string, trial ...string) (*Confiner, error) {
	path, err := exec.LookPath(program)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return nil, fault.NotFound.Errorf("confine %s: %w", program, err)
	}
	c := &Confiner{program: path}
	if c.loader, err = interpreter(path); err != nil {
		return nil, fault.Invalid.Errorf("confine %s: %w; only a program in machine code is confined", path, err)
	}
	if os.Geteuid() != 0 {
		c.lacks = append(c.lacks, "only root gives processes users, files and namespaces of their own")
	} else {
		c.up = files | namespaces
	}
	c.up |= landlock | calls
	if may, err := mayLimit(); err != nil {
		return nil, err
	} else if may {
		c.up |= limits
	} else {
		c.lacks = append(c.lacks, "no limits on threads and open files: we have no CAP_SYS_RESOURCE")
	}
	if c.try(ctx, trial) == nil {
		return c, nil
	}
	possible := c.up
	c.up = 0
	for _, w := range walls {
		if possible&w.wall == 0 {
			continue
		}
		c.up |= w.wall
		if err := c.try(ctx, trial); err != nil {
			c.up &^= w.wall
			c.lacks = append(c.lacks, fmt.Sprintf("no %s: %v", w.name, err))
		}
	}
	return c, ctx.Err()
}

// try runs the program as it is confined now.
func (c *Confiner) try(ctx context.Context, args []string) error {
	dir, err := os.MkdirTemp("", "confine")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, trialLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program, args...)
	cmd.Dir, cmd.Env = dir, []string{"LC_ALL=C"}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	if err := c.Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// nobody is who has nothing, by convention.
const nobody = 65534

// Report says what holds processes in, and what this host lacks for more.
func (c *Confiner) Report() (by, lacks string) {
	var up []string
	for _, w := range walls {
		if c.up&w.wall != 0 {
			up = append(up, w.name)
		}
	}
	return strings.Join(up, ", "), strings.Join(c.lacks, "; ")
}

// Start is cmd.Start for a process of the program. It reaches what it inherits,
// the folder it starts in (cmd.Dir, an absolute path), the files it is made of,
// and those devices. It gains no privilege that its user lacks, whatever it
// runs, and keeps no capability.
func (c *Confiner) Start(cmd *exec.Cmd, devices ...string) error {
	if cmd.Path != c.program || !filepath.IsAbs(cmd.Dir) {
		return fault.Invalid.Errorf("confine %s in %q: it is made for %s in a folder of its own", cmd.Path, cmd.Dir, c.program)
	}
	done := make(chan error, 1)
	go func() {
		// What holds the process in is put up around a thread of ours, from which
		// it is started and which nothing can free any more. So the goroutine never
		// unlocks it, and it ends here. That costs no other program in between.
		runtime.LockOSThread()
		err := c.start(cmd, devices)
		done <- err
		if err == nil && cmd.SysProcAttr.Pdeathsig != 0 {
			leash.Hold(cmd.Process.Pid)
		}
	}()
	if err := <-done; err != nil {
		return err
	}
	if c.up&limits == 0 {
		return nil
	}
	if err := limit(cmd); err != nil {
		return errors.Join(err, cmd.Process.Kill(), ended(cmd))
	}
	return nil
}

// ended waits for a process that was killed; how it ended is no news.
func ended(cmd *exec.Cmd) error {
	var how *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &how) {
		return err
	}
	return nil
}

// start puts up the walls around this thread and starts the process from it.
func (c *Confiner) start(cmd *exec.Cmd, devices []string) error {
	devices = append([]string{"/dev/null", "/dev/urandom"}, devices...)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	if c.up&namespaces != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	}
	if c.up&files != 0 {
		if err := c.enter(cmd.Dir, devices); err != nil {
			return fmt.Errorf("own file tree: %w", err)
		}
	}
	if err := dropCapabilities(); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("PR_SET_NO_NEW_PRIVS", err)
	}
	if c.up&landlock != 0 {
		if err := c.restrict(cmd.Dir, devices); err != nil {
			return fmt.Errorf("landlock: %w", err)
		}
	}
	if c.up&calls != 0 {
		if err := filter(); err != nil {
			return fmt.Errorf("filter system calls: %w", err)
		}
	}
	return cmd.Start()
}

// dropCapabilities keeps this thread, and whoever is started from it, from ever
// getting a capability by running a program. What the thread has now it keeps:
// becoming another user takes some.
func dropCapabilities() error {
	if os.Geteuid() != 0 {
		return nil // without CAP_SETPCAP there is nothing to drop it with, and no_new_privs does it
	}
	for c := uintptr(0); c <= 63; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // the kernel knows no more
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Most that a process may have. A machine with 64 CPUs and as many requests to
// its disks under way has some 200 threads.
const (
	mostThreads = 512
	mostFiles   = 1024
)

// mayLimit reports whether we may limit what another user's process takes, which
// root in a container often may not.
func mayLimit() (bool, error) {
	if os.Geteuid() != 0 {
		return true, nil // its user is ours
	}
	ask := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData // 32 capabilities each
	err := unix.Capget(&ask, &have[0])
	return have[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0, os.NewSyscallError("capget", err)
}

// limit bounds what the process may take, now that it has a user of its own.
// Memory and CPU are not bounded here.
func limit(cmd *exec.Cmd) error {
	limits := map[int]uint64{
		unix.RLIMIT_CORE:     0, // a guest's memory is never written anywhere
		unix.RLIMIT_NOFILE:   mostFiles,
		unix.RLIMIT_MSGQUEUE: 0,
	}
	if as := cmd.SysProcAttr.Credential; as != nil && int(as.Uid) != os.Geteuid() {
		limits[unix.RLIMIT_NPROC] = mostThreads // it is counted for all of a user's processes
	}
	for what, most := range limits {
		err := unix.Prlimit(cmd.Process.Pid, what, &unix.Rlimit{Cur: most, Max: most}, nil)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("limit process %d: %w", cmd.Process.Pid, err)
		}
	}
	return nil
}

package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"consort.dev/consort/internal/qmp"
)

// A guest that goes on from a template has all its code translated anew, which
// takes it 200 ms of CPU in its first two seconds. Where many go on at once they
// would hold up those that only begin, and the screens somebody waits for. So a
// clone gives way in its first moments. Only root can take that back (renice(1)).
const (
	yieldBy  = 10 // a tenth of the share of others (sched(7), the nice value)
	yieldFor = 2 * time.Second
)

// yield has a clone that is about to go on give way for its first moments. Of a
// process that runs already it takes back what nobody else has.
func (m *machine) yield(ctx context.Context, c *qmp.Client, pid int, begins bool) error {
	if os.Geteuid() != 0 {
		return nil
	}
	if !begins {
		return renice(ctx, c, pid, 0)
	}
	if err := renice(ctx, c, pid, yieldBy); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	go func() {
		t := time.NewTimer(yieldFor)
		defer t.Stop()
		select {
		case <-t.C:
			renice(ctx, c, pid, 0) // it works as long as the connection does
		case <-c.Done(): // whoever connects next takes it back
		}
	}()
	return nil
}

// renice has the guest's processors run with that nice value above our own, and
// the process as a whole where the kernel shares CPU by sessions first.
func renice(ctx context.Context, c *qmp.Client, pid, by int) error {
	var cpus []struct {
		Thread int `json:"thread-id"`
	}
	if err := c.Execute(ctx, "query-cpus-fast", nil, &cpus); err != nil {
		return err
	}
	own, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return os.NewSyscallError("getpriority", err)
	}
	threads, err := threadsOf(pid)
	if err != nil {
		return err
	}
	nice := min(20-own+by, 19) // the kernel says 20 less (getpriority(2))
	for _, cpu := range cpus {
		// A process that its guest has taken over could name what is none of its.
		thread, ok := threads[cpu.Thread]
		if !ok {
			continue
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, thread, nice); err != nil && !errors.Is(err, unix.ESRCH) {
			return os.NewSyscallError("setpriority", err)
		}
	}
	// Absent where the kernel does not share so.
	os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", pid), []byte(strconv.Itoa(by)), 0)
	return nil
}

// threadsOf returns the threads of a process by the numbers that it knows them
// by: one that is confined has numbers of its own (pid_namespaces(7)).
func threadsOf(pid int) (map[int]int, error) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, err
	}
	threads := map[int]int{}
	for _, task := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", pid, task.Name()))
		if err != nil {
			continue // it has just ended
		}
		for line := range strings.Lines(string(b)) {
			numbers, is := strings.CutPrefix(line, "NSpid:") // ours first, its own last (proc(5))
			if f := strings.Fields(numbers); is && len(f) > 0 {
				ours, err1 := strconv.Atoi(f[0])
				its, err2 := strconv.Atoi(f[len(f)-1])
				if err := errors.Join(err1, err2); err != nil {
					return nil, err
				}
				threads[its] = ours
			}
		}
	}
	return threads, nil
}

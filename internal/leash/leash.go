// Package leash keeps the thread that started a process until that has ended: the
// kernel takes the thread's end for ours, and kills the process that was to die
// with us (prctl(2), PR_SET_PDEATHSIG).
package leash

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Hold returns once our child has ended, and leaves it to be waited for. Whoever
// calls it is locked to the thread that started the child.
func Hold(child int) {
	for {
		err := unix.Waitid(unix.P_PID, child, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

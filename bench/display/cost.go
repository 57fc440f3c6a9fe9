package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"consort.dev/consort/bench/result"
)

// stat is a line of /proc/PID/stat (proc(5)).
type stat struct {
	pid, parent int
	cpu         time.Duration
}

// tick is what the kernel counts CPU time in for programs: 100 a second on
// Linux, whatever it is built with.
const tick = 10 * time.Millisecond

func readStat(path string) (stat, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(b))
}

// parseStat reads the fields behind the name, which may hold anything.
func parseStat(line string) (s stat, err error) {
	head, rest, ok := strings.Cut(line, " (")
	at := strings.LastIndexByte(rest, ')')
	f := strings.Fields(rest[at+1:])
	if !ok || at < 0 || len(f) < 13 {
		return s, fmt.Errorf("stat %q", line)
	}
	var errs [4]error
	var user, system int
	s.pid, errs[0] = strconv.Atoi(head)
	s.parent, errs[1] = strconv.Atoi(f[1])
	user, errs[2] = strconv.Atoi(f[11])
	system, errs[3] = strconv.Atoi(f[12])
	s.cpu = time.Duration(user+system) * tick
	return s, errors.Join(errs[:]...)
}

// processes are what a path through a relay is made of.
type processes interface{ pids() ([]int, error) }

// cpu is what they have taken since they began.
func cpu(p processes) (sum time.Duration, err error) {
	pids, err := p.pids()
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		s, err := readStat(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		sum += s.cpu
	}
	return sum, nil
}

// kib is the memory they share proportionally.
func kib(p processes) (sum float64, err error) {
	pids, err := p.pids()
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		v, err := result.PSS(pid)
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return sum, nil
}

// idle waits until the memory has stopped falling: garbage is given back
// slowly. It returns the last reading.
func idle(ctx context.Context, p processes, long time.Duration) (least float64, err error) {
	for end := time.Now().Add(long); time.Now().Before(end); {
		if err := pause(ctx, time.Second); err != nil {
			return 0, err
		}
		v, err := kib(p)
		if err != nil {
			return 0, err
		}
		if least == 0 || v < least {
			least = v
		}
	}
	return least, nil
}

package fakehost

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// Run implements driver.Guest. Every guest tells its boot_id and the addresses
// of its network cards, as Linux does; the rest is up to Options.
func (h *Host) Run(ctx context.Context, id estate.MachineID, cmd driver.Command) (driver.Output, error) {
	if err := ctx.Err(); err != nil {
		return driver.Output{}, err
	}
	h.mu.Lock()
	m, err := h.machine(id)
	if err == nil && (m.Power != estate.On || time.Now().Before(m.up)) {
		err = fault.Unavailable.Errorf("the guest agent of machine %s does not answer", id)
	}
	if err != nil {
		h.mu.Unlock()
		return driver.Output{}, err
	}
	h.ran = append(h.ran, Ran{id, cmd})
	links := m.cards(true)
	seen, boot, cards, disks, run := m.copy(), m.boot, m.cards(false), m.disks(), h.opt.Run
	h.mu.Unlock()
	if slices.Equal(cmd.Args, []string{"cat", "/proc/sys/kernel/random/boot_id"}) {
		return driver.Output{Stdout: []byte(boot + "\n")}, nil
	}
	if slices.Equal(cmd.Args, []string{"/bin/sh", "-c", "cat /sys/class/net/*/address"}) {
		return driver.Output{Stdout: []byte(cards)}, nil
	}
	if len(cmd.Args) == 3 && strings.Contains(cmd.Args[2], "/carrier") {
		return driver.Output{Stdout: []byte(links)}, nil
	}
	if len(cmd.Args) == 3 && strings.Contains(cmd.Args[2], "/sys/block/*") {
		return driver.Output{Stdout: []byte(disks)}, nil
	}
	if run == nil {
		run = Shell
	}
	out, err := run(ctx, seen, cmd)
	out.Stdout, out.Stderr = bound(out.Stdout), bound(out.Stderr)
	return out, err
}

func bound(b []byte) []byte { return b[:min(len(b), 1<<20)] }

// Ran returns the commands that reached guests so far, in order.
func (h *Host) Ran() []Ran {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ran)
}

// Shell is the shell that guests have when Options say nothing else. It knows
// true, false, nproc, echo, the last echo of a script that /bin/sh is given, cat, head -c N /dev/zero and test -e of the file that
// tells that a desktop is drawn; anything else exits with 127.
func Shell(_ context.Context, m driver.Machine, cmd driver.Command) (driver.Output, error) {
	switch line := strings.Join(cmd.Args, " "); {
	case line == "true", line == "test -e /run/consort/desktop":
		return driver.Output{}, nil
	case line == "/bin/sh":
		lines := strings.Split(strings.TrimSpace(string(cmd.Stdin)), "\n")
		said, _ := strings.CutPrefix(lines[len(lines)-1], "echo ")
		return driver.Output{Stdout: []byte(said + "\n")}, nil
	case line == "nproc":
		return driver.Output{Stdout: fmt.Appendln(nil, m.Def.CPUs)}, nil
	case line == "false":
		return driver.Output{Exit: 1}, nil
	case line == "cat":
		return driver.Output{Stdout: bytes.Clone(cmd.Stdin)}, nil
	case line == "head -c 2000000 /dev/zero":
		return driver.Output{Stdout: make([]byte, 2000000)}, nil
	case cmd.Args[0] == "echo":
		return driver.Output{Stdout: []byte(strings.Join(cmd.Args[1:], " ") + "\n")}, nil
	}
	return driver.Output{Exit: 127, Stderr: []byte(cmd.Args[0] + ": not found\n")}, nil
}

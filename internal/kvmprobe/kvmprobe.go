// Package kvmprobe finds out whether KVM really runs guest code here, by having
// it run some. A device file that opens proves nothing: some hosts answer every
// call and then interpret one instruction at a time.
package kvmprobe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Turns is how often the guest's loop turns. Hardware takes 2 ms for it, KVM
// nested in software emulation 60 ms, KVM that interprets 500 to 3500 ms.
const Turns = 1_000_000

const (
	// limit is the slowest run that still counts as running.
	limit = 300 * time.Millisecond
	// patience bounds the whole probe, however it hangs.
	patience = 2 * time.Second
)

// Verdict is what became of a probe.
type Verdict struct {
	Usable  bool
	Because string // one sentence for people
}

// Probe runs argv, a program that calls Child, and judges what it says. The
// program is killed when it takes too long: a vCPU that never comes back must
// not be ours.
func Probe(ctx context.Context, argv []string) Verdict {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		return Verdict{Because: "KVM is not used: this host has no /dev/kvm."}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = patience / 4
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return Verdict{Because: fmt.Sprintf("KVM is not used: /dev/kvm opens, but %d turns of a loop in a guest were not done within %v.", Turns, patience)}
	}
	var r report
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil {
		return Verdict{Because: fmt.Sprintf("KVM is not used: its probe broke off (%v).", err)}
	}
	return judge(r)
}

// report is what a child says.
// Remembered is Probe that runs once a boot: the verdict is kept in the file,
// with the boot and the device it is of. A file that does not fit, or cannot be
// read, is written anew.
func Remembered(ctx context.Context, argv []string, file string) Verdict {
	type kept struct {
		Of      string
		Verdict Verdict
	}
	of := subject()
	var old kept
	if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, &old) == nil && old.Of == of && of != "" {
		return old.Verdict
	}
	v := Probe(ctx, argv)
	if data, err := json.Marshal(kept{of, v}); err == nil && ctx.Err() == nil {
		_ = os.WriteFile(file, data, 0o600) // a probe more is all that a failure costs
	}
	return v
}

// subject names the boot and the device: a module loaded later makes another.
func subject() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	var st unix.Stat_t
	if err := unix.Stat("/dev/kvm", &st); err != nil {
		return strings.TrimSpace(string(boot)) + " without a device"
	}
	return fmt.Sprintf("%s %d %d", strings.TrimSpace(string(boot)), st.Ino, st.Ctim.Nano())
}

type report struct {
	Error string        `json:"error,omitempty"`
	Took  time.Duration `json:"took"`
}

func judge(r report) Verdict {
	took := r.Took.Round(100 * time.Microsecond)
	switch {
	case r.Error != "":
		return Verdict{Because: "KVM is not used: " + strings.TrimSuffix(r.Error, ".") + "."}
	case r.Took > limit:
		return Verdict{Because: fmt.Sprintf("KVM is not used: %d turns of a loop in a guest took %v, so it interprets them; hardware takes some 2ms.", Turns, took)}
	}
	return Verdict{Usable: true, Because: fmt.Sprintf("KVM ran %d turns of a loop in a guest in %v.", Turns, took)}
}

// Child runs the guest and reports on stdout. A program calls it when it was
// started for this and for nothing else.
func Child() error {
	took, err := runGuest(Turns)
	r := report{Took: took}
	if err != nil {
		r.Error = err.Error()
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

var errOutput = errors.New("the guest's answer was wrong")

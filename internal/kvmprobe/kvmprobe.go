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

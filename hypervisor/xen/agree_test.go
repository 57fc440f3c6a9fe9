package xen_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/test/nested"
)

// TestVirshAgrees does things at random to three machines, through us and
// through virsh, and after each holds what we say to what virsh says. The seed
// and the number of steps come from the environment.
func TestVirshAgrees(t *testing.T) {
	needsXen(t)
	t.Parallel()
	h, d := open(t, "")
	for _, gt := range []string{"pvh", "pv"} {
		if err := h.Put(t.Context(), h.Tiny(gt), tiny(gt), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	seed, steps := number(t, "CONSORT_SEED", uint64(time.Now().UnixNano())), number(t, "CONSORT_STEPS", 30)
	t.Logf("CONSORT_SEED=%d CONSORT_STEPS=%d", seed, steps)
	pick := rand.New(rand.NewPCG(seed, 0))
	all := acts(h, d, pick)
	ctx := t.Context()
	define := all[0]
	for i := range steps {
		id := machine(pick.IntN(machines))
		act := all[pick.IntN(len(all))]
		err := act.do(ctx, id)
		if errors.Is(err, fault.NotFound) { // it teaches more when it exists
			act, err = define, define.do(ctx, id)
		}
		t.Logf("%d: %s %s: %v", i, act.name, id[:8], err)
		// A guest that goes by itself is seen by either a moment earlier.
		differ := disagreement(ctx, t, h, d)
		for end := time.Now().Add(20 * time.Second); differ != "" && time.Now().Before(end); {
			differ = disagreement(ctx, t, h, d)
		}
		if differ != "" {
			t.Fatal(differ)
		}
	}
}

// tiny is where the disk of the small guest of that type lies in a host.
func tiny(guestType string) string { return "/srv/tiny-" + guestType + ".raw" }

// machines is how many there are, at most.
const machines = 3

func machine(n int) estate.MachineID {
	return estate.MachineID(fmt.Sprintf("%08d-0000-4000-8000-000000000001", n))
}

// act is something that may happen to a machine; much of it is refused.
type act struct {
	name string
	do   func(ctx context.Context, id estate.MachineID) error
}

func acts(h *nested.Host, d *nested.Driver, pick *rand.Rand) []act {
	saver, _ := driver.As[driver.Saver](d)
	resizer, _ := driver.As[driver.Resizer](d)
	snapshots, _ := driver.As[driver.Snapshotter](d)
	shelf, _ := driver.As[driver.Transferer](d)
	define := func(ctx context.Context, id estate.MachineID) error {
		gt := []string{"pvh", "pv"}[id[7]%2]
		return d.Define(ctx, driver.Definition{ID: id, Name: "trial", GuestType: gt, CPUs: 1, Memory: 128 * estate.MiB,
			Disks: []driver.Disk{{Name: "root", Base: &driver.Content{Path: tiny(gt), Format: estate.Raw, Size: 20 * estate.MiB}}}})
	}
	start := func(ctx context.Context, id estate.MachineID) error { return d.Start(ctx, id) }
	return []act{
		{"define", define}, {"define", define}, {"start", start}, {"start", start},
		{"stop", func(ctx context.Context, id estate.MachineID) error { return d.Stop(ctx, id, 0) }},
		{"ask to stop", func(ctx context.Context, id estate.MachineID) error { return d.Stop(ctx, id, 5*time.Second) }},
		{"delete", func(ctx context.Context, id estate.MachineID) error { return d.Delete(ctx, id) }},
		{"save", saver.Save},
		{"shelve", shelf.Shelve},
		{"snapshot", func(ctx context.Context, id estate.MachineID) error { return snapshots.Snapshot(ctx, id, "one") }},
		{"resize", func(ctx context.Context, id estate.MachineID) error {
			return resizer.Resize(ctx, id, 1+pick.IntN(2), estate.Bytes(128+8*pick.IntN(4))*estate.MiB)
		}},
		{"virsh start", func(ctx context.Context, id estate.MachineID) error { return outside(ctx, h, "start", id) }},
		{"virsh destroy", func(ctx context.Context, id estate.MachineID) error { return outside(ctx, h, "destroy", id) }},
		{"kill our process", func(ctx context.Context, _ estate.MachineID) error { return d.Kill(ctx) }},
	}
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// outside does something behind our back. It may be refused.
func outside(ctx context.Context, h *nested.Host, verb string, id estate.MachineID) error {
	out, err := h.Run(ctx, nil, "virsh", "-c", "xen:///system", verb, string(id))
	if err == nil && out.Exit != 0 {
		err = fmt.Errorf("virsh %s: %s", verb, strings.TrimSpace(string(out.Stderr)))
	}
	return err
}

// disagreement returns where our list and virsh differ.
func disagreement(ctx context.Context, t *testing.T, h *nested.Host, d driver.Host) string {
	t.Helper()
	all, err := d.List(ctx)
	if err != nil {
		return err.Error()
	}
	var ours, theirs []string
	for _, m := range all {
		ours = append(ours, fmt.Sprintf("%s %s %dKiB %dcpu", m.ID, m.Power, m.Def.Memory/estate.KiB, m.Def.CPUs))
	}
	// One virsh for everything: each takes a second here. It goes on after a
	// machine that it does not know.
	line := "list --all --uuid"
	for n := range machines {
		line += "; dominfo " + string(machine(n))
	}
	said, err := h.Run(ctx, nil, "virsh", "-c", "xen:///system", line)
	if err != nil {
		return err.Error()
	}
	list, infos, _ := strings.Cut(string(said.Stdout), "\n\n")
	known := strings.Fields(list)
	for info := range strings.SplitSeq(infos, "Id: ") {
		id := field(info, "UUID:")
		if id == "" {
			continue
		}
		power := estate.PowerUnknown
		switch field(info, "State:") {
		case "running", "idle", "paused", "in":
			power = estate.On
		case "shut":
			power = estate.Off
		}
		theirs = append(theirs, fmt.Sprintf("%s %s %sKiB %scpu", id, power, field(info, "Max memory:"), field(info, "CPU(s):")))
	}
	if len(known) != len(theirs)+1 { // the first domain is listed too
		return fmt.Sprintf("virsh lists %q and tells of %q", known, theirs)
	}
	slices.Sort(theirs)
	if fmt.Sprint(ours) != fmt.Sprint(theirs) {
		return fmt.Sprintf("we say %q, virsh says %q", ours, theirs)
	}
	return ""
}

// field returns the first word after a name in what virsh prints.
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.Fields(rest)[0]
		}
	}
	return ""
}

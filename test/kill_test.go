package test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/test/guest"
)

// tiny is a blueprint whose guest is a boot sector: it is up at once, so that
// many lives fit into a test.
func (h *here) tiny() {
	h.Helper()
	disk := make([]byte, 1<<20)
	copy(disk, []byte{0xf4, 0xeb, 0xfd}) // hlt; jmp to it
	disk[510], disk[511] = 0x55, 0xaa
	path := filepath.Join(h.dir, "tiny.raw")
	if err := os.WriteFile(path, disk, 0o644); err != nil {
		h.Fatal(err)
	}
	text := fmt.Sprintf(`
apiVersion: consort.dev/v1
kind: Image
metadata: {name: tiny, project: default}
spec: {import: {path: %s, format: raw, guest: {home: /home}}}
---
apiVersion: consort.dev/v1
kind: Context
metadata: {name: tiny, project: default}
spec: {colour: "#111111", trust: 1}
---
apiVersion: consort.dev/v1
kind: Blueprint
metadata: {name: tiny, project: default}
spec: {image: tiny, presentation: vnc, context: tiny, size: {cpus: 1, memory: 32Mi}, home: 16Mi}
`, path)
	file := filepath.Join(h.dir, "tiny.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		h.Fatal(err)
	}
	h.run(file)
}

// countStarts makes every start of a machine leave a line.
func (h *here) countStarts() (starts func() map[string]int) {
	h.Helper()
	log, script := filepath.Join(h.dir, "starts"), filepath.Join(h.dir, "qemu")
	if err := os.WriteFile(log, nil, 0o666); err != nil {
		h.Fatal(err)
	}
	if err := os.Chmod(log, 0o666); err != nil { // machines have users of their own
		h.Fatal(err)
	}
	text := "#!/bin/sh\nfor a; do [ \"$p\" = -uuid ] && echo \"$a\" >> " + log + "; p=$a; done\nexec qemu-system-x86_64 \"$@\"\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		h.Fatal(err)
	}
	h.env = append(h.env, "CONSORT_QEMU="+script)
	return func() map[string]int {
		b, err := os.ReadFile(log)
		if err != nil {
			h.Fatal(err)
		}
		counts := map[string]int{}
		for _, id := range strings.Fields(string(b)) {
			counts[id]++
		}
		return counts
	}
}

// machines returns the machines' processes.
func (h *here) machines() []string {
	out, _ := exec.Command("pgrep", "-f", "qemu-system.*"+h.dir).Output()
	return strings.Fields(string(out))
}

// converged is how long everything may take to be right after a kill.
const converged = time.Minute

// TestKillAtAnyMoment kills consort while a desktop is made, started, opened
// and deleted. Afterwards the life goes on to its end, no machine was started
// twice, and nothing is left behind.
func TestKillAtAnyMoment(t *testing.T) {
	guest.Needs(t)
	h := newHere(t)
	starts := h.countStarts()
	rng, kills := campaign(t, 12)
	h.tiny()
	for i := range kills {
		life := h.live(fmt.Sprintf("d%d", i))
		after := time.Duration(rng.Int64N(int64(2500 * time.Millisecond)))
		<-time.After(after) // the moment is the test's input, not something waited for
		h.kill()
		h.run()
		if err := <-life; err != nil {
			t.Fatalf("killed %v into the life of d%d: %v\n%s", after, i, err, h.tail())
		}
	}
	for id, n := range starts() {
		if n != 1 {
			t.Errorf("machine %s was started %d times", id, n)
		}
	}
	if len(starts()) == 0 {
		t.Error("no machine was ever started: the count proves nothing")
	}
	h.nothingLeft()
}

// campaign returns a random source that the printed seed replays, and how often
// to kill.
func campaign(t *testing.T, otherwise int) (rng *rand.Rand, kills int) {
	t.Helper()
	seed, _ := strconv.ParseUint(os.Getenv("CONSORT_SEED"), 10, 64)
	seed = cmp.Or(seed, uint64(time.Now().UnixNano()))
	kills, _ = strconv.Atoi(os.Getenv("CONSORT_KILLS"))
	kills = cmp.Or(kills, otherwise)
	t.Logf("replay with CONSORT_SEED=%d CONSORT_KILLS=%d", seed, kills)
	return rand.New(rand.NewPCG(seed, 0)), kills
}

// TestKillWhileLayersComeAndGo kills consort while an application is brought to
// a running Debian desktop or taken from it. Afterwards the desktop has what the
// blueprint says, and its machine was started once.
func TestKillWhileLayersComeAndGo(t *testing.T) {
	guest.Needs(t)
	h := newHere(t)
	starts := h.countStarts()
	rng, kills := campaign(t, 4)
	h.run("../examples/small-desktop/image.yaml", "testdata/swap.yaml")
	h.connect("ana-swap", "")
	until(h, "ana-swap", "with its layer", bootLimit, func(m *estate.Machine) bool { return attached(m, "calculator") })
	want := true
	for range kills {
		want = !want
		change(h, "swap", func(b *estate.Blueprint) {
			if b.Spec.Applications = nil; want {
				b.Spec.Applications = []estate.ApplicationChoice{{Name: "calculator"}}
			}
		})
		<-time.After(time.Duration(rng.Int64N(int64(4 * time.Second)))) // the moment is the test's input
		h.kill()
		h.run()
		// The new agent asks the guest; what it reports is what the guest has.
		m := until(h, "ana-swap", fmt.Sprintf("with its layer: %v", want), converged, func(m *estate.Machine) bool {
			granted := len(m.Spec.Layers) > 0
			return granted == want && attached(m, "calculator") == want && len(m.Status.Layers) == len(m.Spec.Layers)
		})
		if m.Status.Starts != 1 {
			t.Errorf("the machine was started %d times", m.Status.Starts)
		}
	}
	for id, n := range starts() {
		if n != 1 {
			t.Errorf("machine %s was started %d times", id, n)
		}
	}
}

// live takes a desktop through its life, through whatever happens to consort.
func (h *here) live(name string) <-chan error {
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(h.Context(), 3*converged)
		defer cancel()
		done <- h.life(ctx, name)
	}()
	return done
}

func (h *here) life(ctx context.Context, name string) error {
	d := &estate.Desktop{Spec: estate.DesktopSpec{Blueprint: "tiny", Person: "admin", Power: estate.On}}
	d.Head = estate.Head{APIVersion: estate.APIVersion, Kind: "Desktop", Metadata: estate.Metadata{Name: name, Project: "default"}}
	steps := []struct {
		name string
		do   func() error
	}{
		{"make", func() error { return h.client.Put(ctx, d, api.Write{}) }},
		{"run", func() error {
			now, err := api.Get[estate.Desktop](ctx, h.client, "default", name)
			if err == nil && now.Status.State != estate.DesktopRunning {
				err = fault.Busy.Errorf("it is %s: %s", now.Status.State, now.Status.Waiting)
			}
			return err
		}},
		{"open", func() error { return h.open(ctx, name) }},
		{"delete", func() error {
			err := h.client.Delete(ctx, d.Ref(), api.Write{})
			if errors.Is(err, fault.NotFound) {
				return nil
			}
			return err
		}},
		{"go", func() error {
			_, err := api.Get[estate.Desktop](ctx, h.client, "default", name)
			if errors.Is(err, fault.NotFound) {
				return nil
			}
			return errors.Join(err, fault.Busy.Errorf("it is still there"))
		}},
	}
	for _, s := range steps {
		began := time.Now()
		for {
			err := s.do()
			if err == nil {
				break
			}
			if ctx.Err() != nil || time.Since(began) > converged {
				return fmt.Errorf("%s did not come to %s within %v: %w", name, s.name, time.Since(began).Round(time.Second), err)
			}
			settle(ctx)
		}
	}
	return nil
}

// open opens a session once and closes it.
func (h *here) open(ctx context.Context, desktop string) error {
	s, err := h.client.Connect(ctx, "default", desktop, "")
	if err != nil {
		return err
	}
	t, err := h.client.Ticket(ctx, "default", s.Metadata.Name, false)
	if err != nil {
		return err
	}
	conn, err := h.client.Tunnel(ctx, t.Ticket)
	if err != nil {
		return err
	}
	return conn.Close()
}

// nothingLeft waits until no process, socket, disk or record of a machine is
// left, and says what is.
func (h *here) nothingLeft() {
	h.Helper()
	var left []string
	for deadline := time.Now().Add(converged); time.Now().Before(deadline); settle(h.Context()) {
		if left = h.leftovers(); len(left) == 0 {
			return
		}
	}
	h.Errorf("left behind: %s\n%s", strings.Join(left, ", "), h.tail())
}

func (h *here) leftovers() []string {
	left := h.machines()
	for _, pattern := range []string{"machines/*-*-*-*-*", "run/m/*", "agent/records/*"} {
		found, _ := filepath.Glob(filepath.Join(h.dir, pattern))
		left = append(left, found...)
	}
	machines, _, err := api.List[estate.Machine](h.Context(), h.client, api.Filter{})
	if err != nil {
		return append(left, err.Error())
	}
	for _, m := range machines {
		left = append(left, m.Ref().String())
	}
	volumes, _, err := api.List[estate.Volume](h.Context(), h.client, api.Filter{})
	if err != nil {
		return append(left, err.Error())
	}
	for _, v := range volumes {
		if v.Spec.Holder != "" {
			left = append(left, v.Ref().String()+" is held")
		}
	}
	return left
}

// TestMachinesOutliveConsort kills consort and looks at the processes of its
// machines: they are the same ones before and after, and can be worked on again.
func TestMachinesOutliveConsort(t *testing.T) {
	guest.Needs(t)
	h := newHere(t)
	h.tiny()
	const many = 4
	for i := range many {
		name := fmt.Sprintf("d%d", i)
		d := &estate.Desktop{Spec: estate.DesktopSpec{Blueprint: "tiny", Person: "admin", Power: estate.On}}
		if i > 0 {
			d.Spec.Person = name // a home of their own
			p := &estate.Person{Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Person", Metadata: estate.Metadata{Name: name}}}
			if err := h.client.Put(t.Context(), p, api.Write{}); err != nil {
				t.Fatal(err)
			}
		}
		d.Head = estate.Head{APIVersion: estate.APIVersion, Kind: "Desktop", Metadata: estate.Metadata{Name: name, Project: "default"}}
		if err := h.client.Put(t.Context(), d, api.Write{}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range many {
		until(h, fmt.Sprintf("d%d", i), "running", converged, func(d *estate.Desktop) bool { return d.Status.State == estate.DesktopRunning })
	}
	before := h.machines()
	if len(before) != many {
		t.Fatalf("%d machines run, want %d", len(before), many)
	}
	h.kill()
	began := time.Now()
	h.run()
	for i := range many {
		for {
			err := h.open(t.Context(), fmt.Sprintf("d%d", i))
			if err == nil {
				break
			}
			if time.Since(began) > converged {
				t.Fatal(err)
			}
			settle(t.Context())
		}
	}
	t.Logf("all %d machines are worked on again %v after the start", many, time.Since(began).Round(time.Millisecond))
	if after := h.machines(); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("machines' processes were %v, are %v", before, after)
	}
}

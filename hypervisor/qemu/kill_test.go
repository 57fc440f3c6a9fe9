package qemu

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

// placeConfig is the host in a test's folder, with a program that counts the
// starts of machines.
func placeConfig(dir string) Config {
	return Config{Dir: filepath.Join(dir, "m"), RunDir: filepath.Join(dir, "r"),
		Program: filepath.Join(dir, "counted"), Accelerator: "tcg"}
}

func killedDefinition(dir string) driver.Definition {
	return definition(driver.Content{Path: filepath.Join(dir, "boot.img"), Format: estate.Raw, Size: 512})
}

// agentLife is what the process that is killed does. It says what it begins.
func agentLife(dir string) error {
	ctx := context.Background()
	fmt.Println("open")
	h, err := Open(ctx, placeConfig(dir))
	if err != nil {
		return err
	}
	fmt.Println("define")
	if err := h.Define(ctx, killedDefinition(dir)); err != nil {
		return err
	}
	fmt.Println("start")
	if err := h.Start(ctx, someID); err != nil {
		return err
	}
	fmt.Println("delete")
	if err := h.Delete(ctx, someID); err != nil {
		return err
	}
	fmt.Println("done")
	select {}
}

var steps = []string{"open", "define", "start", "delete"}

// TestKilledAnywhereItConverges kills a process that holds the host with
// SIGKILL at a random moment. The next one must find a machine that can be used,
// started once in all, and must leave nothing behind when it deletes it.
// CONSORT_KILLS says how often; CONSORT_SEED repeats a run.
func TestKilledAnywhereItConverges(t *testing.T) { atRandomMoments(t, steps, killAt) }

// atRandomMoments runs a test for a number of steps and times after them.
func atRandomMoments(t *testing.T, steps []string, test func(t *testing.T, step string, after time.Duration)) {
	kills, seed := 10, uint64(time.Now().UnixNano())
	if n, err := strconv.Atoi(os.Getenv("CONSORT_KILLS")); err == nil {
		kills = n
	}
	if n, err := strconv.ParseUint(os.Getenv("CONSORT_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("CONSORT_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range kills {
		step, after := steps[r.IntN(len(steps))], time.Duration(r.Int64N(int64(120*time.Millisecond)))
		t.Run(fmt.Sprintf("%d %s+%v", i, step, after.Round(time.Microsecond)), func(t *testing.T) { test(t, step, after) })
	}
}

func killAt(t *testing.T, step string, after time.Duration) {
	cfg := place(t)
	dir := filepath.Dir(cfg.Dir)
	base(t, cfg)
	starts := filepath.Join(dir, "starts")
	counted(t, dir, starts)
	reached := kill(t, "agent", dir, step, after)

	h, err := Open(t.Context(), placeConfig(dir))
	if err != nil {
		t.Fatalf("open after a kill during %s: %v", reached, err)
	}
	defer h.Close()
	if reached != "delete" && reached != "done" {
		converges(t, h, dir, starts)
	}
	if err := h.Delete(t.Context(), someID); err != nil {
		t.Fatal(err)
	}
	nothingIsLeft(t, dir)
}

// counted writes the program that notes each start of a machine and becomes QEMU.
func counted(t *testing.T, dir, starts string) {
	t.Helper()
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\n[ \"$1\" = --version ] || echo start >> " + starts + "\nexec " + qemu + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "counted"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(starts, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(starts, 0o666); err != nil {
		t.Fatal(err)
	}
}

// kill starts the process, lets it come to a step, kills it some time later and
// returns the step it had come to by then.
func kill(t *testing.T, life, dir, step string, after time.Duration) (reached string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", life, dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(out)
	for s.Scan() {
		if reached = s.Text(); reached == step {
			time.AfterFunc(after, func() { cmd.Process.Kill() })
		}
	}
	cmd.Wait() // it was killed; Wait only reaps it
	return reached
}

func converges(t *testing.T, h *Host, dir, starts string) {
	t.Helper()
	begin := time.Now()
	if err := h.Define(t.Context(), killedDefinition(dir)); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context(), someID); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("it took %v to converge", took)
	}
	all, err := h.List(t.Context())
	if err != nil || len(all) != 1 || all[0].Power != estate.On || all[0].Starts != 1 {
		t.Errorf("machines = %+v, %v; want one, on, started once", all, err)
	}
	b, err := os.ReadFile(starts)
	if got := strings.Count(string(b), "start"); err != nil || got != 1 {
		t.Errorf("QEMU was started %d times (%v), want once", got, err)
	}
}

func nothingIsLeft(t *testing.T, dir string) {
	t.Helper()
	for _, sub := range []string{"m", "r"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			t.Error(err)
		}
		for _, e := range entries {
			if e.Name() != "lock" {
				t.Errorf("%s/%s is left", sub, e.Name())
			}
		}
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		b, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(b), dir) && strings.Contains(string(b), "-uuid") {
			t.Errorf("a process is left: %s", path)
		}
	}
}

package disposable

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"consort.dev/consort/agent/confine"
	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/qemu"
	"consort.dev/consort/test/fleet"
	"consort.dev/consort/test/guest"
)

const (
	planted  = 64
	machine  = estate.MachineID("0c9e3c54-1111-4222-8333-444455556666")
	original = estate.MachineID("0c9e3c54-1111-4222-8333-444455556667")
	template = "tiny"
)

// TestMain is the test, or the agent that it kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("CONSORT_DISPOSABLE_DIR"); dir != "" {
		if err := life(dir, os.Getenv("CONSORT_DISPOSABLE_SEALED") == "yes"); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(fleet.Main(m))
}

func open(ctx context.Context, dir string) (*qemu.Host, error) {
	c, err := confine.New(ctx, "qemu-system-x86_64", "--version")
	if err != nil {
		return nil, err
	}
	return qemu.Open(ctx, qemu.Config{Dir: filepath.Join(dir, "m"), RunDir: filepath.Join(dir, "r"), Accelerator: "tcg", Confiner: c})
}

func definition(dir string) (driver.Definition, error) {
	size, err := strconv.ParseInt(os.Getenv("CONSORT_DISPOSABLE_SIZE"), 10, 64)
	return driver.Definition{
		ID: machine, Name: "personal", CPUs: 1, Memory: 192 * estate.MiB, Disks: []driver.Disk{{Name: "root", Base: &driver.Content{
			Path: os.Getenv("CONSORT_DISPOSABLE_BASE"), Format: estate.DiskFormat(os.Getenv("CONSORT_DISPOSABLE_FORMAT")), Size: estate.Bytes(size)}}},
	}, err
}

// life is what an agent does that is killed: it has a machine go on from the
// template, plants what comes on its input in the machine's disk and memory, and
// throws the machine away when one more byte comes. It says how far it is.
func life(dir string, sealed bool) error {
	ctx := context.Background()
	canaries := make([]byte, 512*planted)
	if _, err := io.ReadFull(os.Stdin, canaries); err != nil {
		return err
	}
	h, err := open(ctx, dir)
	if err != nil {
		return err
	}
	def, err := definition(dir)
	if err != nil {
		return err
	}
	def.Template, def.Sealed = template, sealed
	if err := errors.Join(h.Define(ctx, def), h.Start(ctx, machine)); err != nil {
		return err
	}
	plant := "cat >/run/canaries && cp /run/canaries /root/canaries && sync && echo 3 >/proc/sys/vm/drop_caches && cmp /run/canaries /root/canaries"
	out, err := h.Run(ctx, machine, driver.Command{Args: []string{"/bin/sh", "-c", plant}, Stdin: canaries})
	if err != nil || out.Exit != 0 {
		return fmt.Errorf("plant: %d %s %w", out.Exit, out.Stderr, err)
	}
	clear(canaries)
	fmt.Println("planted")
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return err
	}
	if err := h.Delete(ctx, machine); err != nil {
		return err
	}
	fmt.Println("deleted")
	select {}
}

// yard is where machines lie, with a template that they go on from.
func yard(t *testing.T) (dir string) {
	tiny := guest.Tiny(t)
	dir, err := os.MkdirTemp("", "thrown")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONSORT_DISPOSABLE_BASE", tiny.Path)
	t.Setenv("CONSORT_DISPOSABLE_FORMAT", string(tiny.Format))
	t.Setenv("CONSORT_DISPOSABLE_SIZE", strconv.FormatInt(int64(tiny.Size), 10))
	h, err := open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	def, err := definition(dir)
	if err != nil {
		t.Fatal(err)
	}
	def.ID = original
	if err := errors.Join(h.Define(t.Context(), def), h.Start(t.Context(), original)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // what a failed test leaves
		if h, err := open(context.Background(), dir); err == nil {
			h.Delete(context.Background(), original)
			h.Delete(context.Background(), machine)
			h.Close()
		}
	})
	for end := time.Now().Add(5 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if _, err := h.Run(t.Context(), original, driver.Command{Args: []string{"/bin/true"}}); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal("the guest does not boot: ", err)
		}
	}
	if err := h.Freeze(t.Context(), original, template); err != nil {
		t.Fatal(err)
	}
	return dir
}

// agent is a running agent.
type agent struct {
	cmd  *exec.Cmd
	says *bufio.Scanner
	tell io.Writer
}

// sealed has the machine be sealed. Without it, it is like any other.
const sealed = "CONSORT_DISPOSABLE_SEALED=yes"

func start(t *testing.T, program, dir string, c *Canaries, env ...string) agent {
	t.Helper()
	cmd := exec.Command(program)
	cmd.Env = append(append(os.Environ(), "CONSORT_DISPOSABLE_DIR="+dir), env...)
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if _, err := in.Write(c.Bytes()); err != nil {
		t.Fatal(err)
	}
	a := agent{cmd, bufio.NewScanner(out), in}
	if !a.says.Scan() || a.says.Text() != "planted" {
		t.Fatalf("the agent says %q, want planted", a.says.Text())
	}
	return a
}

// kill ends the agent at once.
func (a agent) kill() {
	a.cmd.Process.Kill()
	a.cmd.Wait()
}

// TestNothingIsLeftOfWhatWasThrownAway kills the agent or the machine's process
// at a random moment of the destruction, and looks for the canaries and the key
// in all files before anybody tidies up, and after. CONSORT_KILLS says how often,
// CONSORT_SEED repeats a run.
func TestNothingIsLeftOfWhatWasThrownAway(t *testing.T) {
	dir := yard(t)
	t.Run("control", func(t *testing.T) { control(t, dir) })
	t.Run("steps", func(t *testing.T) { steps(t, dir) })
	kills, seed := number("CONSORT_KILLS", 12), uint64(number("CONSORT_SEED", int(time.Now().UnixNano()%1e6)))
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	all, left, whole := 0, 0, 0
	for i := range kills {
		who, after := []string{"agent", "machine"}[i%2], time.Duration(random.Int64N(int64(60*time.Millisecond)))
		if i < 2 {
			after = 0
		}
		c := NewCanaries(planted)
		all += planted
		found, done := throwAway(t, dir, c, who, after)
		left += found
		if done {
			whole++
		}
	}
	t.Logf("canaries_planted %d canaries_found %d in %d destructions, %d of which ended before the kill", all, left, kills, whole)
	if path := os.Getenv("CONSORT_FIGURES"); path != "" { // see bench/contexts
		if err := os.WriteFile(path, fmt.Appendf(nil, `{"canaries_planted": %d, "canaries_found": %d}`, all, left), 0o644); err != nil {
			t.Error(err)
		}
	}
	if left > 0 {
		t.Errorf("%d canaries are left, want none", left)
	}
}

func number(name string, otherwise int) int {
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		return otherwise
	}
	return n
}

// control does the same with a machine that is not sealed: the search finds all.
func control(t *testing.T, dir string) {
	c := NewCanaries(planted)
	a := start(t, os.Args[0], dir, c)
	a.kill()
	n, in, err := c.Found(dir)
	if err != nil || n != planted {
		t.Errorf("the search finds %d of %d canaries of a machine that is not sealed, in %v: %v", n, planted, in, err)
	}
	clean(t, dir)
}

// throwAway does one destruction and returns how many canaries it left.
func throwAway(t *testing.T, dir string, c *Canaries, who string, after time.Duration) (left int, done bool) {
	a := start(t, os.Args[0], dir, c, sealed)
	pids, key := a.machine(t)
	if _, err := a.tell.Write([]byte{'.'}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(after) // the moment that is tried; nothing is waited for
	if who == "machine" {
		kill(pids)
		done = a.says.Scan() && a.says.Text() == "deleted"
		if !done {
			t.Errorf("the machine's process was killed after %v, and its destruction ended with %q", after, a.says.Text())
		}
	}
	a.kill()
	return nothing(t, dir, c, key, fmt.Sprintf("%s killed after %v", who, after)), done
}

// kill ends processes at once; those that have ended are none.
func kill(pids []string) {
	for _, pid := range pids {
		if n, err := strconv.Atoi(pid); err == nil {
			syscall.Kill(n, syscall.SIGKILL)
		}
	}
}

// machine returns the processes of the agent's machine, of which there is one,
// and its key.
func (a agent) machine(t *testing.T) (pids []string, key []byte) {
	t.Helper()
	pids, err := Processes(machine)
	if err != nil || len(pids) != 1 {
		t.Fatalf("processes of the machine: %v, want one: %v", pids, err)
	}
	if key, err = KeyOf(pids[0]); err != nil {
		t.Fatal(err)
	}
	return pids, key
}

// nothing finds no process of the machine whose agent has ended, no canary and no
// key: as that left it, and when the next agent has tidied up. It returns how many
// canaries it found.
func nothing(t *testing.T, dir string, c *Canaries, key []byte, when string) (left int) {
	t.Helper()
	if err := Gone(machine, 5*time.Second); err != nil {
		t.Errorf("%s: %v", when, err)
	}
	for range 2 {
		n, in, err := c.Found(dir)
		if err != nil || n > 0 {
			t.Errorf("%s: %d canaries are left in %v: %v", when, n, in, err)
		}
		left += n
		if in, err := Holds(key, dir); err != nil || len(in) > 0 {
			t.Errorf("%s: the key is in %v: %v", when, in, err)
		}
		clean(t, dir)
	}
	return left
}

// clean opens the host as the next agent does, wants no sealed machine to run and
// deletes what is there.
func clean(t *testing.T, dir string) {
	t.Helper()
	h, err := open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ms, err := h.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		if m.Def.Sealed && m.Power != estate.Off {
			t.Errorf("machine %s is %s though its agent is gone", m.ID, m.Power)
		}
		if err := h.Delete(t.Context(), m.ID); err != nil {
			t.Error(err)
		}
	}
}

// TestAKeyInAFileIsFound is the control of the search for keys: it finds one as
// its digits and as what those stand for.
func TestAKeyInAFileIsFound(t *testing.T) {
	key := strings.Repeat("0123456789abcdef", 4)
	raw, err := hex.DecodeString(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{key, string(raw)} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"+form), 0o600); err != nil {
			t.Fatal(err)
		}
		if in, err := Holds([]byte(key), dir); err != nil || len(in) != 1 {
			t.Errorf("the key as %q is found in %v, want one file: %v", form, in, err)
		}
	}
}

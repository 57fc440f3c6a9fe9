package confine

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"consort.dev/consort/fault"
)

// confined runs a program of this system in a folder of its own, and returns what
// it says.
func confined(t *testing.T, program string, args ...string) (string, error) {
	t.Helper()
	c, err := New(t.Context(), program, "--version")
	if err != nil {
		t.Fatal(err)
	}
	by, lacks := c.Report()
	t.Logf("held by %s; %s", by, lacks)
	if by == "" {
		t.Skip("this kernel confines nothing: ", lacks)
	}
	cmd := exec.Command(c.program, args...)
	cmd.Dir = t.TempDir()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := c.Start(cmd); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	return out.String(), err
}

func TestAProgramRunsWithWhatItIsMadeOf(t *testing.T) {
	if _, err := confined(t, "cat", "--version"); err != nil {
		t.Error(err)
	}
}

func TestAFileOutsideIsNotThere(t *testing.T) {
	secret := t.TempDir() + "/secret"
	if err := os.WriteFile(secret, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{secret, "/etc/passwd", "/proc/1/status", "/proc/sys/kernel/hostname"} {
		if _, err := confined(t, "cat", path); err == nil {
			t.Errorf("it reads %s", path)
		}
	}
}

func TestOursAreLeftAsTheyWere(t *testing.T) {
	threads := func() (all string) {
		for _, ns := range []string{"mnt", "pid", "net", "ipc", "uts"} {
			to, err := os.Readlink("/proc/self/ns/" + ns)
			if err != nil {
				t.Fatal(err)
			}
			all += to
		}
		return all
	}
	before := threads()
	if _, err := confined(t, "cat", "--version"); err != nil {
		t.Error(err)
	}
	if after := threads(); after != before {
		t.Errorf("we are in %s, and were in %s", after, before)
	}
	if _, err := os.Stat("/etc/passwd"); err != nil {
		t.Error(err)
	}
	if n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || n != 0 {
		t.Errorf("no_new_privs of ours is %d, %v; want 0", n, err)
	}
}

func TestWhatIsNoProgramIsRefused(t *testing.T) {
	script := t.TempDir() + "/script"
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), script); !errors.Is(err, fault.Invalid) {
		t.Errorf("New of a script = %v, want invalid", err)
	}
	if _, err := New(t.Context(), "/none/such"); !errors.Is(err, fault.NotFound) {
		t.Errorf("New of nothing = %v, want not found", err)
	}
}

func TestAnotherProgramIsRefused(t *testing.T) {
	c, err := New(t.Context(), "cat", "--version")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/echo")
	cmd.Dir = t.TempDir()
	if err := c.Start(cmd); !errors.Is(err, fault.Invalid) {
		t.Errorf("Start of another program = %v, want invalid", err)
	}
}

func TestWhatAHostLacksIsSaid(t *testing.T) {
	c, err := New(t.Context(), "false") // which never ends well
	if err != nil {
		t.Fatal(err)
	}
	if by, lacks := c.Report(); by != "" || !strings.Contains(lacks, "no Landlock: exit status 1") {
		t.Errorf("held by %q, lacks %q; want nothing, and why", by, lacks)
	}
}

func TestOlderKernelsAreAskedForLess(t *testing.T) {
	for abi, want := range map[int]uint64{1: 1<<13 - 1, 2: 1<<14 - 1, 3: 1<<15 - 1, 4: 1<<15 - 1, 5: 1<<16 - 1, 7: 1<<16 - 1} {
		a := handled(abi)
		if a.Handled_access_fs != want || (abi >= 4) != (a.Handled_access_net != 0) || (abi >= 6) != (a.Scoped != 0) {
			t.Errorf("ABI %d: %+v, want rights %b", abi, a, want)
		}
	}
}

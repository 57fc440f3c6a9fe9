package disposable

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A destruction is so many lines of the provider's Delete. To kill the agent or
// the machine's process between two of them, and no earlier or later, the test
// builds an agent of its own which kills itself there, or says that it is there
// and waits; the product knows nothing of it.

// destruction is what Delete does, each step by the code that it begins with.
var destruction = []struct{ name, code string }{
	{"it ends the process", "	if m.isDefined() {"},
	{"it forgets the key", "	m.loseKey()"},
	{"it removes what an earlier one left", "	if err := os.RemoveAll(gone)"},
	{"it renames the folder", "	if err := os.Rename(dir, gone)"},
	{"it forgets the machine", "	m.forgotten()"},
	{"it has the name on the disk", "	if err := atomicfile.SyncDir(h.cfg.Dir)"},
	{"it removes the files", "	return errors.Join(os.RemoveAll(gone)"},
}

// dieAt names the step before which an agent kills itself, waitAt the one before
// which it waits for a byte, and unleashed has one hold no machine to its own life.
const (
	dieAt     = "CONSORT_DISPOSABLE_DIE_AT"
	waitAt    = "CONSORT_DISPOSABLE_WAIT_AT"
	unleashed = "CONSORT_DISPOSABLE_UNLEASHED"
)

const leashCode = "	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL\n"

// fragile builds the agent that kills itself.
func fragile(t *testing.T) (program string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "fragile")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	o := overlay{t: t, dir: dir, replace: map[string]string{}}
	o.change("hypervisor/qemu/machine.go", func(text string) string {
		begin := strings.Index(text, "func (h *Host) Delete(")
		end := begin + strings.Index(text[begin:], "\n}\n")
		body := text[begin:end]
		for _, s := range destruction {
			body = instead(t, body, s.code, fmt.Sprintf("	if os.Getenv(%q) == %q {\n\t\tsyscall.Kill(os.Getpid(), syscall.SIGKILL)\n\t\tselect {}\n\t}\n", dieAt, s.name)+
				fmt.Sprintf("	if os.Getenv(%q) == %q {\n\t\tos.Stdout.WriteString(\"waits\\n\")\n\t\tos.Stdin.Read(make([]byte, 1))\n\t}\n", waitAt, s.name)+s.code)
		}
		return instead(t, text[:begin]+body+text[end:], "import (\n", "import (\n\t\"syscall\"\n")
	})
	o.change("hypervisor/qemu/seal.go", func(text string) string {
		return instead(t, text, leashCode, fmt.Sprintf("	if os.Getenv(%q) == \"\" {\n\t%s\t}\n", unleashed, leashCode))
	})
	program = filepath.Join(dir, "agent")
	out, err := exec.Command("go", "test", "-c", "-overlay", o.write(), "-o", program, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// overlay is files that 'go build -overlay' takes in place of the product's.
type overlay struct {
	t       *testing.T
	dir     string // for them
	replace map[string]string
}

// add has the product have another file.
func (o overlay) add(file, text string) {
	o.t.Helper()
	path, err := filepath.Abs(filepath.Join("../..", file))
	if err != nil {
		o.t.Fatal(err)
	}
	o.replace[path] = filepath.Join(o.dir, strings.ReplaceAll(file, "/", "-"))
	if err := os.WriteFile(o.replace[path], []byte(text), 0o600); err != nil {
		o.t.Fatal(err)
	}
}

// change changes a file of the product.
func (o overlay) change(file string, change func(text string) string) {
	o.t.Helper()
	b, err := os.ReadFile(filepath.Join("../..", file))
	if err != nil {
		o.t.Fatal(err)
	}
	o.add(file, change(string(b)))
}

// write returns what the build is to be given.
func (o overlay) write() (path string) {
	o.t.Helper()
	b, err := json.Marshal(map[string]any{"Replace": o.replace})
	path = filepath.Join(o.dir, "overlay.json")
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		o.t.Fatal(err)
	}
	return path
}

// instead replaces code, which must be there once.
func instead(t *testing.T, text, code, by string) string {
	t.Helper()
	if n := strings.Count(text, code); n != 1 {
		t.Fatalf("%q is %d times in the provider, want once: the steps have changed, and so must the test", code, n)
	}
	return strings.Replace(text, code, by, 1)
}

// steps kills the agent, and then the machine's process, before each step of the
// destruction. An agent that has no leash on its machine is found out.
func steps(t *testing.T, dir string) {
	program := fragile(t)
	for _, s := range destruction {
		c := NewCanaries(planted)
		a := start(t, program, dir, c, sealed, dieAt+"="+s.name)
		_, key := a.machine(t)
		if _, err := a.tell.Write([]byte{'.'}); err != nil {
			t.Fatal(err)
		}
		if a.says.Scan() { // until it is dead
			t.Errorf("the agent that dies before %s says %q", s.name, a.says.Text())
		}
		a.kill()
		nothing(t, dir, c, key, "the agent died before "+s.name)
	}
	for _, s := range destruction {
		c := NewCanaries(planted)
		a := start(t, program, dir, c, sealed, waitAt+"="+s.name)
		_, key := a.machine(t)
		a.must(t, "waits")
		pids, err := Processes(machine) // those that the steps before have left
		if err != nil {
			t.Fatal(err)
		}
		kill(pids)
		a.must(t, "deleted")
		a.kill()
		nothing(t, dir, c, key, "the machine's process was killed before "+s.name)
	}
	a := start(t, program, dir, NewCanaries(planted), sealed, unleashed+"=yes")
	a.machine(t)
	a.kill()
	if Gone(machine, 2*time.Second) == nil {
		t.Error("a machine without a leash was not found to outlive its agent")
	}
	clean(t, dir)
}

// must has the agent go on, until it says what it must.
func (a agent) must(t *testing.T, say string) {
	t.Helper()
	if _, err := a.tell.Write([]byte{'.'}); err != nil {
		t.Fatal(err)
	}
	if !a.says.Scan() || a.says.Text() != say {
		t.Fatalf("the agent says %q, want %s", a.says.Text(), say)
	}
}

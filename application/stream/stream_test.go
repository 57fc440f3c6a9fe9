package stream

import (
	"bytes"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"consort.dev/consort/application/driver"
	"consort.dev/consort/application/drivertest"
	"consort.dev/consort/estate"
)

// TestConformanceAgainstAModelOfTheGuest runs the suite with the scripts
// replaced by a model of what they do; TestTwoApplicationsOnARealGuest runs the
// scripts.
func TestConformanceAgainstAModelOfTheGuest(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Fixture {
		w := newModel(t)
		cache := cacheDir(t)
		f := drivertest.Fixture{
			Provider:  New(Config{Cache: cache}),
			Machine:   w.machines.Get,
			Processes: w.processes,
			Another:   func() driver.Provider { return New(Config{Cache: cache}) },
		}
		if strings.Contains(t.Name(), "/Build") {
			f.Recipe, f.Broken = realRecipe(t, "x11-apps"), realRecipe(t, "no-such-package-at-all")
		}
		return f
	})
}

// model is what the scripts do to guests, without guests.
type model struct {
	t        *testing.T
	machines *drivertest.Machines

	mu      sync.Mutex
	mounted map[estate.MachineID]map[string]bool // digits
	running map[estate.MachineID]map[string]drivertest.Process
}

func newModel(t *testing.T) *model {
	w := &model{t: t, mounted: map[estate.MachineID]map[string]bool{}, running: map[estate.MachineID]map[string]drivertest.Process{}}
	w.machines = drivertest.NewMachines(w.answer)
	return w
}

func (w *model) processes(id estate.MachineID) (ps []drivertest.Process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.running[id] {
		ps = append(ps, p)
	}
	return ps
}

// answer plays a script.
func (w *model) answer(id estate.MachineID, args []string, stdin []byte) driver.Output {
	if len(args) < 3 || !slices.Equal(args[:3], []string{"/bin/sh", "-s", "--"}) {
		w.t.Errorf("the guest was asked to run %q", args)
		return driver.Output{Exit: 127}
	}
	args = args[3:]
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mounted[id] == nil {
		w.mounted[id], w.running[id] = map[string]bool{}, map[string]drivertest.Process{}
	}
	switch name := played(stdin); name {
	case "attach":
		return w.attach(id, args[0], args[1], args[2])
	case "attached":
		var out bytes.Buffer
		for digits := range w.mounted[id] {
			if _, has := w.machines.Get(id).Disk("l-" + digits[:16]); has {
				out.WriteString(digits + "\n")
			}
		}
		return driver.Output{Stdout: out.Bytes()}
	case "start":
		return w.start(id, args[0], args[1], args[3:])
	case "detach":
		delete(w.mounted[id], args[0])
		delete(w.running[id], args[0])
		return driver.Output{}
	default:
		w.t.Errorf("the guest got a script that is none of ours")
		return driver.Output{Exit: 127}
	}
}

// played returns the name of the script that the text ends with.
func played(text []byte) string {
	for _, name := range []string{"attached", "attach", "start", "detach"} {
		own, err := scripts.ReadFile("scripts/" + name + ".sh")
		if err == nil && bytes.HasSuffix(text, own) {
			return name
		}
	}
	return ""
}

func (w *model) attach(id estate.MachineID, digits, serial, size string) driver.Output {
	d, has := w.machines.Get(id).Disk(serial)
	switch {
	case !has:
		return driver.Output{Exit: 12, Stderr: []byte("disk " + serial + " did not appear in the guest\n")}
	case strconv.FormatInt(int64(d.Size), 10) != size:
		return driver.Output{Exit: 1, Stderr: []byte("wrong size\n")}
	}
	w.mounted[id][digits] = true
	return driver.Output{}
}

func (w *model) start(id estate.MachineID, digits, user string, command []string) driver.Output {
	switch {
	case !w.mounted[id][digits]:
		return driver.Output{Exit: 10, Stderr: []byte("the layer is not attached\n")}
	case command[0] == "false":
		return driver.Output{Exit: 11, Stderr: []byte("it ended at once with exit status 1: \n")}
	}
	if _, runs := w.running[id][digits]; !runs {
		w.running[id][digits] = drivertest.Process{Layer: estate.Digest("sha256:" + digits), User: user, Command: command}
	}
	return driver.Output{}
}

func TestEveryScriptIsShell(t *testing.T) {
	files, err := scripts.ReadDir("scripts")
	if err != nil || len(files) != 6 {
		t.Fatalf("%d scripts, %v; want 6", len(files), err)
	}
	for _, name := range []string{"attach", "attached", "start", "detach"} {
		text, err := script(name)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sh", "-n")
		cmd.Stdin = bytes.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}

func TestSerialFitsADisk(t *testing.T) {
	got := serial("sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
	if want := "l-0123456789abcdef"; got != want || len(got) > 20 {
		t.Errorf("serial = %q, want %q", got, want)
	}
}

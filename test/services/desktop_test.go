package services

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/test/fleet"
	"consort.dev/consort/test/guest"
)

const (
	journey = 10 * time.Minute // for all of it
	within  = 20 * time.Second // that testdata/starts.yaml promises of a start
	enough  = 3                // starts, before a desktop or a host is judged

	// What a starved machine gets of a CPU: too little by far to start anything
	// before the time is up, however quick its host, and often enough for its
	// hypervisor to answer who looks at it.
	awake  = 5 * time.Millisecond
	asleep = 500 * time.Millisecond
)

// floor is two hosts with desktops.
type floor struct {
	*testing.T
	fleet *fleet.Fleet
	began time.Time
}

// TestADesktopLeavesTheHostWhereItsApplicationStartsSlowly keeps the CPU from a
// desktop on QEMU while its application starts: by itself it moves to libvirt,
// where starts are known to be quick, and they are.
func TestADesktopLeavesTheHostWhereItsApplicationStartsSlowly(t *testing.T) {
	if os.Getenv("CONSORT_JOURNEYS") == "" {
		t.Skip("needs minutes: make test-services")
	}
	guest.Needs(t)
	f := &floor{T: t, began: time.Now()}
	f.fleet = fleet.New(t, "../../examples/small-desktop/image.yaml", "testdata/starts.yaml")
	f.until("ana is on local", func() bool { return f.brought("ana") }) // while there is no other host
	daemon := f.fleet.Libvirt("virt")
	f.fleet.Must("apply", "-f", "testdata/other.yaml")
	for _, desktop := range []string{"ana", "bo", "ana", "bo", "bo", "ana"} { // while one starts, the other comes up
		if d := f.decision(); d.Spec.Say != "" {
			t.Fatalf("%q before so much is known", d.Spec.Say)
		}
		if desktop == "bo" {
			f.starts("bo", "virt", f.start)
		} else {
			f.starts("ana", "local", f.starved)
		}
		switch {
		case f.launches(desktop) < enough:
			f.again(desktop)
		case desktop == "bo":
			f.power("bo", estate.Off)
		}
	}
	f.until("a decision is carried out", func() bool { return f.decision().Status.State == estate.Done })
	f.explained(f.decision())
	for n := range enough {
		if n > 0 {
			f.again("ana")
		}
		f.starts("ana", "virt", f.start)
	}
	f.until("its outcome is known", func() bool { return f.decision().Status.Outcome != nil })
	if o := f.decision().Status.Outcome; !o.Met || !strings.HasPrefix(o.Say, "0 of the last 3 starts of calculator took longer than 20s") {
		t.Errorf("it came to %+v, want that 0 of 3 starts were late", o)
	}
	// Who runs it says the same, in words that are not ours.
	id := f.machine("ana").Metadata.UID
	running, err := daemon.Shell(t.Context(), daemon.URI, "list", "--uuid", "--state-running")
	if here := f.processes(id); err != nil || !strings.Contains(running, id) || len(here) > 0 {
		t.Errorf("libvirt runs %q (%v), and processes of QEMU's host are %v; want %s on libvirt alone", running, err, here, id)
	}
	f.tell("why:\n%s", f.fleet.Must("why", "desktop", "ana"))
}

// explained checks a decision's reasons, and what else was considered.
func (f *floor) explained(d *estate.Decision) {
	f.Helper()
	s := &d.Spec
	f.tell("%s: %s; promised: %s; expected: %s", s.Act, s.Say, s.Objective, s.Expected.Say)
	if s.Act != "move" || s.On.Name != "ana" || s.Source != "local" || s.Target != "virt" || f.machine("ana").Spec.Hypervisor != "virt" {
		f.Errorf("%s %s from %s to %s, and it is on %s; want ana moved from local to virt", s.Act, s.On, s.Source, s.Target, f.machine("ana").Spec.Hypervisor)
	}
	if !strings.HasPrefix(s.Say, "move from local to virt, because 3 of the last 3 starts of calculator took longer than 20s") {
		f.Errorf("it says %q", s.Say)
	}
	facts := map[string]float64{}
	for _, x := range s.Evidence {
		facts[x.Name] = x.Value
	}
	here, there := facts["median on local"], facts["median of 3 starts on other desktops on virt"]
	if here <= within.Seconds() || there <= 0 || there > within.Seconds() || facts["too late on local"] != enough {
		f.Errorf("its evidence is %v, want 3 late starts on local and quick ones on virt", s.Evidence)
	}
	considered := map[string]bool{}
	for _, a := range s.Alternatives {
		f.tell("not %s: %s", a.Act, a.Not)
		considered[a.Act] = a.Not != ""
	}
	if !considered["wait"] || !considered["resize"] || s.Expected.Say == "" || d.Status.Approved == "" {
		f.Errorf("it considered %+v, expects %q and was approved by %q", s.Alternatives, s.Expected.Say, d.Status.Approved)
	}
}

// starts has the application started on the desktop, once it has come up, and
// waits until its agent has told how long that took.
func (f *floor) starts(desktop, on string, start func(desktop string)) {
	f.Helper()
	f.until("the application is brought to "+desktop, func() bool { return f.brought(desktop) })
	before := f.launches(desktop)
	start(desktop)
	f.until("a start on "+desktop+" is told", func() bool { return f.launches(desktop) > before })
	l := f.machine(desktop).Status.Launches[before]
	f.tell("%s starts in %s on %s", desktop, time.Duration(l.Took), l.Hypervisor)
	if l.Hypervisor != on || f.machine(desktop).Spec.Hypervisor != on {
		f.Fatalf("the start was on %s, want %s", l.Hypervisor, on)
	}
}

func (f *floor) launches(desktop string) int {
	f.Helper()
	return len(f.machine(desktop).Status.Launches)
}

// start starts the application as its person would.
func (f *floor) start(desktop string) {
	f.Helper()
	if err := f.fleet.Client.StartApplication(f.Context(), "default", desktop, "calculator"); err != nil {
		f.Fatal(err)
	}
}

// starved starts the application while the machine's process is stopped nearly
// all the time, from outside, until the start is late.
func (f *floor) starved(desktop string) {
	f.Helper()
	id := f.machine(desktop).Metadata.UID
	one := f.processes(id)
	if len(one) != 1 {
		f.Fatalf("the processes of %s are %v, want one", desktop, one)
	}
	signal := func(s syscall.Signal) {
		if err := syscall.Kill(one[0], s); err != nil {
			f.Errorf("%s to %d: %v", s, one[0], err)
		}
	}
	late, ended := time.Now().Add(within+time.Second), make(chan struct{})
	go func() {
		defer close(ended)
		for time.Now().Before(late) {
			signal(syscall.SIGSTOP)
			time.Sleep(asleep)
			signal(syscall.SIGCONT)
			time.Sleep(awake)
		}
	}()
	defer func() { <-ended }()
	f.start(desktop)
}

// processes returns those of the machine on QEMU's own host.
func (f *floor) processes(id string) (pids []int) {
	f.Helper()
	out, _ := exec.Command("pgrep", "-f", "^[^ ]*qemu-system.*"+id).Output() // fails when there is none
	for _, word := range strings.Fields(string(out)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			f.Fatal(err)
		}
		text, _ := os.ReadFile("/proc/" + word + "/cmdline")
		if strings.Contains(string(text), f.fleet.Dir+"/up/") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// again turns the desktop off and has it come up again: of the starts after that
// only the first is one, since the next finds the application running.
func (f *floor) again(desktop string) {
	f.Helper()
	f.power(desktop, estate.Off)
	f.until(desktop+" is off", func() bool { return f.machine(desktop).Status.Power == estate.Off })
	f.power(desktop, estate.On)
}

func (f *floor) power(desktop string, power estate.Power) {
	f.Helper()
	d := f.desktop(desktop)
	d.Spec.Power = power
	if err := f.fleet.Client.Put(f.Context(), d, api.Write{}); err != nil {
		f.Fatal(err)
	}
}

// brought reports whether the desktop runs and its application can be started.
func (f *floor) brought(desktop string) bool {
	f.Helper()
	if f.desktop(desktop).Status.State != estate.DesktopRunning {
		return false
	}
	m := f.machine(desktop)
	return m.Status.Power == estate.On && len(m.Status.Layers) == 1 && m.Status.Layers[0].Attached
}

func (f *floor) desktop(name string) *estate.Desktop {
	f.Helper()
	d, err := api.Get[estate.Desktop](f.Context(), f.fleet.Client, "default", name)
	if err != nil {
		f.Fatal(err)
	}
	return d
}

func (f *floor) machine(desktop string) *estate.Machine {
	f.Helper()
	m, err := api.Get[estate.Machine](f.Context(), f.fleet.Client, "default", f.desktop(desktop).Status.Machine)
	if err != nil {
		f.Fatal(err)
	}
	return m
}

// decision is the only one there is, or an empty one.
func (f *floor) decision() *estate.Decision {
	f.Helper()
	all, _, err := api.List[estate.Decision](f.Context(), f.fleet.Client, api.Filter{Project: "default"})
	if err != nil || len(all) > 1 {
		f.Fatalf("%d decisions (%v), want one", len(all), err)
	}
	if len(all) == 0 {
		return new(estate.Decision)
	}
	return all[0]
}

// until waits until something is so, as long as the journey may last.
func (f *floor) until(what string, so func() bool) {
	f.Helper()
	for !so() {
		if time.Since(f.began) > journey {
			d, m := f.desktop("ana"), f.machine("ana")
			f.Fatalf("not so after %v: %s; the desktop is %+v, its machine %+v %+v, the decision %+v", journey, what, d.Status, m.Spec, m.Status, f.decision())
		}
		pause(f.Context())
	}
}

// tell logs with the time since the beginning.
func (f *floor) tell(format string, args ...any) {
	f.Helper()
	f.Logf("%4.0f s: "+format, append([]any{time.Since(f.began).Seconds()}, args...)...)
}

package vsphere

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// govc runs the vendor's own client, in a process of its own.
func (s *vcsim) govc(t *testing.T, args ...string) []byte {
	t.Helper()
	program, err := simulator()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, append([]string{"govc"}, args...)...)
	cmd.Env = append(os.Environ(), "GOVC_URL=https://"+s.at+"/sdk", "GOVC_USERNAME="+testUser, "GOVC_PASSWORD="+testPassword,
		"GOVC_TLS_CA_CERTS="+s.ca, "GOVC_PERSIST_SESSION=false", "GOVC_DATASTORE=LocalDS_0", "GOVC_RESOURCE_POOL=/DC0/host/DC0_C0/Resources", "GOVC_FOLDER=/DC0/vm", "GOVC_NETWORK=DC0_DVPG0")
	var out, text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &text
	if err := cmd.Run(); err != nil {
		t.Fatalf("govc %s: %v: %s", strings.Join(args, " "), err, text.String())
	}
	return out.Bytes()
}

// seen is a machine as anybody may see it.
type seen struct {
	name   string
	power  estate.Power
	cpus   int
	memory estate.Bytes
}

// byGovc returns the machines that govc has, by UUID.
func (s *vcsim) byGovc(t *testing.T) map[estate.MachineID]seen {
	t.Helper()
	var got struct {
		VirtualMachines []struct {
			Name   string
			Config struct {
				UUID     string
				Hardware struct{ NumCPU, MemoryMB int }
			}
			Runtime struct{ PowerState string }
		}
	}
	if err := json.Unmarshal(s.govc(t, "vm.info", "-json", "/DC0/vm/..."), &got); err != nil {
		t.Fatal(err)
	}
	all := map[estate.MachineID]seen{}
	for _, m := range got.VirtualMachines {
		power := estate.Off
		if m.Runtime.PowerState == "poweredOn" {
			power = estate.On
		}
		all[estate.MachineID(m.Config.UUID)] = seen{m.Name, power, m.Config.Hardware.NumCPU, estate.Bytes(m.Config.Hardware.MemoryMB) * estate.MiB}
	}
	return all
}

// byUs returns the machines that we have, ours and those of others.
func byUs(t *testing.T, h *Host) (all map[estate.MachineID]seen, ours map[estate.MachineID]driver.Machine) {
	t.Helper()
	list, err := h.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found, err := h.Survey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, ours = map[estate.MachineID]seen{}, map[estate.MachineID]driver.Machine{}
	for _, m := range list {
		name := m.Def.Name
		if !strings.HasPrefix(name, "theirs") && !strings.HasPrefix(name, "renamed") {
			name = vmName(m.Def)
		}
		all[m.ID], ours[m.ID] = seen{name, m.Power, m.Def.CPUs, m.Def.Memory}, m
	}
	for _, f := range found {
		all[f.ID] = seen{f.Name, f.Power, f.CPUs, f.Memory}
	}
	return all, ours
}

// walk is what a random walk knows: each step says what must come of it.
type walk struct {
	*vcsim
	t      *testing.T
	h      *Host
	r      *rand.Rand
	base   driver.Content
	want   map[estate.MachineID]seen // ours
	shelf  map[estate.MachineID]driver.Definition
	theirs []string // machines of others, by name
	made   int
}

var walkers = []estate.MachineID{
	"0a000000-0000-4000-8000-000000000001", "5b000000-0000-4000-8000-000000000002", "c3000000-0000-4000-8000-000000000003",
}

func (w *walk) def(id estate.MachineID) driver.Definition {
	base := w.base
	return driver.Definition{ID: id, Name: "desk", CPUs: 1, Memory: 32 * estate.MiB, Disks: []driver.Disk{{Name: "root", Base: &base, Size: estate.MiB}}}
}

// wants says that an act on a machine has an error of that kind, or none.
func (w *walk) wants(what string, id estate.MachineID, err error, kind fault.Kind, fails bool) {
	w.t.Helper()
	if fails && !errors.Is(err, kind) || !fails && err != nil {
		w.t.Fatalf("%s %s = %v; want failure %v of kind %v", what, id, err, fails, kind)
	}
}

// ours does something to a machine of ours.
func (w *walk) ours(id estate.MachineID) (what string) {
	ctx := w.t.Context()
	m, known := w.want[id]
	on := m.power == estate.On
	switch w.r.IntN(8) {
	case 0, 1:
		kept, shelved := w.shelf[id]
		def := w.def(id)
		if shelved {
			def = kept
		}
		if known {
			def.CPUs = m.cpus // of Resize: an equal definition
			if strings.HasPrefix(m.name, "renamed") {
				def.Name = "desk"
			}
		}
		w.wants("Define", id, w.h.Define(ctx, def), 0, false)
		if !known {
			w.want[id] = seen{vmName(def), estate.Off, def.CPUs, def.Memory}
			delete(w.shelf, id)
		}
		return "Define"
	case 2:
		w.wants("Start", id, w.h.Start(ctx, id), fault.NotFound, !known)
		m.power = estate.On
		what = "Start"
	case 3:
		w.wants("Stop", id, w.h.Stop(ctx, id, time.Duration(w.r.IntN(2))*time.Second), fault.NotFound, !known)
		m.power = estate.Off
		what = "Stop"
	case 4:
		w.wants("Delete", id, w.h.Delete(ctx, id), 0, false)
		delete(w.want, id)
		delete(w.shelf, id)
		return "Delete"
	case 5:
		cpus, kind := 1+w.r.IntN(4), fault.NotFound
		if known {
			kind = fault.Conflict
		}
		w.wants("Resize", id, w.h.Resize(ctx, id, cpus, 32*estate.MiB), kind, !known || on)
		if !on {
			m.cpus = cpus
		}
		what = "Resize"
	case 6:
		w.wants("Shelve", id, w.h.Shelve(ctx, id), fault.Conflict, on)
		if known && !on {
			def := w.def(id)
			def.CPUs = m.cpus
			w.shelf[id] = def
			delete(w.want, id)
		}
		return "Shelve"
	case 7:
		w.wants("Save", id, w.h.Save(ctx, id), fault.NotFound, !known)
		m.power = estate.Off
		what = "Save"
	}
	if known {
		w.want[id] = m
	}
	return what
}

// others has govc do something, to a machine of ours or to one of others.
func (w *walk) others(id estate.MachineID) string {
	m, known := w.want[id]
	switch n := w.r.IntN(5); {
	case n == 0 && known && m.power == estate.On:
		w.govc(w.t, "vm.power", "-off", "-force", m.name)
		m.power = estate.Off
		w.want[id] = m
		return "power off by govc"
	case n == 1 && known && m.power == estate.Off:
		w.govc(w.t, "vm.power", "-on", m.name)
		m.power = estate.On
		w.want[id] = m
		return "power on by govc"
	case n == 2 && known:
		w.made++
		name := "renamed-" + strconv.Itoa(w.made)
		w.govc(w.t, "vm.change", "-vm", m.name, "-name", name)
		m.name = name
		w.want[id] = m
		return "rename by govc"
	case n == 3 && len(w.theirs) > 0:
		name := w.theirs[0]
		w.theirs = w.theirs[1:]
		w.govc(w.t, "vm.destroy", name)
		return "destroy theirs by govc"
	}
	w.made++
	name := "theirs-" + strconv.Itoa(w.made)
	w.govc(w.t, "vm.create", "-on=false", "-m", "64", "-disk", "1MB", name)
	w.theirs = append(w.theirs, name)
	return "create theirs by govc"
}

// Whatever we do and whatever govc does, each sees what the other did. The seed
// is printed; CONSORT_SEED repeats it.
func TestGovcAgreesAfterEveryStepOfARandomWalk(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CONSORT_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Logf("seed %d", seed)
	s := simulate(t)
	w := &walk{vcsim: s, t: t, h: s.open(t), r: rand.New(rand.NewPCG(seed, 0)), base: s.base(t),
		want: map[estate.MachineID]seen{}, shelf: map[estate.MachineID]driver.Definition{}}
	did := map[string]int{}
	for step := range 100 {
		id := walkers[w.r.IntN(len(walkers))]
		what := ""
		if w.r.IntN(4) == 0 {
			what = w.others(id)
		} else {
			what = w.ours(id)
		}
		did[what]++
		us, ours := byUs(t, w.h)
		if them := s.byGovc(t); !maps.Equal(us, them) {
			t.Fatalf("seed %d, step %d, %s of %s:\nwe see   %v\ngovc has %v", seed, step, what, id, us, them)
		}
		if got, want := slices.Sorted(maps.Keys(ours)), slices.Sorted(maps.Keys(w.want)); !slices.Equal(got, want) {
			t.Fatalf("seed %d, step %d, %s of %s: ours are %v, want %v", seed, step, what, id, got, want)
		}
		for id, want := range w.want {
			if us[id] != want {
				t.Fatalf("seed %d, step %d, %s: machine %s is %+v, want %+v", seed, step, what, id, us[id], want)
			}
		}
		if len(us) != len(w.want)+len(w.theirs) {
			t.Fatalf("seed %d, step %d: %d machines, want %d of ours and %d of others", seed, step, len(us), len(w.want), len(w.theirs))
		}
	}
	t.Log(fmt.Sprint(did))
}

// Watch tells of what govc does.
func TestWatchTellsOfOthers(t *testing.T) {
	s := simulate(t)
	h := s.open(t)
	if err := h.Define(t.Context(), definition(s.base(t))); err != nil {
		t.Fatal(err)
	}
	watcher := s.open(t)
	told, ended := make(chan estate.MachineID, 100), make(chan error, 1)
	go func() { ended <- watcher.Watch(t.Context(), func(id estate.MachineID) { told <- id }) }()
	wait := func(what string) {
		t.Helper()
		select {
		case id := <-told:
			if id != someID {
				t.Errorf("%s: told of %s", what, id)
			}
		case err := <-ended:
			t.Fatalf("%s: Watch = %v", what, err)
		case <-time.After(time.Minute):
			t.Fatalf("%s: not told", what)
		}
	}
	wait("at first")
	for len(told) > 0 {
		<-told
	}
	s.govc(t, "vm.power", "-on", vmName(definition(driver.Content{})))
	wait("powered on by govc")
}

package hyperv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/estate"
)

func (r *run) list(q listRequest) listed {
	ids := map[estate.MachineID]string{}
	entries, err := os.ReadDir(r.real(stored("machines")))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.must(err)
	}
	for _, e := range entries {
		ids[estate.MachineID(e.Name())] = ""
	}
	for _, vm := range r.vms {
		if id := mark(vm.notes); id != "" {
			ids[id] = vm.shows()
		}
	}
	out := listed{Machines: []listedMachine{}}
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		if q.ID != "" && q.ID != id {
			continue
		}
		l := r.life(id)
		out.Machines = append(out.Machines, listedMachine{ID: id, State: ids[id], Record: r.read(folder(id) + `\machine.json`),
			Making: r.exists(folder(id) + `\making`), Starts: l.Starts, Starting: l.Starting, Started: l.Started})
	}
	return out
}

func (m *model) dropVM(which func(*modelVM) bool) { m.vms = slices.DeleteFunc(m.vms, which) }

func (r *run) define(q defineRequest) nothing {
	r.turn(q.ID)
	if r.find(q.ID) != nil {
		return nothing{}
	}
	making := "consort-making-" + string(q.ID)
	r.dropVM(func(vm *modelVM) bool { return vm.name == making })
	dir := folder(q.ID)
	r.must(os.MkdirAll(r.real(dir), 0o755))
	r.step()
	fresh := r.exists(dir+`\making`) || !r.exists(dir+`\machine.json`)
	if fresh {
		r.write(dir+`\making`, "")
	}
	for _, d := range q.Disks {
		path := stored(d.File)
		if d.Make == "" {
			continue
		}
		if fresh {
			r.removeFile(path)
		}
		if r.exists(path) {
			continue
		}
		r.step()
		if d.Size < 3<<20 {
			vendor("InvalidParameter", "a disk of %d bytes is too small", d.Size)
		}
		if d.Make == "empty" {
			r.must(os.WriteFile(r.raw(path), nil, 0o644))
			r.must(os.Truncate(r.raw(path), d.Size))
		} else {
			r.copyRaw(r.content(stored(d.Make)), r.raw(path), d.Size)
		}
		r.write(path, "")
	}
	r.step()
	r.write(dir+`\machine.json`, q.Record)
	r.step()
	for _, n := range q.NICs {
		if n.Switch != "Outside" {
			vendor("ObjectNotFound", "no switch %s", n.Switch)
		}
	}
	vm := &modelVM{id: fmt.Sprintf("9e000000-0000-4000-8000-%012d", len(r.vms)+1), name: making, state: "Off",
		generation: q.Generation, cpus: q.CPUs, memory: q.Memory, drives: map[int]string{}, nics: q.NICs}
	r.vms = append(r.vms, vm)
	r.step()
	r.join(vm, q.Disks)
	r.step()
	vm.name, vm.notes = q.Name, "consort-machine: "+string(q.ID)
	r.step()
	r.finished(q.ID)
	return nothing{}
}

func (r *run) start(q startRequest) nothing {
	r.turn(q.ID)
	vm, l := r.machine(q.ID), r.life(q.ID)
	switch vm.shows() {
	case "Running", "Paused":
		if l.Starting > l.Starts {
			l.Starts = l.Starting
			r.saveLife(q.ID, l)
		}
		return nothing{}
	case "Off", "Saved":
	default:
		stopWith("busy", "machine %s is %s", q.ID, vm.shows())
	}
	if !q.Adopted {
		r.join(vm, q.Disks)
	}
	r.finished(q.ID)
	l.Starting, l.Started = l.Starts+1, time.Now().UTC().Format(time.RFC3339Nano)
	r.saveLife(q.ID, l)
	r.step()
	vm.state, vm.started = "Running", time.Now()
	r.step()
	l.Starts = l.Starting
	r.saveLife(q.ID, l)
	return nothing{}
}

func (r *run) stop(q stopRequest) stopped {
	r.turn(q.ID)
	vm := r.machine(q.ID)
	if s := vm.shows(); s == "Off" || s == "Saved" {
		return stopped{}
	}
	if l := r.life(q.ID); l.Starting > l.Starts {
		l.Starts = l.Starting
		r.saveLife(q.ID, l)
	}
	r.step()
	if q.Hard {
		if vm.hidden != "" {
			vendor("InvalidState", "the machine is %s", vm.hidden)
		}
		vm.state = "Off"
		return stopped{}
	}
	if !r.deaf {
		vm.state = "Off"
	}
	return stopped{Asked: true}
}

func (r *run) save(q saveRequest) nothing {
	r.turn(q.ID)
	if vm := r.machine(q.ID); vm.shows() == "Running" {
		vm.state = "Saved"
	}
	return nothing{}
}

func (r *run) resize(q resizeRequest) nothing {
	r.turn(q.ID)
	vm := r.resting(q.ID)
	vm.clearSaved()
	vm.cpus = q.CPUs
	r.step()
	vm.memory = q.Memory
	r.step()
	r.write(folder(q.ID)+`\machine.json`, q.Record)
	return nothing{}
}

func (r *run) remove(q removeRequest) nothing {
	r.turn(q.ID)
	r.dropVM(func(vm *modelVM) bool { return vm.name == "consort-making-"+string(q.ID) })
	if r.find(q.ID) != nil {
		vm := r.resting(q.ID)
		if q.Shelve {
			r.finished(q.ID)
		}
		vm.clearSaved()
		vm.checkpoints = nil
		r.step()
		r.dropVM(func(o *modelVM) bool { return o == vm })
	}
	r.step()
	for _, f := range q.Drop {
		r.removeFile(stored(f))
	}
	r.step()
	if !q.Shelve {
		r.must(os.RemoveAll(r.real(folder(q.ID))))
	}
	return nothing{}
}

func (r *run) snapshot(q snapshotRequest) snapshots {
	names := []string{}
	if q.Act == "list" {
		for _, c := range r.machine(q.ID).checkpoints {
			names = append(names, c.name)
		}
		return snapshots{names}
	}
	r.turn(q.ID)
	vm := r.resting(q.ID)
	i := slices.IndexFunc(vm.checkpoints, func(c checkpoint) bool { return c.name == q.Name })
	switch q.Act {
	case "take":
		if i >= 0 {
			stopWith("exists", "machine %s has a snapshot %s", q.ID, q.Name)
		}
		for slot, d := range q.Disks {
			if d.Volume {
				delete(vm.drives, slot)
			}
		}
		r.step()
		c := checkpoint{name: q.Name, drives: maps.Clone(vm.drives), held: map[int]string{}}
		for slot, path := range vm.drives {
			c.held[slot] = filepath.Join(r.t.TempDir(), "held")
			r.copyRaw(r.content(path), c.held[slot], 0)
		}
		vm.checkpoints = append(vm.checkpoints, c)
		r.step()
		r.join(vm, q.Disks)
	case "apply":
		if i < 0 {
			stopWith("not-found", "machine %s has no snapshot %s", q.ID, q.Name)
		}
		c := vm.checkpoints[i]
		vm.drives = maps.Clone(c.drives)
		for slot, path := range c.drives {
			r.write(path, "")
			r.copyRaw(c.held[slot], r.raw(path), 0)
		}
		r.step()
		vm.clearSaved()
		vm.cpus, vm.memory = q.CPUs, q.Memory
		r.step()
		r.join(vm, q.Disks)
	case "drop":
		if i >= 0 {
			vm.checkpoints = slices.Delete(vm.checkpoints, i, i+1)
		}
	}
	return snapshots{names}
}

func (r *run) measure(q measureRequest) measured {
	vm := r.machine(q.ID)
	if s := vm.shows(); s != "Running" && s != "Paused" {
		stopWith("conflict", "machine %s is off; start it first", q.ID)
	}
	return measured{CPU: int64(time.Since(vm.started)), Memory: vm.memory, Read: 1 << 20, Written: 0, Received: 0, Sent: 0}
}

func (r *run) survey(q surveyRequest) surveyed {
	out := surveyed{Found: []foundMachine{}}
	for _, vm := range r.vms {
		id := estate.MachineID(vm.id)
		if mark(vm.notes) != "" || strings.HasPrefix(vm.name, "consort-making-") || q.ID != "" && q.ID != id {
			continue
		}
		f := foundMachine{ID: id, Name: vm.name, State: vm.shows(), Generation: vm.generation, CPUs: vm.cpus, Memory: vm.memory,
			Clustered: vm.clustered, Replicated: vm.replicated, Disks: []foundDisk{}, NICs: []nicSpec{}}
		for _, slot := range slices.Sorted(maps.Keys(vm.drives)) {
			info, err := os.Stat(r.content(vm.drives[slot]))
			r.must(err)
			f.Disks = append(f.Disks, foundDisk{vm.drives[slot], info.Size()})
		}
		for _, n := range vm.nics {
			f.NICs = append(f.NICs, nicSpec{strings.ToUpper(strings.ReplaceAll(n.MAC, ":", "")), n.Switch})
		}
		out.Found = append(out.Found, f)
	}
	return out
}

func (r *run) adopt(q adoptRequest) nothing {
	r.turn(q.ID)
	if r.find(q.ID) != nil {
		return nothing{}
	}
	i := slices.IndexFunc(r.vms, func(vm *modelVM) bool { return vm.id == string(q.ID) })
	if i < 0 {
		stopWith("not-found", "no machine %s", q.ID)
	}
	r.write(folder(q.ID)+`\machine.json`, q.Record)
	r.step()
	r.vms[i].notes += "\r\nconsort-machine: " + string(q.ID)
	return nothing{}
}

func (r *run) release(q releaseRequest) nothing {
	r.turn(q.ID)
	if vm := r.find(q.ID); vm != nil {
		vm.notes = strings.ReplaceAll(vm.notes, "\r\nconsort-machine: "+string(q.ID), "")
	}
	r.step()
	r.must(os.RemoveAll(r.real(folder(q.ID))))
	return nothing{}
}

// stranger makes a machine as an administrator does in Hyper-V Manager.
func (m *model) stranger(context.Context) (estate.MachineID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	vm := &modelVM{id: fmt.Sprintf("7a000000-0000-4000-8000-%012d", len(m.vms)+1), name: "theirs", notes: "made by hand", state: "Off",
		generation: 2, cpus: 2, memory: 64 << 20, drives: map[int]string{0: `C:\Theirs\disk.vhdx`},
		nics: []nicSpec{{"02:00:00:00:00:99", "Outside"}}}
	m.write(vm.drives[0], "")
	m.must(os.WriteFile(m.raw(vm.drives[0]), nil, 0o644))
	m.must(os.Truncate(m.raw(vm.drives[0]), 4<<20))
	m.vms = append(m.vms, vm)
	return estate.MachineID(vm.id), nil
}

// blind has a machine show a state that says nothing.
func (m *model) blind(_ context.Context, id estate.MachineID) (see func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	vm := m.find(id)
	if vm == nil {
		return nil, fmt.Errorf("no machine %s", id)
	}
	vm.hidden = "RunningCritical"
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		vm.hidden = ""
	}, nil
}

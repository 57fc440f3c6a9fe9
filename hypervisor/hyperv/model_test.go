package hyperv

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/estate"
)

const modelStore = `D:\VMs\Consort`

// model is a Hyper-V host in memory, written by us after Microsoft's documents
// and never compared with one. It takes the steps that the scripts take, in
// their order, and can be killed between any two. Its disks are files; what one
// holds is kept raw beside it.
type model struct {
	t     *testing.T
	dir   string
	pause func(step int) // before each step of a script; may be nil
	deaf  bool           // guests do not go when asked

	mu    sync.Mutex
	vms   []*modelVM
	turns map[estate.MachineID]chan struct{}
}

type modelVM struct {
	id, name, notes, state string
	generation, cpus       int
	memory                 int64
	clustered, replicated  bool
	drives                 map[int]string // by place; the path
	nics                   []nicSpec
	checkpoints            []checkpoint
	started                time.Time
	hidden                 string // a state that is shown instead
}

type checkpoint struct {
	name   string
	drives map[int]string // the path that the machine had then
	held   map[int]string // a copy of what it held
}

func newModel(t *testing.T) *model {
	m := &model{t: t, dir: t.TempDir(), turns: map[estate.MachineID]chan struct{}{}}
	m.vms = []*modelVM{{id: "8c000000-0000-4000-8000-000000000001", name: "of a cluster", state: "Running", clustered: true, generation: 2, cpus: 1, memory: 64 << 20}}
	return m
}

// thrown is an error of a script.
type thrown struct{ scriptError }

func stopWith(kind, format string, args ...any) {
	panic(thrown{scriptError{Kind: kind, Message: fmt.Sprintf(format, args...)}})
}

// vendor throws as a cmdlet of Hyper-V does.
func vendor(id, format string, args ...any) {
	panic(thrown{scriptError{ID: id + ",Microsoft.HyperV.PowerShell.Commands.Model", Message: fmt.Sprintf(format, args...)}})
}

type killed struct{}

// run is one run of a script.
type run struct {
	*model
	ctx     context.Context
	steps   int
	payload []byte
	reply   []byte
	leave   []func()
}

// pauseBy has do called before each step of a script; nil for nothing.
func (m *model) pauseBy(do func(step int)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pause = do
}

// step is where a script may be killed.
func (r *run) step() {
	r.steps++
	if pause := r.pause; pause != nil {
		r.mu.Unlock()
		pause(r.steps)
		r.mu.Lock()
	}
	if r.ctx.Err() != nil {
		panic(killed{})
	}
}

// answer does what the common script does.
func (m *model) answer(ctx context.Context, version int, verb string, doc, payload []byte) (a answer, reply []byte) {
	r := &run{model: m, ctx: ctx, payload: payload}
	m.mu.Lock()
	defer m.mu.Unlock()
	defer func() {
		for _, leave := range r.leave {
			leave()
		}
		switch p := recover().(type) {
		case nil:
		case thrown:
			a, reply = answer{Version: protocol, Error: &p.scriptError}, nil
		case killed:
		default:
			panic(p)
		}
	}()
	var req struct {
		Version int             `json:"version"`
		Store   string          `json:"store"`
		Args    json.RawMessage `json:"args"`
	}
	if err := json.Unmarshal(doc, &req); err != nil {
		stopWith("", "%v", err)
	}
	if version != protocol || req.Version != protocol {
		stopWith("unsupported", "this script speaks version 1, not %d", req.Version)
	}
	if verb != "describe" && req.Store != modelStore {
		stopWith("invalid", "a script was told of store %q", req.Store)
	}
	do, ok := verbs[verb]
	if !ok {
		stopWith("invalid", "no script %s", verb)
	}
	result, err := json.Marshal(do(r, req.Args))
	if err != nil {
		panic(err)
	}
	return answer{Version: protocol, Result: result}, r.reply
}

// verbs are the scripts.
var verbs = map[string]func(*run, json.RawMessage) any{
	"describe": on((*run).describe), "list": on((*run).list), "define": on((*run).define), "start": on((*run).start),
	"stop": on((*run).stop), "save": on((*run).save), "resize": on((*run).resize), "remove": on((*run).remove),
	"snapshot": on((*run).snapshot), "measure": on((*run).measure), "survey": on((*run).survey), "adopt": on((*run).adopt),
	"release": on((*run).release), "has": on((*run).has), "put-begin": on((*run).putBegin), "put-block": on((*run).putBlock),
	"put-end": on((*run).putEnd), "get-begin": on((*run).getBegin), "get-block": on((*run).getBlock), "drop": on((*run).drop),
	"swap": on((*run).swap),
}

// on decodes a script's request, which has exactly the fields that are known.
func on[Q, A any](do func(*run, Q) A) func(*run, json.RawMessage) any {
	return func(r *run, doc json.RawMessage) any {
		var q Q
		d := json.NewDecoder(bytes.NewReader(doc))
		d.DisallowUnknownFields()
		if err := d.Decode(&q); err != nil || nullRule.Match(doc) {
			stopWith("", "the request %s does not suit the script: %v", doc, err)
		}
		return do(r, q)
	}
}

// nullRule finds a field that is null, but for those of the record inside.
var nullRule = regexp.MustCompile(`[^\\]":null`)

var storedRule = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*(\\[a-z0-9][a-z0-9-]*)*(\.[a-z0-9]+)*$`)

func stored(name string) string {
	if !storedRule.MatchString(name) {
		stopWith("invalid", "%s is not the name of a stored file", name)
	}
	return modelStore + `\` + name
}

// real is where a file of the host lies.
func (m *model) real(path string) string {
	return filepath.Join(m.dir, strings.ReplaceAll(strings.ReplaceAll(path, ":", ""), `\`, "/"))
}

func (m *model) exists(path string) bool {
	_, err := os.Stat(m.real(path))
	return err == nil
}

func (m *model) must(err error) {
	if err != nil {
		vendor("OperationFailed", "%v", err)
	}
}

func (m *model) write(path, text string) {
	m.must(os.MkdirAll(filepath.Dir(m.real(path)), 0o755))
	m.must(os.WriteFile(m.real(path), []byte(text), 0o644))
}

func (m *model) read(path string) string {
	b, err := os.ReadFile(m.real(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.must(err)
	}
	return string(b)
}

// remove removes a file with what it holds.
func (m *model) removeFile(path string) {
	os.Remove(m.raw(path))
	if err := os.Remove(m.real(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.must(err)
	}
}

func (m *model) raw(path string) string { return m.real(path) + "#raw" }

func (m *model) tool(args ...string) {
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		vendor("OperationFailed", "qemu-img %v: %v %s", args, err, out)
	}
}

// content returns where what a virtual disk holds is kept raw.
func (m *model) content(path string) string {
	if !m.exists(path) {
		vendor("ObjectNotFound", "no disk %s", path)
	}
	if _, err := os.Stat(m.raw(path)); err != nil {
		m.tool("convert", "-q", "-f", "vhdx", "-O", "raw", m.real(path), m.raw(path))
	}
	return m.raw(path)
}

func (m *model) copyRaw(from, to string, size int64) {
	b, err := os.ReadFile(from)
	m.must(err)
	m.must(os.WriteFile(to, b, 0o644))
	if size > 0 {
		m.must(os.Truncate(to, size))
	}
}

// turn is Enter-Turn: it ends with the script.
func (r *run) turn(id estate.MachineID) {
	if r.turns[id] == nil {
		r.turns[id] = make(chan struct{}, 1)
	}
	turn := r.turns[id]
	r.mu.Unlock()
	defer r.mu.Lock()
	late := time.NewTimer(15 * time.Second)
	defer late.Stop()
	select {
	case turn <- struct{}{}:
		r.leave = append(r.leave, func() { <-turn })
	case <-r.ctx.Done():
		panic(killed{})
	case <-late.C:
		stopWith("busy", "machine %s is occupied by an earlier request", id)
	}
}

func mark(notes string) estate.MachineID {
	for line := range strings.Lines(notes) {
		if id, is := strings.CutPrefix(strings.TrimSpace(line), "consort-machine: "); is {
			return estate.MachineID(id)
		}
	}
	return ""
}

func (m *model) find(id estate.MachineID) *modelVM {
	for _, vm := range m.vms {
		if mark(vm.notes) == id {
			return vm
		}
	}
	return nil
}

func (m *model) machine(id estate.MachineID) *modelVM {
	vm := m.find(id)
	if vm == nil {
		stopWith("not-found", "no machine %s", id)
	}
	return vm
}

func (vm *modelVM) shows() string { return cmp.Or(vm.hidden, vm.state) }

func (m *model) resting(id estate.MachineID) *modelVM {
	vm := m.machine(id)
	if s := vm.shows(); s != "Off" && s != "Saved" {
		stopWith("conflict", "machine %s is %s; stop it first", id, s)
	}
	return vm
}

func (vm *modelVM) clearSaved() {
	if vm.state == "Saved" {
		vm.state = "Off"
	}
}

func folder(id estate.MachineID) string { return stored(`machines\` + string(id)) }

type life struct {
	Starts   int64  `json:"starts"`
	Starting int64  `json:"starting"`
	Started  string `json:"started"`
}

func (m *model) life(id estate.MachineID) (l life) {
	if text := m.read(folder(id) + `\life.json`); text != "" {
		m.must(json.Unmarshal([]byte(text), &l))
	}
	return l
}

func (m *model) saveLife(id estate.MachineID, l life) {
	b, err := json.Marshal(l)
	m.must(err)
	m.write(folder(id)+`\life.json`, string(b))
}

func (m *model) finished(id estate.MachineID) {
	os.Remove(m.real(folder(id) + `\making`))
}

func (m *model) join(vm *modelVM, disks []diskSpec) {
	for i, d := range disks {
		if _, there := vm.drives[i]; !there {
			path := stored(d.File)
			m.content(path)
			vm.drives[i] = path
		}
	}
}

func (r *run) describe(describeRequest) described {
	r.must(os.MkdirAll(r.real(modelStore), 0o755))
	return described{Product: "a model of Hyper-V, 1", Host: "MODEL", Store: modelStore, CPUs: 16, Memory: 64 << 30, Disk: 1 << 40, Switches: []string{"Outside"}}
}

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

func (r *run) has(q hasRequest) had { return had{r.exists(stored(q.File))} }

type note struct {
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
	Offset int64  `json:"offset"`
}

func (r *run) note(path string) (n note, ok bool) {
	text := r.read(path + ".note")
	return n, text != "" && json.Unmarshal([]byte(text), &n) == nil
}

func (r *run) saveNote(path string, n note) {
	b, err := json.Marshal(n)
	r.must(err)
	r.write(path+".note", string(b))
}

func (r *run) putBegin(q putBeginRequest) putBegun {
	path := stored(q.File)
	if n, ok := r.note(path); ok && r.exists(path+".part") && n.SHA256 == q.SHA256 && n.Size == q.Size {
		return putBegun{n.Offset}
	}
	r.write(path+".part", "")
	r.must(os.Truncate(r.real(path+".part"), q.Size))
	r.step()
	r.saveNote(path, note{q.SHA256, q.Size, 0})
	return putBegun{}
}

func (r *run) putBlock(q putBlockRequest) nothing {
	path := stored(q.File)
	if s := sha256.Sum256(r.payload); hex.EncodeToString(s[:]) != q.SHA256 {
		stopWith("unavailable", "the block arrived damaged; send it again")
	}
	f, err := os.OpenFile(r.real(path+".part"), os.O_WRONLY, 0)
	r.must(err)
	defer f.Close()
	_, err = f.WriteAt(r.payload, q.Offset)
	r.must(err)
	r.step()
	n, _ := r.note(path)
	n.Offset = q.Offset + int64(len(r.payload))
	r.saveNote(path, n)
	return nothing{}
}

func (r *run) putEnd(q putEndRequest) nothing {
	path := stored(q.File)
	if !r.exists(path + ".part") {
		if r.exists(path) {
			return nothing{}
		}
		stopWith("conflict", "nothing was uploaded for %s", q.File)
	}
	if s := sha256.Sum256([]byte(r.read(path + ".part"))); hex.EncodeToString(s[:]) != q.SHA256 {
		r.removeFile(path + ".part")
		r.removeFile(path + ".note")
		stopWith("unavailable", "%s arrived damaged; send it again", q.File)
	}
	r.step()
	os.Remove(r.raw(path))
	r.must(os.Rename(r.real(path+".part"), r.real(path)))
	r.step()
	r.removeFile(path + ".note")
	return nothing{}
}

func (r *run) getBegin(q getBeginRequest) getBegun {
	r.turn(q.ID)
	vm := r.resting(q.ID)
	drive := ""
	if q.Adopted {
		drive = vm.drives[slices.Sorted(maps.Keys(vm.drives))[q.Slot]]
	} else {
		drive = vm.drives[q.Slot]
	}
	if drive == "" {
		stopWith("stuck", "disk %d of machine %s is not attached; attach it again", q.Slot, q.ID)
	}
	to := stored(q.File)
	r.removeFile(to)
	r.step()
	r.tool("convert", "-q", "-f", "raw", "-O", "vhdx", r.content(drive), r.real(to))
	data := r.read(to)
	s := sha256.Sum256([]byte(data))
	return getBegun{int64(len(data)), hex.EncodeToString(s[:])}
}

func (r *run) getBlock(q getBlockRequest) nothing {
	f, err := os.Open(r.real(stored(q.File)))
	r.must(err)
	defer f.Close()
	r.reply = make([]byte, q.Length)
	if _, err := f.ReadAt(r.reply, q.Offset); err != nil {
		r.reply = nil
		stopWith("unavailable", "%s has become shorter", q.File)
	}
	return nothing{}
}

func (r *run) drop(q dropRequest) nothing {
	for _, end := range []string{"", ".part", ".note"} {
		r.removeFile(stored(q.File) + end)
	}
	return nothing{}
}

func (r *run) swap(q swapRequest) nothing {
	r.turn(q.ID)
	vm := r.resting(q.ID)
	vm.clearSaved()
	path, old := stored(q.Disks[q.Slot].File), vm.drives[q.Slot]
	if old != path {
		delete(vm.drives, q.Slot)
		r.step()
		r.join(vm, q.Disks)
	}
	r.step()
	r.write(folder(q.ID)+`\machine.json`, q.Record)
	r.step()
	if old != path && old != "" {
		r.removeFile(old)
	}
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

// readDisk reads a file of this machine, or a disk of the model's.
func (m *model) readDisk(path string) ([]byte, error) {
	if strings.HasPrefix(path, "/") {
		return os.ReadFile(path)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return os.ReadFile(m.raw(path))
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

package hyperv

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
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
	pause func(script context.Context) // before each step of a script; may be nil
	deaf  bool                         // guests do not go when asked

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
	payload []byte
	reply   []byte
	leave   []func()
}

// pauseBy has do called before each step of a script, whose context ends when it
// is killed; nil for nothing.
func (m *model) pauseBy(do func(script context.Context)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pause = do
}

// step is where a script may be killed.
func (r *run) step() {
	if pause := r.pause; pause != nil {
		r.mu.Unlock()
		pause(r.ctx)
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

func (m *model) must(err error) {
	if err != nil {
		vendor("OperationFailed", "%v", err)
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

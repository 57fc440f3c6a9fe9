package vsphere

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/event"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/view"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// Keys of our notes in a machine's configuration. They do not begin with
// guestinfo, since a guest reads and writes what does.
const (
	recordKey    = "consort.machine"
	startsKey    = "consort.starts"
	snapshotsKey = "consort.snapshots"
	attachedKey  = "consort.attached"
)

// record is what we know of a machine beyond what vSphere tells.
type record struct {
	ID      estate.MachineID // a copy that others made has another UUID, and is not ours
	Scope   string           // of the place it belongs to
	Adopted bool             `json:",omitempty"`
	Def     driver.Definition
}

// starts counts power-ons. Begun is written before each and Done after it, so
// that a power-on whose reply is lost, or that we did not live to see, is
// counted once and one that never came is not: see counted.
type starts struct {
	Done  int64
	Begun int64
	At    time.Time // by the server's clock, when Begun was written
	Boot  time.Time // when power-on Done was
}

// vm is a virtual machine as it was read.
type vm struct {
	ref        types.ManagedObjectReference
	name       string
	uuid       estate.MachineID
	cpus       int
	memory     estate.Bytes
	state      types.VirtualMachinePowerState
	connection types.VirtualMachineConnectionState
	host       types.ManagedObjectReference
	boot       time.Time
	ours       bool
	nameOnly   bool // of ours, only the name can be read now
	rec        record
	starts     starts
	snapshots  []snapshot
	attached   attached

	// Not with briefly.
	files     types.VirtualMachineFileInfo
	devices   object.VirtualDeviceList
	template  bool
	managedBy string
	firmware  string
	chained   bool // it has snapshots of vSphere's own
	resident  int64
}

// What is read of a virtual machine.
var (
	briefly = []string{"name", "config.uuid", "config.hardware.numCPU", "config.hardware.memoryMB",
		"runtime.powerState", "runtime.connectionState", "runtime.host", "summary.runtime.bootTime",
		extra(recordKey), extra(startsKey), extra(snapshotsKey), extra(attachedKey)}
	fully = append(slices.Clone(briefly), "config.files", "config.hardware.device", "config.template", "config.managedBy", "config.firmware",
		"snapshot", "summary.quickStats.hostMemoryUsage")
)

// extra is the path of one of a machine's own settings.
func extra(key string) string { return fmt.Sprintf("config.extraConfig[%q]", key) }

// owns reports whether the machine is ours here. Another of our agents may look
// after those of another host or cluster.
func (h *Host) owns(v *vm) bool {
	return v.ours && (v.rec.Scope == h.place.scope || v.nameOnly && slices.Contains(h.place.hosts, v.host))
}

// power says whether the machine runs. A suspended one keeps its memory on
// disk, and is off.
func (v *vm) power() estate.Power {
	switch {
	case v.connection != types.VirtualMachineConnectionStateConnected, v.nameOnly:
		return estate.PowerUnknown
	case v.state == types.VirtualMachinePowerStatePoweredOn:
		return estate.On
	case v.state == types.VirtualMachinePowerStatePoweredOff, v.state == types.VirtualMachinePowerStateSuspended:
		return estate.Off
	}
	return estate.PowerUnknown
}

// existing returns our machine, or fault.NotFound.
func (h *Host) existing(ctx context.Context, id estate.MachineID) (*vm, error) {
	v, err := h.find(ctx, id)
	if err == nil && v == nil {
		err = notFound(id)
	}
	return v, err
}

// resting returns our machine when it is off. One whose state is unknown is
// fault.Unavailable: whoever waits may find out.
func (h *Host) resting(ctx context.Context, id estate.MachineID) (*vm, error) {
	v, err := h.existing(ctx, id)
	if err != nil {
		return nil, err
	}
	switch v.power() {
	case estate.Off:
		return v, nil
	case estate.On:
		return nil, fault.Conflict.Errorf("machine %s runs; stop it first", id)
	}
	return nil, v.unreachable()
}

// running returns our machine when it is on.
func (h *Host) running(ctx context.Context, id estate.MachineID) (*vm, error) {
	v, err := h.existing(ctx, id)
	if err != nil {
		return nil, err
	}
	switch v.power() {
	case estate.On:
		return v, nil
	case estate.Off:
		return nil, fault.Conflict.Errorf("machine %s is off; start it first", id)
	}
	return nil, v.unreachable()
}

func (v *vm) unreachable() error {
	return fault.Unavailable.Errorf("vSphere cannot tell the state of machine %s: it is %s", v.rec.ID, v.connection)
}

// find returns our machine, or nil.
func (h *Host) find(ctx context.Context, id estate.MachineID) (*vm, error) {
	all, err := h.withUUID(ctx, id)
	for _, v := range all {
		if h.owns(v) {
			return v, err
		}
	}
	return nil, err
}

// withUUID returns all machines of that UUID, ours or not.
func (h *Host) withUUID(ctx context.Context, id estate.MachineID) ([]*vm, error) {
	refs, err := object.NewSearchIndex(h.client).FindAllByUuid(ctx, h.place.datacenter, string(id), true, nil)
	if err != nil {
		return nil, asked(err, "look for machine %s", id)
	}
	var list []types.ManagedObjectReference
	for _, r := range refs {
		list = append(list, r.Reference())
	}
	return h.read(ctx, list, fully)
}

// everyVM returns all machines of the datacenter.
func (h *Host) everyVM(ctx context.Context, what []string) ([]*vm, error) {
	v, err := view.NewManager(h.client).CreateContainerView(ctx, h.place.datacenter.Reference(), []string{"VirtualMachine"}, true)
	if err != nil {
		return nil, asked(err, "look at the machines of %s", h.place.datacenter.Name())
	}
	defer v.Destroy(context.WithoutCancel(ctx)) // it ends with the session anyway
	var m mo.ContainerView
	if err := property.DefaultCollector(h.client).RetrieveOne(ctx, v.Reference(), []string{"view"}, &m); err != nil {
		return nil, asked(err, "look at the machines of %s", h.place.datacenter.Name())
	}
	return h.read(ctx, m.View, what)
}

// read reads machines. One that is gone by now is left out, unless that leaves
// the others unread.
func (h *Host) read(ctx context.Context, refs []types.ManagedObjectReference, what []string) ([]*vm, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	var found []types.ObjectContent
	err := property.DefaultCollector(h.client).Retrieve(ctx, refs, what, &found)
	if is[*types.ManagedObjectNotFound](err) {
		if len(refs) == 1 {
			return nil, nil
		}
		return h.readEach(ctx, refs, what)
	}
	if err != nil {
		return nil, asked(err, "read %d machines", len(refs))
	}
	var all []*vm
	for _, c := range found {
		all = append(all, newVM(c))
	}
	return all, nil
}

func (h *Host) readEach(ctx context.Context, refs []types.ManagedObjectReference, what []string) (all []*vm, err error) {
	for _, r := range refs {
		one, err := h.read(ctx, []types.ManagedObjectReference{r}, what)
		if err != nil {
			return nil, err
		}
		all = append(all, one...)
	}
	return all, nil
}

// newVM takes apart what was read.
func newVM(c types.ObjectContent) *vm {
	v := &vm{ref: c.Obj}
	marked := false
	for _, p := range c.PropSet {
		switch x := p.Val.(type) {
		case types.OptionValue:
			marked = v.note(p.Name, x) || marked
		case types.VirtualMachinePowerState:
			v.state = x
		case types.VirtualMachineConnectionState:
			v.connection = x
		case types.ManagedObjectReference:
			v.host = x
		case types.VirtualMachineFileInfo:
			v.files = x
		case types.ArrayOfVirtualDevice:
			v.devices = x.VirtualDevice
		case types.VirtualMachineSnapshotInfo:
			v.chained = len(x.RootSnapshotList) > 0
		case types.ManagedByInfo:
			v.managedBy = x.ExtensionKey
		case time.Time:
			v.boot = x.UTC()
		case bool:
			v.template = x
		case string:
			switch p.Name {
			case "name":
				v.name = x
			case "config.uuid":
				v.uuid = estate.MachineID(strings.ToLower(x))
			case "config.firmware":
				v.firmware = x
			}
		case int32:
			switch p.Name {
			case "config.hardware.numCPU":
				v.cpus = int(x)
			case "config.hardware.memoryMB":
				v.memory = estate.Bytes(x) * estate.MiB
			case "summary.quickStats.hostMemoryUsage":
				v.resident = int64(x)
			}
		}
	}
	switch {
	case marked:
		v.ours = v.rec.ID == v.uuid
	case v.uuid == "":
		// Its configuration is out of reach, or not for us to read; the inventory
		// still has its name.
		v.rec.ID, v.ours = idInName(v.name)
		v.nameOnly = v.ours
	}
	return v
}

// note takes up one of our notes and reports whether it is the record.
func (v *vm) note(name string, x types.OptionValue) bool {
	text, _ := x.Value.(string)
	into := map[string]any{
		extra(recordKey): &v.rec, extra(startsKey): &v.starts, extra(snapshotsKey): &v.snapshots, extra(attachedKey): &v.attached,
	}[name]
	return text != "" && into != nil && json.Unmarshal([]byte(text), into) == nil && name == extra(recordKey)
}

// option returns a setting to write. No value takes it out.
func option(key string, value any) types.BaseOptionValue {
	text := ""
	if value != nil {
		b, err := json.Marshal(value)
		if err != nil {
			panic(err) // all our notes are plain values
		}
		text = string(b)
	}
	return &types.OptionValue{Key: key, Value: text}
}

// counted returns how often the machine was powered on. Where a power-on was
// begun and not seen to its end, a machine that runs shows that it came; for
// one that is off the server's events say.
func (h *Host) counted(ctx context.Context, v *vm) (int64, error) {
	s := v.starts
	on := v.power() == estate.On
	switch {
	case s.Begun > s.Done && on:
		return s.Begun, nil
	case s.Begun > s.Done:
		came, err := h.poweredOnSince(ctx, v.ref, s.At)
		if came {
			return s.Begun, err
		}
		return s.Done, err
	case on && !v.boot.IsZero() && !v.boot.Equal(s.Boot):
		return s.Done + 1, nil // somebody else did it
	}
	return s.Done, nil
}

// poweredOnSince asks the server's events whether the machine was powered on.
func (h *Host) poweredOnSince(ctx context.Context, ref types.ManagedObjectReference, at time.Time) (bool, error) {
	all, err := event.NewManager(h.client).QueryEvents(ctx, types.EventFilterSpec{
		Entity: &types.EventFilterSpecByEntity{Entity: ref, Recursion: types.EventFilterSpecRecursionOptionSelf},
		Time:   &types.EventFilterSpecByTime{BeginTime: &at},
	})
	if err != nil {
		return false, asked(err, "look whether %s was powered on", ref.Value)
	}
	return slices.ContainsFunc(all, func(e types.BaseEvent) bool {
		switch e.(type) {
		case *types.VmPoweredOnEvent, *types.DrsVmPoweredOnEvent:
			return !e.GetEvent().CreatedTime.Before(at)
		}
		return false
	}), nil
}

// now is the time by the server's clock.
func (h *Host) now(ctx context.Context) (time.Time, error) {
	t, err := methods.GetCurrentTime(ctx, h.client)
	if err != nil {
		return time.Time{}, asked(err, "ask the time")
	}
	return t.UTC(), nil
}

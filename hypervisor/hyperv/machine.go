package hyperv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// look returns the machine as it is now. One that is neither on the host nor on
// the shelf has an empty record and an empty state.
func (h *Host) look(ctx context.Context, id estate.MachineID) (listedMachine, error) {
	var all listed
	if err := h.remote.ask(ctx, "list", listRequest{ID: id}, &all); err != nil {
		return listedMachine{}, err
	}
	for _, m := range all.Machines {
		if m.ID == id {
			return m, nil
		}
	}
	return listedMachine{ID: id}, nil
}

// defined is look for machines that must be there, not shelved.
func (h *Host) defined(ctx context.Context, id estate.MachineID) (listedMachine, record, error) {
	m, err := h.look(ctx, id)
	if err == nil && m.State == "" {
		err = fault.NotFound.Errorf("no machine %s", id)
	}
	if err != nil {
		return m, record{}, err
	}
	rec, err := m.record()
	return m, rec, err
}

// resting is defined for machines that must be off.
func (h *Host) resting(ctx context.Context, id estate.MachineID) (listedMachine, record, error) {
	m, rec, err := h.defined(ctx, id)
	if err == nil && power(m.State) != estate.Off {
		err = fault.Conflict.Errorf("machine %s is %s; stop it first", id, m.State)
	}
	return m, rec, err
}

// Define implements driver.Host. The host makes the machine in one script,
// whose last step alone gives it our mark.
func (h *Host) Define(ctx context.Context, def driver.Definition) error {
	give, err := h.turns.take(ctx, string(def.ID))
	if err != nil {
		return err
	}
	defer give()
	m, err := h.look(ctx, def.ID)
	if err != nil {
		return err
	}
	rec := record{}
	if m.State != "" || m.Record != "" && !m.Making {
		if rec, err = m.record(); err != nil {
			return err
		}
		if !rec.Def.Equal(def) {
			return fault.Exists.Errorf("machine %s exists with another definition", def.ID)
		}
		if m.State != "" {
			return nil
		}
	}
	nics, err := switches(def)
	if err != nil {
		return err
	}
	if rec, err = h.prepare(ctx, def, rec, m.starts()); err != nil {
		return err
	}
	generation := 1
	if def.Firmware == estate.UEFI {
		generation = 2
	}
	return h.remote.act(ctx, "define", defineRequest{
		ID: def.ID, Name: vmName(def), Generation: generation, CPUs: def.CPUs, Memory: int64(def.Memory),
		Record: rec.text(), Disks: rec.disks(), NICs: nics,
	})
}

// vmName is what Hyper-V shows. The ID makes it unique, which performance
// counters need.
func vmName(def driver.Definition) string {
	if def.Name == "" {
		return string(def.ID)
	}
	return fmt.Sprintf("%s %s", def.Name, def.ID)
}

// switches returns the definition's network cards as the host joins them.
func switches(def driver.Definition) ([]nicSpec, error) {
	nics := []nicSpec{}
	for _, n := range def.NICs {
		if n.Name == "" {
			return nil, fault.Unsupported.Errorf("network card %s: Hyper-V joins machines to virtual switches, by name only", n.MAC)
		}
		nics = append(nics, nicSpec{MAC: n.MAC, Switch: n.Name})
	}
	return nics, nil
}

// Start implements driver.Host.
func (h *Host) Start(ctx context.Context, id estate.MachineID) error {
	give, err := h.turns.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer give()
	m, rec, err := h.defined(ctx, id)
	if err != nil || power(m.State) == estate.On && m.Starting <= m.Starts {
		return err
	}
	return h.remote.act(ctx, "start", startRequest{ID: id, Adopted: rec.Adopted, Disks: rec.disks()})
}

// stopPoll is how often a machine that was asked to go is looked at.
const stopPoll = 500 * time.Millisecond

// Stop implements driver.Host.
func (h *Host) Stop(ctx context.Context, id estate.MachineID, grace time.Duration) error {
	give, err := h.turns.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer give()
	m, err := h.look(ctx, id)
	if err == nil && m.State == "" {
		err = fault.NotFound.Errorf("no machine %s", id)
	}
	if err != nil {
		return err
	}
	return h.stop(ctx, m, grace)
}

// stop powers the machine off. Callers hold the turn.
func (h *Host) stop(ctx context.Context, m listedMachine, grace time.Duration) error {
	if power(m.State) == estate.Off {
		return nil
	}
	if grace > 0 {
		gone, err := h.goes(ctx, m.ID, grace)
		if gone || err != nil {
			return err
		}
	}
	return h.remote.act(ctx, "stop", stopRequest{ID: m.ID, Hard: true})
}

// goes asks the guest to power off and reports whether it did within grace.
func (h *Host) goes(ctx context.Context, id estate.MachineID, grace time.Duration) (bool, error) {
	late := time.NewTimer(grace)
	defer late.Stop()
	var s stopped
	if _, err := h.remote.call(ctx, "stop", stopRequest{ID: id}, &s, nil); err != nil || !s.Asked {
		return false, err
	}
	tick := time.NewTicker(stopPoll)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-late.C:
			return false, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
		m, err := h.look(ctx, id)
		if err != nil || power(m.State) == estate.Off {
			return err == nil, err
		}
	}
}

// Delete implements driver.Host. Volumes that a guest has written come home first.
func (h *Host) Delete(ctx context.Context, id estate.MachineID) error {
	give, err := h.turns.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer give()
	m, err := h.look(ctx, id)
	if err != nil || m.State == "" && m.Record == "" && !m.Making {
		return err
	}
	if m.State != "" {
		if err := h.stop(ctx, m, 0); err != nil {
			return err
		}
		if err := h.writeBack(ctx, m); err != nil {
			return err
		}
	}
	return h.remote.act(ctx, "remove", removeRequest{ID: id, Drop: []string{}})
}

// Shelve implements driver.Transferer. Volumes come home: on the shelf lie the
// machine's own disks only.
func (h *Host) Shelve(ctx context.Context, id estate.MachineID) error {
	give, err := h.turns.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer give()
	m, rec, err := h.resting(ctx, id)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if rec.Adopted {
		return fault.Unsupported.Errorf("machine %s was adopted; release it instead", id)
	}
	if err := h.writeBack(ctx, m); err != nil {
		return err
	}
	drop := []string{}
	for i, d := range rec.Def.Disks {
		if volume(d) {
			drop = append(drop, rec.disks()[i].File)
		}
	}
	return h.remote.act(ctx, "remove", removeRequest{ID: id, Shelve: true, Drop: drop})
}

// Save implements driver.Saver.
func (h *Host) Save(ctx context.Context, id estate.MachineID) error {
	return h.acts(ctx, id, "save", saveRequest{ID: id})
}

// acts has the host do something to a machine.
func (h *Host) acts(ctx context.Context, id estate.MachineID, verb string, args any) error {
	give, err := h.turns.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer give()
	return h.remote.act(ctx, verb, args)
}

// Resize implements driver.Resizer.
func (h *Host) Resize(ctx context.Context, id estate.MachineID, cpus int, memory estate.Bytes) error {
	give, err := h.turns.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer give()
	_, rec, err := h.resting(ctx, id)
	if err != nil {
		return err
	}
	rec.Def.CPUs, rec.Def.Memory = cpus, memory
	return h.remote.act(ctx, "resize", resizeRequest{ID: id, CPUs: cpus, Memory: int64(memory), Record: rec.text()})
}

// Measure implements driver.Meter.
func (h *Host) Measure(ctx context.Context, id estate.MachineID) (driver.Usage, error) {
	var m measured
	if err := h.remote.ask(ctx, "measure", measureRequest{ID: id}, &m); err != nil {
		return driver.Usage{}, err
	}
	return driver.Usage{
		CPU: time.Duration(m.CPU), Memory: estate.Bytes(m.Memory), DiskRead: estate.Bytes(m.Read), DiskWritten: estate.Bytes(m.Written),
		Received: estate.Bytes(m.Received), Sent: estate.Bytes(m.Sent),
	}, nil
}

// Snapshot implements driver.Snapshotter.
func (h *Host) Snapshot(ctx context.Context, id estate.MachineID, name string) error {
	return h.checkpoint(ctx, id, "take", name)
}

// Revert implements driver.Snapshotter.
func (h *Host) Revert(ctx context.Context, id estate.MachineID, name string) error {
	return h.checkpoint(ctx, id, "apply", name)
}

// DropSnapshot implements driver.Snapshotter.
func (h *Host) DropSnapshot(ctx context.Context, id estate.MachineID, name string) error {
	return h.checkpoint(ctx, id, "drop", name)
}

func (h *Host) checkpoint(ctx context.Context, id estate.MachineID, act, name string) error {
	give, err := h.turns.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer give()
	_, rec, err := h.resting(ctx, id)
	if err != nil {
		return err
	}
	if rec.Adopted {
		return fault.Unsupported.Errorf("machine %s was adopted: its disks are files and none is private", id)
	}
	return h.remote.act(ctx, "snapshot", snapshotRequest{ID: id, Act: act, Name: name,
		CPUs: rec.Def.CPUs, Memory: int64(rec.Def.Memory), Disks: rec.disks()})
}

// Snapshots implements driver.Snapshotter.
func (h *Host) Snapshots(ctx context.Context, id estate.MachineID) ([]string, error) {
	var s snapshots
	err := h.remote.ask(ctx, "snapshot", snapshotRequest{ID: id, Act: "list", Disks: []diskSpec{}}, &s)
	return s.Names, err
}

// disks returns the machine's disks as the host has them.
func (r record) disks() []diskSpec {
	specs := []diskSpec{}
	if r.Adopted {
		return specs // where they are is the host's to know
	}
	for _, d := range r.Def.Disks {
		k := r.Disks[d.Name]
		specs = append(specs, diskSpec{
			File: fmt.Sprintf(`machines\%s\%s.%d.vhdx`, r.Def.ID, d.Name, k.N), Make: k.Make,
			Size: room(sizeOf(d)), Volume: volume(d),
		})
	}
	return specs
}

// clone returns the record with disks that may be changed.
func (r record) clone() (c record) {
	b, err := json.Marshal(r)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		panic(err) // a record is made of strings and numbers
	}
	return c
}

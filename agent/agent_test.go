package agent

import (
	"sync"
	"testing"

	"consort.dev/consort/estate"
)

// TestAKeeperHearsThatAMoveIsOff tells of the end of a move in the moment in
// which its target has heard of the machine and recorded nothing of it yet.
func TestAKeeperHearsThatAMoveIsOff(t *testing.T) {
	records, err := openRecords(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const id = estate.MachineID("11111111-1111-4111-8111-111111111111")
	k := &keeper{id: id, wake: make(chan struct{}, 1), turn: make(chan struct{}, 1)}
	a := &Agent{Options: Options{Hypervisor: "b"}, records: records, machines: map[estate.MachineID]*keeper{id: k}}
	machine := func(version int64, moving *estate.Moving) *estate.Machine {
		m := &estate.Machine{Spec: estate.MachineSpec{Hypervisor: "a", Epoch: version, Moving: moving}}
		m.Metadata.UID, m.Metadata.Version = string(id), version
		return m
	}
	var none sync.WaitGroup
	a.sawMachine(t.Context(), &none, machine(1, &estate.Moving{From: "a", To: "b"}), false)
	off := machine(2, nil)
	a.sawMachine(t.Context(), &none, off, false)
	if now, _ := k.latest(); now != off {
		t.Errorf("the keeper knows version %d, want 2: what the move leaves here would stay", now.Metadata.Version)
	}
	none.Wait()
}

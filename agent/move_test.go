package agent

import (
	"testing"

	"consort.dev/consort/estate"
)

// TestWhatAHostHasToDoWithAMachine walks a move from a to b, with its ways
// back, as both hosts and a third see it.
func TestWhatAHostHasToDoWithAMachine(t *testing.T) {
	out, back := &estate.Moving{From: "a", To: "b"}, &estate.Moving{From: "b", To: "a"}
	ran := &record{Epoch: 5}
	ready := &record{Epoch: 5, Arriving: true}
	shelved := &record{Epoch: 6, Shelved: true}
	for _, c := range []struct {
		name   string
		at     string
		epoch  int64
		moving *estate.Moving
		a, b   *record // nil when the host does not know it
		forA   part
		forB   part
	}{
		{"it runs on a", "a", 5, nil, ran, nil, mine, notOurs},
		{"a move was begun", "a", 5, out, ran, nil, mine, arriving},
		{"b is ready for it", "a", 5, out, ran, ready, mine, arriving},
		{"b has something older", "a", 5, out, ran, &record{Epoch: 3, Shelved: true}, mine, leftover},
		{"it was called off", "a", 6, nil, ran, ready, mine, leftover},
		{"it is placed on b", "b", 6, out, ran, ready, leaving, mine},
		{"a has shelved it", "b", 6, out, shelved, ready, leaving, mine},
		{"a forgot everything", "b", 6, out, nil, ready, leaving, mine},
		{"the move is over", "b", 6, nil, shelved, &record{Epoch: 6}, leftover, mine},
		{"it turned round", "a", 7, back, shelved, &record{Epoch: 6}, mine, leaving},
		{"it is back", "a", 7, nil, &record{Epoch: 7}, &record{Epoch: 7, Shelved: true}, mine, leftover},
		{"nobody placed it like that", "b", 5, nil, ran, nil, notOurs, mine},
	} {
		m := &estate.Machine{Spec: estate.MachineSpec{Hypervisor: c.at, Epoch: c.epoch, Moving: c.moving}}
		of := func(host string, r *record) part {
			if r == nil {
				return partOf(host, m, record{}, false)
			}
			return partOf(host, m, *r, true)
		}
		if got := of("a", c.a); got != c.forA {
			t.Errorf("%s: for a it is %d, want %d", c.name, got, c.forA)
		}
		if got := of("b", c.b); got != c.forB {
			t.Errorf("%s: for b it is %d, want %d", c.name, got, c.forB)
		}
		if got := of("c", nil); got != notOurs {
			t.Errorf("%s: for c it is %d, want nothing", c.name, got)
		}
	}
}

func TestARecordOfAMoveOutlivesTheAgentAndNewEpochs(t *testing.T) {
	dir := t.TempDir()
	r, err := openRecords(dir)
	if err != nil {
		t.Fatal(err)
	}
	rec := record{ID: someID, Project: "p", Name: "m", Epoch: 5}
	err = r.see(rec, func(r *record) {
		r.Arriving, r.Came = true, map[string]came{"root": {Size: 512, Sent: "sha256:x"}}
		r.Volumes = []fileOf{{"p", "home", "u"}}
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.left()) != 1 {
		t.Error("what is prepared is not among what moves left")
	}
	if r, err = openRecords(dir); err != nil {
		t.Fatal(err)
	}
	rec.Epoch = 6
	if err := r.see(rec, nil); err != nil {
		t.Fatal(err)
	}
	got, _ := r.get(someID)
	if !got.Arriving || got.Epoch != 6 || got.Came["root"] != (came{512, "sha256:x"}) || len(got.Volumes) != 1 {
		t.Errorf("it remembers %+v", got)
	}
}

// TestWhatWasReadBeforeTheEndIsNoNews has a call of a move read the machine just
// before it is deleted, and tell of it just after.
func TestWhatWasReadBeforeTheEndIsNoNews(t *testing.T) {
	at := func(version int64) *estate.Machine {
		return &estate.Machine{Head: estate.Head{Metadata: estate.Metadata{Version: version}}}
	}
	k := &keeper{wake: make(chan struct{}, 1)}
	k.see(at(42), false)
	k.see(at(42), true)
	k.see(at(42), false)
	if _, deleted := k.latest(); !deleted {
		t.Error("the machine is there again, by what was read before it was gone")
	}
	k.see(at(43), false) // it is placed here once more
	if m, deleted := k.latest(); deleted || m.Metadata.Version != 43 {
		t.Errorf("the newer version %d is gone: %v", m.Metadata.Version, deleted)
	}
	k.see(at(43), true)
	k.seeAgain(at(43)) // somebody looked, and it is
	if _, deleted := k.latest(); deleted {
		t.Error("a machine that is there is gone")
	}
}

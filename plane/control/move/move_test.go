package move_test

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/fakehost"
	"consort.dev/consort/image"
	"consort.dev/consort/plane/control/move"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
)

func TestAMachineMovesWithItsDisksAndGoesOn(t *testing.T) {
	y := newYard(t)
	y.open()
	y.settle()
	for _, to := range []string{"b", "a", "b"} {
		op := y.ended(y.begin(to, nil))
		if op.Status.State != estate.OperationDone || op.Status.Error != "" || op.Status.Note != "" {
			t.Fatalf("to %s: %+v", to, op.Status)
		}
		for _, d := range op.Status.Disks {
			if d.Size != size || d.Carried == 0 || d.Digest.Problem() != "" || d.Ended.IsZero() {
				t.Errorf("disk %+v", d)
			}
		}
		y.only(to, estate.On)
	}
}

func TestAMachineThatWasOffIsTriedAndStaysOff(t *testing.T) {
	y := newYard(t)
	y.open()
	y.settle()
	y.power(estate.Off)
	y.runs("a", estate.Off)
	if op := y.ended(y.begin("b", nil)); op.Status.State != estate.OperationDone || y.ref.starts != 2 {
		t.Fatalf("%d starts: %+v", y.ref.starts, op.Status)
	}
	y.only("b", estate.Off)
	if op := y.ended(y.begin("a", func(r *api.MoveRequest) { r.NoVerify = true })); op.Status.State != estate.OperationDone || y.ref.starts != 2 {
		t.Fatalf("%d starts: %+v", y.ref.starts, op.Status)
	}
	y.only("a", estate.Off)
}

func TestAMachineOnItsWayTakesNoOtherMove(t *testing.T) {
	y := newYard(t)
	y.open()
	y.settle()
	y.sites["b"].agent.kill()
	op := y.begin("b", nil)
	_, err := y.mover.Begin(t.Context(), y.machine.Ref(), api.MoveRequest{To: "b"}, "tests")
	if !errors.Is(err, fault.Conflict) {
		t.Errorf("a second move: %v, want conflict", err)
	}
	y.must(y.mover.Abort(t.Context(), "p", op))
	if got := y.ended(op); got.Status.State != estate.OperationFailed || got.Status.Error != "it was aborted" {
		t.Errorf("%+v", got.Status)
	}
	y.employ(y.sites["b"])
	y.only("a", estate.On)
}

func TestAMachineThatDoesNotComeUpGoesBack(t *testing.T) {
	y := newYard(t)
	y.mover.Times.Patience = 300e6
	y.open()
	y.settle()
	y.ref.refuseStart = "b"
	op := y.ended(y.begin("b", nil))
	if op.Status.State != estate.OperationFailed {
		t.Errorf("%+v", op.Status)
	}
	y.only("a", estate.On)
}

// TestAMachineChangesItsTypeOfGuestOnTheWay goes to a host as another type than
// its usual one, back to what it was when it does not come up, and home.
func TestAMachineChangesItsTypeOfGuestOnTheWay(t *testing.T) {
	y := newYard(t)
	y.mover.Times.Patience = 300e6
	y.sites["b"].memory = fakehost.New(fakehost.Options{GuestTypes: []string{"round", "square"}})
	y.open()
	y.settle()
	square := func(r *api.MoveRequest) { r.GuestType = "square" }
	is := func(host, guestType string) {
		t.Helper()
		y.only(host, estate.On)
		m, err := store.Get[estate.Machine](t.Context(), y.store, "p", "m")
		y.must(err)
		if have, _ := y.held(host); have.Def.GuestType != guestType || m.Spec.Hardware.GuestType != guestType {
			t.Errorf("on %s it is of type %q, and is to be %q; want %q", host, have.Def.GuestType, m.Spec.Hardware.GuestType, guestType)
		}
	}
	y.ref.refuseStart = "b"
	if op := y.ended(y.begin("b", square)); op.Status.State != estate.OperationFailed {
		t.Errorf("%+v", op.Status)
	}
	is("a", "")
	y.loop.kill()
	y.ref.refuseStart, y.mover.Times.Patience = "", soon
	y.direct()
	y.ended(y.begin("b", square))
	is("b", "square")
	y.ended(y.begin("a", nil))
	is("a", "")
}

// TestTheTargetWaitsUntilTheSourceHasLetGo loses the source's agent when the
// machine is placed, and has the vendor start there what it still has.
func TestTheTargetWaitsUntilTheSourceHasLetGo(t *testing.T) {
	y := newYard(t)
	y.open()
	y.settle()
	var lost sync.Once
	y.ref.dialling = func(v api.Verb) {
		if v == api.CallShelve {
			lost.Do(func() {
				y.sites["a"].agent.kill()
				y.meddle()
			})
		}
	}
	op := y.begin("b", nil)
	y.until("the move waits for the source", func() bool {
		o, err := store.Get[estate.Operation](t.Context(), y.store, "p", op)
		y.must(err)
		return strings.Contains(o.Status.Waiting, "the agent of hypervisor a is not connected")
	})
	if have, _ := y.held("a"); have.Power != estate.On {
		t.Fatal("the vendor started nothing: the test shows nothing")
	}
	if have, _ := y.held("b"); have.Power == estate.On {
		t.Error("it was started on b before a had let go")
	}
	y.employ(y.sites["a"])
	if got := y.ended(op); got.Status.State != estate.OperationDone {
		t.Errorf("%+v", got.Status)
	}
	y.only("b", estate.On)
}

func TestADeletedMachineLeavesNothing(t *testing.T) {
	y := newYard(t)
	y.open()
	y.settle()
	y.ref.refuseStart = "b"
	op := y.begin("b", nil)
	y.until("it is placed on b", func() bool {
		m, err := store.Get[estate.Machine](t.Context(), y.store, "p", "m")
		return err == nil && m.Spec.Hypervisor == "b"
	})
	y.must(y.store.Delete(t.Context(), y.machine.Ref(), 0))
	if got := y.ended(op); got.Status.State != estate.OperationFailed {
		t.Errorf("%+v", got.Status)
	}
	y.until("nothing of it is left", func() bool {
		_, a := y.held("a")
		_, b := y.held("b")
		return !a && !b && y.records() == 0
	})
}

func TestARunningMachineMovesLive(t *testing.T) {
	y := newYard(t)
	y.open()
	y.settleWith(false)
	for _, to := range []string{"b", "a"} {
		op := y.ended(y.begin(to, func(r *api.MoveRequest) { r.Live = true }))
		if op.Status.State != estate.OperationDone || op.Status.Error != "" {
			t.Fatalf("%+v", op.Status)
		}
		y.only(to, estate.On)
		if y.ref.starts != 1 {
			t.Errorf("started %d times, want once", y.ref.starts)
		}
	}
}

// TestALiveMoveOfAMachineThatStoppedIsUndone has the machine stop as it is about
// to go over: nobody turns it on meanwhile, so that waiting for it would have no
// end.
func TestALiveMoveOfAMachineThatStoppedIsUndone(t *testing.T) {
	y := newYard(t)
	a := y.sites["a"]
	var once sync.Once
	a.leaves = func() {
		once.Do(func() { y.must(a.memory.Stop(t.Context(), estate.MachineID(y.machine.Metadata.UID), 0)) })
	}
	y.open()
	y.settleWith(false)
	op := y.begin("b", func(r *api.MoveRequest) { r.Live = true })
	if got := y.ended(op); got.Status.State != estate.OperationFailed || !strings.Contains(got.Status.Error, "stopped running") {
		t.Errorf("it ended as %q: %s; want it undone, since the machine stopped running", got.Status.State, got.Status.Error)
	}
	y.only("a", estate.On)
}

// TestTheRefereeCatchesLiars moves the machine as no mover should, and expects
// the referee to say so: otherwise the kills above would show nothing.
func TestTheRefereeCatchesLiars(t *testing.T) {
	for name, liar := range map[string]struct {
		move func(*estate.Machine)
		says string
	}{
		"no new epoch":               {func(m *estate.Machine) { m.Spec.Hypervisor = "b" }, "two copies run"},
		"not waiting for the source": {func(m *estate.Machine) { m.Spec.Hypervisor = "b"; m.Spec.Epoch++ }, "two copies run"},
		"nothing carried":            {func(m *estate.Machine) { m.Spec.Hypervisor = "b"; m.Spec.Epoch++ }, "disk root does not hold what it held"},
	} {
		t.Run(name, func(t *testing.T) {
			y := newYard(t)
			y.open()
			y.settleWith(false)
			if name == "not waiting for the source" {
				y.sites["a"].agent.kill() // it would stop its copy in time, or not
			}
			base := make([]byte, size)
			_, err := y.sites["b"].images.Put(t.Context(), bytes.NewReader(base), image.Record{Kind: image.KindImage, Format: estate.Raw, Size: size})
			y.must(err)
			_, err = store.Modify(t.Context(), y.store, "p", "m", func(m *estate.Machine) error { liar.move(m); return nil })
			y.must(err)
			y.until("the referee says "+liar.says, func() bool { return y.ref.said(liar.says) })
		})
	}
}

func TestJournalsOfMovesAreKeptForAWhile(t *testing.T) {
	now := time.Now()
	m := &move.Mover{Store: store.New(mem.Open(mem.Options{}), store.Options{}), Now: func() time.Time { return now }, Times: move.Times{Keep: time.Hour}}
	defer m.Store.Close()
	step := m.Loop().Step
	op := &estate.Operation{Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Operation", Metadata: estate.Metadata{Name: "old", Project: "p"}}}
	op.Spec = estate.OperationSpec{Verb: estate.VerbMove, On: estate.Ref{Kind: "Machine", Project: "p", Name: "m"}, Move: &estate.MoveOrder{From: "a", To: "b"}}
	op.Status.State, op.Status.Ended = estate.OperationDone, now.Add(-59*time.Minute)
	if err := m.Store.Create(t.Context(), op); err != nil {
		t.Fatal(err)
	}
	if again, err := step(t.Context(), op.Ref()); again != time.Minute || err != nil {
		t.Errorf("a minute too early: %v, %v; want another look in a minute", again, err)
	}
	now = now.Add(time.Minute)
	for range 2 { // the second finds it gone
		if again, err := step(t.Context(), op.Ref()); again != 0 || err != nil {
			t.Errorf("after an hour: %v, %v", again, err)
		}
	}
	if _, err := m.Store.Load(t.Context(), op.Ref()); !errors.Is(err, fault.NotFound) {
		t.Errorf("its journal is still there: %v", err)
	}
}

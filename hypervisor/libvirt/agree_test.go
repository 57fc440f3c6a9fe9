package libvirt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/virtrpc/virtrpctest"
)

// belief is what a machine must be after what was done to it.
type belief struct {
	on     bool
	starts int64
	cpus   int
	memory estate.Bytes
	saved  bool
}

// ledger does things to machines, by our code and by virsh, and keeps what must
// come of them.
type ledger struct {
	t       *testing.T
	h       *Host
	daemon  *virtrpctest.Daemon
	base    driver.Content
	known   map[estate.MachineID]*belief
	shelved map[estate.MachineID]*belief
}

// TestAnotherClientAgrees does 100 random things to three machines, a third of
// them by virsh, and after each asks virsh, which knows nothing of our code,
// and us. CONSORT_SEED repeats a run.
func TestAnotherClientAgrees(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute or two")
	}
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("CONSORT_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("CONSORT_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	d := virtrpctest.Start(t)
	l := &ledger{t: t, h: host(open(t, place(t, d, "m"))), daemon: d, base: base(t, d),
		known: map[estate.MachineID]*belief{}, shelved: map[estate.MachineID]*belief{}}
	deeds := map[string]func(estate.MachineID) error{
		"define": l.define, "start": l.start, "stop": l.stop, "delete": l.remove, "save": l.save, "shelve": l.shelve,
		"resize": l.resize, "virsh start": l.virshStart, "virsh destroy": l.virshDestroy, "virsh managedsave": l.virshSave,
	}
	names := slices.Sorted(maps.Keys(deeds))
	for i := range 100 {
		id := estate.MachineID(fmt.Sprintf("a%d000000-0000-4000-8000-000000000001", r.IntN(3)))
		name := names[r.IntN(len(names))]
		if err := deeds[name](id); err != nil {
			t.Fatalf("%d: %s %s: %v", i, name, id, err)
		}
		if err := l.agree(); err != nil {
			t.Fatalf("%d: after %s %s: %v", i, name, id, err)
		}
	}
}

func (l *ledger) ctx() context.Context { return l.t.Context() }

func (l *ledger) definition(id estate.MachineID, b *belief) driver.Definition {
	return driver.Definition{ID: id, Name: "one of three", CPUs: b.cpus, Memory: b.memory,
		Disks: []driver.Disk{{Name: "root", Base: &l.base, Size: estate.MiB}}}
}

func (l *ledger) define(id estate.MachineID) error {
	b := l.known[id]
	if b == nil {
		b = l.shelved[id]
	}
	if b == nil {
		b = &belief{cpus: 1, memory: 32 * estate.MiB}
	}
	if l.known[id] == nil {
		b.on, b.starts, b.saved = false, 0, false
	}
	l.known[id] = b
	delete(l.shelved, id)
	return l.h.Define(l.ctx(), l.definition(id, b))
}

// missing checks that what is not there is said not to be.
func missing(err error) error {
	if !errors.Is(err, fault.NotFound) {
		return fmt.Errorf("%v, want %v", err, fault.NotFound)
	}
	return nil
}

func (b *belief) powerOn() {
	if !b.on {
		b.on, b.saved, b.starts = true, false, b.starts+1
	}
}

func (l *ledger) start(id estate.MachineID) error {
	err := l.h.Start(l.ctx(), id)
	if l.known[id] == nil {
		return missing(err)
	}
	l.known[id].powerOn()
	return err
}

func (l *ledger) stop(id estate.MachineID) error {
	err := l.h.Stop(l.ctx(), id, 0)
	if l.known[id] == nil {
		return missing(err)
	}
	l.known[id].on = false
	return err
}

func (l *ledger) remove(id estate.MachineID) error {
	delete(l.known, id)
	delete(l.shelved, id)
	return l.h.Delete(l.ctx(), id)
}

func (l *ledger) save(id estate.MachineID) error {
	err := l.h.Save(l.ctx(), id)
	b := l.known[id]
	if b == nil {
		return missing(err)
	}
	b.saved, b.on = b.saved || b.on, false
	return err
}

func (l *ledger) shelve(id estate.MachineID) error {
	err := l.h.Shelve(l.ctx(), id)
	b := l.known[id]
	if b == nil {
		return err
	}
	if b.on {
		if !errors.Is(err, fault.Conflict) {
			return fmt.Errorf("%v, want %v", err, fault.Conflict)
		}
		return nil
	}
	l.shelved[id] = b
	delete(l.known, id)
	return err
}

func (l *ledger) resize(id estate.MachineID) error {
	b := l.known[id]
	if b == nil {
		return missing(l.h.Resize(l.ctx(), id, 2, 64*estate.MiB))
	}
	cpus, memory := b.cpus%2+1, b.memory%(64*estate.MiB)+16*estate.MiB
	err := l.h.Resize(l.ctx(), id, cpus, memory)
	if b.on {
		if !errors.Is(err, fault.Conflict) {
			return fmt.Errorf("%v, want %v", err, fault.Conflict)
		}
		return nil
	}
	b.cpus, b.memory, b.saved = cpus, memory, false
	return err
}

func (l *ledger) virsh(args ...string) (string, error) {
	return l.daemon.Shell(l.ctx(), l.daemon.URI, args...)
}

func (l *ledger) virshStart(id estate.MachineID) error {
	b := l.known[id]
	if b == nil || b.on {
		return nil
	}
	b.powerOn()
	_, err := l.virsh("start", string(id))
	return err
}

func (l *ledger) virshDestroy(id estate.MachineID) error {
	b := l.known[id]
	if b == nil || !b.on {
		return nil
	}
	b.on = false
	_, err := l.virsh("destroy", string(id))
	return err
}

func (l *ledger) virshSave(id estate.MachineID) error {
	b := l.known[id]
	if b == nil || !b.on {
		return nil
	}
	b.on, b.saved = false, true
	_, err := l.virsh("managedsave", string(id))
	return err
}

// agree compares what must be with what we say and with what virsh says.
func (l *ledger) agree() error {
	ours, err := l.h.List(l.ctx())
	if err != nil {
		return err
	}
	theirs, err := l.virsh("list", "--all", "--uuid")
	if err != nil {
		return err
	}
	if ids := strings.Fields(theirs); len(ours) != len(l.known) || len(ids) != len(l.known) {
		return fmt.Errorf("%d machines must be, we list %d, virsh %v", len(l.known), len(ours), ids)
	}
	for _, m := range ours {
		b := l.known[m.ID]
		if b == nil {
			return fmt.Errorf("we list %s, which must not be", m.ID)
		}
		if want := map[bool]estate.Power{true: estate.On, false: estate.Off}[b.on]; m.Power != want || m.Starts != b.starts || !m.Def.Equal(l.definition(m.ID, b)) {
			return fmt.Errorf("we say %s after %d starts, %d CPUs, %s; it must be %+v", m.Power, m.Starts, m.Def.CPUs, m.Def.Memory, *b)
		}
		info, err := l.virsh("dominfo", string(m.ID))
		if err != nil {
			return err
		}
		said := map[string]string{}
		for line := range strings.Lines(info) {
			key, value, _ := strings.Cut(line, ":")
			said[key] = strings.TrimSpace(value)
		}
		for key, want := range map[string]string{
			"State": map[bool]string{true: "running", false: "shut off"}[b.on], "CPU(s)": strconv.Itoa(b.cpus),
			"Max memory": fmt.Sprintf("%d KiB", b.memory/estate.KiB), "Managed save": map[bool]string{true: "yes", false: "no"}[b.saved],
		} {
			if said[key] != want {
				return fmt.Errorf("virsh says of %s: %s is %q, want %q", m.ID, key, said[key], want)
			}
		}
	}
	return nil
}

// A guest whose memory comes back must run again, not only have its power on.
func TestASavedGuestRunsAgain(t *testing.T) {
	d := virtrpctest.Start(t)
	l := &ledger{t: t, h: host(open(t, place(t, d, "m"))), daemon: d, base: base(t, d),
		known: map[estate.MachineID]*belief{}, shelved: map[estate.MachineID]*belief{}}
	id := estate.MachineID("a1000000-0000-4000-8000-000000000001")
	if err := errors.Join(l.define(id), l.start(id), l.save(id), l.start(id)); err != nil {
		t.Fatal(err)
	}
	if got, err := l.virsh("domstate", string(id)); err != nil || strings.TrimSpace(got) != "running" {
		t.Errorf("virsh says %q, %v; want running", got, err)
	}
}

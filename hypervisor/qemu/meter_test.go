package qemu

import (
	"errors"
	"testing"
	"time"

	"consort.dev/consort/estate"
)

func TestProcStatIsRead(t *testing.T) {
	line := "1234 (a) (b c) S 1 2 3 4 5 6 7 8 9 10 150 50 13 14 15 16 17 18 19 20 25 22 23\n"
	cpu, memory, err := parseStat([]byte(line))
	if err != nil || cpu != 2*time.Second || memory != 25*4096 {
		t.Errorf("parseStat = %v, %v, %v; want 2s and 25 pages", cpu, memory, err)
	}
	if _, _, err := parseStat([]byte("1 (x) S 1")); err == nil {
		t.Error("a short line passes")
	}
}

func TestCountersOfATapAreThoseOfItsGuestTurnedRound(t *testing.T) {
	text := "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 1 2 3 4 5 6 7 8 9\n  tap0:  10 1 0 0 0 0 0 0  20 1 0 0 0 0 0 0\n"
	got, err := parseDev([]byte(text), "tap0")
	if want := (flow{In: 20, Out: 10}); err != nil || got != want {
		t.Errorf("parseDev = %+v, %v; want %+v", got, err, want)
	}
	if _, err := parseDev([]byte(text), "tap"); err == nil {
		t.Error("an absent device has counters")
	}
}

func TestAMachineIsMeasured(t *testing.T) {
	cfg := place(t)
	h := open(t, cfg)
	if err := errors.Join(h.Define(t.Context(), definition(base(t, cfg))), h.Start(t.Context(), someID)); err != nil {
		t.Fatal(err)
	}
	firstWord(t, h) // it has booted
	u, err := h.Measure(t.Context(), someID)
	if err != nil || u.CPU <= 0 || u.Memory < estate.MiB || u.DiskRead < 512 || u.DiskWritten != 0 || u.Received != 0 || u.Sent != 0 {
		t.Errorf("Measure = %+v, %v; want time, memory, the boot sector read, nothing else", u, err)
	}
}

func TestAWatcherHearsOfAGuestThatPowersOff(t *testing.T) {
	cfg := place(t)
	h := open(t, cfg)
	if err := errors.Join(h.Define(t.Context(), definition(base(t, cfg))), h.Start(t.Context(), someID)); err != nil {
		t.Fatal(err)
	}
	heard := make(chan estate.Power, 100)
	go h.Watch(t.Context(), func(id estate.MachineID) {
		all, err := h.List(t.Context())
		if err == nil && len(all) == 1 && all[0].ID == id {
			heard <- all[0].Power
		}
	})
	for watched := false; !watched; {
		h.news.mu.Lock()
		watched = len(h.news.watchers) == 1
		h.news.mu.Unlock()
	}
	// As when the guest does it: nobody here has asked.
	if err := h.machines[someID].kill(); err != nil {
		t.Fatal(err)
	}
	for end := time.After(10 * time.Second); ; {
		select {
		case p := <-heard:
			if p == estate.Off {
				return
			}
		case <-end:
			t.Fatal("nobody told that the machine is off")
		}
	}
}

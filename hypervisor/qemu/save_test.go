package qemu

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/test/guest"
)

// firstWord returns the first byte that the machine writes to its console after
// a key was pressed: K where it has booted, the key where it went on.
func firstWord(t *testing.T, h *Host) byte {
	t.Helper()
	serial, err := h.Console(t.Context(), someID)
	if err != nil {
		t.Fatal(err)
	}
	defer serial.Close()
	key := node{"keys": []node{{"type": "qcode", "data": "x"}}}
	if err := h.machines[someID].controller().Execute(t.Context(), "send-key", key, nil); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := io.ReadFull(serial, b); err != nil {
		t.Fatal(err)
	}
	return b[0]
}

func TestASavedMachineGoesOnOnce(t *testing.T) {
	cfg := place(t)
	h := open(t, cfg)
	ctx := t.Context()
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(h.Define(ctx, definition(base(t, cfg))))
	do(h.Start(ctx, someID))
	if got := firstWord(t, h); got != 'K' {
		t.Fatalf("the machine says %q at boot, want K", got)
	}
	do(errors.Join(h.Save(ctx, someID), h.Save(ctx, someID), h.Start(ctx, someID)))
	if got := firstWord(t, h); got != 'x' {
		t.Errorf("the saved machine says %q, want the key: it goes on", got)
	}
	do(errors.Join(h.Stop(ctx, someID, 0), h.Start(ctx, someID)))
	if got := firstWord(t, h); got != 'K' {
		t.Errorf("the machine says %q, want K: the memory was used up", got)
	}
	do(errors.Join(h.Save(ctx, someID), h.Resize(ctx, someID, 1, 32*estate.MiB), h.Start(ctx, someID)))
	if got := firstWord(t, h); got != 'K' {
		t.Errorf("the machine says %q, want K: Resize forgets the memory", got)
	}
	files, err := filepath.Glob(filepath.Join(cfg.Dir, string(someID), "*.state"))
	if err != nil || len(files) > 0 {
		t.Errorf("memory is left: %v, %v", files, err)
	}
}

// TestABrokenSaveLeavesTheGuestRunning has Save end at moments between pausing
// the guest and recording its memory.
func TestABrokenSaveLeavesTheGuestRunning(t *testing.T) {
	cfg := place(t)
	h := open(t, cfg)
	if err := errors.Join(h.Define(t.Context(), definition(base(t, cfg))), h.Start(t.Context(), someID)); err != nil {
		t.Fatal(err)
	}
	broken := 0
	for after := time.Duration(0); after < 40*time.Millisecond; after += time.Millisecond {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		err := h.Save(ctx, someID)
		cancel()
		if err != nil {
			broken++
		}
		if err := h.Start(t.Context(), someID); err != nil {
			t.Fatalf("Start after a Save cut at %v: %v", after, err)
		}
		status, err := runState(t.Context(), h.machines[someID].controller())
		if err != nil || status != "running" {
			t.Fatalf("after a Save cut at %v the guest is %s, %v", after, status, err)
		}
	}
	if broken == 0 {
		t.Error("no Save was cut: the test shows nothing")
	}
	t.Logf("%d of 40 were cut", broken)
}

func TestMemoryOfAnotherQEMUIsRefused(t *testing.T) {
	cfg := place(t)
	h := open(t, cfg)
	if err := errors.Join(h.Define(t.Context(), definition(base(t, cfg))), h.Start(t.Context(), someID), h.Save(t.Context(), someID)); err != nil {
		t.Fatal(err)
	}
	r := h.machines[someID].record()
	r.Saved = &saved{File: r.Saved.File, Product: "QEMU emulator version 0.1"}
	if err := h.machines[someID].save(r); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context(), someID); !errors.Is(err, fault.Unsupported) {
		t.Errorf("Start = %v, want %v", err, fault.Unsupported)
	}
}

// TestAGuestGoesOnWhereItWasSaved shows that memory, and a disk that was
// attached, are there again for a real guest.
func TestAGuestGoesOnWhereItWasSaved(t *testing.T) {
	small := guest.Small(t)
	cfg := place(t)
	h := open(t, cfg)
	ctx := t.Context()
	def := definition(driver.Content{Path: small.Path, Format: small.Format, Size: small.Size})
	def.Memory, def.Disks[0].Size = 384*estate.MiB, 0
	if err := errors.Join(h.Define(ctx, def), h.Start(ctx, someID)); err != nil {
		t.Fatal(err)
	}
	run := func(words string) string {
		t.Helper()
		var out driver.Output
		err := fault.Unavailable.Errorf("not asked yet")
		for end := time.Now().Add(guestBoot); errors.Is(err, fault.Unavailable) && time.Now().Before(end); {
			out, err = h.Run(ctx, someID, driver.Command{Args: []string{"/bin/sh", "-c", words}})
		}
		if err != nil || out.Exit != 0 {
			t.Fatalf("%s: %+v, %v", words, out, err)
		}
		return strings.TrimSpace(string(out.Stdout))
	}
	boot := run("echo kept > /run/mark; cat /proc/sys/kernel/random/boot_id")
	extra := driver.Content{Path: filepath.Join(filepath.Dir(cfg.Dir), "extra.img"), Format: estate.Raw, Size: estate.MiB}
	if err := os.WriteFile(extra.Path, slices.Repeat([]byte("x"), int(extra.Size)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := h.Attach(ctx, someID, driver.Disk{Name: "extra", File: &extra, ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	read := "until [ -e /dev/disk/by-id/virtio-extra ]; do sleep 0.1; done; head -c 4 /dev/disk/by-id/virtio-extra"
	if got := run(read); got != "xxxx" {
		t.Fatalf("the attached disk holds %q", got)
	}
	begin := time.Now()
	if err := h.Save(ctx, someID); err != nil {
		t.Fatal(err)
	}
	saved := time.Now()
	if err := h.Start(ctx, someID); err != nil {
		t.Fatal(err)
	}
	t.Logf("saved in %v, started in %v", saved.Sub(begin), time.Since(saved))
	if got := run("cat /run/mark /proc/sys/kernel/random/boot_id"); got != "kept\n"+boot {
		t.Errorf("the guest has %q, want what was in its memory", got)
	}
	if got := run("echo 3 > /proc/sys/vm/drop_caches; " + read); got != "xxxx" {
		t.Errorf("the attached disk holds %q", got)
	}
	if err := h.Detach(ctx, someID, "extra"); err != nil {
		t.Error(err)
	}
}

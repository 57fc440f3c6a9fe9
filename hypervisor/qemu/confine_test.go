package qemu

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"consort.dev/consort/estate"
)

func TestMachinesRunConfinedEachAsAUserOfItsOwn(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives machines users of their own")
	}
	cfg := place(t)
	h := open(t, cfg)
	for i, id := range []estate.MachineID{someID, "0c9e3c54-1111-4222-8333-444455556667"} {
		def := definition(base(t, cfg))
		def.ID = id
		if err := errors.Join(h.Define(t.Context(), def), h.Start(t.Context(), id)); err != nil {
			t.Fatal(err)
		}
		pid, err := h.machines[id].pid()
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		uid := 1<<30 + i
		for _, want := range []string{fmt.Sprintf("Uid:\t%d\t%d\t%d\t%d", uid, uid, uid, uid), "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "Groups:\t \n"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("status of the process lacks %q:\n%s", want, b)
			}
		}
	}
}

func TestAMachineStartsUnderUEFI(t *testing.T) {
	cfg := place(t)
	if _, err := os.Stat("/usr/share/OVMF/OVMF_CODE_4M.fd"); err != nil {
		t.Skip("Debian's ovmf is not installed")
	}
	h := open(t, cfg)
	def := definition(base(t, cfg))
	def.Firmware, def.Memory = estate.UEFI, 128*estate.MiB
	if err := errors.Join(h.Define(t.Context(), def), h.Start(t.Context(), someID)); err != nil {
		t.Fatal(err)
	}
}

func TestADiskThatKeepsItsDataElsewhereIsRefused(t *testing.T) {
	path := t.TempDir() + "/evil"
	head := make([]byte, 104)
	copy(head, "QFI\xfb\x00\x00\x00\x03")
	head[79] = 1 << 2
	if err := os.WriteFile(path, head, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := inert(path); err == nil || !strings.Contains(err.Error(), "another file") {
		t.Errorf("inert = %v, want a refusal", err)
	}
}

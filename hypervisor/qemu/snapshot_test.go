package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

// twoDisks defines a machine with a disk on a base and an empty one.
func twoDisks(t *testing.T, h *Host, cfg Config) {
	t.Helper()
	def := definition(base(t, cfg))
	def.Disks = append(def.Disks, driver.Disk{Name: "data", Size: estate.MiB})
	if err := h.Define(t.Context(), def); err != nil {
		t.Fatal(err)
	}
}

// mark writes the letter into the first and the last sector of both disks, as
// a guest would: into the topmost layer. The rest of a disk stays as it was.
func mark(t *testing.T, h *Host, letter string) {
	t.Helper()
	for _, d := range h.machines[someID].record().Def.Disks {
		top := h.machines[someID].stack(d)
		n, err := imageNode(top)
		if err != nil {
			t.Fatal(err)
		}
		i := int(letter[0]-'a') * 512
		sector := strings.Repeat(letter, 512)
		if err := writeAt(t, n, i, sector); err != nil {
			t.Fatal(err)
		}
	}
}

// marks returns the letters that both disks hold.
func marks(t *testing.T, h *Host) string {
	t.Helper()
	var found [2]string
	for i, disk := range []string{"root", "data"} {
		var b bytes.Buffer
		if err := h.Export(t.Context(), someID, disk, &b); err != nil {
			t.Fatal(err)
		}
		for c := byte('b'); c <= 'z'; c++ {
			if bytes.Equal(b.Bytes()[int(c-'a')*512:][:512], bytes.Repeat([]byte{c}, 512)) {
				found[i] += string(c)
			}
		}
	}
	if found[0] != found[1] {
		t.Fatalf("the disks hold %q and %q, want the same", found[0], found[1])
	}
	return found[0]
}

func TestSnapshotsStandApart(t *testing.T) {
	cfg := place(t)
	h := open(t, cfg)
	twoDisks(t, h, cfg)
	ctx := t.Context()
	check := func(want string) {
		t.Helper()
		if got := marks(t, h); got != want {
			t.Errorf("the disks hold %q, want %q", got, want)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	mark(t, h, "b")
	do(h.Snapshot(ctx, someID, "one"))
	mark(t, h, "c")
	do(h.Snapshot(ctx, someID, "two"))
	mark(t, h, "d")
	do(h.Snapshot(ctx, someID, "three"))
	mark(t, h, "e")
	check("bcde")
	do(h.DropSnapshot(ctx, someID, "two")) // merges what lay between one and three
	check("bcde")
	do(h.Revert(ctx, someID, "one"))
	check("b")
	mark(t, h, "f")
	do(h.Snapshot(ctx, someID, "side"))
	do(h.Revert(ctx, someID, "three"))
	check("bcd")
	do(errors.Join(h.DropSnapshot(ctx, someID, "one"), h.DropSnapshot(ctx, someID, "three")))
	check("bcd")
	do(h.Revert(ctx, someID, "side"))
	check("bf")
	do(h.DropSnapshot(ctx, someID, "side"))
	check("bf")
	r := h.machines[someID].record()
	if n := len(r.Copies["root"].layers()); n != 1 {
		t.Errorf("a disk without snapshots has %d layers, want 1: %+v", n, r.Copies["root"])
	}
	entries, err := os.ReadDir(h.machines[someID].dir)
	if err != nil || len(entries) > 3 {
		t.Errorf("folder holds %v, %v; want the record and two disks", entries, err)
	}
	do(h.Start(ctx, someID))
}

// writeAt writes into a disk that is no machine's at the moment.
func writeAt(t *testing.T, n node, at int, text string) error {
	t.Helper()
	file := t.TempDir() + "/text"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	out, err := exec.Command("qemu-io", "-c", fmt.Sprintf("write -s %s %d %d", file, at, len(text)), "json:"+marshal(n)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

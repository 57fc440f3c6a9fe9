package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestTheGuestIsItsSource assembles guest.s anew.
func TestTheGuestIsItsSource(t *testing.T) {
	if _, err := exec.LookPath("as"); err != nil {
		t.Skip("there is no assembler here")
	}
	object, binary := filepath.Join(t.TempDir(), "guest.o"), filepath.Join(t.TempDir(), "guest.bin")
	for _, line := range [][]string{
		{"as", "--32", "-o", object, "testdata/guest.s"},
		{"ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", binary, object},
	} {
		if out, err := exec.Command(line[0], line[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", line, err, out)
		}
	}
	got, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 512 || !bytes.Equal(got, sector) {
		t.Errorf("guest.bin is not what guest.s makes: %d bytes against %d", len(sector), len(got))
	}
}

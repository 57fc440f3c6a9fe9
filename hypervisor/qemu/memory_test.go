package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSharedMemoryCannotBeWritten tries every way in which a clone's process,
// taken over, could change what its template's other clones read.
func TestSharedMemoryCannotBeWritten(t *testing.T) {
	const size = 1 << 20
	content := make([]byte, size)
	copy(content[8192:], "a page of the guest")
	path := filepath.Join(t.TempDir(), "memory")
	if err := os.WriteFile(path, content, 0o444); err != nil {
		t.Fatal(err)
	}
	f, err := loadMemory(t.Context(), path, size)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	again, err := os.OpenFile(fmt.Sprint("/proc/self/fd/", f.Fd()), os.O_RDWR, 0)
	if err != nil {
		t.Fatalf("open it as QEMU does: %v", err)
	}
	defer again.Close()
	if _, err := again.WriteAt([]byte("x"), 8192); !errors.Is(err, unix.EPERM) {
		t.Errorf("write: %v, want %v", err, unix.EPERM)
	}
	if err := again.Truncate(0); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncate: %v, want %v", err, unix.EPERM)
	}
	if _, err := unix.Mmap(int(again.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); !errors.Is(err, unix.EPERM) {
		t.Errorf("map it for others to see: %v, want %v", err, unix.EPERM)
	}
	if err := unix.Fallocate(int(again.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 8192, 4096); !errors.Is(err, unix.EPERM) {
		t.Errorf("punch a hole: %v, want %v", err, unix.EPERM)
	}
	own, err := unix.Mmap(int(again.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatalf("map it privately: %v", err)
	}
	defer unix.Munmap(own)
	own[8192] = 'A'
	got := make([]byte, size)
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
		t.Errorf("others see what one wrote (%v)", err)
	}
}

// TestMemoryIsCopiedWithoutItsHoles holds the copy to its content and to taking
// no room for zeros, wherever in a block these begin and end.
func TestMemoryIsCopiedWithoutItsHoles(t *testing.T) {
	const size = 5 << 20
	content := make([]byte, size)
	for _, at := range []int{0, 4095, 12288, 1<<20 - 1, 1 << 20, 3<<20 + 4096, size - 1} {
		content[at] = byte(at%250 + 1)
	}
	from, err := os.Create(filepath.Join(t.TempDir(), "from"))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if _, err := from.Write(content); err != nil {
		t.Fatal(err)
	}
	to, err := newMemory(size)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := copyData(context.Background(), to, from, size); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, size)
	if _, err := to.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the copy differs (%v)", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(to.Fd()), &st); err != nil || st.Blocks*512 != 6*4096 {
		t.Errorf("the copy takes %d bytes (%v), want six pages", st.Blocks*512, err)
	}
}

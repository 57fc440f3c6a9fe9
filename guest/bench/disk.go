package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"
	"unsafe"
)

const (
	extent  = 32 << 20 // bytes of the file that disk works on
	page    = 4 << 10
	stretch = 1 << 20
)

// disk measures a file in the folder given, /var/tmp when none is: random 4 KiB
// reads past the cache, random 4 KiB writes each of which is on the disk before
// the next, and 1 MiB writes in a row with one sync at the end.
func disk(d time.Duration, args []string) (figures, error) {
	dir := "/var/tmp"
	if len(args) > 0 {
		dir = args[0]
	}
	path := filepath.Join(dir, fmt.Sprintf("bench-%d", os.Getpid()))
	defer os.Remove(path)
	out := figures{}
	if err := sequential(path, d, out); err != nil {
		return nil, err
	}
	// The order is the same for every hypervisor.
	dice := rand.New(rand.NewPCG(1, 2))
	reads, err := random(path, os.O_RDONLY, d, dice, syscall.Pread)
	if err != nil {
		return nil, err
	}
	writes, err := random(path, os.O_WRONLY|syscall.O_DSYNC, d, dice, syscall.Pwrite)
	if err != nil {
		return nil, err
	}
	out["random_read_4k_iops"], out["random_write_4k_sync_iops"] = reads, writes
	return out, nil
}

// sequential fills the file, as often as the time allows.
func sequential(path string, d time.Duration, out figures) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, stretch)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	var n int64
	began := time.Now()
	for n < extent || time.Since(began) < d {
		if _, err := f.WriteAt(b, n%extent); err != nil {
			return err
		}
		if n += stretch; n%extent == 0 {
			if err := f.Sync(); err != nil {
				return err
			}
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	out["sequential_write_mb_per_s"] = float64(n) / mega / time.Since(began).Seconds()
	return nil
}

// dirt leaves a file of 32 MiB on the disk, so that a snapshot has something to
// keep or to take back.
func dirt(time.Duration, []string) (figures, error) {
	f, err := os.Create("/var/tmp/dirt")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, stretch)
	dice := rand.New(rand.NewPCG(3, 4))
	for range extent / stretch {
		for i := 0; i < len(b); i += 8 {
			binary.LittleEndian.PutUint64(b[i:], dice.Uint64()) // what no host can leave out
		}
		if _, err := f.Write(b); err != nil {
			return nil, err
		}
	}
	return figures{"dirt_bytes": extent}, f.Sync()
}

// random does an operation on random pages of the file, past the cache where the
// file system allows it, and returns how many in a second.
func random(path string, flag int, d time.Duration, dice *rand.Rand, do func(int, []byte, int64) (int, error)) (float64, error) {
	f, err := os.OpenFile(path, flag|syscall.O_DIRECT, 0)
	if errors.Is(err, syscall.EINVAL) {
		return 0, fmt.Errorf("%s: its file system has no direct I/O; name a folder on a disk", path)
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b := aligned(page)
	n, began := 0, time.Now()
	for time.Since(began) < d {
		if _, err := do(int(f.Fd()), b, dice.Int64N(extent/page)*page); err != nil {
			return 0, err
		}
		n++
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// aligned returns size bytes that begin where direct I/O wants them.
func aligned(size int) []byte {
	b := make([]byte, size+page)
	skip := page - int(uintptr(unsafe.Pointer(&b[0]))%page)
	return b[skip : skip+size]
}

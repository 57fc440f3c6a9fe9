package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"consort.dev/consort/internal/diskfile"
)

// Memory that machines share until they write to it is a memfd, sealed: the
// kernel refuses every write to it and every mapping through which others would
// see one, whoever holds it. That matters since QEMU opens a memory file for
// writing even where it maps it privately (before 8.2), and a machine's process
// may have been taken over by its guest. It has no name that anybody else could
// open, and it goes with the last of those who map it.

// seals keep a memfd as it is for good.
const seals = unix.F_SEAL_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// newMemory returns an empty memfd of that size, which can still be written.
func newMemory(size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate("guest-memory", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "guest-memory")
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func seal(f *os.File) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	return os.NewSyscallError("F_ADD_SEALS", err)
}

// loadMemory returns what the file at path holds as sealed memory.
func loadMemory(ctx context.Context, path string, size int64) (*os.File, error) {
	from, err := openDisk(path, true)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	to, err := newMemory(size)
	if err != nil {
		return nil, err
	}
	if err := copyData(ctx, to, from, size); err == nil {
		err = seal(to)
	}
	if err != nil {
		to.Close()
		return nil, fmt.Errorf("load memory from %s: %w", path, err)
	}
	return to, nil
}

// copyData copies what from holds but for holes and runs of zeros, which stay
// holes in to. Both have that size.
func copyData(ctx context.Context, to, from *os.File, size int64) error {
	const block = 1 << 20
	buf := make([]byte, block)
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := unix.Seek(int(from.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err != nil {
			return os.NewSyscallError("lseek", err)
		}
		at = data
		n, err := from.ReadAt(buf[:min(block, size-at)], at)
		if err != nil && err != io.EOF || n == 0 {
			return errors.Join(err, io.ErrUnexpectedEOF)
		}
		if err := writeData(to, buf[:n], at); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// writeData writes the pages of b that hold anything.
func writeData(to *os.File, b []byte, at int64) error {
	const page = 4096
	for begin := 0; begin < len(b); {
		end := begin
		for end < len(b) && !diskfile.Zero(b[end:min(end+page, len(b))]) {
			end += page
		}
		if end = min(end, len(b)); end > begin {
			if _, err := to.WriteAt(b[begin:end], at+int64(begin)); err != nil {
				return err
			}
		}
		begin = end + page
	}
	return nil
}

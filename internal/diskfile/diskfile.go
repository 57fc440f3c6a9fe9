// Package diskfile makes, reads and replaces disks that are files, in the
// formats that the caller has recorded: nothing is taken from a file's own
// header that names a format or another file.
package diskfile

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"consort.dev/consort/fault"
	"consort.dev/consort/internal/atomicfile"
)

// Formats that are treated in a way of their own; others are the tool's to read.
const (
	Raw   = "raw"
	QCOW2 = "qcow2"
)

// File is a disk's file.
type File struct {
	Path   string
	Format string
}

// Tool is the program qemu-img, by its name or path.
type Tool string

// Create makes an empty disk at path, or one that holds what differs from the
// file under it, which is not opened.
func (t Tool) Create(ctx context.Context, path string, under *File, size int64) error {
	args := []string{"create", "-q", "-f", QCOW2}
	if under != nil {
		args = append(args, "-u", "-F", under.Format, "-b", under.Path)
	}
	return t.run(ctx, append(args, path, strconv.FormatInt(size, 10))...)
}

// Export writes a disk of that size as raw bytes. Its stack of files is given
// topmost first. One that is not raw is laid out in a sparse file at scratch.
func (t Tool) Export(ctx context.Context, w io.Writer, stack []File, size int64, scratch string) error {
	path := stack[0].Path
	if len(stack) > 1 || stack[0].Format != Raw {
		path = scratch
		defer os.Remove(path)
		n, err := node(stack)
		if err != nil {
			return err
		}
		if err := t.run(ctx, "convert", "-q", "-O", Raw, "json:"+n, path); err != nil {
			return err
		}
	}
	return Drain(ctx, w, path, size)
}

// Drain writes the first size bytes of a raw file. It may be shorter, as a base
// is that a disk outgrew: what is past its end reads as zeros.
func Drain(ctx context.Context, w io.Writer, path string, size int64) error {
	f, err := Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(w, cut{ctx, io.LimitReader(f, size)})
	if err == nil && n < size {
		_, err = io.CopyN(w, cut{ctx, zeros{}}, size-n)
	}
	return err
}

// Import replaces the file, or makes it, by the size bytes that r must yield:
// anything else is fault.Invalid, and leaves the old file. One that is not raw
// is written by way of a sparse file at scratch. The new file has the old one's
// owner and permissions; a new one is its maker's alone.
func (t Tool) Import(ctx context.Context, to File, r io.Reader, size int64, scratch string) error {
	perm, uid := os.FileMode(0o600), -1
	var st unix.Stat_t
	if err := unix.Stat(to.Path, &st); err == nil {
		perm, uid = os.FileMode(st.Mode&0o777), int(st.Uid)
	}
	fill := func(f *os.File) error { return Fill(ctx, f, r, size) }
	if to.Format != Raw {
		defer os.Remove(scratch)
		if err := atomicfile.WriteFrom(scratch, 0o600, func(w io.Writer) error { return fill(w.(*os.File)) }); err != nil {
			return err
		}
		// The tool writes into the file that is already open here.
		fill = func(f *os.File) error {
			return t.run(ctx, "convert", "-q", "-f", Raw, "-O", to.Format, scratch, f.Name())
		}
	}
	return atomicfile.WriteFrom(to.Path, perm, func(w io.Writer) error {
		f := w.(*os.File)
		if err := fill(f); err != nil {
			return err
		}
		if uid == os.Geteuid() {
			return nil
		}
		return f.Chown(uid, -1)
	})
}

// Copy makes a file with the content of another, at once where the file system
// can share it, else with the same holes.
func Copy(ctx context.Context, to, from string) error {
	src, err := Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	return atomicfile.WriteFrom(to, 0o600, func(w io.Writer) error {
		dst := w.(*os.File)
		if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
			return nil
		}
		info, err := src.Stat()
		if err != nil {
			return err
		}
		return Fill(ctx, dst, src, info.Size())
	})
}

// run runs the tool.
func (t Tool) run(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, string(t), args...)
	var text bytes.Buffer
	cmd.Stderr = &text
	err := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		return nil
	}
	kind := fault.Internal
	if strings.Contains(text.String(), "No space left") {
		kind = fault.NoCapacity
	}
	return kind.Errorf("%s %s: %w: %s", filepath.Base(string(t)), args[0], err, strings.TrimSpace(text.String()))
}

// node says in the tool's words how the files of a stack are to be read.
func node(stack []File) (string, error) {
	var n map[string]any
	for i := len(stack) - 1; i >= 0; i-- {
		f, under := stack[i], n
		n = map[string]any{"driver": f.Format, "file": map[string]any{"driver": "file", "filename": f.Path}}
		if f.Format != QCOW2 {
			continue
		}
		if h, err := Head(f.Path); err != nil {
			return "", err
		} else if h.External {
			return "", fault.Denied.Errorf("disk %s keeps its data in another file", f.Path)
		}
		n["backing"] = nil
		if under != nil {
			n["backing"] = under
		}
	}
	b, err := json.Marshal(n)
	return string(b), err
}

// Header is what the head of a qcow2 file says (docs/interop/qcow2.txt of QEMU).
type Header struct {
	Size     int64 // of the disk
	Backed   bool  // it names a file that it stands on
	External bool  // it names a file that holds its data (CVE-2024-32498)
}

// Head reads the head of a qcow2 file. A guest's process, taken over, could have
// written it: nothing in it is to be followed. The fields are in
// docs/interop/qcow2.txt of QEMU.
func Head(path string) (Header, error) {
	f, err := Open(path)
	if err != nil {
		return Header{}, err
	}
	defer f.Close()
	var b [80]byte
	if _, err := io.ReadFull(f, b[:]); err != nil {
		return Header{}, fault.Invalid.Errorf("disk %s has no qcow2 header: %w", path, err)
	}
	be := binary.BigEndian
	if string(b[:4]) != "QFI\xfb" {
		return Header{}, fault.Invalid.Errorf("disk %s is not qcow2, as its record says", path)
	}
	const external = 1 << 2
	return Header{
		Size:     int64(be.Uint64(b[24:])),
		Backed:   be.Uint64(b[8:]) != 0,
		External: be.Uint32(b[4:]) >= 3 && be.Uint64(b[72:])&external != 0,
	}, nil
}

// Open opens a disk's file for reading. It never follows a link at the end of
// the path, and takes regular files only.
func Open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.NotFound.Errorf("open disk: %w", err)
	}
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(fault.Invalid.Errorf("disk %s is not a regular file", path), err)
	}
	return f, nil
}

// Fill fills f with the size bytes that r must yield, leaving holes where it
// yields zeros. Too few or too many are fault.Invalid.
func Fill(ctx context.Context, f *os.File, r io.Reader, size int64) error {
	r = cut{ctx, r}
	buf := make([]byte, 256<<10)
	var at int64
	for {
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), size-at+1)])
		if at+int64(n) > size {
			return fault.Invalid.Errorf("the source yields more than the disk's %d bytes", size)
		}
		if !Zero(buf[:n]) {
			if _, err := f.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		switch {
		case err == nil:
			continue
		case ctx.Err() != nil:
			return ctx.Err()
		case err != io.EOF && err != io.ErrUnexpectedEOF: // one that wraps them tells of a source that broke off
			return fault.Unavailable.Errorf("the source broke off after %d of %d bytes: %w", at, size, err)
		case at != size:
			return fault.Invalid.Errorf("the source yields %d bytes, the disk has %d", at, size)
		}
		return f.Truncate(size)
	}
}

// Zero reports whether b holds nothing but zeros.
func Zero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// cut is a reader that ends when its context does.
type cut struct {
	ctx context.Context
	r   io.Reader
}

func (c cut) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}

package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/vdisk"
)

// importPhases are the named phases of an import.
var importPhases = [...]string{"copy and check", "convert", "store"}

// Import copies a disk file into the store and returns its record. The file is
// read as the format that was declared and as no other: a raw disk that begins
// like a qcow2 file stays raw. What our own parser does not find harmless is
// fault.Invalid and never reaches another program. A vmdk becomes qcow2. The
// same file a second time gives the same record; when the context ends nothing
// is left behind.
func Import(ctx context.Context, m estate.Import, s *Store, opt Options) (Record, error) {
	src, err := openDisk(m)
	if err != nil {
		return Record{}, err
	}
	defer src.Close()
	draft, err := s.Draft()
	if err != nil {
		return Record{}, fmt.Errorf("import %s: %w", m.Path, err)
	}
	defer draft.Discard()
	b := &build{store: s, opt: opt, draft: draft, log: &tail{also: opt.Log}}
	b.enterImport(0, 0, 80)
	path := filepath.Join(draft.Dir, "disk")
	digest, err := b.copyDisk(ctx, path, src)
	if err != nil {
		return Record{}, b.explainImport(ctx, m, err)
	}
	if m.Digest != "" && m.Digest != digest {
		return Record{}, fault.Invalid.Errorf("import %s: the file hashes to %s, not to %s; fetch it again", m.Path, digest, m.Digest)
	}
	rec := Record{Kind: KindImage, Format: m.Format, Guest: m.Guest}
	// The copy is checked, not the file: nobody changes it between check and use.
	if rec.Size, err = checkDisk(path, m.Format); err != nil {
		return Record{}, b.explainImport(ctx, m, err)
	}
	b.enterImport(1, 80, 95)
	if m.Format == estate.VMDK {
		if path, err = b.convert(ctx, path, rec.Size); err != nil {
			return Record{}, b.explainImport(ctx, m, err)
		}
		rec.Format = estate.QCOW2
	}
	b.enterImport(2, 95, 100)
	rec, err = draft.Commit(ctx, path, rec)
	if err != nil {
		return Record{}, b.explainImport(ctx, m, err)
	}
	return rec, nil
}

func (b *build) enterImport(step, from, to int) {
	b.from, b.to = from, to
	b.work = estate.Work{Phase: importPhases[step], Step: step + 1, Steps: len(importPhases), Percent: from}
	if b.opt.Report != nil {
		b.opt.Report(b.work)
	}
}

func (b *build) explainImport(ctx context.Context, m estate.Import, err error) error {
	var refused *vdisk.Refusal
	switch {
	case ctx.Err() != nil:
		return fault.Unavailable.Errorf("import %s: stopped: %w", m.Path, context.Cause(ctx))
	case errors.As(err, &refused):
		return fault.Invalid.Errorf("import %s as %s: %w", m.Path, m.Format, err)
	case errors.Is(err, syscall.ENOSPC):
		return fault.NoCapacity.Errorf("import %s: %w; make room on the disk of %s", m.Path, err, b.store.dir)
	}
	return fault.Stuck.Errorf("import %s: %w\n%s", m.Path, err, b.log)
}

// openDisk opens the file and refuses early what a look at the beginning tells.
func openDisk(m estate.Import) (*os.File, error) {
	f, err := os.OpenFile(m.Path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.NotFound.Errorf("import %s: there is no such file on this host", m.Path)
	}
	if err != nil {
		return nil, fault.Denied.Errorf("import %s: %w", m.Path, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err == nil {
		_, err = check(f, info.Size(), m.Format)
	}
	if err != nil {
		f.Close()
		return nil, fault.Invalid.Errorf("import %s as %s: %w", m.Path, m.Format, err)
	}
	return f, nil
}

func checkDisk(path string, format estate.DiskFormat) (estate.Bytes, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	found, err := check(f, info.Size(), format)
	return estate.Bytes(found.Size), err
}

func check(r io.ReaderAt, length int64, format estate.DiskFormat) (vdisk.Info, error) {
	switch format {
	case estate.Raw:
		return vdisk.CheckRaw(length)
	case estate.QCOW2:
		return vdisk.CheckQCOW2(r, length)
	case estate.VMDK:
		return vdisk.CheckVMDK(r, length)
	}
	return vdisk.Info{}, fault.Invalid.Errorf("format %q is not taken; raw, qcow2 and vmdk are", string(format))
}

// copyDisk copies and hashes the file; what is zero becomes a hole.
func (b *build) copyDisk(ctx context.Context, to string, src *os.File) (estate.Digest, error) {
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	defer dst.Close()
	info, err := src.Stat()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	buf, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	var at int64
	for {
		n, err := io.ReadFull(untilDone{ctx, src}, buf)
		h.Write(buf[:n])
		if !bytes.Equal(buf[:n], zero[:n]) {
			if _, err := dst.WriteAt(buf[:n], at); err != nil {
				return "", err
			}
		}
		at += int64(n)
		b.advance(float64(at) / float64(max(info.Size(), 1)))
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return "", err
		}
	}
	if err := dst.Truncate(at); err != nil {
		return "", err
	}
	return digestOf(h), dst.Close()
}

// convert makes a qcow2 file of a checked vmdk and checks that too.
func (b *build) convert(ctx context.Context, path string, size estate.Bytes) (string, error) {
	to := path + ".qcow2"
	if err := b.tool(ctx, "qemu-img", "convert", "-f", "vmdk", "-O", "qcow2", path, to); err != nil {
		return "", err
	}
	got, err := checkDisk(to, estate.QCOW2)
	if err == nil && got != size {
		err = fault.Internal.Errorf("the converted disk has %s, the original %s", got, size)
	}
	return to, err
}

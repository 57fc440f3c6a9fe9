package hyperv

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"consort.dev/consort/fault"
)

// blockSize is what one script writes or reads. Starting PowerShell costs half a
// second or so, so blocks are large; a broken one is sent again whole.
const blockSize = 8 << 20

// upload carries a file to the host, where it gets its name once it is whole.
// An upload that broke off goes on where the host says.
func (h *Host) upload(ctx context.Context, path, file string, readOnly bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	size, sum, err := hash(ctx, f)
	if err != nil {
		return err
	}
	var at putBegun
	if _, err := h.remote.call(ctx, "put-begin", putBeginRequest{File: file, Size: size, SHA256: sum}, &at, nil); err != nil {
		return err
	}
	block := make([]byte, blockSize)
	for offset := at.Offset; offset < size; {
		n, err := f.ReadAt(block, offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n == 0 {
			return fault.Unavailable.Errorf("%s has become shorter", path)
		}
		skip, end := span(block[:n])
		if data := block[skip:end]; len(data) > 0 {
			s := sha256.Sum256(data)
			req := putBlockRequest{File: file, Offset: offset + int64(skip), SHA256: hex.EncodeToString(s[:])}
			if _, err := h.remote.call(ctx, "put-block", req, &nothing{}, data); err != nil {
				return err
			}
		}
		offset += int64(end)
	}
	return h.remote.act(ctx, "put-end", putEndRequest{File: file, SHA256: sum, ReadOnly: readOnly})
}

// arrival is a disk that is being carried here.
type arrival struct {
	path  string // where it goes
	file  string // what the host laid it out in
	begun getBegun
}

// download carries the disk that the host has laid out to a file here, from
// where the file ends.
func (h *Host) download(ctx context.Context, a *arrival) error {
	f, err := os.OpenFile(a.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	offset, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	for offset < a.begun.Size {
		n := min(blockSize, a.begun.Size-offset)
		data, err := h.remote.call(ctx, "get-block", getBlockRequest{File: a.file, Offset: offset, Length: int(n)}, &nothing{}, nil)
		if err == nil && int64(len(data)) != n {
			err = fault.Unavailable.Errorf("the host sent %d bytes of a disk where %d were asked for", len(data), n)
		}
		if err != nil {
			return err
		}
		if _, err := f.Write(data); err != nil {
			return err
		}
		offset += n
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, sum, err := hash(ctx, f)
	if err == nil && sum != a.begun.SHA256 {
		err = fault.Unavailable.Errorf("disk %s arrived damaged; carry it again", a.file)
		err = errors.Join(err, os.Remove(a.path))
	}
	return err
}

// hash returns a file's size and SHA-256, and goes back to its beginning.
func hash(ctx context.Context, f *os.File) (size int64, sum string, err error) {
	s := sha256.New()
	if size, err = io.Copy(s, cut{ctx, f}); err != nil {
		return 0, "", err
	}
	_, err = f.Seek(0, io.SeekStart)
	return size, hex.EncodeToString(s.Sum(nil)), err
}

// hole is how many zeros are worth a request of their own to leave them out.
const hole = 1 << 20

// span says which bytes of a block to send: not the zeros that it begins with,
// since the file on the host begins as zeros, and nothing after a hole.
func span(b []byte) (skip, end int) {
	const page = 64 << 10
	begun, zeros := false, 0
	for at := 0; at < len(b); at += page {
		next := min(at+page, len(b))
		switch {
		case !zero(b[at:next]):
			begun, zeros = true, 0
		case !begun:
			skip = next
		default:
			if zeros += next - at; zeros >= hole {
				return skip, next - zeros
			}
		}
	}
	return skip, len(b)
}

func zero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

// cut is a reader that ends when ctx does.
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

// passing begins the names of files that nobody needs once a call has ended.
const passing = "passing-"

// pass returns the name of a new file of that kind, and what removes it.
func (h *Host) pass() (path string, remove func(), err error) {
	f, err := os.CreateTemp(h.cfg.Dir, passing)
	if err != nil {
		return "", nil, err
	}
	path = f.Name()
	return path, func() { os.Remove(path) }, f.Close()
}

// gone removes a file that may not be there.
func gone(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (h *Host) local(name string) string { return filepath.Join(h.cfg.Dir, name) }

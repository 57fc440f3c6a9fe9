package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// A disk goes through a tunnel as frames: a byte that says what follows, a
// length of eight bytes, and for data and the end as many bytes. Runs of zeros
// are told by their length alone. The end carries the hash of everything before
// it, or the reason why there is no more, so that a disk that broke off is never
// taken for a whole one.
const (
	frameData  = 'd'
	frameZeros = 'z'
	frameEnd   = 'e'

	frameMost = 1 << 20 // bytes in one frame of data
	zeroRun   = 4 << 10 // shorter runs of zeros are sent as they are
)

// diskEnd is the last frame of a disk.
type diskEnd struct {
	Size   int64         `json:"size"`
	Digest estate.Digest `json:"digest,omitempty"`
	Error  *Problem      `json:"error,omitempty"`
}

// DiskWriter sends a disk. What is written to it is the disk's content from the
// first byte to the last; End must follow.
type DiskWriter struct {
	w     io.Writer
	sum   hash.Hash
	size  int64
	zeros int64 // not sent yet
}

// NewDiskWriter returns a writer that sends to w.
func NewDiskWriter(w io.Writer) *DiskWriter { return &DiskWriter{w: w, sum: sha256.New()} }

// Write implements io.Writer.
func (d *DiskWriter) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		part := p[done:min(len(p), done+zeroRun)]
		if allZero(part) {
			d.zeros += int64(len(part))
			done += len(part)
			continue
		}
		// As much as has no run of zeros in it.
		end := done + len(part)
		for end < len(p) && end-done < frameMost {
			next := p[end:min(len(p), end+zeroRun)]
			if len(next) == zeroRun && allZero(next) {
				break
			}
			end += len(next)
		}
		if err := d.data(p[done:end]); err != nil {
			return done, err
		}
		done = end
	}
	d.sum.Write(p)
	d.size += int64(len(p))
	return len(p), nil
}

func (d *DiskWriter) data(b []byte) error {
	err := d.flush()
	if err == nil {
		err = d.frame(frameData, int64(len(b)), b)
	}
	return err
}

// flush sends the zeros that were held back.
func (d *DiskWriter) flush() error {
	n := d.zeros
	if d.zeros = 0; n == 0 {
		return nil
	}
	return d.frame(frameZeros, n, nil)
}

func (d *DiskWriter) frame(kind byte, n int64, body []byte) error {
	head := binary.BigEndian.AppendUint64([]byte{kind}, uint64(n))
	_, err := d.w.Write(append(head, body...))
	return err
}

// End sends the hash of what was written or, when broken is an error, that.
func (d *DiskWriter) End(broken error) error {
	end := diskEnd{Size: d.size, Digest: digestOf(d.sum)}
	if broken != nil {
		end = diskEnd{Size: d.size, Error: NewProblem(broken)}
	} else if err := d.flush(); err != nil {
		return err
	}
	b, err := json.Marshal(end)
	if err != nil {
		return err
	}
	return d.frame(frameEnd, int64(len(b)), b)
}

// DiskReader receives a disk that a DiskWriter sends.
type DiskReader struct {
	r     io.Reader
	sum   hash.Hash
	size  int64
	kind  byte
	left  int64 // of the frame
	ended error // io.EOF once everything came and the hash is right
}

// NewDiskReader returns a reader that receives from r, and reads no further
// than to the disk's end.
func NewDiskReader(r io.Reader) *DiskReader { return &DiskReader{r: r, sum: sha256.New()} }

// Read implements io.Reader. The end of the disk is io.EOF; a disk that breaks
// off is fault.Unavailable, one whose hash is another fault.Invalid, and one
// that the sender gave up the sender's error.
func (d *DiskReader) Read(p []byte) (int, error) {
	for d.left == 0 && d.ended == nil {
		d.ended = d.next()
	}
	if d.ended != nil {
		return 0, d.ended
	}
	p = p[:min(int64(len(p)), d.left)]
	n := len(p)
	if d.kind == frameZeros {
		clear(p)
	} else {
		var err error
		if n, err = d.r.Read(p); err != nil && n == 0 {
			d.ended = broke(err)
			return 0, d.ended
		}
	}
	d.left -= int64(n)
	d.size += int64(n)
	d.sum.Write(p[:n])
	return n, nil
}

// next reads the head of a frame, and all of the last one.
func (d *DiskReader) next() error {
	var head [9]byte
	if _, err := io.ReadFull(d.r, head[:]); err != nil {
		return broke(err)
	}
	n := binary.BigEndian.Uint64(head[1:])
	d.kind = head[0]
	switch {
	case d.kind == frameZeros && n <= 1<<62, d.kind == frameData && n <= frameMost+zeroRun:
		d.left = int64(n)
		return nil
	case d.kind != frameEnd || n > 64<<10:
		return fault.Invalid.Errorf("receive a disk: what came is not one")
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(d.r, b); err != nil {
		return broke(err)
	}
	var end diskEnd
	if err := json.Unmarshal(b, &end); err != nil {
		return fault.Invalid.Errorf("receive a disk: %w", err)
	}
	switch {
	case end.Error != nil:
		return end.Error
	case end.Size != d.size || end.Digest != d.Digest():
		return fault.Invalid.Errorf("receive a disk: %d bytes came with %s, %d were sent with %s", d.size, d.Digest().Short(), end.Size, end.Digest.Short())
	}
	return io.EOF
}

// Rest reads to the end of the disk and returns nil when it came whole.
func (d *DiskReader) Rest() error {
	if _, err := io.Copy(io.Discard, d); err != nil {
		return err
	}
	if !errors.Is(d.ended, io.EOF) {
		return d.ended
	}
	return nil
}

// Digest returns the hash of what came so far.
func (d *DiskReader) Digest() estate.Digest { return digestOf(d.sum) }

// broke says that a disk broke off. Drivers take an end for that of the disk,
// which is then too short; so the end of the connection is not in the chain.
func broke(err error) error {
	return fault.Unavailable.Errorf("receive a disk: it broke off: %v", err)
}

func digestOf(h hash.Hash) estate.Digest { return estate.Digest(fmt.Sprintf("sha256:%x", h.Sum(nil))) }

func allZero(b []byte) bool { return b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1]) }

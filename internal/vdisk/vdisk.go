// Package vdisk reads the headers and tables of disk files that strangers made
// and refuses whatever could reach outside the file, never end, or fill memory.
package vdisk

import (
	"fmt"
	"io"
)

// Info is what a checked file holds.
type Info struct {
	Size    int64  // of the disk as a guest sees it, in bytes
	Variant string // of the format, as "version 3" or "streamOptimized"
}

// Refusal says why a file is not taken. Its text goes to the person who
// offered it.
type Refusal struct{ Text string }

// Error implements error.
func (r *Refusal) Error() string { return r.Text }

func refuse(format string, args ...any) error { return &Refusal{fmt.Sprintf(format, args...)} }

// Limits of what is taken.
const (
	MaxSize   = 64 << 40 // of a disk, and of the file it is in
	maxTable  = 32 << 20 // bytes of one table
	maxPieces = 1 << 30  // clusters or grains in a file: a bitmap of them takes 128 MiB
	sector    = 512
)

// CheckRaw checks a file of length bytes that is declared raw. Any content is
// raw, also one that looks like another format.
func CheckRaw(length int64) (Info, error) {
	switch {
	case length <= 0:
		return Info{}, refuse("the file is empty")
	case length%sector != 0:
		return Info{}, refuse("a raw disk is a whole number of sectors of %d bytes; this file has %d bytes", sector, length)
	case length > MaxSize:
		return Info{}, refuse("the disk has %d bytes; at most 64 TiB are taken", length)
	}
	return Info{Size: length, Variant: "raw"}, nil
}

// region is a part of a file.
type region struct {
	name   string
	at, n  uint64
	length uint64 // of the file
}

// inside refuses a region that is not wholly in the file.
func (r region) inside() error {
	if r.at > r.length || r.n > r.length-r.at {
		return refuse("%s lies at %d for %d bytes, but the file ends at %d", r.name, r.at, r.n, r.length)
	}
	return nil
}

// pieces are the clusters of a file that something uses already.
type pieces struct {
	bits  []uint64
	size  uint64 // of a piece
	count uint64
}

func newPieces(length, size uint64) (*pieces, error) {
	count := (length + size - 1) / size
	if count > maxPieces {
		return nil, refuse("the file has %d clusters of %d bytes; at most %d are taken", count, size, maxPieces)
	}
	return &pieces{bits: make([]uint64, count/64+1), size: size, count: count}, nil
}

// take marks the pieces of a region and refuses one that is taken already.
func (p *pieces) take(r region) error {
	if r.n == 0 {
		return nil
	}
	for i := r.at / p.size; i <= (r.at+r.n-1)/p.size; i++ {
		if i >= p.count {
			return refuse("%s lies behind the end of the file", r.name)
		}
		if p.bits[i/64]&(1<<(i%64)) != 0 {
			return refuse("%s at %d overlaps something else in the file", r.name, r.at)
		}
		p.bits[i/64] |= 1 << (i % 64)
	}
	return nil
}

// read reads exactly n bytes at at, or refuses.
func read(r io.ReaderAt, name string, at, n uint64) ([]byte, error) {
	if n > maxTable {
		return nil, refuse("%s has %d bytes; at most %d are taken", name, n, maxTable)
	}
	buf := make([]byte, n)
	if got, err := r.ReadAt(buf, int64(at)); uint64(got) < n {
		if err == nil || err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil, refuse("the file ends within %s", name)
		}
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return buf, nil
}

package vdisk

import (
	"encoding/binary"
	"io"
)

// A qcow2 file, as QEMU's docs/interop/qcow2.txt describes it. All numbers are
// big-endian.
const (
	qcow2Magic  = 0x514649fb
	qcow2V2     = 72  // bytes of a version 2 header
	qcow2V3     = 104 // least bytes of a version 3 header
	minClusters = 9   // bits
	maxClusters = 21

	incompatDirty       = 1 << 0
	incompatCorrupt     = 1 << 1
	incompatData        = 1 << 2
	incompatCompression = 1 << 3
	incompatExtendedL2  = 1 << 4

	extEnd      = 0
	extBacking  = 0xe2792aca
	extFeatures = 0x6803f857
	extBitmaps  = 0x23852875
	extCrypto   = 0x0537be77
	extData     = 0x44415441

	l1Offset     = 0x00fffffffffffe00
	l1Reserved   = 0x7f000000000001ff
	l2Compressed = 1 << 62
	l2Zero       = 1
	l2Reserved   = 0x3f000000000001fe
)

type qcow2 struct {
	r      io.ReaderAt
	length uint64
	taken  *pieces

	version       uint32
	clusterBits   uint32
	size          uint64
	l1Entries     uint32
	l1At          uint64
	refcountsAt   uint64
	refcountsN    uint32 // clusters of the refcount table
	headerLength  uint32
	incompatible  uint64
	refcountOrder uint32
}

// CheckQCOW2 checks a file of length bytes that is declared qcow2. It follows
// every table: afterwards all that a reader of the disk can reach lies inside
// the file, and nothing is reached twice.
func CheckQCOW2(r io.ReaderAt, length int64) (Info, error) {
	if length < 0 || length > MaxSize {
		return Info{}, refuse("the file has %d bytes; at most 64 TiB are taken", length)
	}
	q := &qcow2{r: r, length: uint64(length)}
	for _, step := range []func() error{q.header, q.extensions, q.places, q.mapping} {
		if err := step(); err != nil {
			return Info{}, err
		}
	}
	variant := "version 2"
	if q.version == 3 {
		variant = "version 3"
	}
	return Info{Size: int64(q.size), Variant: variant}, nil
}

func (q *qcow2) cluster() uint64 { return 1 << q.clusterBits }

func (q *qcow2) header() error {
	h, err := read(q.r, "the header", 0, qcow2V2)
	if err != nil {
		return err
	}
	be := binary.BigEndian
	if be.Uint32(h) != qcow2Magic {
		return refuse("it is not a qcow2 file: the magic number is missing; declare the format it has")
	}
	q.version, q.clusterBits, q.size = be.Uint32(h[4:]), be.Uint32(h[20:]), be.Uint64(h[24:])
	q.l1Entries, q.l1At = be.Uint32(h[36:]), be.Uint64(h[40:])
	q.refcountsAt, q.refcountsN = be.Uint64(h[48:]), be.Uint32(h[56:])
	q.headerLength, q.refcountOrder = qcow2V2, 4
	switch {
	case q.version != 2 && q.version != 3:
		return refuse("qcow2 version %d is not known; 2 and 3 are", q.version)
	case be.Uint64(h[8:]) != 0 || be.Uint32(h[16:]) != 0:
		return refuse("it names a backing file; flatten it with qemu-img convert where you trust it")
	case q.clusterBits < minClusters || q.clusterBits > maxClusters:
		return refuse("clusters of 2^%d bytes are not possible", q.clusterBits)
	case q.size == 0 || q.size > MaxSize || q.size%sector != 0:
		return refuse("a disk of %d bytes is not taken; whole sectors up to 64 TiB are", q.size)
	case be.Uint32(h[32:]) != 0:
		return refuse("it is encrypted; decrypt it first")
	case be.Uint32(h[60:]) != 0:
		return refuse("it holds snapshots; remove them with qemu-img snapshot -d, or convert it")
	}
	if q.version == 3 {
		return q.header3()
	}
	return nil
}

func (q *qcow2) header3() error {
	h, err := read(q.r, "the header", qcow2V2, qcow2V3-qcow2V2)
	if err != nil {
		return err
	}
	be := binary.BigEndian
	q.incompatible, q.refcountOrder, q.headerLength = be.Uint64(h), be.Uint32(h[24:]), be.Uint32(h[28:])
	switch {
	case q.incompatible&incompatData != 0:
		return refuse("its data lies in another file")
	case q.incompatible&(incompatDirty|incompatCorrupt) != 0:
		return refuse("it was not closed properly or is damaged; repair it with qemu-img check -r all")
	case q.incompatible&incompatExtendedL2 != 0:
		return refuse("it uses subclusters, which are not taken; convert it with -o extended_l2=off")
	case q.incompatible&^incompatCompression != 0:
		return refuse("it needs features %#x that are not known", q.incompatible)
	case q.refcountOrder > 6:
		return refuse("reference counts of 2^%d bits are not possible", q.refcountOrder)
	case q.headerLength < qcow2V3 || q.headerLength%8 != 0 || uint64(q.headerLength) > q.cluster():
		return refuse("a header of %d bytes is not possible", q.headerLength)
	}
	if q.headerLength == qcow2V3 {
		if q.incompatible&incompatCompression != 0 {
			return refuse("its way of compression is not said")
		}
		return nil
	}
	c, err := read(q.r, "the header", qcow2V3, 8)
	if err != nil {
		return err
	}
	if c[0] > 1 || (c[0] != 0) != (q.incompatible&incompatCompression != 0) {
		return refuse("its way of compression, %d, is not known", c[0])
	}
	return nil
}

// extensions reads the header extensions, which end within the first cluster.
func (q *qcow2) extensions() error {
	for at := uint64(q.headerLength); at+8 <= q.cluster(); {
		h, err := read(q.r, "a header extension", at, 8)
		if err != nil {
			return err
		}
		kind, n := binary.BigEndian.Uint32(h), uint64(binary.BigEndian.Uint32(h[4:]))
		switch kind {
		case extEnd:
			return nil
		case extFeatures: // names of features, for people
		case extBacking:
			return refuse("it gives the format of a backing file")
		case extData:
			return refuse("its data lies in another file")
		case extCrypto:
			return refuse("it is encrypted; decrypt it first")
		case extBitmaps:
			return refuse("it holds dirty bitmaps; convert it with qemu-img convert")
		default:
			return refuse("it has a header extension %#x that is not known", kind)
		}
		at += 8 + (n+7)&^7
		if n > q.cluster() || at > q.cluster() {
			return refuse("a header extension of %d bytes does not end in the first cluster", n)
		}
	}
	return nil
}

// places checks where the tables lie and marks them.
func (q *qcow2) places() error {
	var err error
	if q.taken, err = newPieces(q.length, q.cluster()); err != nil {
		return err
	}
	perTable := q.cluster() / 8
	need := (q.size + q.cluster()*perTable - 1) / (q.cluster() * perTable)
	if uint64(q.l1Entries) < need || uint64(q.l1Entries) > maxTable/8 {
		return refuse("its first table has %d entries; a disk of %d bytes needs %d", q.l1Entries, q.size, need)
	}
	if q.refcountsN == 0 || uint64(q.refcountsN)*q.cluster() > maxTable {
		return refuse("its table of reference counts has %d clusters", q.refcountsN)
	}
	for _, r := range []region{
		{"the header", 0, q.cluster(), q.taken.count * q.cluster()},
		{"the first table", q.l1At, uint64(q.l1Entries) * 8, q.length},
		{"the table of reference counts", q.refcountsAt, uint64(q.refcountsN) * q.cluster(), q.length},
	} {
		if err := q.mark(r); err != nil {
			return err
		}
	}
	table, err := read(q.r, "the table of reference counts", q.refcountsAt, uint64(q.refcountsN)*q.cluster())
	if err != nil {
		return err
	}
	for ; len(table) >= 8; table = table[8:] {
		at := binary.BigEndian.Uint64(table)
		if at == 0 {
			continue
		}
		if err := q.mark(region{"a block of reference counts", at, q.cluster(), q.length}); err != nil {
			return err
		}
	}
	return nil
}

// mark refuses a region that is not aligned, not in the file or taken already.
func (q *qcow2) mark(r region) error {
	if r.at%q.cluster() != 0 {
		return refuse("%s lies at %d, which is not the beginning of a cluster", r.name, r.at)
	}
	if err := r.inside(); err != nil {
		return err
	}
	return q.taken.take(r)
}

// mapping follows the first table to the second ones and those to the data.
func (q *qcow2) mapping() error {
	l1, err := read(q.r, "the first table", q.l1At, uint64(q.l1Entries)*8)
	if err != nil {
		return err
	}
	for ; len(l1) >= 8; l1 = l1[8:] {
		e := binary.BigEndian.Uint64(l1)
		if e&l1Reserved != 0 {
			return refuse("an entry of the first table, %#x, is not possible", e)
		}
		if e&l1Offset == 0 {
			continue
		}
		if err := q.mark(region{"a second table", e & l1Offset, q.cluster(), q.length}); err != nil {
			return err
		}
		l2, err := read(q.r, "a second table", e&l1Offset, q.cluster())
		if err != nil {
			return err
		}
		for ; len(l2) >= 8; l2 = l2[8:] {
			if err := q.data(binary.BigEndian.Uint64(l2)); err != nil {
				return err
			}
		}
	}
	return nil
}

// data checks one entry of a second table.
func (q *qcow2) data(e uint64) error {
	if e&l2Compressed != 0 {
		bits := 62 - (q.clusterBits - 8)
		at, sectors := e&(1<<bits-1), e>>bits&(1<<(q.clusterBits-8)-1)+1
		n := sectors*sector - at%sector
		// The last sector may be cut short by the end of the file.
		whole := (q.length + sector - 1) &^ (sector - 1)
		return region{"a compressed cluster", at, n, whole}.inside()
	}
	if e&l2Reserved != 0 || e&l2Zero != 0 && q.version < 3 {
		return refuse("an entry of a second table, %#x, is not possible", e)
	}
	at := e & l1Offset
	if at == 0 {
		return nil
	}
	// The last cluster may be cut short by the end of the file.
	if at%q.cluster() != 0 || at >= q.length {
		return refuse("data lies at %d, outside the file or not at the beginning of a cluster", at)
	}
	return q.taken.take(region{"data", at, q.cluster(), q.length})
}

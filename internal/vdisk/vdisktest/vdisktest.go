// Package vdisktest makes disk files for tests: sound ones, and hostile ones
// that each break one rule.
package vdisktest

import (
	"encoding/binary"
	"path"
	"strings"
)

// Sample is a file that must be refused.
type Sample struct {
	Name   string
	Format string // as which it is offered: "qcow2" or "vmdk"
	Says   string // part of the reason
	File   []byte
}

const (
	cluster = 1 << 12
	sector  = 512
)

// QCOW2Length is the length of the file that QCOW2 returns.
const QCOW2Length = 6 * cluster

// QCOW2 returns a disk of 4 MiB with one cluster of data. Its clusters are the
// header, the table of counts, a block of counts, the first table, a second
// table and the data.
func QCOW2() []byte {
	f := make([]byte, QCOW2Length)
	be := binary.BigEndian
	copy(f, "QFI\xfb")
	be.PutUint32(f[4:], 3)
	be.PutUint32(f[20:], 12)
	be.PutUint64(f[24:], 4<<20)
	be.PutUint32(f[36:], 2)
	be.PutUint64(f[40:], 3*cluster)
	be.PutUint64(f[48:], 1*cluster)
	be.PutUint32(f[56:], 1)
	be.PutUint32(f[96:], 4)
	be.PutUint32(f[100:], 104)
	be.PutUint64(f[1*cluster:], 2*cluster)
	be.PutUint64(f[3*cluster:], 4*cluster|1<<63)
	be.PutUint64(f[4*cluster:], 5*cluster|1<<63)
	copy(f[5*cluster:], "data")
	return f
}

// VMDK returns a disk of 32 MiB with one grain of data: descriptor at sector
// 1, directory at 21, table at 22, data at 26.
func VMDK() []byte {
	f := make([]byte, (26+128)*sector)
	le := binary.LittleEndian
	copy(f, "KDMV")
	le.PutUint32(f[4:], 1)
	le.PutUint32(f[8:], 1)
	le.PutUint64(f[12:], 65536)
	le.PutUint64(f[20:], 128)
	le.PutUint64(f[28:], 1)
	le.PutUint64(f[36:], 20)
	le.PutUint32(f[44:], 512)
	le.PutUint64(f[56:], 21)
	copy(f[73:], "\n \r\n")
	copy(f[sector:], Descriptor)
	le.PutUint32(f[21*sector:], 22)
	le.PutUint32(f[22*sector:], 26)
	copy(f[26*sector:], "data")
	return f
}

// Descriptor is the text in the disk that VMDK returns.
const Descriptor = `# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicSparse"

# Extent description
RW 65536 SPARSE "disk.vmdk"

# The Disk Data Base
ddb.virtualHWVersion = "4"
ddb.geometry.cylinders = "65"
`

// Hostile returns files that must be refused. Those that lead to another file
// lead to the canary, an absolute path.
func Hostile(canary string) []Sample {
	return append(append(hostileQCOW2(canary), hostileTables()...), hostileVMDK(canary)...)
}

func q(name, says string, change func(f []byte)) Sample {
	f := QCOW2()
	change(f)
	return Sample{"qcow2 " + name, "qcow2", says, f}
}

func u32(at int, v uint32) func([]byte) {
	return func(f []byte) { binary.BigEndian.PutUint32(f[at:], v) }
}

func u64(at int, v uint64) func([]byte) {
	return func(f []byte) { binary.BigEndian.PutUint64(f[at:], v) }
}

// backing makes a file name another as its backing file.
func backing(name string) func([]byte) {
	return func(f []byte) {
		u64(8, 1024)(f)
		u32(16, uint32(len(name)))(f)
		copy(f[1024:], name)
	}
}

// extension adds a header extension.
func extension(kind uint32, data string) func([]byte) {
	return func(f []byte) {
		u32(104, kind)(f)
		u32(108, uint32(len(data)))(f)
		copy(f[112:], data)
	}
}

func hostileQCOW2(canary string) []Sample {
	all := []Sample{
		q("without magic", "magic number", u32(0, 0)),
		q("version 1", "version 1", u32(4, 1)),
		q("version 4", "version 4", u32(4, 4)),
		q("backing file by offset alone", "backing file", u64(8, 1024)),
		q("backing file by length alone", "backing file", u32(16, 7)),
		q("clusters of 256 bytes", "clusters", u32(20, 8)),
		q("clusters of 2^63 bytes", "clusters", u32(20, 63)),
		q("clusters of 2^(2^32-1) bytes", "clusters", u32(20, 1<<32-1)),
		q("no size", "disk of 0 bytes", u64(24, 0)),
		q("size of 2^63", "not taken", u64(24, 1<<63)),
		q("size of 2^64-512", "not taken", u64(24, 1<<64-512)),
		q("size of half a sector", "not taken", u64(24, 4<<20+256)),
		q("AES encryption", "encrypted", u32(32, 1)),
		q("LUKS encryption", "encrypted", u32(32, 2)),
		q("unknown encryption", "encrypted", u32(32, 77)),
		q("snapshots", "snapshots", u32(60, 1)),
		q("2^32-1 snapshots", "snapshots", u32(60, 1<<32-1)),
		q("dirty", "not closed properly", u64(72, 1)),
		q("corrupt", "damaged", u64(72, 2)),
		q("external data file by bit", "another file", u64(72, 4)),
		q("compression without a type", "compression", u64(72, 8)),
		q("extended second tables", "subclusters", u64(72, 16)),
		q("feature of tomorrow", "not known", u64(72, 1<<40)),
		q("counts of 2^7 bits", "reference counts", u32(96, 7)),
		q("short header", "header of", u32(100, 72)),
		q("odd header", "header of", u32(100, 105)),
		q("endless header", "header of", u32(100, 1<<31)),
		q("external data file by name", "another file", extension(0x44415441, canary)),
		q("format of a backing file", "backing file", extension(0xe2792aca, "raw")),
		q("encryption header", "encrypted", extension(0x0537be77, "0123456789abcdef")),
		q("bitmaps", "bitmaps", extension(0x23852875, "012345678901234567890123")),
		q("unknown extension", "not known", extension(0x12345678, "x")),
		q("endless extension", "does not end", func(f []byte) { u32(104, 0x6803f857)(f); u32(108, 1<<32-1)(f) }),
		{"qcow2 empty", "qcow2", "ends within", nil},
		{"qcow2 of four bytes", "qcow2", "ends within", []byte("QFI\xfb")},
		{"qcow2 cut in the header", "qcow2", "ends within", QCOW2()[:90]},
		{"qcow2 header alone", "qcow2", "ends", QCOW2()[:cluster]},
	}
	for _, name := range []string{canary, "../../../../../../.." + canary, `json:{"driver":"raw","file":{"driver":"file","filename":"` + canary + `"}}`,
		"nbd:unix:" + canary, "nbd://127.0.0.1/", "ssh://localhost" + canary, "https://localhost" + canary, "file:" + canary, "fd:0", "/dev/fdset/0",
		"blkdebug::" + canary, strings.Repeat("/", 900) + canary} {
		all = append(all, q("backing file "+name[:min(len(name), 24)], "backing file", backing(name)))
	}
	return all
}

// hostileTables are disks whose header is sound and whose tables are not.
func hostileTables() []Sample {
	return []Sample{
		q("first table too short", "first table", u32(36, 1)),
		q("first table of 32 GiB", "first table", u32(36, 1<<32-1)),
		q("first table behind the end", "file ends at", u64(40, 1<<40)),
		q("first table that wraps around", "file ends at", u64(40, 1<<64-cluster)),
		q("first table out of line", "beginning of a cluster", u64(40, 3*cluster+8)),
		q("first table in the header", "overlaps", u64(40, 0)),
		q("first table over the counts", "overlaps", u64(40, 1*cluster)),
		q("no table of counts", "reference counts", u32(56, 0)),
		q("table of counts of 2^48 bytes", "reference counts", u32(56, 1<<32-1)),
		q("table of counts behind the end", "file ends at", u64(48, 1<<50)),
		q("block of counts behind the end", "file ends at", u64(1*cluster, 1<<50)),
		q("block of counts in the header", "beginning of a cluster", u64(1*cluster, 512)),
		q("block of counts twice", "overlaps", u64(1*cluster+8, 2*cluster)),
		q("second table behind the end", "file ends at", u64(3*cluster, 1<<40)),
		q("second table is the first", "overlaps", u64(3*cluster, 3*cluster)),
		q("second table is the header", "not possible", u64(3*cluster, 1)),
		q("second table twice", "overlaps", u64(3*cluster+8, 4*cluster|1<<63)),
		q("reserved bits in the first table", "not possible", u64(3*cluster, 4*cluster|1<<60)),
		q("data behind the end", "outside the file", u64(4*cluster, 1<<40)),
		q("data out of line", "outside the file", u64(4*cluster, 5*cluster+512)),
		q("data in its own table", "overlaps", u64(4*cluster, 4*cluster)),
		q("data in the header's tables", "overlaps", u64(4*cluster, 1*cluster)),
		q("data twice", "overlaps", u64(4*cluster+8, 5*cluster)),
		q("reserved bits in a second table", "not possible", u64(4*cluster, 5*cluster|1<<57)),
		q("zero flag in version 2", "not possible", func(f []byte) { u32(4, 2)(f); u64(72, 0)(f); u64(96, 0)(f); u64(4*cluster, 1)(f) }),
		q("compressed data behind the end", "compressed cluster", u64(4*cluster, 1<<62|1<<40)),
		q("compressed data over the end", "compressed cluster", u64(4*cluster, 1<<62|0xf<<58|5*cluster+3800)),
	}
}

func v(name, says string, change func(f []byte)) Sample {
	f := VMDK()
	change(f)
	return Sample{"vmdk " + name, "vmdk", says, f}
}

func l32(at int, v uint32) func([]byte) {
	return func(f []byte) { binary.LittleEndian.PutUint32(f[at:], v) }
}

func l64(at int, v uint64) func([]byte) {
	return func(f []byte) { binary.LittleEndian.PutUint64(f[at:], v) }
}

// text replaces part of the descriptor.
func text(old, new string) func([]byte) {
	return func(f []byte) {
		clear(f[sector : 21*sector])
		copy(f[sector:21*sector], strings.Replace(Descriptor, old, new, 1))
	}
}

func hostileVMDK(canary string) []Sample {
	alone := strings.Replace(Descriptor, `SPARSE "disk.vmdk"`, `FLAT "`+canary+`" 0`, 1)
	alone = strings.Replace(alone, "monolithicSparse", "monolithicFlat", 1) + strings.Repeat("#\n", 256)
	return []Sample{
		{"vmdk descriptor alone", "vmdk", "names other files", []byte(alone)},
		{"vmdk empty", "vmdk", "ends within", nil},
		{"vmdk cut in the descriptor", "vmdk", "ends within", VMDK()[:3*sector]},
		v("without magic", "magic number", l32(0, 0)),
		v("ESX magic", "magic number", func(f []byte) { copy(f, "COWD") }),
		v("version 9", "version 9", l32(4, 9)),
		v("unknown flags", "flags", l32(8, 1<<20)),
		v("no size", "disk of 0 sectors", l64(12, 0)),
		v("size of 2^63 sectors", "not taken", l64(12, 1<<63)),
		v("no grains", "grains of 0", l64(20, 0)),
		v("grains of 3 sectors", "grains of 3", l64(20, 3)),
		v("grains of 2^40 sectors", "grains", l64(20, 1<<40)),
		v("no descriptor", "descriptor", l64(28, 0)),
		v("descriptor of 2^40 sectors", "descriptor", l64(36, 1<<40)),
		v("descriptor behind the end", "descriptor", l64(28, 1<<40)),
		v("tables of no entries", "grain tables", l32(44, 0)),
		v("tables of 2^31 entries", "grain tables", l32(44, 1<<31)),
		v("not closed", "not closed", func(f []byte) { f[72] = 1 }),
		v("transferred as text", "as text", func(f []byte) { f[73] = '\r' }),
		v("unknown compression", "compression", func(f []byte) { f[77] = 7 }),
		v("compression without markers", "without markers", func(f []byte) { l32(8, 1|1<<16)(f); f[77] = 1 }),
		v("directory at an end that is none", "no footer", l64(56, 1<<64-1)),
		v("directory behind the end", "outside the file", l64(56, 1<<50)),
		v("directory of 2^31 bytes", "at most", func(f []byte) {
			l64(12, 1<<37)(f)
			l64(20, 8)(f)
			text("RW 65536", "RW 137438953472")(f)
		}),
		v("copy of the directory behind the end", "outside the file", func(f []byte) { l32(8, 3)(f); l64(48, 1<<50)(f) }),
		v("table behind the end", "file ends at", l32(21*sector, 1<<32-1)),
		v("table over the end", "file ends at", l32(21*sector, 151)),
		v("grain behind the end", "file ends at", l32(22*sector, 1<<32-1)),
		v("grain in its own table", "overlaps", l32(22*sector, 22)),
		v("grain twice", "overlaps", l32(22*sector+4, 26)),
		v("flat extent", "not a sparse one", text(`SPARSE "disk.vmdk"`, `FLAT "`+canary+`" 0`)),
		v("raw device extent", "not a sparse one", text(`SPARSE "disk.vmdk"`, `VMFSRDM "`+canary+`"`)),
		v("absolute extent", "plain name", text("disk.vmdk", canary)),
		v("extent above", "plain name", text("disk.vmdk", "../"+path.Base(canary))),
		v("extent of a protocol", "plain name", text("disk.vmdk", "nbd:localhost:1")),
		v("extent of json", "plain name", text(`"disk.vmdk"`, `"json:{\"file.filename\":\"`+canary+`\"}"`)),
		v("two extents", "2 extents", text("RW 65536 SPARSE \"disk.vmdk\"", "RW 65536 SPARSE \"disk.vmdk\"\nRW 65536 SPARSE \"b.vmdk\"")),
		v("no extent", "0 extents", text("RW 65536 SPARSE \"disk.vmdk\"\n", "")),
		v("extent of another size", "sectors", text("RW 65536", "RW 65535")),
		v("parent by content", "parent", text("parentCID=ffffffff", "parentCID=12345678")),
		v("parent by name", "parentFileNameHint", text("CID=fffffffe", "parentFileNameHint=\""+canary+"\"")),
		v("change tracking", "changeTrackPath", text("CID=fffffffe", "changeTrackPath=\""+canary+"\"")),
		v("flat type", "monolithicFlat", text("monolithicSparse", "monolithicFlat")),
		v("device type", "fullDevice", text("monolithicSparse", "fullDevice")),
		v("other type than the header's", "streamOptimized", text("monolithicSparse", "streamOptimized")),
		v("no type", "type", text("createType=\"monolithicSparse\"\n", "")),
		v("words after the descriptor", "something else", func(f []byte) { copy(f[20*sector:], "RW 1 FLAT \""+canary+"\" 0") }),
		v("unknown line", "not known", text("version=1", "hello")),
	}
}

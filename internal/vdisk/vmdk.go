package vdisk

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/bits"
	"strconv"
	"strings"
)

// A sparse VMDK, as VMware's "Virtual Disk Format 5.0" describes it. Numbers
// are little-endian and places are in sectors.
const (
	vmdkMagic      = 0x564d444b // "KDMV"
	vmdkAtEnd      = 1<<64 - 1  // the directory's place is in the footer
	vmdkEntries    = 512        // of a grain table
	vmdkDescriptor = 128        // most sectors of a descriptor

	vmdkNewlines   = 1 << 0
	vmdkRedundant  = 1 << 1
	vmdkZeroGrains = 1 << 2
	vmdkCompressed = 1 << 16
	vmdkMarkers    = 1 << 17
)

type vmdk struct {
	r      io.ReaderAt
	length uint64

	version, flags  uint32
	capacity, grain uint64
	textAt, textN   uint64
	directoryAt     uint64
	spareAt         uint64
	deflate         bool
	variant         string
}

// CheckVMDK checks a file of length bytes that is declared vmdk: a disk in one
// sparse file, monolithicSparse or streamOptimized. A descriptor alone, which
// names other files, is refused.
func CheckVMDK(r io.ReaderAt, length int64) (Info, error) {
	if length < 0 || length > MaxSize {
		return Info{}, refuse("the file has %d bytes; at most 64 TiB are taken", length)
	}
	v := &vmdk{r: r, length: uint64(length)}
	for _, step := range []func() error{v.first, v.footer, v.descriptor, v.directories} {
		if err := step(); err != nil {
			return Info{}, err
		}
	}
	return Info{Size: int64(v.capacity * sector), Variant: v.variant}, nil
}

func (v *vmdk) first() error {
	h, err := read(v.r, "the header", 0, sector)
	if err != nil {
		return err
	}
	if bytes.HasPrefix(bytes.TrimLeft(h, " \t\r\n"), []byte("#")) {
		return refuse("it is a descriptor that names other files; export the disk as one file (streamOptimized or monolithicSparse)")
	}
	return v.header(h)
}

func (v *vmdk) header(h []byte) error {
	le := binary.LittleEndian
	if le.Uint32(h) != vmdkMagic {
		return refuse("it is not a sparse vmdk file: the magic number is missing; declare the format it has")
	}
	v.version, v.flags = le.Uint32(h[4:]), le.Uint32(h[8:])
	v.capacity, v.grain = le.Uint64(h[12:]), le.Uint64(h[20:])
	v.textAt, v.textN = le.Uint64(h[28:]), le.Uint64(h[36:])
	v.spareAt, v.directoryAt = le.Uint64(h[48:]), le.Uint64(h[56:])
	v.deflate = v.flags&vmdkCompressed != 0
	const known = vmdkNewlines | vmdkRedundant | vmdkZeroGrains | vmdkCompressed | vmdkMarkers
	compression := le.Uint16(h[77:])
	switch {
	case v.version < 1 || v.version > 3:
		return refuse("vmdk version %d is not known; 1 to 3 are", v.version)
	case v.flags&^known != 0:
		return refuse("it has flags %#x that are not known", v.flags)
	case v.capacity == 0 || v.capacity > MaxSize/sector:
		return refuse("a disk of %d sectors is not taken; up to 64 TiB are", v.capacity)
	case v.grain < 8 || v.grain > 2048 || bits.OnesCount64(v.grain) != 1:
		return refuse("grains of %d sectors are not possible", v.grain)
	case le.Uint32(h[44:]) != vmdkEntries:
		return refuse("grain tables of %d entries are not possible", le.Uint32(h[44:]))
	case h[72] != 0:
		return refuse("it was not closed properly; repair it where it was made")
	case v.flags&vmdkNewlines != 0 && string(h[73:77]) != "\n \r\n":
		return refuse("it was damaged by a transfer as text; transfer it as binary")
	case compression > 1 || v.deflate != (compression == 1):
		return refuse("its way of compression, %d, is not known", compression)
	case v.deflate != (v.flags&vmdkMarkers != 0):
		return refuse("compressed grains without markers are not possible")
	}
	return nil
}

// footer takes the place of the directory from the end of a stream. The rest
// of it must say what the header says.
func (v *vmdk) footer() error {
	if v.directoryAt != vmdkAtEnd {
		return nil
	}
	if !v.deflate || v.length < 4*sector || v.length%sector != 0 {
		return refuse("its directory is said to be at the end, but the file has no footer")
	}
	h, err := read(v.r, "the footer", v.length-2*sector, sector)
	if err != nil {
		return err
	}
	was := *v
	if err := v.header(h); err != nil {
		return err
	}
	if v.directoryAt == vmdkAtEnd {
		return refuse("its footer does not say where the directory is")
	}
	is := *v
	is.directoryAt, is.spareAt, is.textAt, is.textN = was.directoryAt, was.spareAt, was.textAt, was.textN
	if is != was {
		return refuse("its header and its footer disagree")
	}
	v.textAt, v.textN = was.textAt, was.textN
	return nil
}

// descriptor reads the embedded text.
func (v *vmdk) descriptor() error {
	if v.textAt == 0 || v.textN == 0 || v.textN > vmdkDescriptor || v.textAt > v.length/sector {
		return refuse("its descriptor lies at sector %d for %d sectors, which is not taken", v.textAt, v.textN)
	}
	text, err := read(v.r, "the descriptor", v.textAt*sector, v.textN*sector)
	if err != nil {
		return err
	}
	text, padding, _ := bytes.Cut(text, []byte{0})
	// Where QEMU writes a shorter content ID over a longer one, which has up to 8
	// digits, the last bytes of the longer text stay behind the new end.
	if rest := bytes.TrimRight(padding, "\x00"); len(rest) >= 8 || !bytes.HasSuffix(text, rest) {
		return refuse("its descriptor is followed by something else")
	}
	extents := 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
		case strings.HasPrefix(line, "RW ") || strings.HasPrefix(line, "RDONLY ") || strings.HasPrefix(line, "NOACCESS "):
			extents++
			if err := v.extent(line); err != nil {
				return err
			}
		default:
			if err := v.setting(line); err != nil {
				return err
			}
		}
	}
	if extents != 1 || v.variant == "" {
		return refuse("its descriptor names %d extents and type %q; one extent and a type are needed", extents, v.variant)
	}
	return nil
}

func (v *vmdk) extent(line string) error {
	f := strings.SplitN(line, " ", 4)
	if len(f) != 4 || f[0] != "RW" && f[0] != "RDONLY" || f[2] != "SPARSE" {
		return refuse("its extent %q is not a sparse one", line)
	}
	if f[1] != strconv.FormatUint(v.capacity, 10) {
		return refuse("its extent has %s sectors, its header %d", f[1], v.capacity)
	}
	name, err := strconv.Unquote(f[3])
	if err != nil || name == "" || strings.ContainsAny(name, "/\\:") || strings.Contains(name, "..") {
		return refuse("its extent names %s, which is not the plain name of a file", f[3])
	}
	return nil
}

// setting reads one key=value line. Only keys that lead nowhere are taken.
func (v *vmdk) setting(line string) error {
	key, value, ok := strings.Cut(line, "=")
	key, value = strings.TrimSpace(key), strings.Trim(strings.TrimSpace(value), `"`)
	switch {
	case !ok:
		return refuse("its descriptor holds %q, which is not known", line)
	case strings.HasPrefix(key, "ddb."):
	case key == "version" || key == "encoding" || key == "CID":
	case key == "isNativeSnapshot" && value == "no":
	case key == "parentCID":
		if !strings.EqualFold(value, "ffffffff") {
			return refuse("it has a parent; export the disk with its whole content")
		}
	case key == "createType":
		if value != "monolithicSparse" && value != "streamOptimized" || (value == "streamOptimized") != v.deflate || v.variant != "" {
			return refuse("its type is %q; monolithicSparse and streamOptimized are taken", value)
		}
		v.variant = value
	default:
		return refuse("its descriptor sets %s=%q, which is not taken", key, value)
	}
	return nil
}

// directories checks the grain directory and, where there is one, its copy.
func (v *vmdk) directories() error {
	if err := v.directory(v.directoryAt); err != nil {
		return err
	}
	if v.flags&vmdkRedundant != 0 {
		return v.directory(v.spareAt)
	}
	return nil
}

func (v *vmdk) directory(at uint64) error {
	tables := (v.capacity + v.grain*vmdkEntries - 1) / (v.grain * vmdkEntries)
	if at == 0 || at > v.length/sector {
		return refuse("its directory lies at sector %d, outside the file", at)
	}
	dir, err := read(v.r, "the directory", at*sector, tables*4)
	if err != nil {
		return err
	}
	taken, err := newPieces(v.length, sector)
	if err != nil {
		return err
	}
	for ; len(dir) >= 4; dir = dir[4:] {
		at := uint64(binary.LittleEndian.Uint32(dir))
		if at == 0 {
			continue
		}
		r := region{"a grain table", at * sector, vmdkEntries * 4, v.length}
		if err := r.inside(); err != nil {
			return err
		}
		if err := taken.take(r); err != nil {
			return err
		}
		if err := v.table(at, taken); err != nil {
			return err
		}
	}
	return nil
}

func (v *vmdk) table(at uint64, taken *pieces) error {
	t, err := read(v.r, "a grain table", at*sector, vmdkEntries*4)
	if err != nil {
		return err
	}
	for ; len(t) >= 4; t = t[4:] {
		at := uint64(binary.LittleEndian.Uint32(t))
		if at == 0 || at == 1 && v.flags&vmdkZeroGrains != 0 {
			continue
		}
		r := region{"a grain", at * sector, v.grain * sector, v.length}
		if v.deflate {
			if r.n, err = v.packed(at); err != nil {
				return err
			}
		}
		if err := r.inside(); err != nil {
			return err
		}
		if err := taken.take(r); err != nil {
			return err
		}
	}
	return nil
}

// packed returns how many bytes a compressed grain takes with its marker.
func (v *vmdk) packed(at uint64) (uint64, error) {
	h, err := read(v.r, "a grain's marker", at*sector, 12)
	if err != nil {
		return 0, err
	}
	n := uint64(binary.LittleEndian.Uint32(h[8:]))
	if n == 0 || n > 2*v.grain*sector {
		return 0, refuse("a compressed grain of %d bytes is not possible", n)
	}
	return 12 + n, nil
}

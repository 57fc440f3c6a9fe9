package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"os"

	"consort.dev/consort/fault"
)

// A PV guest of Xen begins where Linux's own unpacking has ended, so GRUB for it
// takes the kernel out of its wrapping. GRUB 2.06 knows gzip, xz and LZO, and not
// LZ4, with which Debian 12 packs: its kernel is kept a second time, by gzip.

// pvKernel is that kernel in the system: 11 MB of a cloud kernel's 53.
const pvKernel = "boot/vmlinux.gz"

// Offsets and sizes in a kernel's image (Documentation/x86/boot.rst).
const (
	setupSectors  = 0x1f1
	headerMagic   = 0x202 // "HdrS"
	bootProtocol  = 0x206
	payloadOffset = 0x248 // from the end of the setup
	payloadLength = 0x24c
	headerEnd     = 0x250
)

// lz4Magic begins LZ4's legacy format; the kernel's build adds four bytes to
// its end, the length of what is packed.
const lz4Magic = "\x02\x21\x4c\x18"

// payload returns the packed kernel in an image, as it is packed.
func payload(img []byte) ([]byte, error) {
	if len(img) < headerEnd || string(img[headerMagic:headerMagic+4]) != "HdrS" ||
		binary.LittleEndian.Uint16(img[bootProtocol:]) < 0x0208 {
		return nil, fault.Unsupported.Errorf("the kernel is no image for this architecture of protocol 2.08 or newer")
	}
	sectors := uint64(img[setupSectors])
	if sectors == 0 {
		sectors = 4
	}
	at := (sectors+1)*sector + uint64(binary.LittleEndian.Uint32(img[payloadOffset:]))
	end := at + uint64(binary.LittleEndian.Uint32(img[payloadLength:]))
	if end > uint64(len(img)) {
		return nil, fault.Unsupported.Errorf("the kernel's image of %d bytes ends before its payload at %d", len(img), end)
	}
	return img[at:end], nil
}

// keepForPV keeps the kernel a second time where a PV guest needs it, and
// reports whether the system boots as one.
func (b *build) keepForPV(ctx context.Context) (bool, error) {
	img, err := os.ReadFile(b.path("boot/vmlinuz"))
	if err != nil {
		return false, err
	}
	packed, err := payload(img)
	if err != nil {
		return false, err
	}
	if !bytes.HasPrefix(packed, []byte(lz4Magic)) {
		return grubUnpacks(packed), nil
	}
	f, err := os.OpenFile(b.path(pvKernel), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return false, err
	}
	w, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return false, errors.Join(err, f.Close())
	}
	cmd := command(ctx, "lz4", "-dcq")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(packed[:len(packed)-4]), w, b.log
	return true, errors.Join(cmd.Run(), w.Close(), f.Close())
}

// grubUnpacks reports whether GRUB for PV takes a kernel out of this wrapping.
func grubUnpacks(packed []byte) bool {
	for _, magic := range []string{"\x1f\x8b", "\xfd7zXZ\x00", "\x89LZO", "\x7fELF"} {
		if bytes.HasPrefix(packed, []byte(magic)) {
			return true
		}
	}
	return false
}

package image

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// Where the parts of a disk lie. The first is for GRUB's core under BIOS, the
// second holds GRUB for UEFI, the third is the system up to the end.
const (
	coreAt = 1 * estate.MiB
	espAt  = 2 * estate.MiB
	rootAt = 18 * estate.MiB
	sector = 512
)

// Directories of GRUB's parts in Debian.
const (
	grubBIOS = "/usr/lib/grub/i386-pc"
	grubUEFI = "/usr/lib/grub/x86_64-efi"
)

// Types of partitions (UEFI 2.10, table 5.7; GRUB manual, "BIOS installation").
const (
	typeBIOSBoot = "21686148-6449-6E6F-744E-656564454649"
	typeESP      = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	typeLinux    = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
)

// uuid returns an identifier of a part of the disk, the same for every build
// of the recipe.
func (b *build) uuid(part string) string {
	h := sha256.Sum256([]byte(b.key + "/" + part))
	h[6], h[8] = h[6]&0x0f|0x40, h[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// makeFileSystem makes the disk, its partitions and the system's file system.
func (b *build) makeFileSystem(ctx context.Context) error {
	if err := b.writeMenu(); err != nil {
		return err
	}
	f, err := os.OpenFile(b.disk(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(int64(b.size())), f.Close()); err != nil {
		return err
	}
	if b.size() < 256*estate.MiB {
		return fault.Invalid.Errorf("a disk of %s is too small; set spec.recipe.size to 1Gi or more", b.size())
	}
	table := fmt.Sprintf("label: gpt\nlabel-id: %s\n", b.uuid("disk")) +
		row(coreAt, espAt-coreAt, typeBIOSBoot, b.uuid("core"), "boot") +
		row(espAt, rootAt-espAt, typeESP, b.uuid("esp"), "esp") +
		row(rootAt, b.size()-rootAt-estate.MiB, typeLinux, b.uuid("root"), "root")
	cmd := command(ctx, "sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", b.disk())
	cmd.Stdin = strings.NewReader(table)
	if err := b.run(cmd, b.log); err != nil {
		return err
	}
	b.advance(0.1)
	// No checksums of metadata: an emulated processor pays for each. A journal,
	// since desktops lose their power.
	return b.tool(ctx, "mkfs.ext4", "-q", "-F", "-L", "root", "-U", b.uuid("fs"), "-m", "0",
		"-O", "^metadata_csum,^64bit", "-J", "size=8", "-d", b.root(),
		"-E", fmt.Sprintf("offset=%d,hash_seed=%s,lazy_itable_init=0,lazy_journal_init=0,nodiscard", rootAt, b.uuid("hash")),
		b.disk(), fmt.Sprintf("%dk", (b.size()-rootAt-estate.MiB)/estate.KiB))
}

func row(at, size estate.Bytes, typ, uuid, name string) string {
	return fmt.Sprintf("start=%d, size=%d, type=%s, uuid=%s, name=%s\n", at/sector, size/sector, typ, uuid, name)
}

// early is what GRUB's core runs: it finds the system and goes on there.
const early = "search --no-floppy --set=root --label root\nset prefix=($root)/boot/grub\nconfigfile ($root)/boot/grub/grub.cfg\n"

// writeMenu writes GRUB's configuration into the system.
func (b *build) writeMenu() error {
	words := append([]string{"root=LABEL=root", "rw", "console=ttyS0", "console=tty0"}, b.recipe.Kernel...)
	menu := "set kernel=/boot/vmlinuz\nif [ $grub_platform = xen -a -e /" + pvKernel + " ]; then set kernel=/" + pvKernel + "; fi\n" +
		"linux $kernel " + strings.Join(words, " ") + "\ninitrd /boot/initrd.img\nboot\n"
	if err := os.MkdirAll(b.path("boot/grub"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(b.path("boot/grub/grub.cfg"), []byte(menu), 0o644)
}

// installBootLoader puts GRUB on the disk, for BIOS and for UEFI, without
// mounting anything.
func (b *build) installBootLoader(ctx context.Context) error {
	config := filepath.Join(b.draft.Dir, "early.cfg")
	if err := os.WriteFile(config, []byte(early), 0o600); err != nil {
		return err
	}
	modules := []string{"part_gpt", "ext2", "search", "search_label", "configfile", "normal", "linux", "boot", "test", "echo"}
	core := filepath.Join(b.draft.Dir, "core.img")
	err := b.tool(ctx, "grub-mkimage", append([]string{"-O", "i386-pc", "-d", grubBIOS, "-p", "/boot/grub", "-c", config,
		"-o", core, "biosdisk"}, modules...)...)
	if err != nil {
		return err
	}
	if err := b.installCore(core); err != nil {
		return err
	}
	b.advance(0.5)
	loader := filepath.Join(b.draft.Dir, "BOOTX64.EFI")
	err = b.tool(ctx, "grub-mkimage", append([]string{"-O", "x86_64-efi", "-d", grubUEFI, "-p", "/boot/grub", "-c", config,
		"-o", loader, "fat"}, modules...)...)
	if err != nil {
		return err
	}
	return b.installESP(ctx, loader)
}

// installESP writes the system partition UEFI boots from.
func (b *build) installESP(ctx context.Context, loader string) error {
	esp := filepath.Join(b.draft.Dir, "esp.img")
	if err := os.WriteFile(esp, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(esp, int64(rootAt-espAt)); err != nil {
		return err
	}
	id := strings.ReplaceAll(b.uuid("esp"), "-", "")[:8]
	for _, args := range [][]string{
		{"mkfs.vfat", "-F", "16", "-i", id, "-n", "ESP", "--invariant", esp},
		{"mmd", "-i", esp, "::EFI", "::EFI/BOOT"},
		{"mcopy", "-i", esp, loader, "::EFI/BOOT/BOOTX64.EFI"},
	} {
		if err := b.tool(ctx, args[0], args[1:]...); err != nil {
			return err
		}
	}
	data, err := os.ReadFile(esp)
	if err != nil {
		return err
	}
	return b.write(int64(espAt), data)
}

// Places in GRUB's boot sector and in the first sector of its core
// (include/grub/i386/pc/boot.h; util/setup.c writes the same ones).
const (
	bootCode       = 440   // the rest of the sector is the partition table
	bootKernelAt   = 0x5c  // 8 bytes: sector of the core
	bootDriveCheck = 0x66  // a jump, made two no-operations on a hard disk
	coreRestAt     = 0x1f4 // 8 bytes: sector of the rest of the core
)

// installCore writes GRUB's boot sector and core for BIOS.
func (b *build) installCore(core string) error {
	boot, err := os.ReadFile(filepath.Join(grubBIOS, "boot.img"))
	if err != nil {
		return err
	}
	data, err := os.ReadFile(core)
	if err != nil {
		return err
	}
	if len(boot) != sector || len(data) <= sector || int64(len(data)) > int64(espAt-coreAt) {
		return fault.Internal.Errorf("GRUB's parts have %d and %d bytes, which cannot be", len(boot), len(data))
	}
	binary.LittleEndian.PutUint64(boot[bootKernelAt:], uint64(coreAt/sector))
	boot[bootDriveCheck], boot[bootDriveCheck+1] = 0x90, 0x90
	binary.LittleEndian.PutUint64(data[coreRestAt:], uint64(coreAt/sector)+1)
	return errors.Join(b.write(0, boot[:bootCode]), b.write(int64(coreAt), data))
}

func (b *build) write(at int64, data []byte) error {
	f, err := os.OpenFile(b.disk(), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.NewOffsetWriter(f, at), strings.NewReader(string(data)))
	return errors.Join(err, f.Close())
}

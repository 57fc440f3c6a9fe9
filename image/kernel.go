package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"consort.dev/consort/fault"
)

// bootModules are what the initramfs can load: with them a disk is found and a
// screen comes up on every hypervisor we know, so that an image can be moved.
var bootModules = [...]string{
	"virtio_pci", "virtio_blk", "virtio_scsi", // QEMU, libvirt
	"sd_mod", "ahci", "ata_piix", "nvme", // emulated hardware everywhere
	"vmw_pvscsi", "mptspi", "mptsas", "sym53c8xx", // vSphere
	"xen-blkfront",                         // Xen
	"hv_vmbus", "hv_storvsc", "pci-hyperv", // Hyper-V
	"bochs", "virtio-gpu", "qxl", "cirrus", "vmwgfx", "hyperv_drm", // screens
}

// alwaysLoaded are loaded by the initramfs whatever the hardware.
var alwaysLoaded = [...]string{"crc32c_generic", "ext4"}

// alwaysKept stay in an image that lists its modules, for machines moved to
// another hypervisor.
var alwaysKept = [...]string{
	"virtio_net", "virtio_console", "virtio_balloon", "virtio-rng", "vmxnet3", "e1000", "e1000e", "pcnet32", "8139cp",
	"xen-netfront", "hv_netvsc", "hid-hyperv", "hyperv-keyboard", "psmouse", "evdev", "usbhid", "hid-generic",
	"xhci-pci", "ehci-pci", "uhci-hcd", "overlay", "erofs", "vfat", "nls_ascii", "nls_cp437", "loop", "fuse", "qemu_fw_cfg",
}

// installKernel puts the kernel, its modules and an initramfs into the system.
func (b *build) installKernel(ctx context.Context) error {
	debs, err := filepath.Glob(filepath.Join(b.draft.Dir, "kernel", "*.deb"))
	if err != nil || len(debs) != 1 {
		return fault.Internal.Errorf("downloaded %d kernel packages, want one: %w", len(debs), err)
	}
	at := filepath.Join(b.draft.Dir, "kernel", "unpacked")
	if err := b.tool(ctx, "dpkg-deb", "-x", debs[0], at); err != nil {
		return err
	}
	kernels, err := filepath.Glob(filepath.Join(at, "boot", "vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return fault.Internal.Errorf("%s holds %d kernels, want one: %w", filepath.Base(debs[0]), len(kernels), err)
	}
	b.release = strings.TrimPrefix(filepath.Base(kernels[0]), "vmlinuz-")
	b.advance(0.5)
	modules := b.path("usr/lib/modules/" + b.release)
	err = errors.Join(
		os.MkdirAll(b.path("usr/lib/modules"), 0o755),
		os.MkdirAll(b.path("boot"), 0o755),
		os.Rename(filepath.Join(at, "lib/modules", b.release), modules),
		os.Rename(kernels[0], b.path("boot/vmlinuz")),
		os.RemoveAll(filepath.Join(b.draft.Dir, "kernel")),
	)
	if err != nil {
		return err
	}
	if err := b.inside(ctx, "depmod", b.release); err != nil {
		return err
	}
	all, err := readModules(modules)
	if err != nil {
		return err
	}
	if len(b.recipe.Modules) > 0 {
		if err := b.keepModules(ctx, all); err != nil {
			return err
		}
	}
	pv, err := b.keepForPV(ctx)
	if err != nil {
		return err
	}
	if b.boots, err = all.platforms(pv); err != nil {
		return err
	}
	return writeInitramfs(b.path("boot/initrd.img"), all, b.path("usr/bin/busybox"))
}

// keepModules removes the modules that neither the recipe nor booting
// elsewhere needs.
func (b *build) keepModules(ctx context.Context, all *modules) error {
	keep := map[string]bool{}
	for _, list := range [][]string{bootModules[:], alwaysLoaded[:], alwaysKept[:], b.recipe.Modules} {
		for _, name := range list {
			for _, file := range all.closure(name) {
				keep[file] = true
			}
		}
	}
	for _, m := range all.byName {
		if keep[m.file] {
			continue
		}
		if err := os.Remove(filepath.Join(all.dir, m.file)); err != nil {
			return err
		}
	}
	return b.inside(ctx, "depmod", b.release)
}

// modules is what depmod wrote of a kernel's modules.
type modules struct {
	dir    string
	byName map[string]module
}

type module struct {
	name    string
	file    string   // below dir
	needs   []string // files, in the order they are loaded
	aliases []string // globs of the hardware it drives
}

func readModules(dir string) (*modules, error) {
	deps, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	aliases, err := os.ReadFile(filepath.Join(dir, "modules.alias"))
	if err != nil {
		return nil, err
	}
	all := &modules{dir: dir, byName: map[string]module{}}
	for line := range strings.Lines(string(deps)) {
		file, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			return nil, fmt.Errorf("%s/modules.dep: %q is not a line of it", dir, line)
		}
		m := module{name: moduleName(file), file: file, needs: strings.Fields(rest)}
		slices.Reverse(m.needs) // depmod names the last to be loaded first
		all.byName[m.name] = m
	}
	for line := range strings.Lines(string(aliases)) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "alias" {
			continue
		}
		name := moduleName(f[2])
		if m, ok := all.byName[name]; ok {
			m.aliases = append(m.aliases, f[1])
			all.byName[name] = m
		}
	}
	return all, nil
}

// moduleName is the name of a module in the kernel's spelling.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// closure returns the files of a module and of what it needs, in the order in
// which they are loaded; none when the kernel has it built in or not at all.
func (a *modules) closure(name string) []string {
	m, ok := a.byName[moduleName(name)]
	if !ok {
		return nil
	}
	return append(slices.Clone(m.needs), m.file)
}

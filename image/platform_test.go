package image

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestAnImageKnowsWhichHardwareItBootsOn(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		// As Debian's cloud kernel: no AHCI, and a Xen disk built in here.
		"modules.dep":     "kernel/a/virtio_blk.ko.xz:\nkernel/a/virtio_net.ko.xz: kernel/a/net_failover.ko.xz\nkernel/a/nvme.ko.xz:\nkernel/a/xen-netfront.ko.xz:\nkernel/a/hv_storvsc.ko.xz:\n",
		"modules.alias":   "",
		"modules.builtin": "kernel/drivers/block/xen-blkfront.ko\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	all, err := readModules(dir)
	if err != nil {
		t.Fatal(err)
	}
	for pv, want := range map[bool][]string{
		false: {"virtio", "nvme", "xenbus"},
		true:  {"virtio", "nvme", "xenbus", "xenpv"},
	} {
		if got, err := all.platforms(pv); err != nil || !slices.Equal(got, want) {
			t.Errorf("got %q, %v; want %q: a disk without a network card is no platform", got, err, want)
		}
	}
}

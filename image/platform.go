package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// platforms are the sorts of virtual hardware there are, each with the modules
// of its disks and of its network cards. Our initramfs finds the root by its
// label and names no network card by its bus, so with these an image boots
// there (see estate.GuestFacts.Drivers).
var platforms = [...]struct {
	name    string
	modules [2]string // disk, network
}{
	{"virtio", [2]string{"virtio_blk", "virtio_net"}},
	{"nvme", [2]string{"nvme", "virtio_net"}},
	{"ahci", [2]string{"ahci", "e1000"}},
	{"xenbus", [2]string{"xen-blkfront", "xen-netfront"}},
	{"vmbus", [2]string{"hv_storvsc", "hv_netvsc"}},
	{"pvscsi", [2]string{"vmw_pvscsi", "vmxnet3"}},
}

// platforms returns the hardware that a system with these modules boots on,
// those built into its kernel included; pv says whether its kernel is there as
// PV guests need it.
func (a *modules) platforms(pv bool) ([]string, error) {
	builtin, err := os.ReadFile(filepath.Join(a.dir, "modules.builtin"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	has := map[string]bool{}
	for line := range strings.Lines(string(builtin)) {
		has[moduleName(strings.TrimSpace(line))] = true
	}
	for name := range a.byName {
		has[name] = true
	}
	var all []string
	for _, p := range platforms {
		if has[moduleName(p.modules[0])] && has[moduleName(p.modules[1])] {
			all = append(all, p.name)
		}
	}
	if pv && slices.Contains(all, "xenbus") {
		all = append(all, "xenpv")
	}
	return all, nil
}

package libvirt

import (
	"path/filepath"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/drivertest"
	"consort.dev/consort/internal/diskfile"
	"consort.dev/consort/internal/virtrpc/virtrpctest"
	"consort.dev/consort/test/guest"
)

// guestBoot is how long the guest may take under emulation on a loaded host.
const guestBoot = 8 * time.Minute

func TestConformanceWithAGuest(t *testing.T) {
	tiny := guest.Tiny(t)
	here, there := virtrpctest.Start(t), virtrpctest.Start(t)
	// The machines' user may not search the folders above the image's.
	image := driver.Content{Path: filepath.Join(here.Dir, "tiny"), Format: tiny.Format, Size: tiny.Size}
	if err := diskfile.Copy(t.Context(), image.Path, tiny.Path); err != nil {
		t.Fatal(err)
	}
	drivertest.RunOS(t, func(t *testing.T) drivertest.Bench {
		b := bench(t, here, there)
		b.Base, b.Raw, b.OS, b.Boot, b.Memory, b.Says = image, nil, true, guestBoot, 192*estate.MiB, ""
		return b
	})
}

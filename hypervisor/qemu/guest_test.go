package qemu

import (
	"path/filepath"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/drivertest"
	"consort.dev/consort/test/guest"
)

// guestBoot is how long the guest may take under emulation on a loaded host.
const guestBoot = 3 * time.Minute

func TestConformanceWithAGuest(t *testing.T) {
	small := guest.Small(t)
	image := driver.Content{Path: small.Path, Format: small.Format, Size: small.Size}
	drivertest.RunOS(t, func(t *testing.T) drivertest.Bench {
		cfg := place(t)
		h := open(t, cfg)
		return drivertest.Bench{
			Host: h, Base: image, Dir: filepath.Dir(cfg.Dir), OS: true, Boot: guestBoot, Memory: 384 * estate.MiB,
			Reopen: func() (driver.Host, error) { return h, nil },
		}
	})
}

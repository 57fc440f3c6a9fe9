package qemu

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/drivertest"
)

// testImage returns the small Debian guest that tests run in QEMU.
func testImage(t testing.TB) driver.Content {
	t.Helper()
	path := os.Getenv("CONSORT_TEST_IMAGE")
	if path == "" {
		t.Skip("CONSORT_TEST_IMAGE names no qcow2 image of a guest with an agent")
	}
	if testing.Short() {
		t.Skip("booting a real guest takes some 20 s")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var head [32]byte
	if _, err := f.ReadAt(head[:], 0); err != nil || string(head[:4]) != "QFI\xfb" {
		t.Fatalf("%s is not qcow2: %v", path, err)
	}
	return driver.Content{Path: path, Format: estate.QCOW2, Size: estate.Bytes(binary.BigEndian.Uint64(head[24:]))}
}

// guestBoot is how long the guest may take under emulation on a loaded host.
const guestBoot = 3 * time.Minute

func TestConformanceWithAGuest(t *testing.T) {
	image := testImage(t)
	drivertest.RunOS(t, func(t *testing.T) drivertest.Bench {
		cfg := place(t)
		h := open(t, cfg)
		return drivertest.Bench{
			Host: h, Base: image, Dir: filepath.Dir(cfg.Dir), OS: true, Boot: guestBoot, Memory: 384 * estate.MiB,
			Reopen: func() (driver.Host, error) { return h, nil },
		}
	})
}

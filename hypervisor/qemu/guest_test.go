package qemu

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/drivertest"
	"consort.dev/consort/test/guest"
)

// guestBoot is how long the guest may take under emulation on a loaded host.
const guestBoot = 8 * time.Minute

func TestConformanceWithAGuest(t *testing.T) {
	tiny := guest.Tiny(t)
	image := driver.Content{Path: tiny.Path, Format: tiny.Format, Size: tiny.Size}
	drivertest.RunOS(t, func(t *testing.T) drivertest.Bench {
		cfg := place(t)
		h := open(t, cfg)
		return drivertest.Bench{
			Host: h, Base: image, Dir: filepath.Dir(cfg.Dir), OS: true, Boot: guestBoot, Memory: 192 * estate.MiB,
			NIC:    func() (driver.NIC, error) { return socketCard(t, filepath.Dir(cfg.Dir)) },
			Reopen: func() (driver.Host, error) { return h, nil },
		}
	})
}

// socketCard returns a network card at whose other end nobody says anything.
func socketCard(t *testing.T, dir string) (driver.NIC, error) {
	dir, err := os.MkdirTemp(dir, "net")
	if err != nil {
		return driver.NIC{}, err
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		return driver.NIC{}, err
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go io.Copy(io.Discard, conn)
		}
	}()
	return driver.NIC{MAC: "02:00:00:00:00:01", Socket: filepath.Join(dir, "s")}, nil
}

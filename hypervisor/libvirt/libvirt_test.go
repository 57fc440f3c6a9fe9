package libvirt

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/drivertest"
	"consort.dev/consort/internal/virtrpc/virtrpctest"
)

// bootSector is testdata/boot.S of the QEMU provider assembled: 512 bytes that
// paint the screen, write K to the serial console and show every key.
func bootSector(t testing.TB) []byte {
	t.Helper()
	code, err := hex.DecodeString("" +
		"31c08ed88ed0bc007cb81300cd10b800a08ec031ffb900fab001fcf3aab30fe81b00baf803b04b" +
		"eeb00aee30e4cd1688c380e30fe80600baf803eeebee60bfd03ebd640088d8b9a000f3aa81c7a0" +
		"004d75f261c3")
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 512)
	copy(b, code)
	b[510], b[511] = 0x55, 0xaa
	return b
}

// place returns the configuration of a host with a daemon of its own.
func place(t testing.TB, d *virtrpctest.Daemon, name string) Config {
	t.Helper()
	dir := filepath.Join(d.Dir, name)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	mode := filepath.Base(d.URI)
	return Config{
		Dir: dir, Endpoint: "qemu+unix:///" + mode + "?socket=" + url.QueryEscape(d.Socket),
		Peer: fmt.Sprintf("qemu+tcp://127.0.0.1:%d/%s", d.Port, mode), Accelerator: "tcg",
	}
}

// open opens a host whose machines end with the test.
func open(t testing.TB, cfg Config) driver.Host {
	t.Helper()
	h, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host(h).Close() })
	return h
}

// base writes the boot sector where the daemon's machines can read it.
func base(t testing.TB, d *virtrpctest.Daemon) driver.Content {
	t.Helper()
	path := filepath.Join(d.Dir, "boot.img")
	if err := os.WriteFile(path, bootSector(t), 0o644); err != nil {
		t.Fatal(err)
	}
	return driver.Content{Path: path, Format: estate.Raw, Size: 512}
}

// strangers makes machines by the vendor's own client, every third without a
// disk, which is an obstacle.
func strangers(t testing.TB, d *virtrpctest.Daemon) func(context.Context) (estate.MachineID, error) {
	n, first := 0, time.Now().UnixNano()%1e8*1000
	return func(ctx context.Context) (estate.MachineID, error) {
		n++
		id := estate.MachineID(fmt.Sprintf("77000000-0000-4000-8000-%012d", first+int64(n)))
		path := filepath.Join(d.Dir, fmt.Sprintf("stranger%d", first+int64(n)))
		disk := fmt.Sprintf("<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='%s.img'/><target dev='vda' bus='virtio'/></disk>", path)
		if n%3 == 0 {
			disk = ""
		}
		xml := fmt.Sprintf(`<domain type='qemu'><name>stranger%d</name><uuid>%s</uuid><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>%s</devices></domain>`, first+int64(n), id, disk)
		if err := os.WriteFile(path+".img", make([]byte, 1<<20), 0o600); err != nil {
			return "", err
		}
		if err := os.WriteFile(path+".xml", []byte(xml), 0o600); err != nil {
			return "", err
		}
		_, err := d.Shell(ctx, d.URI, "define", path+".xml")
		return id, err
	}
}

// host returns the driver inside what Open returned.
func host(h driver.Host) *Host {
	if m, is := h.(movable); is {
		return m.Host
	}
	return h.(*Host)
}

// current is a host that can be opened again, as a new process would; the suite
// still asks the old one.
type current struct{ driver.Host }

func (c *current) Unwrap() driver.Host { return c.Host }

func (c *current) reopen(t *testing.T, cfg Config) (driver.Host, error) {
	host(c.Host).lock.Close()
	again, err := Open(t.Context(), cfg)
	if err == nil {
		c.Host = again
	}
	return again, err
}

// bench is a host and another, each with a daemon of its own.
func bench(t *testing.T, here, there *virtrpctest.Daemon) drivertest.Bench {
	name := fmt.Sprintf("m%d", time.Now().UnixNano())
	cfg := place(t, here, name)
	h := &current{open(t, cfg)}
	t.Cleanup(func() { host(h.Host).Close() })
	return drivertest.Bench{
		Host: h, Other: open(t, place(t, there, name)),
		Base: base(t, here), Raw: bootSector(t), Dir: here.Dir, Says: "K", Stranger: strangers(t, here),
		Reopen: func() (driver.Host, error) { return h.reopen(t, cfg) },
	}
}

func TestConformance(t *testing.T) {
	here, there := virtrpctest.Start(t), virtrpctest.Start(t)
	drivertest.RunShared(t, func(t *testing.T) drivertest.Bench { return bench(t, here, there) })
}

package qemu

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/drivertest"
	"consort.dev/consort/internal/kvmprobe"
)

// TestMain is the accelerator's probe, or a killed agent, when it is started as one.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "kvm-probe" {
		if kvmprobe.Child() != nil {
			os.Exit(1)
		}
		return
	}
	lives := map[string]func(dir string) error{"agent": agentLife, "keeper": keeperLife, "cloner": clonerLife}
	if len(os.Args) == 3 && lives[os.Args[1]] != nil {
		if err := lives[os.Args[1]](os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// bootSector is testdata/boot.S assembled: 512 bytes that paint the screen,
// write K to the serial console and show every key.
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

// place returns folders for a host, short enough for sockets and open to the
// machines' users.
func place(t testing.TB) Config {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("qemu-system-x86_64 is not installed")
	}
	dir, err := os.MkdirTemp("", "qemu")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return Config{Dir: filepath.Join(dir, "m"), RunDir: filepath.Join(dir, "r"), Accelerator: "tcg"}
}

// open opens a host whose machines end with the test.
func open(t testing.TB, cfg Config) *Host {
	t.Helper()
	h, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, h) })
	return h
}

// end ends the host's machines and closes it.
func end(t testing.TB, h *Host) {
	ms, err := h.List(context.Background())
	if err != nil {
		t.Error(err)
	}
	for _, m := range ms {
		if err := h.Delete(context.Background(), m.ID); err != nil {
			t.Error(err)
		}
	}
	h.Close()
}

// base writes the boot sector into the host's place.
func base(t testing.TB, cfg Config) driver.Content {
	t.Helper()
	path := filepath.Join(filepath.Dir(cfg.Dir), "boot.img")
	if err := os.WriteFile(path, bootSector(t), 0o444); err != nil {
		t.Fatal(err)
	}
	return driver.Content{Path: path, Format: estate.Raw, Size: 512}
}

const someID = estate.MachineID("0c9e3c54-1111-4222-8333-444455556666")

func definition(b driver.Content) driver.Definition {
	return driver.Definition{
		ID: someID, Name: "desk, one", CPUs: 1, Memory: 32 * estate.MiB,
		Disks: []driver.Disk{{Name: "root", Base: &b, Size: estate.MiB}},
	}
}

func TestAMachineIsDrawnAndGoes(t *testing.T) {
	cfg := place(t)
	h := open(t, cfg)
	def := definition(base(t, cfg))
	begin := time.Now()
	if err := h.Define(t.Context(), def); err != nil {
		t.Fatal(err)
	}
	defined := time.Now()
	if err := h.Start(t.Context(), someID); err != nil {
		t.Fatal(err)
	}
	t.Logf("defined in %v, started in %v", defined.Sub(begin), time.Since(defined))
	conn, err := h.Display(t.Context(), someID)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	greeting := make([]byte, 12)
	if _, err := io.ReadFull(conn, greeting); err != nil || string(greeting) != "RFB 003.008\n" {
		t.Errorf("display says %q, %v", greeting, err)
	}
	serial, err := h.Console(t.Context(), someID)
	if err != nil {
		t.Fatal(err)
	}
	defer serial.Close()
	text := make([]byte, 1)
	if _, err := io.ReadFull(serial, text); err != nil || text[0] != 'K' {
		t.Errorf("console says %q, %v; want K", text, err)
	}
	begin = time.Now()
	if err := h.Stop(t.Context(), someID, 0); err != nil {
		t.Fatal(err)
	}
	t.Logf("stopped in %v", time.Since(begin))
}

func TestConformance(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Bench {
		cfg := place(t)
		h := open(t, cfg)
		return drivertest.Bench{
			Host: h, Base: base(t, cfg), Raw: bootSector(t), Dir: filepath.Dir(cfg.Dir),
			Says: "K", Blind: func(_ context.Context, id estate.MachineID) (func(), error) { return blind(h.machines[id]) },
			Reopen: func() (driver.Host, error) {
				h.Close()
				again, err := Open(t.Context(), cfg)
				if err == nil {
					t.Cleanup(func() { end(t, again) }) // what it made, the first one does not know
				}
				return again, err
			},
		}
	})
}

// blind has the machine's process stand still with nobody connected to it: it
// lives and does not answer.
func blind(m *machine) (see func(), err error) {
	pid, err := m.pid()
	if err != nil {
		return nil, err
	}
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		return nil, err
	}
	m.disconnect()
	return func() { unix.Kill(pid, unix.SIGCONT) }, nil
}

package qemu

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

func TestACardJoinsATapInItsNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes network namespaces")
	}
	cfg := place(t)
	h := open(t, cfg)
	ns := fmt.Sprintf("consort-test-%d", os.Getpid())
	ip := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("ip", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	ip("netns", "add", ns)
	defer ip("netns", "del", ns)
	ip("-n", ns, "tuntap", "add", "tap0", "mode", "tap")
	ip("-n", ns, "link", "set", "tap0", "up")
	def := definition(base(t, cfg))
	def.NICs = []driver.NIC{{MAC: "02:00:00:00:00:01", Netns: "/run/netns/" + ns, Tap: "tap0"}}
	if err := errors.Join(h.Define(t.Context(), def), h.Start(t.Context(), someID)); err != nil {
		t.Fatal(err)
	}
	if got := ip("-n", ns, "link", "show", "tap0"); !strings.Contains(got, "LOWER_UP") {
		t.Errorf("nobody is at the other end of the tap: %s", got)
	}
	if err := h.Stop(t.Context(), someID, 0); err != nil {
		t.Fatal(err)
	}
}

func TestATapThatIsNotThereIsNotMade(t *testing.T) {
	cfg := place(t)
	h := open(t, cfg)
	def := definition(base(t, cfg))
	def.NICs = []driver.NIC{{MAC: "02:00:00:00:00:01", Tap: "tap-absent"}}
	if err := h.Define(t.Context(), def); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context(), someID); !errors.Is(err, fault.Unavailable) {
		t.Errorf("Start = %v, want %v", err, fault.Unavailable)
	}
	if all, err := h.List(t.Context()); err != nil || all[0].Starts != 0 {
		t.Errorf("machines = %+v, %v; want one that was never started", all, err)
	}
}

func TestACardJoinsASocket(t *testing.T) {
	cfg := place(t)
	h := open(t, cfg)
	path := filepath.Join(filepath.Dir(cfg.Dir), "net")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	def := definition(base(t, cfg))
	def.NICs = []driver.NIC{{MAC: "02:00:00:00:00:01", Socket: path}}
	if err := errors.Join(h.Define(t.Context(), def), h.Start(t.Context(), someID)); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
}

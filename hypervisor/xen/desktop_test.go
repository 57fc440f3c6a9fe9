package xen_test

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/test/guest"
)

// TestADesktopComesUp boots the small desktop, which knows nothing of Xen but
// what its recipe says: its agent answers, its home is that of the volume, and
// it draws though it has no screen. Under two layers of emulation that takes
// minutes.
func TestADesktopComesUp(t *testing.T) {
	needsXen(t)
	small := guest.Small(t)
	raw := filepath.Join(t.TempDir(), "small.raw")
	if out, err := exec.Command("qemu-img", "convert", "-f", string(small.Format), "-O", "raw", small.Path, raw).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h, d := open(t)
	began := time.Now()
	if err := h.Put(t.Context(), raw, "/srv/small.raw", 0o400); err != nil {
		t.Fatal(err)
	}
	t.Logf("the image is in the host after %v", time.Since(began))
	h.Must(t, "sh", "-c", "truncate -s 64M /srv/home.img && mkfs.ext4 -q -L consort-home /srv/home.img")
	const id = estate.MachineID("0a000000-0000-4000-8000-00000000000d")
	def := driver.Definition{ID: id, Name: "desktop", CPUs: 1, Memory: 512 * estate.MiB, Disks: []driver.Disk{
		{Name: "root", Base: &driver.Content{Path: "/srv/small.raw", Format: estate.Raw, Size: small.Size}},
		{Name: "home", File: &driver.Content{Path: "/srv/home.img", Format: estate.Raw, Size: 64 * estate.MiB}},
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	if err := errors.Join(d.Define(ctx, def), d.Start(ctx, id)); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	g, ok := driver.As[driver.Guest](d)
	if !ok {
		t.Fatal("no commands run in guests")
	}
	eventually := func(what string, args ...string) string {
		t.Helper()
		for {
			out, err := g.Run(ctx, id, driver.Command{Args: args})
			if err == nil && out.Exit == 0 {
				t.Logf("%s after %v", what, time.Since(began).Round(time.Second))
				return strings.TrimSpace(string(out.Stdout))
			}
			if err != nil && !errors.Is(err, fault.Unavailable) && !errors.Is(err, fault.OutcomeUnknown) || ctx.Err() != nil {
				t.Fatalf("%s: %v, %s", what, err, out.Stderr)
			}
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
	if got := eventually("the agent answers", "cat", "/sys/hypervisor/type"); got != "xen" {
		t.Errorf("the guest runs on %q", got)
	}
	if got := eventually("the home is mounted", "findmnt", "-n", "-o", "SOURCE", "/home/user"); got != "/dev/xvdb" {
		t.Errorf("the home is %q, want the second disk", got)
	}
	eventually("the desktop is drawn", "test", "-e", "/run/consort/desktop")
	if err := d.Stop(ctx, id, 3*time.Minute); err != nil {
		t.Error(err)
	}
}

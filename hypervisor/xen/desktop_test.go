package xen_test

import (
	"context"
	"errors"
	"fmt"
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
// what its recipe says, as each type of guest: its agent answers, its home is
// that of the volume, it draws though it has no screen, and its agent answers
// again after it was saved. Under two layers of emulation that takes minutes.
func TestADesktopComesUp(t *testing.T) {
	needsXen(t)
	t.Parallel()
	small := guest.Small(t)
	raw := filepath.Join(t.TempDir(), "small.raw")
	if out, err := exec.Command("qemu-img", "convert", "-f", string(small.Format), "-O", "raw", small.Path, raw).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h, d := open(t, "")
	if err := h.Put(t.Context(), raw, "/srv/small.raw", 0o400); err != nil {
		t.Fatal(err)
	}
	h.Must(t, "sh", "-c", "truncate -s 64M /srv/home.img && mkfs.ext4 -q -L consort-home /srv/home.img")
	for i, gt := range []string{"pvh", "pv"} {
		t.Run(gt, func(t *testing.T) {
			comesUp(t, d, driver.Definition{
				ID: estate.MachineID(fmt.Sprintf("0a000000-0000-4000-8000-%012d", i)), Name: "desktop", GuestType: gt,
				CPUs: 1, Memory: 384 * estate.MiB, Disks: []driver.Disk{
					{Name: "root", Base: &driver.Content{Path: "/srv/small.raw", Format: estate.Raw, Size: small.Size}},
					{Name: "home", File: &driver.Content{Path: "/srv/home.img", Format: estate.Raw, Size: 64 * estate.MiB}},
				}})
		})
	}
}

func comesUp(t *testing.T, d driver.Host, def driver.Definition) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	saver, can := driver.As[driver.Saver](d)
	g, runs := driver.As[driver.Guest](d)
	if !can || !runs {
		t.Fatal("no commands run in guests, or they cannot be saved")
	}
	if err := errors.Join(d.Define(ctx, def), d.Start(ctx, def.ID)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	eventually := func(what string, args ...string) string {
		t.Helper()
		for {
			out, err := g.Run(ctx, def.ID, driver.Command{Args: args})
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
	if got := eventually("the agent answers", "cat", "/sys/hypervisor/guest_type"); !strings.EqualFold(got, def.GuestType) {
		t.Errorf("the guest is of type %q, want %q", got, def.GuestType)
	}
	if got := eventually("the home is mounted", "findmnt", "-n", "-o", "SOURCE", "/home/user"); got != "/dev/xvdb" {
		t.Errorf("the home is %q, want the second disk", got)
	}
	eventually("the desktop is drawn", "test", "-e", "/run/consort/desktop")
	boot := eventually("it is saved", "cat", "/proc/sys/kernel/random/boot_id")
	if err := errors.Join(saver.Save(ctx, def.ID), d.Start(ctx, def.ID)); err != nil {
		t.Fatal(err)
	}
	if got := eventually("the agent answers again", "cat", "/proc/sys/kernel/random/boot_id"); got != boot {
		t.Error("it began anew, and did not go on where it was saved")
	}
	if err := errors.Join(d.Stop(ctx, def.ID, 3*time.Minute), d.Delete(ctx, def.ID)); err != nil {
		t.Error(err)
	}
}

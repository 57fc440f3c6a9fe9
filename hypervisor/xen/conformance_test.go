package xen_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/drivertest"
	"consort.dev/consort/test/nested"
)

// needsXen skips a test that needs minutes and a host of its own.
func needsXen(t *testing.T) {
	t.Helper()
	if os.Getenv("CONSORT_HYPERVISORS") == "" {
		t.Skip("runs a nested Xen host: make test-hypervisors")
	}
}

// open returns a Xen host with our provider in it. Guests are booted by those
// loaders, Debian's when empty.
func open(t *testing.T, loaders string) (*nested.Host, *nested.Driver) {
	t.Helper()
	h := nested.Xen(t)
	const moves = 49200
	return h, h.Provider(t, "xen", fmt.Sprintf(":%d", moves), h.Expose(t, moves), loaders)
}

// trial is a Xen host with our provider in it, and what the suite may use there.
// Its guest boots from its loader, for GRUB reads disks so slowly here that it
// would be most of the suite; that it boots from its disk is TestVirshAgrees's.
func trial(t *testing.T, guestType string) drivertest.Bench {
	t.Helper()
	h, d := open(t, nested.TinyLoaders)
	ctx := t.Context()
	raw := make([]byte, estate.MiB)
	rand.NewChaCha8([32]byte{'x'}).Read(raw) // never fails
	const base = "/srv/base.raw"
	if err := h.Write(ctx, raw, base, 0o400); err != nil {
		t.Fatal(err)
	}
	strangers := 0
	return drivertest.Bench{
		Host: d, GuestType: guestType, Memory: 128 * estate.MiB, // GRUB for PVH holds the kernel twice
		Base: driver.Content{Path: base, Format: estate.Raw, Size: estate.Bytes(len(raw))}, Raw: raw,
		Dir:   "/srv",
		Write: func(path string, data []byte) error { return h.Write(ctx, data, path, 0o600) },
		Read: func(path string) ([]byte, error) {
			out, err := h.Run(ctx, nil, "cat", path)
			return out.Stdout, err
		},
		OS:   true, // a small one, with an agent
		Boot: 2 * time.Minute,
		Says: "heard ",
		Second: func() driver.Host {
			there, other := open(t, nested.TinyLoaders)
			if err := there.Write(ctx, raw, base, 0o400); err != nil {
				t.Fatal(err)
			}
			return other
		},
		Reopen: func() (driver.Host, error) {
			err := d.Kill(ctx)
			return d, err
		},
		Stranger: func(ctx context.Context) (estate.MachineID, error) {
			strangers++
			return stranger(ctx, h, strangers)
		},
		Blind: func(ctx context.Context, _ estate.MachineID) (func(), error) {
			err := script(ctx, h, "kill $(cat /run/libvirtd.pid); while pidof libvirtd; do sleep 0.1; done")
			return func() {
				script(context.WithoutCancel(ctx), h, "libvirtd -d --listen; until virsh -c xen:///system list; do sleep 0.2; done")
			}, err
		},
	}
}

// script runs a line of shell in the host.
func script(ctx context.Context, h *nested.Host, line string) error {
	out, err := h.Run(ctx, nil, "sh", "-c", "{ "+line+"; } > /tmp/script 2>&1")
	if err == nil && out.Exit != 0 {
		err = fmt.Errorf("%s: exit %d", line, out.Exit)
	}
	return err
}

// stranger defines a machine by libvirt's own means.
func stranger(ctx context.Context, h *nested.Host, n int) (estate.MachineID, error) {
	id := fmt.Sprintf("%02x000000-1111-4111-8111-111111111111", 255-n)
	disk := fmt.Sprintf("/srv/stranger-%d.raw", n)
	xml := fmt.Sprintf(`<domain type='xen'><name>stranger-%d</name><uuid>%s</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='xenpvh'>xenpvh</type><kernel>/usr/lib/grub-xen/grub-i386-xen_pvh.bin</kernel></os>
<devices><disk type='file' device='disk'><driver name='phy' type='raw'/><source file='%s'/><target dev='xvda' bus='xen'/></disk></devices></domain>`, n, id, disk)
	if err := h.Write(ctx, make([]byte, 1<<20), disk, 0o600); err != nil {
		return "", err
	}
	if err := h.Write(ctx, []byte(xml), "/tmp/stranger.xml", 0o600); err != nil {
		return "", err
	}
	out, err := h.Run(ctx, nil, "virsh", "-c", "xen:///system", "define", "/tmp/stranger.xml")
	if err == nil && out.Exit != 0 {
		err = fmt.Errorf("virsh define: %s", out.Stderr)
	}
	return estate.MachineID(id), err
}

func TestConformancePVH(t *testing.T) { conforms(t, "pvh") }

func TestConformancePV(t *testing.T) { conforms(t, "pv") }

// Each type of guest has hosts of its own, so that one uses what processors the
// other leaves.
func conforms(t *testing.T, guestType string) {
	needsXen(t)
	t.Parallel()
	drivertest.RunShared(t, func(t *testing.T) drivertest.Bench { return trial(t, guestType) })
}

// virsh asks libvirt without our code.
func virsh(t *testing.T, h *nested.Host, args ...string) string {
	t.Helper()
	return strings.TrimSpace(h.Must(t, append([]string{"virsh", "-c", "xen:///system"}, args...)...))
}

package libvirt_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/drivertest"
	"consort.dev/consort/test/nested"
)

// sector is what testdata/boot.S of the QEMU provider does with its console:
// 16 bits that write K to it and to every key, and no more.
var sector = []byte{0x31, 0xc0, 0x8e, 0xd8, 0xba, 0xf8, 0x03, 0xb0, 'K', 0xee, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf8, 0xba, 0xf8, 0x03, 0xec, 0xb0, 'K', 0xee, 0xeb, 0xef}

// TestConformanceKVM holds the provider to the contract on a nested host whose
// processor virtualises: the probe finds that KVM runs there.
func TestConformanceKVM(t *testing.T) {
	if os.Getenv("CONSORT_HYPERVISORS") == "" {
		t.Skip("runs a nested KVM host: make test-hypervisors")
	}
	drivertest.RunShared(t, func(t *testing.T) drivertest.Bench {
		h := nested.KVM(t)
		ctx := t.Context()
		raw := make([]byte, 512)
		copy(raw, sector)
		raw[510], raw[511] = 0x55, 0xaa
		const base = "/srv/boot.img"
		if err := h.Write(ctx, raw, base, 0o444); err != nil {
			t.Fatal(err)
		}
		d := h.Provider(t, "libvirt")
		desc, err := d.Describe(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if desc.Accelerator != "kvm" {
			t.Fatalf("the accelerator is %s: %s", desc.Accelerator, desc.Because)
		}
		t.Logf("%s with %s: %s", desc.Product, desc.Accelerator, desc.Because)
		strangers := 0
		return drivertest.Bench{
			Host: d, Base: driver.Content{Path: base, Format: estate.Raw, Size: 512}, Raw: raw, Dir: "/srv", Says: "K",
			Write: func(path string, data []byte) error { return h.Write(ctx, data, path, 0o600) },
			Read: func(path string) ([]byte, error) {
				out, err := h.Run(ctx, nil, "cat", path)
				return out.Stdout, err
			},
			Reopen: func() (driver.Host, error) {
				err := d.Kill(ctx)
				return d, err
			},
			Stranger: func(ctx context.Context) (estate.MachineID, error) {
				strangers++
				return stranger(ctx, h, strangers)
			},
		}
	})
}

// stranger defines a machine by virsh.
func stranger(ctx context.Context, h *nested.Host, n int) (estate.MachineID, error) {
	id, disk := fmt.Sprintf("77000000-0000-4000-8000-%012d", n), fmt.Sprintf("/srv/stranger-%d.img", n)
	xml := fmt.Sprintf(`<domain type='kvm'><name>stranger-%d</name><uuid>%s</uuid><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='%s'/><target dev='vda' bus='virtio'/></disk></devices></domain>`, n, id, disk)
	if err := h.Write(ctx, make([]byte, 1<<20), disk, 0o600); err != nil {
		return "", err
	}
	if err := h.Write(ctx, []byte(xml), "/tmp/stranger.xml", 0o600); err != nil {
		return "", err
	}
	out, err := h.Run(ctx, nil, "virsh", "-c", "qemu:///system", "define", "/tmp/stranger.xml")
	if err == nil && out.Exit != 0 {
		err = fmt.Errorf("virsh define: %s", out.Stderr)
	}
	return estate.MachineID(id), err
}

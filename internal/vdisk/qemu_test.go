package vdisk

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestDisksOfQEMUAreTaken proves that what is refused is not what everybody has.
func TestDisksOfQEMUAreTaken(t *testing.T) {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("qemu-img is not installed")
	}
	raw := filepath.Join(t.TempDir(), "raw")
	content := make([]byte, 8<<20)
	for i := range content[:3<<20] {
		content[i] = byte(i * i >> 9)
	}
	if err := os.WriteFile(raw, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{
		{"qcow2"}, {"qcow2", "-o", "compat=0.10"}, {"qcow2", "-c"}, {"qcow2", "-c", "-o", "compression_type=zstd"},
		{"qcow2", "-o", "cluster_size=512"}, {"qcow2", "-o", "cluster_size=2M"}, {"qcow2", "-o", "preallocation=falloc"},
		{"qcow2", "-o", "refcount_bits=1,lazy_refcounts=on"},
		{"vmdk"}, {"vmdk", "-o", "subformat=streamOptimized"}, {"vmdk", "-o", "zeroed_grain=on,hwversion=6"},
	} {
		path := filepath.Join(t.TempDir(), "disk")
		args := append([]string{"convert", "-f", "raw", "-O"}, append(c, raw, path)...)
		if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
			t.Fatalf("qemu-img %v: %v: %s", args, err, out)
		}
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		check := CheckQCOW2
		if c[0] == "vmdk" {
			check = CheckVMDK
		}
		got, err := check(bytes.NewReader(file), int64(len(file)))
		if err != nil || got.Size != 8<<20 {
			t.Errorf("%v: got %+v, %v, want a disk of 8 MiB", c, got, err)
		}
	}
}

package image_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/image"
	"consort.dev/consort/internal/vdisk/vdisktest"
)

func write(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestASoundDiskIsImportedAsItIs(t *testing.T) {
	s := open(t, t.TempDir())
	path := write(t, vdisktest.QCOW2())
	facts := estate.GuestFacts{OS: "debian-12", Agent: true}
	var last estate.Work
	rec, err := image.Import(t.Context(), estate.Import{Path: path, Format: estate.QCOW2, Guest: facts}, s,
		image.Options{Report: func(w estate.Work) { last = w }})
	if err != nil {
		t.Fatal(err)
	}
	if rec.Format != estate.QCOW2 || rec.Size != 4*estate.MiB || rec.Guest.OS != facts.OS || rec.Kind != image.KindImage {
		t.Errorf("record = %+v", rec)
	}
	if last.Phase != "store" || last.Step != 3 || last.Steps != 3 {
		t.Errorf("last report = %+v, want the third of three phases", last)
	}
	if err := s.Verify(t.Context(), rec.Digest); err != nil {
		t.Error(err)
	}
	again, err := image.Import(t.Context(), estate.Import{Path: path, Format: estate.QCOW2, Digest: rec.Digest}, s, image.Options{})
	if err != nil || again.Digest != rec.Digest {
		t.Errorf("a second import gave %v, %v, want %s", again.Digest, err, rec.Digest)
	}
}

func TestARawDiskThatBeginsLikeAnotherStaysRaw(t *testing.T) {
	s := open(t, t.TempDir())
	content := vdisktest.QCOW2()
	rec, err := image.Import(t.Context(), estate.Import{Path: write(t, content), Format: estate.Raw}, s, image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Get(rec.Digest)
	if err != nil || e.Format != estate.Raw || e.Size != vdisktest.QCOW2Length {
		t.Errorf("got %+v, %v, want a raw disk of %d bytes", e, err, vdisktest.QCOW2Length)
	}
	got, err := os.ReadFile(e.Path)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("the content changed: %v", err)
	}
}

func TestAVMDKBecomesQCOW2(t *testing.T) {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("qemu-img is not installed")
	}
	s := open(t, t.TempDir())
	rec, err := image.Import(t.Context(), estate.Import{Path: write(t, vdisktest.VMDK()), Format: estate.VMDK}, s, image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if rec.Format != estate.QCOW2 || rec.Size != 32*estate.MiB {
		t.Errorf("got %+v, want a qcow2 disk of 32Mi", rec)
	}
	e, _ := s.Get(rec.Digest)
	back := filepath.Join(t.TempDir(), "raw")
	if out, err := exec.Command("qemu-img", "convert", "-f", "qcow2", "-O", "raw", e.Path, back).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got, err := os.ReadFile(back)
	if err != nil || len(got) != 32<<20 || string(got[:4]) != "data" {
		t.Errorf("the disk begins %q, %d bytes, %v; want data, 32 MiB", got[:4], len(got), err)
	}
}

func TestWhatDoesNotHashAsDeclaredIsRefused(t *testing.T) {
	s := open(t, t.TempDir())
	_, err := image.Import(t.Context(), estate.Import{Path: write(t, vdisktest.QCOW2()), Format: estate.QCOW2, Digest: hello}, s, image.Options{})
	if !errors.Is(err, fault.Invalid) {
		t.Errorf("got %v, want invalid", err)
	}
	if all, _ := s.List(); all != nil {
		t.Errorf("the store holds %v", all)
	}
}

func TestImportTakesFilesOnly(t *testing.T) {
	s := open(t, t.TempDir())
	for path, want := range map[string]fault.Kind{"/nowhere/disk": fault.NotFound, "/dev/zero": fault.Invalid, t.TempDir(): fault.Invalid} {
		if _, err := image.Import(t.Context(), estate.Import{Path: path, Format: estate.Raw}, s, image.Options{}); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", path, err, want)
		}
	}
}

func TestAStoppedImportLeavesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := image.Import(ctx, estate.Import{Path: write(t, vdisktest.QCOW2()), Format: estate.QCOW2}, s, image.Options{})
	if !errors.Is(err, fault.Unavailable) {
		t.Errorf("got %v, want unavailable", err)
	}
	if left := drafts(s.Dir()); left != nil {
		t.Errorf("drafts are left: %v", left)
	}
}

// TestNoHostileDiskBringsOutTheCanary plants a file that the hostile disks name
// and looks for it in all that the store holds afterwards.
func TestNoHostileDiskBringsOutTheCanary(t *testing.T) {
	const canary = "canary-7f3a-you-should-never-read-this-in-a-disk"
	dir := t.TempDir()
	for _, p := range []string{"canary", "disk.vmdk"} {
		if err := os.WriteFile(filepath.Join(dir, p), bytes.Repeat([]byte(canary), 100), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, filepath.Join(dir, "store"))
	samples := vdisktest.Hostile(filepath.Join(dir, "canary"))
	if len(samples) < 100 {
		t.Errorf("there are %d hostile disks, want at least 100", len(samples))
	}
	for _, h := range samples {
		file := h.File
		path := filepath.Join(dir, "offered")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, format := range []estate.DiskFormat{estate.QCOW2, estate.VMDK, "vpc", ""} {
			if rec, err := image.Import(t.Context(), estate.Import{Path: path, Format: format}, s, image.Options{}); !errors.Is(err, fault.Invalid) {
				t.Errorf("%s as %q: got %v, %v, want invalid", h.Name, format, rec, err)
			}
		}
		if len(file) > 0 && len(file)%512 == 0 {
			if _, err := image.Import(t.Context(), estate.Import{Path: path, Format: estate.Raw}, s, image.Options{}); err != nil {
				t.Errorf("%s as raw: %v", h.Name, err)
			}
		}
	}
	all, err := s.List()
	if err != nil || len(all) == 0 {
		t.Fatalf("list = %d, %v", len(all), err)
	}
	for _, rec := range all {
		e, _ := s.Get(rec.Digest)
		data, err := os.ReadFile(e.Path)
		if err != nil || bytes.Contains(data, []byte(canary)) || rec.Format != estate.Raw {
			t.Errorf("%s: %v, format %s, holds the canary: %v", rec.Digest, err, rec.Format, bytes.Contains(data, []byte(canary)))
		}
	}
}

package vdisk

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"consort.dev/consort/internal/vdisk/vdisktest"
)

func TestGoodDisksAreTaken(t *testing.T) {
	got, err := CheckQCOW2(bytes.NewReader(vdisktest.QCOW2()), vdisktest.QCOW2Length)
	if want := (Info{4 << 20, "version 3"}); err != nil || got != want {
		t.Errorf("qcow2: got %v, %v, want %v", got, err, want)
	}
	v := vdisktest.VMDK()
	got, err = CheckVMDK(bytes.NewReader(v), int64(len(v)))
	if want := (Info{32 << 20, "monolithicSparse"}); err != nil || got != want {
		t.Errorf("vmdk: got %v, %v, want %v", got, err, want)
	}
	got, err = CheckRaw(1 << 20)
	if want := (Info{1 << 20, "raw"}); err != nil || got != want {
		t.Errorf("raw: got %v, %v, want %v", got, err, want)
	}
}

// QEMU leaves the end of a longer descriptor: one VMDK of it in some hundred.
func TestDescriptorsMayHaveGrownShorter(t *testing.T) {
	v := vdisktest.VMDK()
	descriptor := v[512 : 21*512]
	copy(descriptor, strings.Replace(vdisktest.Descriptor, "fffffffe", "39294e", 1)+"\x00")
	if end := bytes.IndexByte(descriptor, 0); descriptor[end+1] != '\n' {
		t.Fatalf("behind the end stands %q, want the newline of the longer one", descriptor[end+1])
	}
	if _, err := CheckVMDK(bytes.NewReader(v), int64(len(v))); err != nil {
		t.Errorf("refused: %v", err)
	}
}

func TestHostileDisksAreRefused(t *testing.T) {
	for _, h := range vdisktest.Hostile("/canary") {
		t.Run(h.Name, func(t *testing.T) {
			check := CheckQCOW2
			if h.Format == "vmdk" {
				check = CheckVMDK
			}
			got, err := check(bytes.NewReader(h.File), int64(len(h.File)))
			var refused *Refusal
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), h.Says) {
				t.Errorf("got %v, %v, want a refusal that says %q", got, err, h.Says)
			}
		})
	}
}

func TestRawDisksMayBeAnything(t *testing.T) {
	for length, ok := range map[int64]bool{0: false, -1: false, 511: false, 512: true, MaxSize: true, MaxSize + 512: false} {
		if _, err := CheckRaw(length); (err == nil) != ok {
			t.Errorf("%d bytes: %v, want taken %v", length, err, ok)
		}
	}
}

// brokenReader fails as a failing disk does.
type brokenReader struct{}

func (brokenReader) ReadAt([]byte, int64) (int, error) { return 0, errors.New("input/output error") }

func TestAFailingFileIsNoRefusal(t *testing.T) {
	var refused *Refusal
	if _, err := CheckQCOW2(brokenReader{}, 1<<20); err == nil || errors.As(err, &refused) {
		t.Errorf("got %v, want the error of the file", err)
	}
}

func FuzzQCOW2(f *testing.F) {
	f.Add(vdisktest.QCOW2())
	for _, h := range vdisktest.Hostile("/canary") {
		if h.Format == "qcow2" {
			f.Add(h.File)
		}
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		got, err := CheckQCOW2(bytes.NewReader(file), int64(len(file)))
		sane(t, got, err)
	})
}

func FuzzVMDK(f *testing.F) {
	f.Add(vdisktest.VMDK())
	for _, h := range vdisktest.Hostile("/canary") {
		if h.Format == "vmdk" {
			f.Add(h.File)
		}
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		got, err := CheckVMDK(bytes.NewReader(file), int64(len(file)))
		sane(t, got, err)
	})
}

func sane(t *testing.T, got Info, err error) {
	t.Helper()
	if err == nil && (got.Size <= 0 || got.Size > MaxSize || got.Size%sector != 0 || got.Variant == "") {
		t.Errorf("taken with %+v", got)
	}
	var refused *Refusal
	if err != nil && !errors.As(err, &refused) {
		t.Errorf("a file in memory gave %v, want a refusal", err)
	}
	if err != nil && fmt.Sprint(err) == "" {
		t.Error("a refusal says nothing")
	}
}

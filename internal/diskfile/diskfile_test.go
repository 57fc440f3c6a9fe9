package diskfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"consort.dev/consort/fault"
)

const size = 1 << 20

func pattern(fill byte) []byte {
	data := make([]byte, size)
	for i := 0; i < size; i += 3 * 65536 {
		copy(data[i:], bytes.Repeat([]byte{fill}, 65536))
	}
	return data
}

func tool(t *testing.T) Tool {
	t.Helper()
	path, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed")
	}
	return Tool(path)
}

func TestADiskIsWhatWasImported(t *testing.T) {
	for _, format := range []string{Raw, QCOW2} {
		dir := t.TempDir()
		f, data := File{filepath.Join(dir, "disk"), format}, pattern('a')
		if err := tool(t).Import(t.Context(), f, bytes.NewReader(data), size, dir+"/scratch"); err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := tool(t).Export(t.Context(), &got, []File{f}, size, dir+"/scratch"); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), data) {
			t.Errorf("%s: %d bytes came back, unequal to the %d that went", format, got.Len(), size)
		}
		if left, _ := os.ReadDir(dir); len(left) != 1 {
			t.Errorf("%s: %v is left", format, left)
		}
	}
}

func TestALayerReadsThroughToItsBase(t *testing.T) {
	dir := t.TempDir()
	base, top := File{dir + "/base", Raw}, File{dir + "/top", QCOW2}
	if err := os.WriteFile(base.Path, []byte("base"), 0o444); err != nil {
		t.Fatal(err)
	}
	if err := tool(t).Create(t.Context(), top.Path, &base, size); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := tool(t).Export(t.Context(), &got, []File{top, base}, size, dir+"/scratch"); err != nil {
		t.Fatal(err)
	}
	if got.Len() != size || !bytes.HasPrefix(got.Bytes(), []byte("base\x00")) {
		t.Errorf("the disk begins with %q and has %d bytes", got.Bytes()[:8], got.Len())
	}
	if h, err := Head(top.Path); err != nil || h != (Header{Size: size, Backed: true}) {
		t.Errorf("Head = %+v, %v", h, err)
	}
}

func TestAnImportThatFailsLeavesTheOld(t *testing.T) {
	for name, r := range map[string]io.Reader{
		"short":  bytes.NewReader(make([]byte, size-1)),
		"long":   bytes.NewReader(make([]byte, size+1)),
		"broken": io.MultiReader(bytes.NewReader(make([]byte, 9)), iotest.ErrReader(fmt.Errorf("a line that was cut: %w", io.ErrUnexpectedEOF))),
	} {
		for _, format := range []string{Raw, QCOW2} {
			dir := t.TempDir()
			f := File{dir + "/disk", format}
			if err := os.WriteFile(f.Path, []byte("old"), 0o640); err != nil {
				t.Fatal(err)
			}
			err := tool(t).Import(t.Context(), f, r, size, dir+"/scratch")
			if want := map[bool]fault.Kind{true: fault.Unavailable, false: fault.Invalid}[name == "broken"]; format == Raw && !errors.Is(err, want) || err == nil {
				t.Errorf("%s %s: %v, want %v", name, format, err, want)
			}
			if b, err := os.ReadFile(f.Path); err != nil || string(b) != "old" {
				t.Errorf("%s %s: the file holds %q, %v", name, format, b, err)
			}
		}
	}
}

func TestAnImportKeepsOwnerAndPermissions(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	path := t.TempDir() + "/disk"
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, 0o640), os.Chown(path, 1234, -1)); err != nil {
		t.Fatal(err)
	}
	if err := tool(t).Import(t.Context(), File{path, Raw}, bytes.NewReader(pattern('b')), size, path+"-scratch"); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Uid != 1234 || st.Mode&0o777 != 0o640 {
		t.Errorf("the file is %d's with mode %o, %v", st.Uid, st.Mode&0o777, err)
	}
}

func TestACopyHasTheContentAndTheHoles(t *testing.T) {
	dir, data := t.TempDir(), pattern('c')
	if err := os.WriteFile(dir+"/one", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Copy(t.Context(), dir+"/two", dir+"/one"); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dir + "/two"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the copy is unequal, %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Copy(ctx, dir+"/three", dir+"/one"); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("a canceled copy = %v", err)
	}
}

func TestADiskThatKeepsItsDataElsewhereIsRefused(t *testing.T) {
	path := t.TempDir() + "/evil"
	head := make([]byte, 104)
	copy(head, "QFI\xfb\x00\x00\x00\x03")
	head[79] = 1 << 2
	if err := os.WriteFile(path, head, 0o600); err != nil {
		t.Fatal(err)
	}
	err := tool(t).Export(t.Context(), io.Discard, []File{{path, QCOW2}}, size, path+"-scratch")
	if !errors.Is(err, fault.Denied) {
		t.Errorf("Export = %v, want %v", err, fault.Denied)
	}
}

func TestALinkIsNoDisk(t *testing.T) {
	path := t.TempDir() + "/link"
	if err := os.Symlink("/etc/passwd", path); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil {
		t.Error("a link was opened")
	}
}

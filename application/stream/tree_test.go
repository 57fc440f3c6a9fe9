package stream

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"consort.dev/consort/fault"
)

// pack makes an archive of members; a member with content is a file.
func pack(t testing.TB, members ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range members {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content = "content of " + h.Name
			h.Size = int64(len(content))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg} }

func link(name, target string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}
}

// chain makes links each of which leads to the next.
func chain() []tar.Header {
	var hs []tar.Header
	for i := range 40 {
		hs = append(hs, link(fmt.Sprintf("usr/%d", i), fmt.Sprintf("/usr/%d", i+1)))
	}
	return append(hs, file("usr/0/x"))
}

// unpacked returns the tree of archives, laid one over the other.
func unpacked(t testing.TB, archives ...[]byte) (*tree, error) {
	t.Helper()
	s, err := newSpool(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close() })
	tr := newTree()
	for _, a := range archives {
		if err := addTar(tr, bytes.NewReader(a), "test", s); err != nil {
			return tr, err
		}
	}
	return tr, nil
}

func TestHostileArchivesAreRefused(t *testing.T) {
	for _, c := range []struct {
		what    string
		members []tar.Header
		want    string
	}{
		{"a way out", []tar.Header{file("usr/../../etc/passwd")}, "leads out of the archive"},
		{"a way out at once", []tar.Header{file("../x")}, "leads out of the archive"},
		{"a disk", []tar.Header{{Name: "dev/sda", Typeflag: tar.TypeBlock, Devmajor: 8}}, "neither a file"},
		{"a whiteout", []tar.Header{{Name: "usr/bin/sh", Typeflag: tar.TypeChar}}, "neither a file"},
		{"a pipe", []tar.Header{{Name: "usr/p", Typeflag: tar.TypeFifo}}, "neither a file"},
		{"a hard link to nothing", []tar.Header{{Name: "usr/a", Typeflag: tar.TypeLink, Linkname: "etc/shadow"}}, "no file before it"},
		{"a hard link out", []tar.Header{{Name: "usr/a", Typeflag: tar.TypeLink, Linkname: "../etc/shadow"}}, "leads out"},
		{"links in a circle", []tar.Header{link("usr/a", "b"), link("usr/b", "a"), file("usr/a/x")}, "too many symbolic links"},
		{"a chain of links", chain(), "too many symbolic links"},
		{"a file that is a directory", []tar.Header{file("usr/a"), file("usr/a/b")}, "is a file and a directory"},
		{"a directory that becomes a file", []tar.Header{file("usr/a/b"), file("usr/a")}, "is a directory in one package"},
		{"a long name", []tar.Header{file("usr/" + strings.Repeat("x", 300))}, "too long"},
		{"a strange owner", []tar.Header{{Name: "usr/a", Typeflag: tar.TypeDir, Uid: 1 << 33}}, "belongs to account"},
	} {
		_, err := unpacked(t, pack(t, c.members...))
		if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want invalid: %q", c.what, err, c.want)
		}
	}
}

func TestALinkLeadsNowhereButIntoTheTree(t *testing.T) {
	tr, err := unpacked(t,
		pack(t, link("usr/lib/app/data", "/../../../../var/data"), link("usr/lib/app/up", "../../../../../../../opt")),
		pack(t, file("usr/lib/app/data/x"), file("usr/lib/app/up/y")))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"var/data/x", "opt/y"} {
		if n := tr.nodes[name]; n == nil || !n.mode.IsRegular() {
			t.Errorf("%s: %+v, want a file", name, n)
		}
	}
}

func TestRightsThatGoBeyondThePersonAreDropped(t *testing.T) {
	tr, err := unpacked(t, pack(t, tar.Header{Name: "usr/bin/su", Typeflag: tar.TypeReg, Mode: 0o6755}))
	if err != nil {
		t.Fatal(err)
	}
	if got := tr.nodes["usr/bin/su"].mode; got != 0o755 {
		t.Errorf("mode %v, want 0755", got)
	}
}

func TestPackagesAreLaidOverEachOtherAsDpkgDoes(t *testing.T) {
	tr, err := unpacked(t,
		pack(t, link("usr/share/app", "../lib/app"), file("lib/x86_64-linux-gnu/liba.so"), file("usr/etc"), file("usr/lib/app/x")),
		pack(t, tar.Header{Name: "usr/share/app/", Typeflag: tar.TypeDir}, file("usr/share/app/y"), file("usr/etc"),
			link("usr/lib/app", "/elsewhere"), file("home/a"), file("run/b"), file("usr/share/doc/app/copyright"),
			tar.Header{Name: "usr/empty/", Typeflag: tar.TypeDir}, tar.Header{Name: "var/lib/app/", Typeflag: tar.TypeDir}))
	if err != nil {
		t.Fatal(err)
	}
	tr.keep()
	var files []string
	for _, name := range tr.names() {
		if !tr.nodes[name].mode.IsDir() {
			files = append(files, name)
		}
	}
	want := []string{"usr/etc", "usr/lib/app/x", "usr/lib/app/y", "usr/lib/x86_64-linux-gnu/liba.so", "usr/share/app"}
	if d := cmp.Diff(want, files); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
	if tr.nodes["usr/empty"] != nil || tr.nodes["var/lib/app"] == nil {
		t.Error("an empty directory is kept under var and etc only")
	}
}

func TestScriptsAreReadAndNotRun(t *testing.T) {
	script := `#!/bin/sh
set -e
ucf --three-way "/usr/lib/app/.registry/main" "/etc/app/main"
ucf $VARIABLE /etc/app/other
ucf /usr/lib/absent /etc/app/absent
rm -rf /
update-alternatives --install /usr/bin/edit edit /usr/bin/app 50 \
	--slave /usr/share/edit.png edit.png /usr/share/app.png
update-alternatives --install /usr/bin/edit edit /usr/bin/worse 10
if true; then update-alternatives --install '/usr/bin/own' own /usr/bin/app 10; fi
`
	tr, err := unpacked(t, pack(t, file("usr/lib/app/.registry/main"), file("usr/bin/app"), file("usr/bin/worse"),
		file("usr/share/app.png"), file("usr/bin/own")))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range deeds(script) {
		if err := tr.do(d, "test"); err != nil {
			t.Error(err)
		}
	}
	if a, b := tr.nodes["etc/app/main"], tr.nodes["usr/lib/app/.registry/main"]; a == nil || a.offset != b.offset || a.size != b.size {
		t.Errorf("etc/app/main: %+v, want a copy of %+v", a, b)
	}
	for name, target := range map[string]string{"usr/bin/edit": "/usr/bin/app", "usr/share/edit.png": "/usr/share/app.png"} {
		if n := tr.nodes[name]; n == nil || n.target != target {
			t.Errorf("%s: %+v, want a link to %s", name, n, target)
		}
	}
	if n := tr.nodes["usr/bin/own"]; n == nil || !n.mode.IsRegular() {
		t.Errorf("usr/bin/own: %+v; what a package brought stays", n)
	}
	if n := tr.nodes["etc/app/other"]; n != nil {
		t.Errorf("etc/app/other was made of a variable: %+v", n)
	}
}

func TestArchiveNamesAreApts(t *testing.T) {
	for line, want := range map[string]string{
		"Inst x11-apps (7.7+9 Debian:12.11/oldstable [amd64])":                          "x11-apps_7.7+9_amd64.deb",
		"Inst libxmuu1 [2:1.1.3-2] (2:1.1.3-3 Debian:12.11/oldstable [amd64])":          "libxmuu1_2%3a1.1.3-3_amd64.deb",
		"Inst libc6:i386 (2.36-9 Debian:12/a, Debian-Security:12/b [i386]) [other:amd]": "libc6_2.36-9_i386.deb",
	} {
		if got, err := archiveName(line); err != nil || got != want {
			t.Errorf("archiveName(%q) = %q, %v; want %q", line, got, err, want)
		}
	}
	for _, line := range []string{"Inst", "Inst x", "Inst x )(", "Inst x ()", "Inst x (1)", "Inst ../x (1 a [b])", "Inst x (/1 a [b])"} {
		if got, err := archiveName(line); err == nil {
			t.Errorf("archiveName(%q) = %q, want an error", line, got)
		}
	}
}

// FuzzAddTar looks for archives that get anything but clean names, plain modes
// and content inside the spool into the tree.
func FuzzAddTar(f *testing.F) {
	f.Add(pack(f, file("usr/a"), link("usr/b", "a"), tar.Header{Name: "usr/c", Typeflag: tar.TypeLink, Linkname: "usr/a"}))
	f.Add(pack(f, link("usr/b", "../../.."), file("usr/b/x")))
	f.Add(pack(f, tar.Header{Name: "lib/", Typeflag: tar.TypeDir, ModTime: time.Unix(1, 0)}))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := newSpool(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		tr := newTree()
		_ = addTar(tr, bytes.NewReader(data), "fuzz", s)
		for name, n := range tr.nodes {
			if !fs.ValidPath(name) {
				t.Errorf("name %q", name)
			}
			if n.mode&^(fs.ModeDir|fs.ModeSymlink|0o777) != 0 {
				t.Errorf("%q has mode %v", name, n.mode)
			}
			if n.mode.IsRegular() && (n.offset < 0 || n.size < 0 || n.offset+n.size > s.end) {
				t.Errorf("%q lies at %d+%d of %d", name, n.offset, n.size, s.end)
			}
		}
	})
}

// FuzzDeeds looks for scripts that make the reader stumble.
func FuzzDeeds(f *testing.F) {
	f.Add("ucf --three-way \"/usr/a\" \"/etc/b\"\n")
	f.Add("update-alternatives --install /usr/bin/a a /usr/b 10 --slave /c c \\\n /d\n")
	f.Fuzz(func(t *testing.T, script string) {
		tr := newTree()
		for _, d := range deeds(script) {
			if !strings.HasPrefix(d.from, "/") || !strings.HasPrefix(d.to, "/") {
				t.Errorf("deed %+v", d)
			}
			_ = tr.do(d, "fuzz")
		}
		if names := tr.names(); slices.ContainsFunc(names, func(n string) bool { return !fs.ValidPath(n) }) {
			t.Errorf("names %q", names)
		}
	})
}

package image

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"consort.dev/consort/estate"
)

func TestSourcesAreThoseOfTheSuite(t *testing.T) {
	targets := `http://a/debian/ bookworm main
http://a/debian/ bookworm main
http://a/debian/ bookworm-updates main
http://a/debian/ bookworm contrib
http://s/debian-security/ bookworm-security main
https://vendor/apt vendor-bookworm main
https://vendor/apt bookworm stable
http://a/debian/ trixie main
`
	want := `deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://a/debian/ bookworm main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://a/debian/ bookworm-updates main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://s/debian-security/ bookworm-security main
`
	if got := pickSources(targets, "bookworm"); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := pickSources(targets, "sid"); got != "" {
		t.Errorf("of a suite that is not there: %q", got)
	}
}

func TestProgressGoesUpToTheEndOfThePhase(t *testing.T) {
	var seen []int
	b := &build{opt: Options{Report: func(w estate.Work) { seen = append(seen, w.Percent) }}, log: &tail{}}
	b.enter(0, phases()[0])
	w := &aptProgress{b: b}
	lines := "0 upgraded, 100 newly installed, 0 to remove\n" + strings.Repeat("Get:1 x\nUnpacking x\nSetting up x\n", 120)
	for _, part := range strings.SplitAfter(lines, "p") { // lines come in pieces
		if _, err := w.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	for i := 1; i < len(seen); i++ {
		if seen[i] <= seen[i-1] {
			t.Fatalf("percent went from %d to %d", seen[i-1], seen[i])
		}
	}
	if first, last := seen[0], seen[len(seen)-1]; first != 0 || last != 70 || len(seen) < 50 {
		t.Errorf("%d reports from %d to %d, want many from 0 to 70", len(seen), first, last)
	}
}

func TestTheLastLinesOfTheLogAreWhole(t *testing.T) {
	l := &tail{}
	for range 1000 {
		if _, err := l.Write([]byte("a line of the log\n")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Write([]byte("E: the reason")); err != nil {
		t.Fatal(err)
	}
	got := l.String()
	if !strings.HasPrefix(got, "a line of the log\n") || !strings.HasSuffix(got, "\nE: the reason") || len(got) > tailBytes {
		t.Errorf("got %q", got)
	}
}

func TestAFileOfARecipeNeverLeavesTheSystem(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, to := range map[string]string{"file": outside, "dir": filepath.Dir(outside)} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := place(root, estate.RecipeFile{Path: "/file", Mode: "4755", Content: "new"}); err != nil {
		t.Errorf("a link at the end: %v, want it replaced", err)
	}
	if info, err := os.Lstat(filepath.Join(dir, "file")); err != nil || info.Mode() != os.ModeSetuid|0o755 {
		t.Errorf("mode = %v, %v, want setuid 0755", info.Mode(), err)
	}
	if err := place(root, estate.RecipeFile{Path: "/dir/outside", Content: "new"}); err == nil {
		t.Error("a link on the way out was followed")
	}
	if got, err := os.ReadFile(outside); err != nil || string(got) != "kept" {
		t.Errorf("the file outside is %q, %v", got, err)
	}
}

func TestModulesAreLoadedAfterWhatTheyNeed(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"modules.dep": "kernel/virtio_blk.ko: kernel/virtio.ko kernel/virtio_ring.ko\nkernel/virtio.ko: kernel/virtio_ring.ko\n" +
			"kernel/virtio_ring.ko:\nkernel/ext4.ko:\n",
		"modules.alias": "# of depmod\nalias virtio:d00000002v* virtio_blk\nalias block-major-8-* virtio_blk\nalias fs-ext4 ext4\n",
		"virtio_blk.ko": "b", "virtio.ko": "v", "virtio_ring.ko": "r", "ext4.ko": "e", "busybox": "box",
	} {
		if strings.HasSuffix(name, ".ko") {
			name = "kernel/" + name
		}
		if err := os.MkdirAll(filepath.Join(dir, "kernel"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, err := readModules(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(all.closure("virtio-blk"), " "), "kernel/virtio_ring.ko kernel/virtio.ko kernel/virtio_blk.ko"; got != want {
		t.Errorf("closure = %s, want %s", got, want)
	}
	if got := all.closure("built_in"); got != nil {
		t.Errorf("closure of what the kernel has built in = %v", got)
	}
	want := "\tcase $1 in virtio:d00000002v*) load virtio_ring virtio virtio_blk;; esac"
	if got := driverTable(all); got != want {
		t.Errorf("table =\n%s\nwant\n%s", got, want)
	}
	to := filepath.Join(dir, "initrd")
	if err := writeInitramfs(to, all, filepath.Join(dir, "busybox")); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"init", "bin/busybox", "m/virtio_blk.ko", "m/ext4.ko", "TRAILER!!!"} {
		if !bytes.Contains(got, []byte(name+"\x00")) {
			t.Errorf("the archive lacks %s", name)
		}
	}
	if len(got)%4 != 0 || !bytes.HasPrefix(got, []byte("070701")) || bytes.Contains(got, []byte("@DRIVERS@")) {
		t.Errorf("the archive is malformed")
	}
}

func TestIdentifiersComeFromTheRecipe(t *testing.T) {
	a := &build{key: Key(estate.Recipe{Suite: "bookworm"})}
	b := &build{key: Key(estate.Recipe{Suite: "trixie"})}
	if a.uuid("disk") != a.uuid("disk") || a.uuid("disk") == a.uuid("esp") || a.uuid("disk") == b.uuid("disk") {
		t.Errorf("got %s, %s, %s", a.uuid("disk"), a.uuid("esp"), b.uuid("disk"))
	}
}

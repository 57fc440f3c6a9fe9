package stream

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/erofs/go-erofs"

	"consort.dev/consort/application/driver"
	"consort.dev/consort/estate"
)

// TestBuildTwiceGivesTheSameBytes cuts a real package, twice, and downloads it
// both times.
func TestBuildTwiceGivesTheSameBytes(t *testing.T) {
	r := realRecipe(t, "x11-apps")
	var sums [2][32]byte
	for i := range sums {
		cache := cacheDir(t)
		if err := os.RemoveAll(filepath.Join(cache, "archives")); err != nil {
			t.Fatal(err)
		}
		p := New(Config{Cache: cache})
		dir := t.TempDir()
		var works []estate.Work
		file, err := p.Build(t.Context(), r, dir, func(w estate.Work) { works = append(works, w) })
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sums[i] = sha256.Sum256(data)
		if left := names(t, dir); !slices.Equal(left, []string{filepath.Base(file)}) {
			t.Errorf("left in dir: %v, want the layer only", left)
		}
		checkWorks(t, works)
		if i == 0 {
			checkXcalc(t, data)
		}
	}
	if sums[0] != sums[1] {
		t.Errorf("digests %x and %x, want one", sums[0][:6], sums[1][:6])
	}
}

func checkXcalc(t *testing.T, image []byte) {
	t.Helper()
	if len(image)%grid != 0 {
		t.Errorf("size %d is no multiple of %d", len(image), grid)
	}
	f, err := erofs.Open(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	if st, err := fs.Stat(f, "usr/bin/xcalc"); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("usr/bin/xcalc: %v %v, want mode 0755", st, err)
	}
	if _, err := fs.Stat(f, "usr/share/man"); err == nil {
		t.Error("the layer carries manual pages")
	}
}

func checkWorks(t *testing.T, works []estate.Work) {
	t.Helper()
	steps := map[int]string{}
	for i, w := range works {
		steps[w.Step] = w.Phase
		if w.Percent < 0 || w.Percent > 100 || i > 0 && w.Percent < works[i-1].Percent {
			t.Errorf("progress %d: %+v after %+v", i, w, works[max(0, i-1)])
		}
	}
	if len(steps) != 5 {
		t.Errorf("phases %v, want 5", steps)
	}
}

func TestBuildOfWhatDoesNotExistLeavesNothing(t *testing.T) {
	r := realRecipe(t, "no-such-package-at-all")
	dir := t.TempDir()
	_, err := New(Config{Cache: cacheDir(t)}).Build(t.Context(), r, dir, func(estate.Work) {})
	if err == nil || !strings.Contains(err.Error(), "Unable to locate package no-such-package-at-all") {
		t.Errorf("error %v, want apt's own words", err)
	}
	if left := names(t, dir); len(left) != 0 {
		t.Errorf("left in dir: %v", left)
	}
}

func TestBuildForASuiteWithoutSourcesSaysWhichThereAre(t *testing.T) {
	r := realRecipe(t, "x11-apps")
	r.Suite = "potato"
	_, err := New(Config{Cache: cacheDir(t)}).Build(t.Context(), r, t.TempDir(), func(estate.Work) {})
	if err == nil || !strings.Contains(err.Error(), "add a source of potato") {
		t.Errorf("error %v, want it to say what to add", err)
	}
}

func TestBuildOfWhatTheImageHasIsRefused(t *testing.T) {
	r := realRecipe(t, "coreutils")
	_, err := New(Config{Cache: cacheDir(t)}).Build(t.Context(), r, t.TempDir(), func(estate.Work) {})
	if err == nil || !strings.Contains(err.Error(), "the image holds coreutils already") {
		t.Errorf("error %v", err)
	}
}

// realRecipe returns a recipe against the packages of this machine, or skips.
func realRecipe(t *testing.T, packages ...string) driver.Recipe {
	t.Helper()
	if testing.Short() {
		t.Skip("short: fetches Debian packages")
	}
	for _, program := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no %s here", program)
		}
	}
	suite := codename(t)
	return driver.Recipe{Application: "x", Packages: packages, Suite: suite, DpkgStatus: "/var/lib/dpkg/status"}
}

// TestMain keeps one cache of packages for all tests: CONSORT_TEST_CACHE keeps
// it between runs.
func TestMain(m *testing.M) {
	if os.Getenv("CONSORT_TEST_CACHE") != "" {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "packages")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		err = os.Setenv("CONSORT_TEST_CACHE", dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func cacheDir(t *testing.T) string {
	t.Helper()
	return os.Getenv("CONSORT_TEST_CACHE")
}

func codename(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		t.Skip("not a Debian")
	}
	for line := range strings.Lines(string(text)) {
		if name, is := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); is {
			return name
		}
	}
	t.Skip("not a released Debian")
	return ""
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var ns []string
	for _, e := range entries {
		ns = append(ns, e.Name())
	}
	return ns
}

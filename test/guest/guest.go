// Package guest gives tests real guests: the images of examples/, built once
// and kept.
package guest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/image"
	"consort.dev/consort/manifest"
)

// Cache returns where images and packages are kept from test to test: the folder
// that CONSORT_TEST_CACHE names, or .cache of the repository.
func Cache(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("CONSORT_TEST_CACHE"); dir != "" {
		return dir
	}
	return filepath.Join(root(t), ".cache")
}

// Recipe returns that of the small desktop, examples/small-desktop.
func Recipe(t testing.TB) estate.Recipe {
	t.Helper()
	path := filepath.Join(root(t), "examples", "small-desktop", "image.yaml")
	set, err := manifest.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range set.Objects {
		if i, is := o.Resource.(*estate.Image); is && i.Spec.Recipe != nil {
			return *i.Spec.Recipe
		}
	}
	t.Fatalf("%s holds no image with a recipe", path)
	return estate.Recipe{}
}

// Small returns the small desktop, which it builds when the cache does not have
// it: that takes a minute or two and a network. It skips the test, and says
// why, where a real guest cannot be had or takes too long.
func Small(t testing.TB) image.Entry {
	t.Helper()
	Needs(t)
	store, err := image.Open(filepath.Join(Cache(t), "images"))
	if err != nil {
		t.Fatal(err)
	}
	rec, err := image.Build(t.Context(), Recipe(t), store, image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	content, err := store.Get(rec.Digest)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// Needs skips a test where a real guest, or one of the tools, cannot be had.
func Needs(t testing.TB, tools ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs a real guest: not with -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to build images and for machines' users")
	}
	for _, tool := range append(tools, "qemu-system-x86_64", "qemu-img", "mmdebstrap") {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: make deps test-deps", tool)
		}
	}
}

// root returns the repository: the folder with go.mod above that of the test.
func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if filepath.Dir(dir) == dir {
			t.Fatal("the test runs outside the repository: no go.mod in any folder above")
		}
		dir = filepath.Dir(dir)
	}
}

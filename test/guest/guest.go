// Package guest gives tests real guests, built once and kept: the images of
// examples/, and one that is smaller than a desktop can be.
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
	return recipe(t, "examples", "small-desktop", "image.yaml")
}

// recipe returns that of the image in a manifest of the repository.
func recipe(t testing.TB, path ...string) estate.Recipe {
	t.Helper()
	file := filepath.Join(append([]string{root(t)}, path...)...)
	set, err := manifest.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range set.Objects {
		if i, is := o.Resource.(*estate.Image); is && i.Spec.Recipe != nil {
			return *i.Spec.Recipe
		}
	}
	t.Fatalf("%s holds no image with a recipe", file)
	return estate.Recipe{}
}

// Small returns the small desktop: see Build.
func Small(t testing.TB) image.Entry {
	t.Helper()
	return Build(t, Recipe(t))
}

// Build returns what a recipe makes, which it builds when the cache does not have
// it: that takes a minute or two and a network. It skips the test, and says
// why, where a real guest cannot be had or takes too long.
func Build(t testing.TB, r estate.Recipe) image.Entry {
	t.Helper()
	Needs(t)
	return built(t, r)
}

// Tiny returns a guest that has an agent and nothing else, for tests that ask a
// guest nothing but whether it is there. It builds and skips as Small does.
func Tiny(t testing.TB) image.Entry {
	t.Helper()
	Needs(t)
	return built(t, recipe(t, "test", "guest", "tiny.yaml"))
}

func built(t testing.TB, r estate.Recipe) image.Entry {
	t.Helper()
	store, err := image.Open(filepath.Join(Cache(t), "images"))
	if err != nil {
		t.Fatal(err)
	}
	rec, err := image.Build(t.Context(), r, store, image.Options{})
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

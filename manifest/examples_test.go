package manifest_test

import (
	"os"
	"path/filepath"
	"testing"

	"consort.dev/consort/manifest"
)

// TestExamplesLoad loads every example the way 'consort apply' does, each
// folder as one set that stands on its own.
func TestExamplesLoad(t *testing.T) {
	dirs, err := filepath.Glob("../examples/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, dir := range dirs {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			continue
		}
		if programs, _ := filepath.Glob(filepath.Join(dir, "*.go")); len(programs) > 0 {
			continue // an example of a provider, with tests of its own
		}
		t.Run(filepath.Base(dir), func(t *testing.T) {
			if _, err := manifest.Load(dir); err != nil {
				t.Errorf("%s:\n%v", dir, err)
			}
		})
	}
}

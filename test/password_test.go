package test

import (
	"io"
	"strings"
	"testing"
)

// passwordIn reads the password that 'consort connect --forward' prints.
func passwordIn(t *testing.T, out io.Reader) string { t.Helper(); return lineWith(t, out, "password ") }

// lineWith returns the rest of the first line that begins with the words. It
// reads no further, so that what follows can be read next.
func lineWith(t *testing.T, out io.Reader, words string) string {
	t.Helper()
	for {
		var line strings.Builder
		for b := []byte{0}; b[0] != '\n'; line.Write(b) {
			if _, err := io.ReadFull(out, b); err != nil {
				t.Fatalf("%q was not printed: %v", words, err)
			}
		}
		if rest, ok := strings.CutPrefix(line.String(), words); ok {
			return strings.TrimSpace(rest)
		}
	}
}

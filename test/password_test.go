package test

import (
	"crypto/des"
	"io"
	"math/bits"
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

// obfuscate writes a password as VNC's password files hold it: one DES block
// under a key that everybody knows, its bits in reverse.
func obfuscate(t *testing.T, password string) []byte {
	t.Helper()
	key := []byte{23, 82, 107, 6, 35, 78, 88, 7}
	for i := range key {
		key[i] = bits.Reverse8(key[i])
	}
	c, err := des.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 8)
	copy(block, password)
	c.Encrypt(block, block)
	return block
}

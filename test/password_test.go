package test

import (
	"bufio"
	"crypto/des"
	"io"
	"math/bits"
	"strings"
	"testing"
)

// passwordIn reads the password that 'consort connect --forward' prints.
func passwordIn(t *testing.T, out io.Reader) string {
	t.Helper()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "password "); ok {
			return strings.TrimSpace(rest)
		}
	}
	t.Fatal("no password was printed")
	return ""
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

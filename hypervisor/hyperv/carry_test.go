package hyperv

import (
	"bytes"
	"testing"
)

func TestHolesAreNotSent(t *testing.T) {
	z := func(n int) []byte { return make([]byte, n) }
	x := func(n int) []byte { return bytes.Repeat([]byte("x"), n) }
	const k = 64 << 10
	for _, c := range []struct {
		name      string
		block     []byte
		skip, end int
	}{
		{"nothing", z(3 * hole), 3 * hole, 3 * hole},
		{"all", x(3 * k), 0, 3 * k},
		{"zeros first", append(z(2*k), x(k)...), 2 * k, 3 * k},
		{"a small hole stays", bytes.Join([][]byte{x(k), z(k), x(k)}, nil), 0, 3 * k},
		{"a large one ends the span", bytes.Join([][]byte{x(k), z(hole), x(k)}, nil), 0, k},
		{"an odd end", append(z(k), 'x'), k, k + 1},
	} {
		if skip, end := span(c.block); skip != c.skip || end != c.end {
			t.Errorf("%s: send from %d to %d, want %d to %d", c.name, skip, end, c.skip, c.end)
		}
	}
}

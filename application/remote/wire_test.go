package remote

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

func TestALineWithoutEndIsRefused(t *testing.T) {
	_, err := read(bufio.NewReader(strings.NewReader(strings.Repeat("x", longest+1))))
	if err == nil || !strings.Contains(err.Error(), "a line of more than") {
		t.Errorf("read = %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("{\"say\":\"attach\",\"layer\":{\"Digest\":\"sha256:00\"}}\n"))
	f.Add([]byte("{\"say\":\"done\",\"failed\":true,\"kind\":\"stale\"}\n"))
	f.Add([]byte("null\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bufio.NewReader(bytes.NewReader(data))
		for {
			m, err := read(in)
			if err != nil {
				return
			}
			_ = m.err(t.Context())
		}
	})
}

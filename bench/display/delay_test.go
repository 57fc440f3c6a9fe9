package main

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// What passes comes whole and in order, half a round trip later each way.
func TestDistanceDelaysAndLosesNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // an echo
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	const rtt = 60 * time.Millisecond
	d, err := farFrom(l.Addr().String(), rtt)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	c, err := net.Dial("tcp", d.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent, got := make([]byte, 3<<20), make([]byte, 3<<20)
	for i := range sent {
		sent[i] = byte(i * 31 >> 4)
	}
	for _, n := range []int{1, len(sent)} {
		began := time.Now()
		go c.Write(sent[:n])
		if _, err := io.ReadFull(c, got[:1]); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < rtt {
			t.Errorf("an echo of %d bytes began after %v, want at least %v", n, took, rtt)
		}
		if _, err := io.ReadFull(c, got[1:n]); err != nil || !bytes.Equal(got[:n], sent[:n]) {
			t.Errorf("%d bytes: what came back is not what was sent: %v", n, err)
		}
		if took := time.Since(began); took > rtt+5*time.Second {
			t.Errorf("%d bytes took %v", n, took)
		}
	}
}

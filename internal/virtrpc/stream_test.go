package virtrpc

import (
	"errors"
	"io"
	"testing"
	"time"
)

// TestAConsoleMaySpeakBeforeItIsOpen has the guest's first words overtake the
// daemon's reply, as happens while a boot loader talks: whoever reads the
// connection must come as far as the reply.
func TestAConsoleMaySpeakBeforeItIsOpen(t *testing.T) {
	c := newConsole()
	taken := make(chan struct{})
	go func() {
		defer close(taken)
		c.take(statusContinue, []byte("early, "))
		c.take(statusContinue, []byte("still early, "))
	}()
	select {
	case <-taken:
	case <-time.After(10 * time.Second):
		t.Fatal("what came early keeps the reply from being read")
	}
	c.open()
	go func() {
		c.take(statusContinue, []byte("late"))
		c.take(statusOK, nil)
	}()
	got := make([]byte, 0, 64)
	for b := make([]byte, 5); ; {
		n, err := c.Read(b)
		got = append(got, b[:n]...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if want := "early, still early, late"; string(got) != want {
		t.Errorf("read %q, want %q", got, want)
	}
}

// Package xserver gives tests a screen for people's viewers, in memory.
package xserver

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// Start starts an X server of that size, as 1280x800, which the test ends, and
// returns what viewers need in their environment.
func Start(t testing.TB, size string) (environment string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	x := exec.Command("Xvfb", "-displayfd", "3", "-screen", "0", size+"x24", "-nolisten", "tcp")
	x.ExtraFiles = []*os.File{w}
	if err := x.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() { x.Process.Kill(); x.Wait() })
	var n int
	if _, err := fmt.Fscan(r, &n); err != nil {
		t.Fatalf("Xvfb: %v", err)
	}
	return fmt.Sprintf("DISPLAY=:%d", n)
}

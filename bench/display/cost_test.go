package main

import (
	"os"
	"testing"
	"time"
)

func TestStatIsReadBehindAnyName(t *testing.T) {
	got, err := parseStat("42 (a (b) c) S 7 42 42 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 1 0 5 6 7")
	if want := (stat{42, 7, 1750 * time.Millisecond}); err != nil || got != want {
		t.Errorf("stat = %+v, %v; want %+v", got, err, want)
	}
	for _, line := range []string{"", "42 (a", "42 (a) S 7", "x (a) S 7 1 1 0 -1 1 1 2 3 4 150 25"} {
		if got, err := parseStat(line); err == nil {
			t.Errorf("stat of %q = %+v, want an error", line, got)
		}
	}
	if s, err := readStat("/proc/self/stat"); err != nil || s.pid != os.Getpid() {
		t.Errorf("our own stat = %+v, %v", s, err)
	}
}

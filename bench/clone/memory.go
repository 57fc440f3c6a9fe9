package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"consort.dev/consort/estate"
)

// memory returns the proportional share and the private dirty memory of a
// machine's process in MiB (proc(5), smaps_rollup).
func memory(id estate.MachineID) (share, dirty float64, err error) {
	dir, err := process(id)
	if err != nil {
		return 0, 0, err
	}
	b, err := os.ReadFile(filepath.Join(dir, "smaps_rollup"))
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, _ := strconv.ParseFloat(f[1], 64)
		switch f[0] {
		case "Pss:":
			share = kib / 1024
		case "Private_Dirty:":
			dirty = kib / 1024
		}
	}
	if err == nil && share == 0 {
		err = fmt.Errorf("the kernel tells no memory of machine %s", id)
	}
	return share, dirty, err
}

// process finds a machine's process by what it was started with.
func process(id estate.MachineID) (dir string, err error) {
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return "", err
	}
	for _, path := range all {
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte("\x00-uuid\x00"+string(id)+"\x00")) {
			return filepath.Dir(path), nil
		}
	}
	return "", fmt.Errorf("machine %s has no process", id)
}

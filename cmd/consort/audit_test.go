package main

import (
	"bytes"
	"os"
	"path/filepath"
)

// harm copies the audit log and does to its records what somebody may who has
// the files.
func harm(from, to, how string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	file := filepath.Join(to, "00000001.chain")
	if how == "gone" {
		return os.Remove(file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	lines := bytes.SplitAfter(b, []byte("\n")) // the first is the file's own
	switch how {
	case "altered":
		lines[2] = bytes.Replace(lines[2], []byte("ana"), []byte("bob"), 1)
	case "removed":
		lines = append(lines[:2:2], lines[3:]...)
	case "swapped":
		lines[2], lines[3] = lines[3], lines[2]
	case "cut":
		lines = lines[:4]
	}
	return os.WriteFile(file, bytes.Join(lines, nil), 0o600)
}

// Package disposable throws sealed machines away while somebody kills what runs
// them, and looks for what is left.
package disposable

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"consort.dev/consort/estate"
)

// Canaries are words that are in no file until somebody writes them there.
type Canaries struct {
	mark  [16]byte // every one begins with it, so that one search finds all
	Words [][]byte // of 32 bytes each
}

// NewCanaries returns n of them.
func NewCanaries(n int) *Canaries {
	c := new(Canaries)
	rand.Read(c.mark[:])
	for range n {
		w := make([]byte, 32)
		copy(w, c.mark[:])
		rand.Read(w[16:])
		c.Words = append(c.Words, w)
	}
	return c
}

// Bytes returns all of them, each in a sector of its own.
func (c *Canaries) Bytes() []byte {
	b := make([]byte, 512*len(c.Words))
	for i, w := range c.Words {
		copy(b[512*i:], w)
	}
	return b
}

// Found returns how many of the canaries are in the files below the folders,
// half ones included, and in which files.
func (c *Canaries) Found(dirs ...string) (n int, in []string, err error) {
	seen := map[string]bool{}
	err = search(dirs, c.mark[:], 32, func(file string, at []byte) {
		seen[string(at)] = true
		if len(in) == 0 || in[len(in)-1] != file {
			in = append(in, file)
		}
	})
	return len(seen), in, err
}

// Holds returns the files below the folders that hold the bytes, as they are or
// as what they are the hexadecimal digits of.
func Holds(b []byte, dirs ...string) (in []string, err error) {
	all := [][]byte{b}
	if raw, err := hex.DecodeString(string(b)); err == nil {
		all = append(all, raw)
	}
	for _, want := range all {
		e := search(dirs, want, len(want), func(file string, _ []byte) { in = append(in, file) })
		err = errors.Join(err, e)
	}
	return in, err
}

// block is how much of a file is looked at at once.
const block = 4 << 20

// search calls found for each place where want begins, with what is there, up to
// size bytes.
func search(dirs []string, want []byte, size int, found func(file string, at []byte)) error {
	buf := make([]byte, block+size)
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) || err == nil && !e.Type().IsRegular() {
				return nil // it is being removed, or holds nothing
			}
			if err != nil {
				return err
			}
			f, err := os.Open(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			defer f.Close()
			for at := int64(0); ; at += block {
				n, err := f.ReadAt(buf, at)
				for b, i := buf[:n], 0; ; i++ {
					j := bytes.Index(b[i:], want)
					if j < 0 || i+j >= block {
						break
					}
					i += j
					found(path, b[i:min(i+size, n)])
				}
				if err == io.EOF {
					return nil
				}
				if err != nil {
					return err
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Processes returns the processes of the machine.
func Processes(id estate.MachineID) (pids []string, err error) {
	all, err := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		b, err := os.ReadFile(dir + "/cmdline")
		if err == nil && strings.Contains(string(b), "-uuid\x00"+string(id)) {
			pids = append(pids, filepath.Base(dir))
		}
	}
	return pids, err
}

// KeyOf returns the key that a machine's process has, where root looks for it:
// in the file in memory that it got it by.
func KeyOf(pid string) ([]byte, error) {
	fds, err := filepath.Glob("/proc/" + pid + "/fd/*")
	if err != nil {
		return nil, err
	}
	for _, fd := range fds {
		to, err := os.Readlink(fd)
		if err != nil || !strings.HasPrefix(to, "/memfd:sealed") {
			continue
		}
		b, err := os.ReadFile(fd)
		if err == nil && len(b) == 64 {
			return b, nil
		}
	}
	return nil, fmt.Errorf("process %s has no key", pid)
}

// Gone waits until no process of the machine is left.
func Gone(id estate.MachineID, limit time.Duration) error {
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		pids, err := Processes(id)
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("processes %v of machine %s live %v after its end", pids, id, limit)
		}
	}
}

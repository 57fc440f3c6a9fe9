package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/atomicfile"
)

// Draft is a directory for what is being made, on the store's file system. It
// goes when the draft is discarded, or at the next Open after its process died.
type Draft struct {
	Dir   string
	store *Store
	lock  *os.File
}

// Draft returns a new empty draft. The caller discards it, committed or not.
func (s *Store) Draft() (*Draft, error) {
	gate, err := lockFile(filepath.Join(s.dir, "lock"), unix.LOCK_SH)
	if err != nil {
		return nil, fmt.Errorf("begin draft: %w", err)
	}
	defer gate.Close()
	dir, err := os.MkdirTemp(filepath.Join(s.dir, "tmp"), "d-")
	if err != nil {
		return nil, fmt.Errorf("begin draft: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin draft: %w", err), os.RemoveAll(dir))
	}
	return &Draft{Dir: dir, store: s, lock: lock}, nil
}

// Discard removes the draft. The second time it does nothing.
func (d *Draft) Discard() {
	if d.lock == nil {
		return
	}
	_ = os.RemoveAll(d.Dir) // what stays is swept at the next Open
	d.lock.Close()
	d.lock = nil
}

// Commit moves the file at path, which lies in the draft, into the store under
// its digest, with a file named path+".status" beside it if there is one. It
// returns the completed record once all of it is on disk; a crash leaves
// nothing or everything. Content that is there already keeps its first record.
func (d *Draft) Commit(ctx context.Context, path string, rec Record) (Record, error) {
	digest, n, err := digestFile(ctx, path)
	if err != nil {
		return Record{}, fmt.Errorf("commit content: %w", err)
	}
	if rec.Digest != "" && rec.Digest != digest {
		return Record{}, fault.Invalid.Errorf("commit content: it hashes to %s, not to %s", digest, rec.Digest)
	}
	gate, err := lockFile(filepath.Join(d.store.dir, "lock"), unix.LOCK_SH)
	if err != nil {
		return Record{}, fmt.Errorf("commit content: %w", err)
	}
	defer gate.Close()
	if e, err := d.store.Get(digest); err == nil {
		return e.Record, nil
	}
	rec.Digest, rec.Stored = digest, estate.Bytes(n)
	if rec.Made.IsZero() {
		rec.Made = time.Now().UTC().Truncate(time.Second)
	}
	if err := d.store.keep(path, rec); err != nil {
		return Record{}, fmt.Errorf("commit content %s: %w", digest.Short(), err)
	}
	return rec, nil
}

// keep moves the files into place, the record last.
func (s *Store) keep(path string, rec Record) error {
	to := s.content(rec.Digest)
	for from, to := range map[string]string{path: to, path + ".status": to + ".status"} {
		err := moveDurably(from, to)
		if err != nil && !(from != path && errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	data, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.SyncDir(s.dir); err != nil {
		return err
	}
	return atomicfile.Write(s.record(rec.Digest), append(data, '\n'), 0o444)
}

func moveDurably(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Chmod(0o444); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// sweep removes drafts of dead processes and content whose record was never
// written. It leaves both alone while another process commits.
func (s *Store) sweep() error {
	gate, err := lockFile(filepath.Join(s.dir, "lock"), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer gate.Close()
	drafts, err := filepath.Glob(filepath.Join(s.dir, "tmp", "d-*"))
	if err != nil {
		return err
	}
	for _, dir := range drafts {
		lock, err := lockDir(dir)
		if err != nil {
			continue // somebody is at work in it
		}
		err = os.RemoveAll(dir)
		lock.Close()
		if err != nil {
			return err
		}
	}
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		hex := strings.TrimSuffix(f.Name(), ".status")
		d := estate.Digest("sha256:" + hex)
		if _, err := os.Stat(s.record(d)); d.Problem() == "" && errors.Is(err, fs.ErrNotExist) || strings.HasPrefix(f.Name(), atomicfile.Prefix) {
			if err := os.Remove(filepath.Join(s.dir, f.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// lockFile opens the file, made when absent, and waits for the lock. Closing
// it, or the end of the process, gives the lock back.
func lockFile(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// lockDir locks the directory, or fails at once when another process has it.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Package image makes bootable disks, from recipes and from files, and keeps
// them by the digest of their content.
package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/atomicfile"
)

// What a Record speaks of.
const (
	KindImage = "image" // a bootable disk
	KindLayer = "layer" // an application's read-only disk
)

// Record is all that is known of content. The format comes from here and is
// never probed.
type Record struct {
	Digest   estate.Digest     `json:"digest"`
	Kind     string            `json:"kind"`
	Format   estate.DiskFormat `json:"format"`
	Size     estate.Bytes      `json:"size"`   // of the disk as a guest sees it
	Stored   estate.Bytes      `json:"stored"` // length of the file
	Guest    estate.GuestFacts `json:"guest,omitzero"`
	Suite    string            `json:"suite,omitempty"`    // Debian suite it was built from
	Packages int               `json:"packages,omitempty"` // how many packages are installed
	Recipe   string            `json:"recipe,omitempty"`   // Key of the recipe it was built from
	Made     time.Time         `json:"made"`
}

// Entry is content and where it lies.
type Entry struct {
	Record
	Path   string // the content, mode 0444
	Status string // the dpkg status file of the system in it; empty when there is none
}

// Store keeps content in one directory, each under the hexadecimal digits of
// its SHA-256, beside a record. Several processes may use one directory.
//
//	<hex> <hex>.status <hex>.json   content, dpkg status, record (written last)
//	built/<key>                     digest a recipe was built to
//	tmp/<name>/                     drafts, each locked by its process
type Store struct {
	dir string
}

// Open returns the store in dir, which it makes when it is absent. It removes
// what processes that are no more left half-made.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fault.Invalid.Errorf("open image store: %w", err)
	}
	for _, d := range []string{dir, filepath.Join(dir, "tmp"), filepath.Join(dir, "built")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	s := &Store{dir: dir}
	if err := s.sweep(); err != nil {
		return nil, fmt.Errorf("open image store %s: %w", dir, err)
	}
	return s, nil
}

// Dir returns the directory of the store.
func (s *Store) Dir() string { return s.dir }

// Get returns the content with the digest, or fault.NotFound.
func (s *Store) Get(d estate.Digest) (Entry, error) {
	if t := d.Problem(); t != "" {
		return Entry{}, fault.Invalid.Errorf("get content: %s", t)
	}
	data, err := os.ReadFile(s.record(d))
	if errors.Is(err, fs.ErrNotExist) {
		return Entry{}, fault.NotFound.Errorf("content %s is not in the store", d.Short())
	}
	if err != nil {
		return Entry{}, fmt.Errorf("get content %s: %w", d.Short(), err)
	}
	e := Entry{Path: s.content(d)}
	if err := json.Unmarshal(data, &e.Record); err != nil || e.Digest != d {
		return Entry{}, fault.Stuck.Errorf("record of content %s is damaged; delete %s and make it again", d.Short(), s.record(d))
	}
	if _, err := os.Stat(e.Path + ".status"); err == nil {
		e.Status = e.Path + ".status"
	}
	return e, nil
}

// List returns what the store holds, ordered by digest.
func (s *Store) List() ([]Record, error) {
	names, err := filepath.Glob(filepath.Join(s.dir, "*.json"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var all []Record
	for _, n := range names {
		hex := strings.TrimSuffix(filepath.Base(n), ".json")
		e, err := s.Get(estate.Digest("sha256:" + hex))
		if errors.Is(err, fault.NotFound) || errors.Is(err, fault.Invalid) {
			continue // deleted meanwhile, or not ours
		}
		if err != nil {
			return nil, err
		}
		all = append(all, e.Record)
	}
	return all, nil
}

// Delete removes the content with the digest. Absent content is success. The
// caller has made sure that no machine uses it.
func (s *Store) Delete(d estate.Digest) error {
	if t := d.Problem(); t != "" {
		return fault.Invalid.Errorf("delete content: %s", t)
	}
	for _, p := range []string{s.record(d), s.content(d) + ".status", s.content(d)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete content %s: %w", d.Short(), err)
		}
	}
	return atomicfile.SyncDir(s.dir)
}

// Verify reads the content with the digest and returns fault.Stuck when it is
// no longer what it was.
func (s *Store) Verify(ctx context.Context, d estate.Digest) error {
	e, err := s.Get(d)
	if err != nil {
		return err
	}
	got, n, err := digestFile(ctx, e.Path)
	if err != nil {
		return fmt.Errorf("verify content %s: %w", d.Short(), err)
	}
	if got != d || n != int64(e.Stored) {
		return fault.Stuck.Errorf("content %s is damaged: it is now %s, %d bytes; delete it and make it again", d.Short(), got.Short(), n)
	}
	return nil
}

// Put stores what r yields under its digest. Content that is there already
// keeps its first record.
func (s *Store) Put(ctx context.Context, r io.Reader, rec Record) (Record, error) {
	draft, err := s.Draft()
	if err != nil {
		return Record{}, err
	}
	defer draft.Discard()
	path := filepath.Join(draft.Dir, "content")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return Record{}, fmt.Errorf("put content: %w", err)
	}
	_, err = io.Copy(f, untilDone{ctx, r})
	if err := errors.Join(err, f.Close()); err != nil {
		return Record{}, fmt.Errorf("put content: %w", err)
	}
	return draft.Commit(ctx, path, rec)
}

func (s *Store) content(d estate.Digest) string { return filepath.Join(s.dir, d.Hex()) }
func (s *Store) record(d estate.Digest) string  { return s.content(d) + ".json" }

// untilDone reads until the context ends.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

func digestFile(ctx context.Context, path string) (estate.Digest, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{h}, untilDone{ctx, f}, make([]byte, 1<<20))
	return digestOf(h), n, err
}

func digestOf(h hash.Hash) estate.Digest {
	return estate.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
}

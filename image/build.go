package image

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/atomicfile"
)

// Options are what a build needs besides its recipe.
type Options struct {
	Report func(estate.Work) // told how far it is; may be nil
	Log    io.Writer         // everything the tools print; may be nil
	Fresh  bool              // build even what was built before, with today's packages
}

// builder is part of a recipe's key: a builder that makes other disks from the
// same recipe counts it up.
const builder = "3"

// defaultSize is the size of a disk whose recipe does not give one.
const defaultSize = 4 * estate.GiB

// phase is a named part of a build and where it ends, in percent of the whole.
// The shares are those of a build of 190 packages in 80 s.
type phase struct {
	name string
	end  int
	run  func(*build, context.Context) error
}

func phases() []phase {
	return []phase{
		{"download and unpack packages", 70, (*build).installPackages},
		{"kernel and initramfs", 78, (*build).installKernel},
		{"configure", 84, (*build).applyRecipe},
		{"file system", 90, (*build).makeFileSystem},
		{"boot loader", 92, (*build).installBootLoader},
		{"store", 100, (*build).keep},
	}
}

// build is one run of Build.
type build struct {
	recipe estate.Recipe
	key    string
	store  *Store
	opt    Options
	draft  *Draft
	log    *tail

	from, to int // percent at which the current phase begins and ends
	work     estate.Work
	release  string   // of the kernel
	boots    []string // the hardware that it boots on
	packages int
	record   Record
}

// Key returns what names a recipe's result: recipes with the same key make the
// same system from the same packages.
func Key(r estate.Recipe) string {
	data, err := json.Marshal(r)
	if err != nil {
		panic("image: a recipe has no JSON: " + err.Error())
	}
	sum := sha256.Sum256(append([]byte("builder "+builder+"\n"), data...))
	return hex.EncodeToString(sum[:])
}

// Build makes the disk a recipe describes, keeps it in the store and returns
// its record. A recipe that was built before is not built again, unless
// opt.Fresh is set; two builds of one recipe at a time become one. It needs
// root. When the context ends it stops its tools and leaves nothing behind.
func Build(ctx context.Context, r estate.Recipe, s *Store, opt Options) (Record, error) {
	key := Key(r)
	lock, err := lockBuild(ctx, filepath.Join(s.dir, "built", key+".lock"))
	if err != nil {
		return Record{}, fmt.Errorf("build image: %w", err)
	}
	defer lock.Close()
	if rec, err := s.Built(r); err == nil && !opt.Fresh {
		return rec, nil
	}
	if err := missingTools(); err != nil {
		return Record{}, err
	}
	draft, err := s.Draft()
	if err != nil {
		return Record{}, fmt.Errorf("build image: %w", err)
	}
	defer draft.Discard()
	b := &build{recipe: r, key: key, store: s, opt: opt, draft: draft, log: &tail{also: opt.Log}}
	for i, p := range phases() {
		b.enter(i, p)
		if err := p.run(b, ctx); err != nil {
			return Record{}, b.explain(ctx, p, err)
		}
	}
	return b.record, nil
}

// Built returns the record of what a recipe was built to, or fault.NotFound.
func (s *Store) Built(r estate.Recipe) (Record, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, "built", Key(r)))
	if err != nil {
		return Record{}, fault.NotFound.Errorf("the recipe was not built yet")
	}
	e, err := s.Get(estate.Digest(strings.TrimSpace(string(data))))
	return e.Record, err
}

// lockBuild waits for the lock as long as the context lasts.
func lockBuild(ctx context.Context, path string) (*os.File, error) {
	for {
		f, err := lockFile(path, unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, fault.Busy.Errorf("another process builds the same recipe: %w", ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (b *build) enter(i int, p phase) {
	b.from, b.to = b.to, p.end
	b.work = estate.Work{Phase: p.name, Step: i + 1, Steps: len(phases()), Percent: b.from}
	fmt.Fprintf(b.log, "== %s\n", p.name)
	if b.opt.Report != nil {
		b.opt.Report(b.work)
	}
}

// advance reports how much of the current phase is done, 0 to 1.
func (b *build) advance(part float64) {
	percent := b.from + int(min(max(part, 0), 1)*float64(b.to-b.from))
	if percent <= b.work.Percent {
		return
	}
	b.work.Percent = percent
	if b.opt.Report != nil {
		b.opt.Report(b.work)
	}
}

// explain adds the phase, the end of the log and what to do.
func (b *build) explain(ctx context.Context, p phase, err error) error {
	if ctx.Err() != nil {
		return fault.Unavailable.Errorf("build image: stopped in phase %q: %w", p.name, context.Cause(ctx))
	}
	advice := "read the lines above, correct the recipe and apply it again"
	text := b.log.String()
	switch {
	case strings.Contains(text, "No space left on device") || errors.Is(err, unix.ENOSPC):
		return fault.NoCapacity.Errorf("build image: phase %q: %w\n%s\nmake room on the disk of %s", p.name, err, text, b.store.dir)
	case strings.Contains(text, "Unable to locate package"):
		advice = "correct the package's name in spec.recipe.packages"
	case strings.Contains(text, "Could not resolve") || strings.Contains(text, "Could not connect") || strings.Contains(text, "Failed to fetch"):
		return fault.Unavailable.Errorf("build image: phase %q: %w\n%s\nmake sure that apt-get update works on this host, then try again", p.name, err, text)
	}
	return fault.Stuck.Errorf("build image: phase %q: %w\n%s\n%s", p.name, err, text, advice)
}

// keep moves the disk into the store and notes what the recipe was built to.
func (b *build) keep(ctx context.Context) error {
	qcow2 := filepath.Join(b.draft.Dir, "disk.qcow2")
	err := b.tool(ctx, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", b.disk(), qcow2)
	if err != nil {
		return err
	}
	status, err := os.ReadFile(b.path("var/lib/dpkg/status"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(qcow2+".status", status, 0o444); err != nil {
		return err
	}
	b.advance(0.5)
	guest := b.recipe.Guest
	guest.Drivers = b.boots
	guest.User = cmp.Or(guest.User, b.recipe.User)
	b.record, err = b.draft.Commit(ctx, qcow2, Record{
		Kind: KindImage, Format: estate.QCOW2, Size: b.size(), Guest: guest,
		Suite: b.recipe.Suite, Packages: b.packages, Recipe: b.key,
	})
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(b.store.dir, "built", b.key), []byte(b.record.Digest+"\n"), 0o444)
}

func (b *build) size() estate.Bytes {
	if b.recipe.Size == 0 {
		return defaultSize
	}
	return b.recipe.Size &^ (estate.MiB - 1)
}

func (b *build) root() string           { return filepath.Join(b.draft.Dir, "root") }
func (b *build) path(rel string) string { return filepath.Join(b.root(), rel) }
func (b *build) disk() string           { return filepath.Join(b.draft.Dir, "disk.raw") }

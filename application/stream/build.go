package stream

import (
	"context"
	"os"
	"path/filepath"

	"consort.dev/consort/application/driver"
	"consort.dev/consort/estate"
)

// Build implements driver.Builder: Debian packages that the image lacks become
// a read-only EROFS image. Nothing of a package is run on this host, neither
// its scripts nor its programs: what those would make is made in the guest, as
// the person and in the application's own namespace (see scripts/caches.sh).
func (p *Provider) Build(ctx context.Context, r driver.Recipe, dir string, report func(estate.Work)) (file string, err error) {
	work, err := os.MkdirTemp(dir, "build-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o755); err != nil { // apt drops root to download
		return "", err
	}
	b := build{recipe: r, dir: dir, work: work, phase: phases(report)}
	b.apt = &apt{cache: p.config.Cache, work: work, status: r.DpkgStatus, suite: r.Suite}
	if b.spool, err = newSpool(work); err != nil {
		return "", err
	}
	defer b.spool.close()
	return b.run(ctx, p.config)
}

type build struct {
	recipe driver.Recipe
	dir    string
	work   string
	apt    *apt
	spool  *spool
	phase  func(step, percent int)
}

func (b *build) run(ctx context.Context, c Config) (string, error) {
	b.phase(1, 0)
	if err := b.apt.prepare(); err != nil {
		return "", err
	}
	if err := b.apt.refresh(ctx, c.Fresh); err != nil {
		return "", err
	}
	b.phase(2, 0)
	if err := b.apt.knows(ctx); err != nil {
		return "", err
	}
	debs, err := b.apt.choose(ctx, b.recipe.Packages)
	if err != nil {
		return "", err
	}
	b.phase(3, 0)
	if err := b.apt.fetch(ctx, b.recipe.Packages, func(p int) { b.phase(3, p) }); err != nil {
		return "", err
	}
	t := newTree()
	for i, deb := range debs {
		b.phase(4, 100*i/len(debs))
		if err := unpack(ctx, t, filepath.Join(b.apt.cache, "archives", deb), b.spool); err != nil {
			return "", err
		}
	}
	for _, deb := range debs {
		if err := settle(ctx, t, filepath.Join(b.apt.cache, "archives", deb)); err != nil {
			return "", err
		}
	}
	t.keep()
	b.phase(5, 0)
	return writeImage(ctx, t, b.spool, b.dir, func(done int64) { b.phase(5, int(99*done/max(1, t.bytes))) })
}

// phases turns a step and its percent into the progress of the whole.
func phases(report func(estate.Work)) func(step, percent int) {
	steps := []struct {
		name string
		upTo int // percent of the whole, measured on a large application
	}{
		{"read the package lists", 5},
		{"choose packages", 10},
		{"download packages", 50},
		{"unpack packages", 75},
		{"write the layer", 100},
	}
	last := estate.Work{}
	return func(step, percent int) {
		from := 0
		if step > 1 {
			from = steps[step-2].upTo
		}
		now := estate.Work{
			Phase: steps[step-1].name, Step: step, Steps: len(steps),
			Percent: from + (steps[step-1].upTo-from)*percent/100,
		}
		if now != last && now.Percent >= last.Percent {
			last = now
			report(now)
		}
	}
}

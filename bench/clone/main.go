// Command clone measures how long an instant clone takes to its first frame and
// what memory it costs, beside a cold boot and the restore of saved memory of the
// same machine in the same run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"consort.dev/consort/agent/confine"
	"consort.dev/consort/bench/result"
	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/qemu"
	"consort.dev/consort/image"
	"consort.dev/consort/manifest"
)

// emulator is the program that machines run in.
const emulator = "qemu-system-x86_64"

type options struct {
	cache  string
	recipe string
	out    string
	boots  int
	clones int
	most   int
	owned  int
	idle   time.Duration
}

func main() {
	o := options{}
	flag.StringVar(&o.cache, "cache", ".cache", "where images are kept")
	flag.StringVar(&o.recipe, "image", "examples/first-desktop/image.yaml", "the image to clone, a recipe")
	flag.StringVar(&o.out, "out", "bench/results/clone.json", "where the result is written")
	flag.IntVar(&o.boots, "boots", 5, "cold boots, and restores of saved memory")
	flag.IntVar(&o.clones, "clones", 30, "clones one after the other")
	flag.IntVar(&o.most, "most", 30, "clones at once")
	flag.IntVar(&o.owned, "owned", 10, "clones that become their own, one after the other")
	flag.DurationVar(&o.idle, "idle", 25*time.Second, "how long machines stand idle before their memory is measured")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "bench clone:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	options
	dir  string
	host *qemu.Host
	base driver.Content
	s    result.Samples
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "cbk")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	b := &bench{options: o, dir: dir, s: result.Samples{}}
	if b.base, err = build(ctx, o); err != nil {
		return err
	}
	// Confined, as the product has its machines.
	walls, err := confine.New(ctx, emulator, "--version")
	if err != nil {
		return err
	}
	b.host, err = qemu.Open(ctx, qemu.Config{Dir: filepath.Join(dir, "m"), RunDir: filepath.Join(dir, "r"), Program: emulator, Accelerator: "tcg", Confiner: walls})
	if err != nil {
		return err
	}
	defer b.host.Close()
	defer func() { err = errors.Join(err, b.clear(context.WithoutCancel(ctx))) }()
	for _, part := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"cold boots", b.coldBoots}, {"restores", b.restores}, {"template", b.template},
		{"clones", b.oneByOne}, {"identities", b.own}, {"ten at once", b.ten}, {"thirty at once", b.thirty},
	} {
		fmt.Fprintf(os.Stderr, "%s ...\n", part.name)
		if err := part.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return b.report()
}

// build returns the image's content, made when the cache does not have it.
func build(ctx context.Context, o options) (c driver.Content, err error) {
	set, err := manifest.Load(o.recipe)
	if err != nil {
		return c, err
	}
	store, err := image.Open(filepath.Join(o.cache, "images"))
	if err != nil {
		return c, err
	}
	for _, object := range set.Objects {
		i, is := object.Resource.(*estate.Image)
		if !is || i.Spec.Recipe == nil {
			continue
		}
		rec, err := image.Build(ctx, *i.Spec.Recipe, store, image.Options{})
		if err != nil {
			return c, err
		}
		e, err := store.Get(rec.Digest)
		return driver.Content{Path: e.Path, Format: e.Record.Format, Size: e.Record.Size}, err
	}
	return c, fmt.Errorf("%s holds no image with a recipe", o.recipe)
}

// loose is the address of cards that are plugged in nowhere.
const loose = "02:00:00:00:00:01"

// machine is the n-th machine: a desktop with 512 MiB and two CPUs.
func (b *bench) machine(n int, template string) driver.Definition {
	base := b.base
	return driver.Definition{
		ID: estate.MachineID(fmt.Sprintf("c10e0000-0000-4000-8000-%012d", n)), Name: fmt.Sprint("bench ", n),
		CPUs: 2, Memory: 512 * estate.MiB, Screen: estate.Screen{Width: 1280, Height: 800},
		Disks: []driver.Disk{{Name: "root", Base: &base}}, Template: template,
		NICs: []driver.NIC{{MAC: loose, Unplugged: true}},
	}
}

// clear deletes everything.
func (b *bench) clear(ctx context.Context) error {
	all, err := b.host.List(ctx)
	for _, m := range all {
		err = errors.Join(err, b.host.Delete(ctx, m.ID))
	}
	templates, e := b.host.Templates(ctx)
	for _, t := range templates {
		e = errors.Join(e, b.host.DropTemplate(ctx, t.Name))
	}
	return errors.Join(err, e)
}

func (b *bench) report() error {
	m := map[string]float64{
		"coldboot_first_frame_p50_ms": b.s.Percentile("coldboot_first_frame", 50),
		"restore_first_frame_p50_ms":  b.s.Percentile("restore_first_frame", 50),
		"clone1_running_p50_ms":       b.s.Percentile("clone1_running", 50),
		"clone1_first_frame_p50_ms":   b.s.Percentile("clone1_first_frame", 50),
		"clone1_first_frame_p95_ms":   b.s.Percentile("clone1_first_frame", 95),
		"clone1_defined_p50_ms":       b.s.Percentile("clone1_defined", 50),
		"clone10_all_drawn_ms":        b.s.Last("clone10_all_drawn"),
		"clone30_all_drawn_ms":        b.s.Last("clone30_all_drawn"),
		"clone10_pss_mib":             b.s.Last("clone10_pss_mib"),
		"clone30_pss_mib":             b.s.Last("clone30_pss_mib"),
		"clone30_private_dirty_mib":   b.s.Last("clone30_private_dirty_mib"),
		"clone30_each_pss_mib":        b.s.Last("clone30_pss_mib") / float64(b.most),
		"identity_ready_p50_ms":       b.s.Percentile("identity_ready", 50),
		"identity_ready_p95_ms":       b.s.Percentile("identity_ready", 95),
		"network_ready_p50_ms":        b.s.Percentile("network_ready", 50),
		"network_ready_p95_ms":        b.s.Percentile("network_ready", 95),
		"template_mib":                b.s.Last("template_mib"),
		"template_freeze_ms":          b.s.Last("template_freeze"),
		// Five boots times six, so that a small host can measure it.
		"coldboot30_pss_mib":      b.s.Percentile("coldboot_pss_mib", 50) * 30,
		"coldboot_each_pss_mib":   b.s.Percentile("coldboot_pss_mib", 50),
		"coldboot_over_clone":     b.s.Percentile("coldboot_first_frame", 50) / b.s.Percentile("clone1_first_frame", 50),
		"coldboot30_over_clone30": b.s.Percentile("coldboot_pss_mib", 50) * 30 / b.s.Last("clone30_pss_mib"),
	}
	b.s.Table(os.Stdout)
	return result.Write(b.out, "clone", m, b.s)
}

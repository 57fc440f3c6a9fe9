package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// applyAndWait applies the manifests, shows how far their images and layers
// are, and returns once all are made, with the first person among them.
func (p *plane) applyAndWait(ctx context.Context, paths []string, out io.Writer) (person string, err error) {
	c := &cli{client: p.client, project: "default"}
	set, result, err := c.apply(ctx, paths, false)
	if err != nil {
		return "", err
	}
	for _, r := range result.Results {
		if r.Change != api.Unchanged {
			fmt.Fprintf(out, "%s %s\n", r.Ref, r.Change)
		}
	}
	need := map[estate.Ref]bool{}
	for _, o := range set.Resources() {
		if person == "" && o.Header().Kind == "Person" {
			person = o.Header().Metadata.Name
		}
		need[o.Header().Ref()] = true
	}
	return person, p.waitForContent(ctx, need, newBar(out))
}

// waitForContent follows images and layers until those of the set are made. A
// failure is shown and ends the wait: the agent tries again by itself.
func (p *plane) waitForContent(ctx context.Context, need map[estate.Ref]bool, bar *bar) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer bar.end()
	seen := map[estate.Ref]estate.Resource{}
	synced := false
	for e := range p.client.WatchKinds(ctx, "", "Image", "Application", "Blueprint") {
		switch e.Type {
		case api.Ended:
			return e.Err
		case api.Synced:
			synced = true
		case api.Is:
			seen[e.Object.Header().Ref()] = e.Object
		case api.Gone:
			delete(seen, e.Object.Header().Ref())
		}
		if !synced {
			continue
		}
		open, err := unmade(seen, need)
		if err != nil {
			return err
		}
		if len(open) == 0 {
			return nil
		}
		bar.show(open[0])
	}
	return ctx.Err()
}

// making is a piece of content that is not there yet.
type making struct {
	what string
	work *estate.Work // nil while it waits
}

// unmade returns what the set still needs, what is being worked on first.
func unmade(seen map[estate.Ref]estate.Resource, need map[estate.Ref]bool) ([]making, error) {
	var open []making
	for ref, r := range seen {
		switch r := r.(type) {
		case *estate.Image:
			if !need[ref] || r.Status.Digest != "" && r.Status.Built == r.Metadata.Generation {
				continue
			}
			if c := r.Status.Get(estate.Ready); c.Reason == "Failed" && r.Status.Work == nil {
				return nil, fault.Unavailable.Errorf("image %s could not be made: %s", r.Metadata.Name, c.Text)
			}
			open = append(open, making{"image " + r.Metadata.Name, r.Status.Work})
		case *estate.Blueprint:
			layers, err := unmadeLayers(seen, r)
			if need[ref] && err != nil {
				return nil, err
			}
			if need[ref] {
				open = append(open, layers...)
			}
		}
	}
	slices.SortFunc(open, func(a, b making) int {
		if (a.work == nil) != (b.work == nil) {
			return map[bool]int{true: 1, false: -1}[a.work == nil]
		}
		return strings.Compare(a.what, b.what)
	})
	return open, nil
}

// unmadeLayers returns the layers that a blueprint's applications lack.
func unmadeLayers(seen map[estate.Ref]estate.Resource, b *estate.Blueprint) ([]making, error) {
	project := b.Metadata.Project
	img, _ := seen[estate.Ref{Kind: "Image", Project: project, Name: b.Spec.Image}].(*estate.Image)
	if img == nil || img.Status.Digest == "" {
		return nil, nil // told of the image itself
	}
	var open []making
	for _, choice := range b.Spec.Applications {
		app, _ := seen[estate.Ref{Kind: "Application", Project: project, Name: choice.Name}].(*estate.Application)
		if app == nil {
			continue
		}
		v, ok := app.Spec.Version(choice.Version)
		if !ok {
			continue
		}
		l, _ := app.Status.Layer(v.Name, img.Status.Digest)
		if l.Digest == "" && l.Text != "" && l.Work == nil {
			return nil, fault.Unavailable.Errorf("application %s %s could not be made: %s", choice.Name, v.Name, l.Text)
		}
		if l.Digest == "" {
			open = append(open, making{"application " + choice.Name + " " + v.Name, l.Work})
		}
	}
	return open, nil
}

// bar shows progress: one line that is drawn over on a terminal, a line per
// phase elsewhere.
type bar struct {
	out   io.Writer
	draws bool
	last  string
	began time.Time
}

func newBar(out io.Writer) *bar {
	f, ok := out.(*os.File)
	return &bar{out: out, draws: ok && term.IsTerminal(int(f.Fd())), began: time.Now()}
}

func (b *bar) show(m making) {
	line := m.what + ": waiting"
	if w := m.work; w != nil {
		line = fmt.Sprintf("%s: %s (%d of %d)", m.what, w.Phase, w.Step, w.Steps)
	}
	if !b.draws {
		if line != b.last {
			fmt.Fprintf(b.out, "%4.0fs  %s\n", time.Since(b.began).Seconds(), line)
			b.last = line
		}
		return
	}
	const width = 24
	percent := 0
	if m.work != nil {
		percent = min(100, max(0, m.work.Percent))
	}
	full := width * percent / 100
	fmt.Fprintf(b.out, "\r\x1b[K[%s%s] %3d%%  %s", strings.Repeat("#", full), strings.Repeat(".", width-full), percent, line)
	b.last = line
}

func (b *bar) end() {
	if b.draws && b.last != "" {
		fmt.Fprint(b.out, "\r\x1b[K")
	}
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/application"
	appdriver "consort.dev/consort/application/driver"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/image"
)

// content makes what machines are made of: images from their recipes and files,
// layers from their packages. One piece at a time: building takes a whole core.
// Of all hosts one makes a piece, whoever claims it first; the others fetch it.
type content struct {
	agent   *Agent
	wake    chan struct{}
	fetcher *fetcher

	mu     sync.Mutex
	images map[string]*estate.Image // by project/name
	apps   map[string]*estate.Application
	failed map[string]time.Time // when a piece of work last failed, by its name
}

// retryAfter is how long a failed piece of work rests; changing it brings it
// back at once, since its name holds its generation.
const retryAfter = time.Minute

// reportEvery bounds how often progress is written to the store.
const reportEvery = 300 * time.Millisecond

func newContent(a *Agent) *content {
	c := &content{
		agent: a, wake: make(chan struct{}, 1),
		images: map[string]*estate.Image{}, apps: map[string]*estate.Application{}, failed: map[string]time.Time{},
	}
	c.fetcher = newFetcher(c)
	return c
}

func (c *content) sawImage(m *estate.Image, gone bool) {
	c.saw(func() { put(c.images, &m.Head, m, gone) })
}

func (c *content) sawApplication(app *estate.Application, gone bool) {
	c.saw(func() { put(c.apps, &app.Head, app, gone) })
}

func (c *content) saw(remember func()) {
	c.mu.Lock()
	remember()
	c.mu.Unlock()
	c.fetcher.look()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run makes what is missing until ctx ends.
func (c *content) run(ctx context.Context) {
	for ctx.Err() == nil {
		name, work := c.next()
		if work == nil {
			select {
			case <-c.wake:
			case <-time.After(retryAfter):
			case <-ctx.Done():
			}
			continue
		}
		if err := work(ctx); err != nil && ctx.Err() == nil {
			if !errors.Is(err, errTaken) {
				c.agent.Log.Warn("make content", "what", name, "error", err)
			}
			c.mu.Lock()
			c.failed[name] = c.agent.Now()
			c.mu.Unlock()
		}
	}
}

// errTaken says that another host makes the piece.
var errTaken = errors.New("another host makes it")

// alone is the work, done only if no other host does it.
func (c *content) alone(name string, work func(context.Context) error) func(context.Context) error {
	a := c.agent
	return func(ctx context.Context) error {
		if err := a.Plane.Claim(ctx, a.Hypervisor, name); err != nil {
			if errors.Is(err, fault.Conflict) {
				return errTaken
			}
			return err
		}
		defer func() {
			// What is not let go of here goes with the agent's lease.
			_ = a.Plane.Drop(context.WithoutCancel(ctx), a.Hypervisor, name)
		}()
		return work(ctx)
	}
}

// obstacle says why this host is not the one to make the image, or nil.
func obstacle(m *estate.Image) error {
	if m.Spec.Import == nil {
		return image.Able()
	}
	if _, err := os.Stat(m.Spec.Import.Path); err != nil {
		return fault.NotFound.Errorf("import %s: %w; put the file on one of the hosts", m.Spec.Import.Path, err)
	}
	return nil
}

// cannot tells the obstacle, unless another host is at work or has done it.
func (c *content) cannot(ctx context.Context, m *estate.Image, why error) error {
	a := c.agent
	_, err := api.ModifyStatus(ctx, a.Plane, m.Metadata.Project, m.Metadata.Name, func(now *estate.Image) error {
		s := &now.Status
		if s.Work != nil || s.Digest != "" && s.Built == now.Metadata.Generation {
			return nil
		}
		s.Waiting = problem(why)
		s.Set(estate.Condition{Type: estate.Ready, Status: estate.False, Reason: "Failed", Text: problem(why), Since: a.Now()})
		return nil
	})
	return errors.Join(why, err)
}

// next returns the next piece of work and its name: images first, since layers
// are cut for them.
func (c *content) next() (name string, work func(context.Context) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rests := func(name string) bool {
		at, failed := c.failed[name]
		return failed && c.agent.Now().Sub(at) < retryAfter
	}
	for key, m := range c.images {
		name := fmt.Sprintf("image %s at %d", key, m.Metadata.Generation)
		if m.Metadata.Deleting.IsZero() && c.unmade(m) && !rests(name) {
			if why := obstacle(m); why != nil {
				return name, func(ctx context.Context) error { return c.cannot(ctx, m, why) }
			}
			return name, c.alone(name, func(ctx context.Context) error { return c.makeImage(ctx, m) })
		}
	}
	for key, app := range c.apps {
		p := c.agent.Applications[app.Spec.Delivery]
		if p == nil || !p.CanBuild() || !app.Metadata.Deleting.IsZero() {
			continue
		}
		for _, l := range app.Status.Layers {
			name := fmt.Sprintf("application %s %s for %s at %d", key, l.Version, l.Image.Short(), app.Metadata.Generation)
			unmade := l.Digest == "" || !c.here(l.Digest) && c.fetcher.gone(l.Digest)
			if unmade && !rests(name) && c.here(l.Image) {
				return name, c.alone(name, func(ctx context.Context) error { return c.makeLayer(ctx, p, app, l) })
			}
		}
	}
	return "", nil
}

// unmade reports whether the image's content is of an older spec, or was there
// once and no host has it any more. What some host has is fetched.
func (c *content) unmade(m *estate.Image) bool {
	d := m.Status.Digest
	return d == "" || m.Status.Built != m.Metadata.Generation || !c.here(d) && c.fetcher.gone(d)
}

func (c *content) here(d estate.Digest) bool {
	_, err := c.agent.Images.Get(d)
	return err == nil
}

// makeImage builds or imports the image and says how far it is meanwhile.
func (c *content) makeImage(ctx context.Context, m *estate.Image) error {
	a := c.agent
	a.Log.Info("making image", "image", m.Metadata.Name)
	status := func(change func(*estate.ImageStatus)) error {
		now, err := api.ModifyStatus(ctx, a.Plane, m.Metadata.Project, m.Metadata.Name, func(now *estate.Image) error {
			change(&now.Status)
			return nil
		})
		if err == nil {
			c.saw(func() { put(c.images, &now.Head, now, false) })
		}
		return err
	}
	report := c.progress(func(w estate.Work) {
		status(func(s *estate.ImageStatus) { s.Work, s.Waiting = &w, "being built: "+w.Phase })
	})
	rec, err := c.imageContent(ctx, m, report)
	if err != nil {
		status(func(s *estate.ImageStatus) {
			s.Work, s.Waiting = nil, problem(err)
			s.Set(estate.Condition{Type: estate.Ready, Status: estate.False, Reason: "Failed", Text: problem(err), Since: a.Now()})
		})
		return err
	}
	return status(func(s *estate.ImageStatus) {
		if s.Digest != m.Status.Digest && s.Built == m.Metadata.Generation {
			return // another host was faster, when the plane took this one for lost
		}
		s.Digest, s.Format, s.Size, s.Stored, s.Guest, s.Packages = rec.Digest, rec.Format, rec.Size, rec.Stored, rec.Guest, rec.Packages
		s.Built, s.Observed, s.Work, s.Waiting = m.Metadata.Generation, m.Metadata.Generation, nil, ""
		s.Set(estate.Condition{Type: estate.Ready, Status: estate.True, Text: "its content is here", Since: a.Now()})
	})
}

func (c *content) imageContent(ctx context.Context, m *estate.Image, report func(estate.Work)) (image.Record, error) {
	if m.Spec.Recipe != nil {
		return image.Build(ctx, *m.Spec.Recipe, c.agent.Images, image.Options{Report: report})
	}
	if m.Spec.Import == nil {
		return image.Record{}, fault.Invalid.Errorf("image %s has neither recipe nor import", m.Metadata.Name)
	}
	return image.Import(ctx, *m.Spec.Import, c.agent.Images, image.Options{Report: report})
}

// makeLayer cuts one version of an application for one image.
func (c *content) makeLayer(ctx context.Context, p *application.Provider, app *estate.Application, order estate.LayerBuild) error {
	a := c.agent
	a.Log.Info("cutting layer", "application", app.Metadata.Name, "version", order.Version)
	status := func(change func(*estate.LayerBuild)) error {
		now, err := api.ModifyStatus(ctx, a.Plane, app.Metadata.Project, app.Metadata.Name, func(now *estate.Application) error {
			for i := range now.Status.Layers {
				if l := &now.Status.Layers[i]; l.Version == order.Version && l.Image == order.Image {
					change(l)
				}
			}
			return nil
		})
		if err == nil {
			c.saw(func() { put(c.apps, &now.Head, now, false) })
		}
		return err
	}
	report := c.progress(func(w estate.Work) { status(func(l *estate.LayerBuild) { l.Work, l.Text = &w, "" }) })
	rec, err := c.layerContent(ctx, p, app, order, report)
	if err != nil {
		status(func(l *estate.LayerBuild) { l.Work, l.Text = nil, problem(err) })
		return err
	}
	return status(func(l *estate.LayerBuild) {
		if l.Digest != order.Digest {
			return // as with images
		}
		l.Digest, l.Size, l.Work, l.Text = rec.Digest, rec.Stored, nil, ""
	})
}

func (c *content) layerContent(ctx context.Context, p *application.Provider, app *estate.Application, order estate.LayerBuild, report func(estate.Work)) (image.Record, error) {
	base, err := c.agent.Images.Get(order.Image)
	if err != nil {
		return image.Record{}, err
	}
	if base.Status == "" {
		return image.Record{}, fault.Unsupported.Errorf("image %s was imported without a list of its packages; layers can be cut for built images only", order.Image.Short())
	}
	version, ok := app.Spec.Version(order.Version)
	if !ok {
		return image.Record{}, fault.NotFound.Errorf("application %s has no version %s any more", app.Metadata.Name, order.Version)
	}
	draft, err := c.agent.Images.Draft()
	if err != nil {
		return image.Record{}, err
	}
	defer draft.Discard()
	path, err := p.Build(ctx, appdriver.Recipe{
		Application: app.Metadata.Name, Packages: version.Packages, Suite: base.Suite, DpkgStatus: base.Status,
	}, draft.Dir, report)
	if err != nil {
		return image.Record{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return image.Record{}, err
	}
	return draft.Commit(ctx, path, image.Record{Kind: image.KindLayer, Format: estate.Raw, Size: estate.Bytes(info.Size()), Suite: base.Suite})
}

// progress passes reports on, but not more often than the store should hear
// them: a new phase at once, percents now and then.
func (c *content) progress(tell func(estate.Work)) func(estate.Work) {
	var last estate.Work
	var at time.Time
	return func(w estate.Work) {
		now := c.agent.Now()
		if w == last || w.Phase == last.Phase && now.Sub(at) < reportEvery {
			return
		}
		last, at = w, now
		tell(w)
	}
}

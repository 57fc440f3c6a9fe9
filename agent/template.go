package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

const (
	// idleTemplate is for how long a template is kept that no machine here names,
	// and no pool.
	idleTemplate = 10 * time.Minute
	// templateLook is how often templates are looked through.
	templateLook = time.Minute
	// templateBoot is how long a guest may take to draw its desktop.
	templateBoot = 10 * time.Minute
	// calm is how much of a CPU a guest may use that has settled, and over what
	// time; calmLimit is how long it is waited for.
	calm      = 0.25
	calmOver  = time.Second
	calmLimit = 30 * time.Second
)

// templates are those that this host makes and keeps.
type templates struct {
	mu     sync.Mutex
	making map[string]*making
	idle   map[string]time.Time // since when nobody names them
	work   sync.WaitGroup
}

// making is a template on its way.
type making struct {
	err error // why the last try failed
	on  bool  // a try is under way
}

// templateHere returns the name that a template has on this host: another build
// of the hypervisor makes another template.
func (a *Agent) templateHere(name string) string {
	sum := sha256.Sum256([]byte(a.Host.Description().Product))
	return name + "-" + hex.EncodeToString(sum[:4])
}

// builderName begins the name of a machine that is to become a template. No
// other machine's name has a space in it.
const builderName = "template "

// builderID is the ID of the machine that becomes the template, as an UUID.
func builderID(name string) estate.MachineID {
	s := sha256.Sum256([]byte(builderName + name))
	s[6], s[8] = s[6]&0x0f|0x80, s[8]&0x3f|0x80 // version 8, RFC 9562
	h := hex.EncodeToString(s[:16])
	return estate.MachineID(strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:32]}, "-"))
}

// template returns the template a machine of that definition goes on from; none
// where it boots cold. One that is not there is made: until then it is fault.Unavailable.
func (k *keeper) template(ctx context.Context, m *estate.Machine, def driver.Definition) (string, error) {
	a := k.agent
	rec, _ := a.records.get(k.id)
	can := func(c estate.Capability) bool { return a.Host.CanFor(def.GuestType, c).Has }
	if m.Spec.Template == "" || rec.Came != nil || !can(estate.CanInstant) || !can(estate.CanGuest) {
		return "", nil
	}
	name := a.templateHere(m.Spec.Template)
	t, err := a.Host.Template(ctx, name)
	if err == nil && t.Stale == "" {
		return name, nil
	}
	if err != nil && !errors.Is(err, fault.NotFound) {
		return "", err
	}
	if err == nil { // stale: those that go on from it have what they need
		if err := a.Host.DropTemplate(ctx, name); err != nil {
			return "", err
		}
	}
	return "", a.templates.make(name, func() error { return k.makeTemplate(ctx, m, def, name) }, a.lookAtAll)
}

// beginsAt is template for a machine that is about to be defined: what it begins
// at is part of it from then on, and recorded first.
func (k *keeper) beginsAt(ctx context.Context, m *estate.Machine, def driver.Definition) (string, error) {
	name, err := k.template(ctx, m, def)
	if err == nil {
		err = k.agent.records.see(k.recordOf(m), func(r *record) { r.Template, r.Identity = name, false })
	}
	return name, err
}

// make has a template made in the background, and says that it is not there yet
// or why it could not be made; then the next call tries again.
func (t *templates) make(name string, make func() error, made func()) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.making[name]
	if w == nil {
		w = new(making)
		t.making[name] = w
	}
	if w.on {
		return fault.Unavailable.Errorf("waiting for template %s, which is being made", name)
	}
	last := w.err
	w.on, w.err = true, nil
	t.work.Go(func() {
		err := make()
		t.mu.Lock()
		w.on, w.err = false, err
		t.mu.Unlock()
		made()
	})
	if last != nil {
		return fault.Unavailable.Errorf("template %s is tried again: %w", name, last)
	}
	return fault.Unavailable.Errorf("waiting for template %s, which is being made", name)
}

// templateCards returns as many network cards as there are, for a machine that is
// to become the template: nothing is at their other end.
func templateCards(name string, n int) (cards []driver.NIC) {
	for i := range n {
		cards = append(cards, driver.NIC{MAC: estate.MACFor(builderID(name), i), Unplugged: true})
	}
	return cards
}

// makeTemplate boots a machine of that hardware on no network, has it draw its
// desktop, brings the machine's layers to it, and freezes it.
func (k *keeper) makeTemplate(ctx context.Context, m *estate.Machine, def driver.Definition, name string) error {
	a := k.agent
	def.ID, def.Name, def.Template, def.Sealed = builderID(name), builderName+name, "", false
	def.NICs = templateCards(name, len(def.NICs))
	a.Log.Info("making a template", "template", name, "machine", m.Metadata.Name)
	begun := a.Now()
	ctx, cancel := context.WithTimeout(ctx, templateBoot)
	defer cancel()
	if err := a.Host.Define(ctx, def); err != nil {
		return err
	}
	if err := a.Host.Start(ctx, def.ID); err != nil {
		return err
	}
	b := &keeper{agent: a, id: def.ID, want: m, wake: make(chan struct{}, 1), turn: make(chan struct{}, 1)}
	for !b.guest.Desktop || !b.keepLayers(ctx, m) {
		b.ask(ctx)
		select {
		case <-time.After(bootLook):
		case <-ctx.Done():
			return fault.Unavailable.Errorf("make template %s: its guest draws no desktop: %w", name, ctx.Err())
		}
	}
	a.awaitCalm(ctx, def.ID)
	if err := a.Host.Freeze(ctx, def.ID, name); err != nil {
		return err
	}
	a.Log.Info("template is made", "template", name, "took", a.Now().Sub(begun).Round(time.Millisecond))
	return nil
}

// awaitCalm waits until a guest has done what it does after it has drawn its
// desktop: each clone would do the rest again. It gives up after a while.
func (a *Agent) awaitCalm(ctx context.Context, id estate.MachineID) {
	if !a.Host.Can(estate.CanMeasure).Has {
		return
	}
	var last time.Duration = -1
	for end := time.Now().Add(calmLimit); time.Now().Before(end); {
		u, err := a.Host.Measure(ctx, id)
		if err != nil || u.CPU < 0 || last >= 0 && float64(u.CPU-last) < calm*float64(calmOver) {
			return
		}
		last = u.CPU
		select {
		case <-time.After(calmOver):
		case <-ctx.Done():
			return
		}
	}
}

// lookAtAll has every machine looked at soon, and the host described anew.
func (a *Agent) lookAtAll() {
	a.machinesChanged()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range a.machines {
		k.look()
	}
}

// keepTemplates drops what nobody names any more, until ctx ends.
func (a *Agent) keepTemplates(ctx context.Context) {
	defer a.templates.work.Wait()
	if !a.Host.Can(estate.CanInstant).Has {
		return
	}
	for ctx.Err() == nil {
		if err := a.dropTemplates(ctx); err != nil && ctx.Err() == nil {
			a.Log.Warn("drop templates", "error", err)
		}
		select {
		case <-time.After(templateLook):
		case <-ctx.Done():
		}
	}
}

// heldTemplates returns the templates of this host, none where it makes none.
func (a *Agent) heldTemplates(ctx context.Context) ([]driver.Template, error) {
	if !a.Host.Can(estate.CanInstant).Has {
		return nil, nil
	}
	return a.Host.Templates(ctx)
}

func (a *Agent) dropTemplates(ctx context.Context) error {
	all, err := a.Host.Templates(ctx)
	if err != nil {
		return err
	}
	held, err := a.Host.List(ctx)
	if err != nil {
		return err
	}
	named := a.namedTemplates()
	var errs []error
	for _, t := range all {
		if t.Stale != "" || a.templates.unused(t.Name, slices.Contains(named, t.Name), a.Now()) {
			a.Log.Info("dropping a template", "template", t.Name, "stale", t.Stale)
			errs = append(errs, a.Host.DropTemplate(ctx, t.Name))
			a.machinesChanged()
		}
	}
	for _, m := range held { // what was to become one
		name, builder := strings.CutPrefix(m.Def.Name, builderName)
		if builder && m.ID == builderID(name) && a.templates.unused(name, slices.Contains(named, name), a.Now()) {
			errs = append(errs, a.Host.Delete(ctx, m.ID))
		}
	}
	return errors.Join(errs...)
}

// namedTemplates returns the templates that machines of this host name, and
// those of pools, whose next seat may be made here though none is here now.
func (a *Agent) namedTemplates() (names []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range a.machines {
		if m, deleted := k.latest(); !deleted && m.Spec.Template != "" {
			names = append(names, a.templateHere(m.Spec.Template))
		}
	}
	for _, p := range a.pools {
		if p.Status.Template != "" {
			names = append(names, a.templateHere(p.Status.Template))
		}
	}
	return names
}

// unused notes whether somebody names the template, and reports whether nobody
// has for long.
func (t *templates) unused(name string, named bool, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.making[name]; named || w != nil && w.on {
		delete(t.idle, name)
		return false
	}
	if t.idle[name].IsZero() {
		t.idle[name] = now
	}
	return now.Sub(t.idle[name]) >= idleTemplate
}

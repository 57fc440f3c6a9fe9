// Package place decides on which hypervisor a machine runs.
package place

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/store"
)

// Placer writes Machine.spec.hypervisor and the fencing epoch, and says which
// hypervisors are lost.
type Placer struct {
	Store *store.Store
	// Alive reports whether the agent of a hypervisor holds its lease.
	Alive  func(ctx context.Context, hypervisor string) (bool, error)
	Now    func() time.Time
	Log    *slog.Logger
	Events *control.Recorder // may be nil

	mu   sync.Mutex
	lost map[string]bool // hypervisors whose loss was told

	stock  stock
	orders orders
}

// workers is how many machines are placed side by side. They choose one after
// the other; what they wait for together is the store.
const workers = 64

// lookAgain is how often the lease of a hypervisor is looked at. A lost lease
// proves nothing about its machines, so being slow costs little.
const lookAgain = 3 * time.Second

// Loops returns the placer's loops.
func (p *Placer) Loops() []*control.Loop {
	self := func(_ context.Context, r estate.Resource) []estate.Ref { return []estate.Ref{r.Header().Ref()} }
	return []*control.Loop{
		{Name: "place", Store: p.Store, Kinds: []estate.Kind{"Machine", "Hypervisor", "Image"}, Concerns: p.concerns, Step: p.place, Workers: workers, Log: p.Log},
		{Name: "hypervisors", Store: p.Store, Kinds: []estate.Kind{"Hypervisor"}, Concerns: self, Step: p.watchOver, Log: p.Log},
	}
}

// concerns returns the machine itself; a hypervisor concerns all that wait for
// a place. What it is told is noted in the stock.
func (p *Placer) concerns(_ context.Context, changed estate.Resource) []estate.Ref {
	s := &p.stock
	switch r := changed.(type) {
	case *estate.Machine:
		return []estate.Ref{r.Ref()}
	case *estate.Hypervisor:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.host(r)
		var refs []estate.Ref
		for _, w := range s.line() {
			refs = append(refs, w.machine.Ref())
		}
		return refs
	case *estate.Image:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.sizes != nil && r.Status.Digest != "" {
			s.sizes[r.Status.Digest] = r.Status.Size
		}
	}
	return nil
}

// place finds a hypervisor for a machine that has none, and notes where one is.
func (p *Placer) place(ctx context.Context, ref estate.Ref) (time.Duration, error) {
	m, err := store.Get[estate.Machine](ctx, p.Store, ref.Project, ref.Name)
	switch {
	case errors.Is(err, fault.NotFound):
		p.stock.mu.Lock()
		defer p.stock.mu.Unlock()
		p.stock.forget(ref)
		return 0, nil
	case err != nil:
		return 0, err
	case m.Spec.Hypervisor != "":
		p.stock.mu.Lock()
		defer p.stock.mu.Unlock()
		p.stock.machine(m)
		return 0, nil
	case !m.Metadata.Deleting.IsZero():
		// No agent ever had it, so nobody else would let it go.
		m.Metadata.Finalizers = nil
		return 0, p.Store.Update(ctx, m)
	}
	c, err := p.choose(ctx, m)
	if err != nil {
		return 0, err
	}
	if c.on == "" {
		if m.Status.Waiting == c.why {
			return lookAgain, nil
		}
		waits := strings.HasPrefix(m.Status.Waiting, inLine) && strings.HasPrefix(c.why, inLine)
		m.Status.Waiting = c.why
		if err := p.Store.Update(ctx, m); err != nil {
			return 0, err
		}
		if !waits { // that it still does, and where in the line, its status tells
			p.Events.Tell(ctx, control.Happening{On: ref, Reason: "NoPlace", Text: c.why, Bad: true})
		}
		return lookAgain, nil
	}
	m.Spec.Hypervisor, m.Status.Waiting = c.on, "waiting for the agent of "+c.on
	m.Spec.Because = c.why
	m.Spec.Epoch++
	if err := p.commit(ctx, m, c.reading); err != nil {
		return 0, err
	}
	text := fmt.Sprintf("it is placed on %s under epoch %d", c.on, m.Spec.Epoch)
	if c.why != "" {
		text += ": " + c.why
		p.Events.Tell(ctx, control.Happening{On: *m.Metadata.Owner, Of: "place", Reason: "Placed", Text: fmt.Sprintf("its machine is placed on %s: %s", c.on, c.why)})
	}
	p.Events.Tell(ctx, control.Happening{On: ref, Reason: "Placed", Text: text})
	return 0, nil
}

// choice is where a machine goes, and why, where its blueprint prefers something;
// or no host, and why not. The room is taken in the stock.
type choice struct {
	on, why string
	reading int64 // of the stock
}

// choose returns the best hypervisor with room, as the stock has it and as the
// hypervisor itself is in the store.
func (p *Placer) choose(ctx context.Context, m *estate.Machine) (choice, error) {
	among, err := p.candidates(ctx, m)
	if err != nil {
		return choice{}, err
	}
	want, err := p.preference(ctx, m)
	if err != nil {
		return choice{}, err
	}
	for range tries {
		c, version, err := p.fromStock(ctx, m, among, want)
		if err != nil || c.on == "" {
			return c, err
		}
		h, err := store.Get[estate.Hypervisor](ctx, p.Store, "", c.on)
		if err == nil && h.Metadata.Version == version {
			return c, nil
		}
		p.release(m, c.reading)
		if err != nil && !errors.Is(err, fault.NotFound) {
			return choice{}, err
		}
		p.stock.mu.Lock()
		if err != nil {
			p.stock.lose(c.on)
		} else {
			p.stock.host(h)
		}
		p.stock.mu.Unlock()
	}
	return choice{}, fault.Conflict.Errorf("place %s: the hypervisors kept changing", m.Ref())
}

// tries is how often another hypervisor is chosen because one has changed.
const tries = 8

// fromStock chooses by the stock alone, and returns the version of the
// hypervisor that was chosen.
func (p *Placer) fromStock(ctx context.Context, m *estate.Machine, among []string, want estate.Preference) (c choice, version int64, err error) {
	s := &p.stock
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.read(ctx, p.Store); err != nil {
		return c, 0, err
	}
	s.machine(m)
	var pick func([]string) string
	if want != (estate.Preference{}) {
		pick = func(fit []string) (name string) {
			name, c.why, err = p.preferred(ctx, m, want, fit)
			return name
		}
	}
	c.on, c.reading = s.choose(m, s.left(m, among, p.Now()), pick), s.reading
	if err != nil {
		return c, 0, err
	}
	if c.on == "" {
		place, of := s.wait(m, among, p.Now())
		c.why = s.refusal(m, among, place, of)
	} else {
		delete(s.waiting, m.Ref())
	}
	return c, s.seen[hypervisorKey(c.on)], nil
}

// preferred returns one of the hypervisors that fit: the first, unless the
// blueprint prefers another and the matrix bears it out.
func (p *Placer) preferred(ctx context.Context, m *estate.Machine, want estate.Preference, fit []string) (name, why string, err error) {
	trials, _, err := store.List[estate.Trial](ctx, p.Store, "")
	if err != nil {
		return "", "", err
	}
	var hypervisors []*estate.Hypervisor
	for _, name := range fit {
		h, err := store.Get[estate.Hypervisor](ctx, p.Store, "", name)
		if err != nil {
			return "", "", err
		}
		hypervisors = append(hypervisors, h)
	}
	h, why := prefer(want, m, hypervisors, trials)
	return h.Metadata.Name, why, nil
}

// candidates are the hypervisors that the owner's plan names, best first; nil,
// which is all, for a machine nobody planned.
func (p *Placer) candidates(ctx context.Context, m *estate.Machine) ([]string, error) {
	if m.Spec.Only != "" {
		return []string{m.Spec.Only}, nil
	}
	o := m.Metadata.Owner
	if o != nil && o.Kind == "Service" {
		return p.forReplica(ctx, m, *o)
	}
	if o == nil || o.Kind != "Desktop" {
		return nil, nil
	}
	d, err := store.Get[estate.Desktop](ctx, p.Store, o.Project, o.Name)
	if err != nil {
		return nil, err
	}
	if d.Status.Plan == nil {
		return []string{}, nil
	}
	return append([]string{}, d.Status.Plan.Hypervisors...), nil
}

// forReplica returns the hypervisors that the plan of the replica's revision
// names, but for those it is to avoid where any other is left.
func (p *Placer) forReplica(ctx context.Context, m *estate.Machine, of estate.Ref) ([]string, error) {
	s, err := store.Get[estate.Service](ctx, p.Store, of.Project, of.Name)
	if err != nil {
		return nil, err
	}
	for _, r := range s.Status.Replicas {
		rev := s.Status.Revision(r.Revision)
		if r.Machine != m.Metadata.Name || rev == nil {
			continue
		}
		among := append([]string{}, rev.Plan.Hypervisors...)
		if left := slices.DeleteFunc(slices.Clone(among), func(h string) bool { return slices.Contains(r.Avoid, h) }); len(left) > 0 {
			return left, nil
		}
		return among, nil
	}
	return []string{}, nil
}

// watchOver says that a hypervisor is lost when its agent's lease has run out.
// Its machines are left alone: they may well run on.
func (p *Placer) watchOver(ctx context.Context, ref estate.Ref) (time.Duration, error) {
	h, err := store.Get[estate.Hypervisor](ctx, p.Store, "", ref.Name)
	if err != nil {
		if errors.Is(err, fault.NotFound) {
			p.stock.mu.Lock()
			defer p.stock.mu.Unlock()
			p.stock.lose(ref.Name)
			return 0, nil
		}
		return 0, err
	}
	alive, err := p.Alive(ctx, ref.Name)
	if err != nil {
		return 0, err
	}
	want := h.Status.State
	switch {
	case !alive && want != "":
		want = estate.HypervisorLost
	case alive && h.Spec.Drain:
		want = estate.HypervisorDraining
	case alive:
		want = estate.HypervisorReady
	}
	ready := estate.Condition{Type: estate.Ready, Status: estate.True, Text: "its agent answers", Since: p.Now()}
	if want == estate.HypervisorLost {
		ready.Status, ready.Reason = estate.False, "AgentLost"
		ready.Text = "its agent does not answer; its machines may still run: start the agent again on that host"
	}
	was := h.Status.State
	if want == "" {
		return lookAgain, nil
	}
	if want != was || h.Status.Set(ready) {
		h.Status.State = want
		h.Status.Set(ready)
		if err := p.Store.Update(ctx, h); err != nil {
			return 0, err
		}
	}
	p.tellOf(ctx, h, was)
	return lookAgain, nil
}

// tellOf tells that a hypervisor's agent is lost, or back. An agent that joins
// says itself that its host is ready, so what was told counts as well as what
// the status was.
func (p *Placer) tellOf(ctx context.Context, h *estate.Hypervisor, was estate.HypervisorState) {
	lost := h.Status.State == estate.HypervisorLost
	p.mu.Lock()
	before := p.lost[h.Metadata.Name] || was == estate.HypervisorLost
	if p.lost == nil {
		p.lost = map[string]bool{}
	}
	p.lost[h.Metadata.Name] = lost
	p.mu.Unlock()
	switch {
	case lost && !before:
		p.Events.Tell(ctx, control.Happening{On: h.Ref(), Reason: "AgentLost", Text: h.Status.Get(estate.Ready).Text, Bad: true})
	case !lost && before:
		p.Events.Tell(ctx, control.Happening{On: h.Ref(), Reason: "AgentBack", Text: "its agent answers again"})
	}
}

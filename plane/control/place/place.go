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
}

// lookAgain is how often the lease of a hypervisor is looked at. A lost lease
// proves nothing about its machines, so being slow costs little.
const lookAgain = 3 * time.Second

// Loops returns the placer's loops. Machines are placed one at a time, so that
// two do not get the same room.
func (p *Placer) Loops() []*control.Loop {
	self := func(_ context.Context, r estate.Resource) []estate.Ref { return []estate.Ref{r.Header().Ref()} }
	return []*control.Loop{
		{Name: "place", Store: p.Store, Kinds: []estate.Kind{"Machine", "Hypervisor"}, Concerns: p.concerns, Step: p.place, Workers: 1, Log: p.Log},
		{Name: "hypervisors", Store: p.Store, Kinds: []estate.Kind{"Hypervisor"}, Concerns: self, Step: p.watchOver, Log: p.Log},
	}
}

// concerns returns the machine itself; a hypervisor concerns all that wait for a place.
func (p *Placer) concerns(ctx context.Context, changed estate.Resource) []estate.Ref {
	if changed.Header().Kind == "Machine" {
		return []estate.Ref{changed.Header().Ref()}
	}
	machines, _, err := store.List[estate.Machine](ctx, p.Store, "")
	if err != nil {
		return nil // the next change of the hypervisor brings them back
	}
	var refs []estate.Ref
	for _, m := range machines {
		if m.Spec.Hypervisor == "" {
			refs = append(refs, m.Ref())
		}
	}
	return refs
}

// place finds a hypervisor for a machine that has none.
func (p *Placer) place(ctx context.Context, ref estate.Ref) (time.Duration, error) {
	m, err := store.Get[estate.Machine](ctx, p.Store, ref.Project, ref.Name)
	switch {
	case errors.Is(err, fault.NotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case m.Spec.Hypervisor != "":
		return 0, nil
	case !m.Metadata.Deleting.IsZero():
		// No agent ever had it, so nobody else would let it go.
		m.Metadata.Finalizers = nil
		return 0, p.Store.Update(ctx, m)
	}
	chosen, why, err := p.choose(ctx, m) // why there is none, or why this one
	if err != nil {
		return 0, err
	}
	if chosen == "" {
		if m.Status.Waiting == why {
			return lookAgain, nil
		}
		m.Status.Waiting = why
		if err := p.Store.Update(ctx, m); err != nil {
			return 0, err
		}
		p.Events.Tell(ctx, control.Happening{On: ref, Reason: "NoPlace", Text: why, Bad: true})
		return lookAgain, nil
	}
	m.Spec.Hypervisor, m.Status.Waiting = chosen, "waiting for the agent of "+chosen
	m.Spec.Because = why
	m.Spec.Epoch++
	if err := p.Store.Update(ctx, m); err != nil {
		return 0, err
	}
	text := fmt.Sprintf("it is placed on %s under epoch %d", chosen, m.Spec.Epoch)
	if why != "" {
		text += ": " + why
		p.Events.Tell(ctx, control.Happening{On: *m.Metadata.Owner, Of: "place", Reason: "Placed", Text: fmt.Sprintf("its machine is placed on %s: %s", chosen, why)})
	}
	p.Events.Tell(ctx, control.Happening{On: ref, Reason: "Placed", Text: text})
	return 0, nil
}

// choose returns the best hypervisor with room, and what its blueprint's
// preference had to do with that; or no name and one sentence why there is none.
func (p *Placer) choose(ctx context.Context, m *estate.Machine) (name, why string, err error) {
	hypervisors, _, err := store.List[estate.Hypervisor](ctx, p.Store, "")
	if err != nil {
		return "", "", err
	}
	machines, _, err := store.List[estate.Machine](ctx, p.Store, "")
	if err != nil {
		return "", "", err
	}
	candidates, err := p.candidates(ctx, m, hypervisors)
	if err != nil {
		return "", "", err
	}
	var fit []*estate.Hypervisor
	var no []string
	for _, h := range candidates {
		if why := objection(h, m, machines); why != "" {
			no = append(no, h.Metadata.Name+": "+why)
			continue
		}
		fit = append(fit, h)
	}
	switch {
	case len(fit) > 0:
		return p.among(ctx, m, fit)
	case len(no) == 0:
		return "", "no hypervisor fits; add one, or change the blueprint's hypervisor selector", nil
	}
	return "", "waiting for room: " + strings.Join(no, "; "), nil
}

// among returns one of the hypervisors that fit: the first, unless the blueprint
// prefers another and the matrix bears it out.
func (p *Placer) among(ctx context.Context, m *estate.Machine, fit []*estate.Hypervisor) (name, why string, err error) {
	want, err := p.preference(ctx, m)
	if err != nil || want == (estate.Preference{}) {
		return fit[0].Metadata.Name, "", err
	}
	trials, _, err := store.List[estate.Trial](ctx, p.Store, "")
	if err != nil {
		return "", "", err
	}
	h, why := prefer(want, m, fit, trials)
	return h.Metadata.Name, why, nil
}

// candidates are the hypervisors that the owner's plan names, best first; any
// for a machine nobody planned.
func (p *Placer) candidates(ctx context.Context, m *estate.Machine, all []*estate.Hypervisor) ([]*estate.Hypervisor, error) {
	if m.Spec.Only != "" {
		return slices.DeleteFunc(slices.Clone(all), func(h *estate.Hypervisor) bool { return h.Metadata.Name != m.Spec.Only }), nil
	}
	o := m.Metadata.Owner
	if o == nil || o.Kind != "Desktop" {
		return all, nil
	}
	d, err := store.Get[estate.Desktop](ctx, p.Store, o.Project, o.Name)
	if err != nil {
		return nil, err
	}
	if d.Status.Plan == nil {
		return nil, nil
	}
	var out []*estate.Hypervisor
	for _, name := range d.Status.Plan.Hypervisors {
		i := slices.IndexFunc(all, func(h *estate.Hypervisor) bool { return h.Metadata.Name == name })
		if i >= 0 {
			out = append(out, all[i])
		}
	}
	return out, nil
}

// objection says why a hypervisor cannot take a machine now, or "".
func objection(h *estate.Hypervisor, m *estate.Machine, machines []*estate.Machine) string {
	switch {
	case h.Status.State == estate.HypervisorLost || h.Status.State == "":
		return "its agent does not answer"
	case h.Spec.Drain || h.Status.State == estate.HypervisorDraining:
		return "it takes nothing new"
	}
	free := h.Status.Capacity.Memory
	for _, other := range machines {
		mv := other.Spec.Moving
		there := other.Spec.Hypervisor == h.Metadata.Name || mv != nil && mv.To == h.Metadata.Name
		if there && other.Metadata.UID != m.Metadata.UID {
			free -= other.Spec.Hardware.Memory
		}
	}
	if h.Status.Capacity.Memory > 0 && free < m.Spec.Hardware.Memory {
		return fmt.Sprintf("%d MiB of memory free, %s needed", max(0, free/estate.MiB), m.Spec.Hardware.Memory)
	}
	return ""
}

// watchOver says that a hypervisor is lost when its agent's lease has run out.
// Its machines are left alone: they may well run on.
func (p *Placer) watchOver(ctx context.Context, ref estate.Ref) (time.Duration, error) {
	h, err := store.Get[estate.Hypervisor](ctx, p.Store, "", ref.Name)
	if err != nil {
		if errors.Is(err, fault.NotFound) {
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

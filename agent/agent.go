// Package agent does on one host what the plane wants: it is a client of the
// API that drives machines, images and applications through the layers. It may
// be killed at any moment; machines go on, and the next agent takes them over.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"consort.dev/consort/agent/network"
	"consort.dev/consort/api"
	"consort.dev/consort/application"
	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor"
	"consort.dev/consort/image"
)

// Options are the parts an agent is made of.
type Options struct {
	Hypervisor   string // name of the Hypervisor object it speaks for
	Provider     string // the provider's name, for that object
	Endpoint     string // where its API is reached, for that object; empty for this host's own
	Labels       map[string]string
	Dir          string // records and volumes
	Plane        *api.Client
	Host         *hypervisor.Host
	Applications map[string]*application.Provider // by delivery
	Images       *image.Store
	Work         string        // scratch space for builds
	Network      *network.Host // nil when this host makes no networks
	NoNetwork    string        // why Network is nil, one sentence
	Now          func() time.Time
	Log          *slog.Logger
}

// Agent is one host's agent.
type Agent struct {
	Options
	records *records
	volumes *volumes
	content *content

	templates templates

	mu       sync.Mutex
	machines map[estate.MachineID]*keeper
	volumeOf map[string]*estate.Volume // by project/name
	networks map[string]*estate.Network
	contexts map[string]*estate.Context
	pools    map[string]*estate.Pool
	changed  chan struct{} // holds a token when machines came or went
	joined   chan struct{} // closed once the plane knows this host
}

// New returns an agent with what an earlier one left behind.
func New(o Options) (*Agent, error) {
	a := &Agent{
		Options: o, machines: map[estate.MachineID]*keeper{}, volumeOf: map[string]*estate.Volume{},
		networks: map[string]*estate.Network{}, contexts: map[string]*estate.Context{}, pools: map[string]*estate.Pool{}, changed: make(chan struct{}, 1), joined: make(chan struct{}),
	}
	// Whoever runs a machine passes through to its volumes, and sees nothing else.
	err := errors.Join(os.MkdirAll(o.Dir, 0o711), os.Chmod(o.Dir, 0o711))
	if err != nil {
		return nil, fmt.Errorf("open the agent's folder: %w", err)
	}
	if a.records, err = openRecords(filepath.Join(o.Dir, "records")); err != nil {
		return nil, err
	}
	if a.volumes, err = openVolumes(filepath.Join(o.Dir, "volumes")); err != nil {
		return nil, err
	}
	a.content = newContent(a)
	a.templates.making, a.templates.idle = map[string]*making{}, map[string]time.Time{}
	return a, nil
}

// Run keeps the host as the plane wants it until ctx ends. Machines go on.
func (a *Agent) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { a.stayJoined(ctx) })
	wg.Go(func() { a.onceJoined(ctx, a.content.run) })
	wg.Go(func() { a.onceJoined(ctx, a.content.fetcher.run) })
	wg.Go(func() { a.heed(ctx) })
	wg.Go(func() { a.keepTemplates(ctx) })
	wg.Go(func() { a.onceJoined(ctx, func(ctx context.Context) { a.answer(ctx, &wg) }) })
	a.follow(ctx, &wg)
	return ctx.Err()
}

// onceJoined runs what needs the plane to know this host.
func (a *Agent) onceJoined(ctx context.Context, run func(context.Context)) {
	select {
	case <-a.joined:
		run(ctx)
	case <-ctx.Done():
	}
}

// follow hands every change to whom it concerns.
func (a *Agent) follow(ctx context.Context, wg *sync.WaitGroup) {
	for e := range a.Plane.WatchKinds(ctx, "", "Context", "Network", "Volume", "Image", "Application", "Pool", "Machine") {
		if e.Type == api.Synced {
			a.sweep(ctx, wg)
		}
		if e.Type != api.Is && e.Type != api.Gone {
			if e.Err != nil && ctx.Err() == nil {
				a.Log.Warn("follow the plane", "error", e.Err)
			}
			continue
		}
		gone := e.Type == api.Gone
		switch r := e.Object.(type) {
		case *estate.Machine:
			a.sawMachine(ctx, wg, r, gone)
		case *estate.Volume:
			a.sawVolume(ctx, r, gone)
		case *estate.Context:
			a.sawContext(ctx, r, gone)
		case *estate.Network:
			a.sawNetwork(ctx, r, gone)
		case *estate.Pool:
			a.remember(func() { put(a.pools, &r.Head, r, gone) })
		case *estate.Application:
			a.content.sawApplication(r, gone)
		case *estate.Image:
			a.content.sawImage(r, gone)
		}
	}
}

func (a *Agent) remember(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
}

func put[T any](m map[string]T, h *estate.Head, v T, deleted bool) {
	key := h.Metadata.Project + "/" + h.Metadata.Name
	if deleted {
		delete(m, key)
		return
	}
	m[key] = v
}

// sawVolume remembers the volume, and destroys its data when it goes.
func (a *Agent) sawVolume(ctx context.Context, v *estate.Volume, deleted bool) {
	a.remember(func() { put(a.volumeOf, &v.Head, v, deleted) })
	mine := v.Status.Hypervisor == a.Hypervisor || v.Status.Hypervisor == ""
	if deleted || v.Metadata.Deleting.IsZero() || !mine || v.Spec.Holder != "" {
		return
	}
	err := a.volumes.remove(v)
	if err == nil {
		err = a.Plane.LetGo(ctx, v.Ref(), estate.AgentFinalizer)
	}
	if err != nil {
		a.Log.Warn("destroy volume", "volume", v.Metadata.Name, "error", err)
	}
}

// sawMachine hands the machine to its keeper, making one on first sight of a
// machine that is this host's business.
func (a *Agent) sawMachine(ctx context.Context, wg *sync.WaitGroup, m *estate.Machine, deleted bool) {
	id := estate.MachineID(m.Metadata.UID)
	_, known := a.records.get(id)
	// A call of a move may be about to record what this change makes a leftover:
	// whoever keeps a machine hears everything of it.
	_, kept := a.running(id)
	mv := m.Spec.Moving
	moves := mv != nil && (mv.From == a.Hypervisor || mv.To == a.Hypervisor)
	if m.Spec.Hypervisor != a.Hypervisor && !moves && !known && !kept {
		return
	}
	a.keep(ctx, wg, m, deleted)
}

// keep hands the machine to its keeper.
func (a *Agent) keep(ctx context.Context, wg *sync.WaitGroup, m *estate.Machine, deleted bool) {
	id := estate.MachineID(m.Metadata.UID)
	rec, _ := a.records.get(id)
	a.mu.Lock()
	defer a.mu.Unlock()
	k := a.machines[id]
	if k == nil {
		if deleted && !rec.leftover() {
			return
		}
		k = &keeper{agent: a, id: id, wake: make(chan struct{}, 1), turn: make(chan struct{}, 1)}
		a.machines[id] = k
		defer wg.Go(func() { k.run(ctx) }) // once it has seen the machine
	}
	k.see(m, deleted)
}

// running returns the keeper of a machine this host has.
func (a *Agent) running(id estate.MachineID) (*keeper, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, ok := a.machines[id]
	return k, ok
}

// problem returns err's text for a status: what a person can act on.
func problem(err error) string {
	if errors.Is(err, context.Canceled) {
		return ""
	}
	return fmt.Sprint(err)
}

package fakehost

import (
	"context"
	"maps"

	"consort.dev/consort/estate"
)

// watcher is told of changes; one that is slow is told once of many.
type watcher struct {
	changed map[estate.MachineID]struct{} // guarded by the host's mu
	wake    chan struct{}
}

// Watch implements driver.Watcher.
func (h *Host) Watch(ctx context.Context, changed func(estate.MachineID)) error {
	w := &watcher{changed: map[estate.MachineID]struct{}{}, wake: make(chan struct{}, 1)}
	h.mu.Lock()
	h.watchers[w] = struct{}{}
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.watchers, w)
		h.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		}
		h.mu.Lock()
		ids := maps.Clone(w.changed)
		clear(w.changed)
		h.mu.Unlock()
		for id := range ids {
			changed(id)
		}
	}
}

// tell tells all who watch that a machine has changed. Callers hold mu.
func (h *Host) tell(id estate.MachineID) {
	for w := range h.watchers {
		w.changed[id] = struct{}{}
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

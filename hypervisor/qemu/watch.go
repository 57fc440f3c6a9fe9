package qemu

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/internal/qmp"
)

// news tells watchers which machines have changed. The zero value has none.
type news struct {
	mu       sync.Mutex
	watchers map[*watcher]bool
}

// watcher is one that has not been told yet of what is in changed.
type watcher struct {
	changed map[estate.MachineID]bool
	wake    chan struct{} // holds a token while changed is not empty
}

// tell notes that a machine has changed. It never waits.
func (n *news) tell(id estate.MachineID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for w := range n.watchers {
		w.changed[id] = true
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

func (n *news) join() *watcher {
	w := &watcher{changed: map[estate.MachineID]bool{}, wake: make(chan struct{}, 1)}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.watchers == nil {
		n.watchers = map[*watcher]bool{}
	}
	n.watchers[w] = true
	return w
}

func (n *news) leave(w *watcher) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.watchers, w)
}

// take returns what w has not been told yet.
func (n *news) take(w *watcher) []estate.MachineID {
	n.mu.Lock()
	defer n.mu.Unlock()
	ids := slices.Sorted(maps.Keys(w.changed))
	clear(w.changed)
	return ids
}

// Watch implements driver.Watcher. Only this process changes machines, or their
// guests do by powering off, which ends the connection to them.
func (h *Host) Watch(ctx context.Context, changed func(estate.MachineID)) error {
	w := h.news.join()
	defer h.news.leave(w)
	for {
		select {
		case <-w.wake:
			for _, id := range h.news.take(w) {
				changed(id)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// awaitPowerOff tells of the machine once the process at the other end of c has
// gone, so that who then looks sees it off.
func (m *machine) awaitPowerOff(c *qmp.Client) {
	<-c.Done()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(quitLimit); time.Now().Before(end); {
		if lives, err := alive(m.dir); err != nil || !lives || m.controller() != nil {
			break
		}
		select {
		case <-tick.C:
		case <-m.host.closed:
			return
		}
	}
	m.host.news.tell(m.id)
}

package fakehost

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"sync"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// Site is hosts between which running machines move. The zero value is a site
// without hosts.
type Site struct {
	mu    sync.Mutex // taken before that of any host
	id    string
	hosts map[string]*Host
}

// name returns the site's name, which no other has.
func (s *Site) name() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id == "" {
		s.id = rand.Text()
	}
	return s.id
}

// join returns the address of a host that is new to the site.
func (s *Site) join(h *Host) (at string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hosts == nil {
		s.hosts = map[string]*Host{}
	}
	at = fmt.Sprint("host ", len(s.hosts)+1)
	s.hosts[at] = h
	return at
}

// Arrive implements driver.Mover.
func (h *Host) Arrive(ctx context.Context, def driver.Definition) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.machines[def.ID] != nil || h.shelf[def.ID] != nil {
		return "", fault.Exists.Errorf("machine %s is here already", def.ID)
	}
	h.awaited[def.ID] = newMachine(def).Def
	return h.at, nil
}

// Depart implements driver.Mover.
func (h *Host) Depart(ctx context.Context, id estate.MachineID, at string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	site := h.opt.Site
	site.mu.Lock()
	defer site.mu.Unlock()
	there := site.hosts[at]
	if there == nil || there == h {
		return fault.Unavailable.Errorf("no other host is at %q", at)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.running(id)
	if err != nil {
		return err
	}
	there.mu.Lock()
	defer there.mu.Unlock()
	def, ok := there.awaited[id]
	if !ok {
		return fault.Unavailable.Errorf("nobody waits for machine %s at %q", id, at)
	}
	come := newMachine(def)
	for _, d := range def.Disks {
		if d.File == nil {
			come.content[d.Name] = m.content[d.Name]
		}
	}
	boot, attached := m.boot, maps.Clone(m.attached)
	m.powerOff()
	h.shelve(m)
	come.powerOn(boot)
	come.Starts, come.attached = 1, attached
	delete(there.awaited, id)
	there.machines[id] = come
	there.tell(id)
	return nil
}

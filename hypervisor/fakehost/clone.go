package fakehost

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// template is a machine that stands still.
type template struct {
	driver.Template
	boot     string
	content  map[string]content
	attached map[string]driver.Disk
}

// Freeze implements driver.Cloner.
func (h *Host) Freeze(ctx context.Context, id estate.MachineID, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.templates[name]
	if old != nil && old.Def.ID == id && h.machines[id] == nil {
		return nil
	}
	m, err := h.running(id)
	switch {
	case err != nil:
		return err
	case old != nil:
		return fault.Exists.Errorf("template %s exists", name)
	case m.Def.Freezable() != "":
		return fault.Invalid.Errorf("machine %s makes no template: %s", id, m.Def.Freezable())
	}
	h.templates[name] = &template{
		Template: driver.Template{Name: name, Def: m.copy().Def, Size: int64(m.Def.Memory)},
		boot:     m.boot, content: maps.Clone(m.content), attached: maps.Clone(m.attached),
	}
	m.powerOff()
	delete(h.machines, id)
	h.tell(id)
	return nil
}

// Templates implements driver.Cloner.
func (h *Host) Templates(ctx context.Context) ([]driver.Template, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []driver.Template
	for _, name := range slices.Sorted(maps.Keys(h.templates)) {
		all = append(all, h.templates[name].Template)
	}
	return all, ctx.Err()
}

// Age makes every template stale, as an upgrade of the host does.
func (h *Host) Age() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.templates {
		t.Stale = "it was made by an older host"
	}
}

// DropTemplate implements driver.Cloner.
func (h *Host) DropTemplate(ctx context.Context, name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.templates, name)
	return ctx.Err()
}

// clone has a machine that was never started begin as its template. Callers
// hold mu.
func (h *Host) clone(m *machine) error {
	t := h.templates[m.Def.Template]
	switch {
	case t == nil:
		return fault.NotFound.Errorf("no template %s", m.Def.Template)
	case t.Stale != "":
		return fault.Unsupported.Errorf("template %s: %s", t.Name, t.Stale)
	case !m.Def.Clones(t.Def):
		return fault.Invalid.Errorf("template %s is of other hardware than machine %s", t.Name, m.ID)
	}
	m.from, m.content = t, maps.Clone(t.content)
	return nil
}

// forget has the next start boot.
func (m *machine) forget() { m.saved, m.from = "", nil }

// Join implements driver.Cloner.
func (h *Host) Join(ctx context.Context, id estate.MachineID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.running(id)
	if err == nil {
		m.joined = true
	}
	return err
}

// cards is what a guest says of its network cards, and of their links where link
// is set. It never gives those of its template an address of their own.
func (m *machine) cards(link bool) string {
	var all strings.Builder
	tell := func(n driver.NIC, up bool) {
		all.WriteString(n.MAC)
		switch {
		case link && up:
			all.WriteString(" 1")
		case link:
			all.WriteString(" 0")
		}
		all.WriteString("\n")
	}
	for _, n := range m.built {
		tell(n, m.joined)
	}
	for _, n := range m.Def.NICs[len(m.built):] {
		if m.joined {
			tell(n, !n.Unplugged)
		}
	}
	return all.String()
}

// Pause implements driver.Pauser.
func (h *Host) Pause(ctx context.Context, id estate.MachineID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.running(id)
	if err == nil && m.Power == estate.On {
		m.worked += time.Since(m.since)
		m.Power = estate.Paused
		h.tell(id)
	}
	return err
}

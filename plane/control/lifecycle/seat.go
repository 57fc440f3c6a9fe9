package lifecycle

import (
	"slices"
	"time"

	"consort.dev/consort/estate"
)

// host returns the hypervisor that the desktop's machine is placed on, or nil.
func (v *view) host() *estate.Hypervisor {
	i := slices.IndexFunc(v.inventory.Hypervisors, func(h *estate.Hypervisor) bool {
		return v.machine != nil && h.Metadata.Name == v.machine.Spec.Hypervisor
	})
	if i < 0 {
		return nil
	}
	return v.inventory.Hypervisors[i]
}

// wanted returns the power state that the desktop's machine should have. A seat
// that nobody has taken stands still once it is ready, where its host can do
// that: it costs no CPU.
func (v *view) wanted(on bool) estate.Power {
	switch h := v.host(); {
	case !on:
		return estate.Off
	case v.desktop.Free() && h != nil && h.Status.CanFor(v.machine.Spec.Hardware.GuestType, estate.CanPause).Has:
		return estate.Paused
	}
	return estate.On
}

// template returns the template that a seat's machine goes on from, where its
// host can do that. Clones share memory until they write to it, so that seats
// of one compartment share a template and no others do. A desktop of one's own
// boots from its own disk, which is made once and kept, unless it is thrown away.
// A guest that cannot tell when it is ready to be copied, or take an identity,
// boots from its own disk too.
func (v *view) template() string {
	if g := v.plan.Guest; v.desktop.Spec.Pool == "" && !v.plan.Disposable || !g.Agent || !g.Screen {
		return ""
	}
	return estate.TemplateName(v.desktop.Metadata.Project+"/"+v.plan.Context, v.plan.Hardware, v.plan.Layers)
}

// addressed reports whether the machine has the addresses it should have, as far
// as its host hears of them: a vendor's own network tells us none.
func (v *view) addressed() bool {
	m, h := v.machine, v.host()
	told := h == nil || h.Status.CanFor(m.Spec.Hardware.GuestType, estate.CanNetwork).Value != estate.NetworkByName
	return !told || len(m.Status.Guest.Addresses) >= len(m.Spec.Hardware.NICs)
}

// warm reports whether a seat is ready to be given to somebody: with an
// identity and addresses of its own, and everything that belongs on it. It may
// stand still already.
func (v *view) warm() bool {
	m, h, plan := v.machine, v.host(), planOf(v.desktop)
	if m == nil || h == nil || m.Status.Power != estate.On && m.Status.Power != estate.Paused || !drawn(m, plan) {
		return false
	}
	if plan.Guest.Agent && (!m.Status.Guest.Own || !v.addressed()) {
		return false
	}
	return !slices.ContainsFunc(m.Spec.Layers, func(l estate.Layer) bool {
		return !slices.ContainsFunc(m.Status.Layers, func(s estate.LayerState) bool { return s.Digest == l.Digest && s.Attached })
	})
}

// spent reports whether the desktop's machine has had its session, and goes with
// what was written in it: it has lost its key, or everybody who looked at it has
// left. Who connects after that gets the next one, be it ever so soon. A seat of
// a pool is its pool's to take back as long as it runs.
func (v *view) spent() bool {
	m := v.machine
	if m == nil || !m.Spec.Sealed {
		return false
	}
	if !m.Status.Lost.IsZero() {
		return true
	}
	if v.desktop.Spec.Pool != "" {
		return false
	}
	var left time.Time
	for _, s := range v.sessions {
		if !s.Status.Opened.IsZero() && s.Status.Ended.After(m.Metadata.Created) && s.Status.Ended.After(left) {
			left = s.Status.Ended
		}
	}
	return !left.IsZero() && !slices.ContainsFunc(v.sessions, func(s *estate.Session) bool {
		return s.Status.State != estate.SessionEnded && !s.Spec.End && !s.Metadata.Created.After(left)
	})
}

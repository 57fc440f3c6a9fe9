package compose

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"consort.dev/consort/estate"
)

// HomeVolume names the volume that holds a person's files in a context. Files
// follow the person to every desktop of that context and to no other: a
// compartment's files stay in the compartment. Two desktops of the person in one
// context take turns; Volume.spec.holder says whose turn it is. Names too long
// for a name are cut and end in a hash.
func HomeVolume(person, context string) string {
	name := "home-" + person + "-" + context
	if len(name) <= 63 {
		return name
	}
	sum := sha256.Sum256([]byte(person + "/" + context))
	return strings.TrimRight(name[:50], "-") + "-" + hex.EncodeToString(sum[:])[:12]
}

func (c *composition) home() {
	size := c.b.Spec.Home
	if size == 0 {
		return
	}
	if c.d != nil && c.d.Spec.Pool != "" {
		c.note("spec.home", "the home is left out: a seat of a pool has none, and what is saved on it goes with it")
		return
	}
	if c.plan.Disposable {
		c.note("spec.home", "the home is left out: in context %s all that is saved goes when the session ends", c.b.Spec.Context)
		return
	}
	if c.img != nil && c.guest.Home == "" {
		c.block("spec.home", "image %s has no place for a home (its guest.home is empty); %s, or remove spec.home", c.b.Spec.Image,
			c.others("images that do", func(g estate.GuestFacts) bool { return g.Home != "" }))
		return
	}
	c.plan.Home = size
	if c.d == nil {
		return
	}
	name := HomeVolume(c.d.Spec.Person, c.b.Spec.Context)
	c.plan.Hardware.Disks = append(c.plan.Hardware.Disks, estate.Disk{Name: HomeDisk, Volume: name})
	v, ok := named(c.in.Volumes, name)
	if !ok {
		return
	}
	c.where = v.Status.Hypervisor
	if v.Spec.Person != c.d.Spec.Person {
		c.block("spec.home", "volume %s belongs to %q, not to %s; remove or rename it", name, v.Spec.Person, c.d.Spec.Person)
	}
	c.turn(v)
}

// turn waits while another machine holds the home.
func (c *composition) turn(v *estate.Volume) {
	i := slices.IndexFunc(c.in.Machines, func(m *estate.Machine) bool {
		return v.Spec.Holder != "" && m.Metadata.UID == string(v.Spec.Holder)
	})
	if i < 0 || c.in.Machines[i].Metadata.Name == c.d.Status.Machine {
		return
	}
	m := c.in.Machines[i]
	who := "machine " + m.Metadata.Name
	if o := m.Metadata.Owner; o != nil {
		if o.Kind == c.d.Kind && o.Name == c.d.Metadata.Name {
			return
		}
		who = strings.ToLower(string(o.Kind)) + " " + o.Name
	}
	c.wait("spec.home", "the home of %s in context %s is in use by %s; shut that down first", c.d.Spec.Person, c.b.Spec.Context, who)
}

// machine returns the machine the desktop has already.
func (c *composition) machine() *estate.Machine {
	if c.d == nil {
		return nil
	}
	m, _ := named(c.in.Machines, c.d.Status.Machine)
	return m
}

func (c *composition) hypervisors() {
	mine := c.machine()
	type candidate struct {
		h    *estate.Hypervisor
		here bool
	}
	var fit []candidate
	var reasons []Reason
	wait := false
	for _, h := range c.in.Hypervisors {
		here := mine != nil && mine.Spec.Hypervisor == h.Metadata.Name
		lasting, passing := c.objections(h, here)
		if len(lasting)+len(passing) == 0 {
			fit = append(fit, candidate{h, here})
			continue
		}
		r := Reason{Path: "spec.hypervisor", Waiting: len(lasting) == 0}
		r.Text = "hypervisor " + h.Metadata.Name + ": " + strings.Join(append(lasting, passing...), "; ")
		wait = wait || r.Waiting
		reasons = append(reasons, r)
	}
	if len(c.in.Hypervisors) == 0 {
		c.wait("spec.hypervisor", "no hypervisor has joined yet; 'consort up' brings one")
		return
	}
	if len(fit) == 0 {
		slices.SortFunc(reasons, func(a, b Reason) int { return strings.Compare(a.Text, b.Text) })
		for _, r := range reasons {
			r.Note = wait && !r.Waiting
			c.reasons = append(c.reasons, r)
		}
		return
	}
	slices.SortFunc(fit, func(a, b candidate) int {
		switch {
		case a.here != b.here:
			return map[bool]int{true: -1, false: 1}[a.here]
		case a.h.Status.Free.Memory != b.h.Status.Free.Memory:
			return map[bool]int{true: -1, false: 1}[a.h.Status.Free.Memory > b.h.Status.Free.Memory]
		}
		return strings.Compare(a.h.Metadata.Name, b.h.Metadata.Name)
	})
	for _, f := range fit {
		c.plan.Hypervisors = append(c.plan.Hypervisors, f.h.Metadata.Name)
	}
}

// objections says what keeps the desktop off a hypervisor: what lasts until
// somebody changes something, and what passes.
func (c *composition) objections(h *estate.Hypervisor, here bool) (lasting, passing []string) {
	s, hw := &c.b.Spec.Hypervisor, &c.plan.Hardware
	name, st := h.Metadata.Name, &h.Status
	if s.Name != "" && s.Name != name {
		lasting = append(lasting, "the blueprint asks for "+s.Name)
	}
	for _, k := range sortedKeys(s.Labels) {
		if got, ok := h.Metadata.Labels[k]; !ok {
			lasting = append(lasting, fmt.Sprintf("it has no label %s, %s=%s is asked for", k, k, s.Labels[k]))
		} else if got != s.Labels[k] {
			lasting = append(lasting, fmt.Sprintf("it is labelled %s=%s, %s=%s is asked for", k, got, k, s.Labels[k]))
		}
	}
	wants := slices.Clone(c.wants)
	for _, n := range s.Needs {
		wants = append(wants, want{n, "", "the blueprint"})
	}
	if st.State == "" {
		return lasting, append(passing, "it has not joined yet")
	}
	lasting = append(lasting, lacking(st, wants)...)
	if c.where != "" && c.where != name {
		lasting = append(lasting, "the home of "+c.d.Spec.Person+" lies on "+c.where)
	}
	if st.Capacity.CPUs > 0 && st.Capacity.CPUs < hw.CPUs {
		lasting = append(lasting, fmt.Sprintf("it has %d CPUs, %d needed", st.Capacity.CPUs, hw.CPUs))
	}
	for _, m := range c.in.Machines {
		if m.Spec.Hypervisor == name && m.Spec.Context != "" && estate.Strangers(m.Spec.Trust, c.plan.Trust) {
			passing = append(passing, fmt.Sprintf("on it is machine %s of trust %d, which never shares a host with trust %d", m.Metadata.Name, m.Spec.Trust, c.plan.Trust))
			break
		}
	}
	switch {
	case st.State == estate.HypervisorLost:
		passing = append(passing, "its agent does not answer")
	case here: // the machine stays where it is; its own memory is not free
	case st.State == estate.HypervisorDraining || h.Spec.Drain:
		passing = append(passing, "it is being drained and takes nothing new")
	case st.Capacity.Memory > 0 && st.Capacity.Memory < hw.Memory:
		lasting = append(lasting, fmt.Sprintf("it has %s of memory in all, %s needed", amount(st.Capacity.Memory), hw.Memory))
	case st.Capacity.Memory > 0 && st.Free.Memory < hw.Memory:
		passing = append(passing, fmt.Sprintf("%s of memory free, %s needed", amount(st.Free.Memory), hw.Memory))
	}
	return lasting, passing
}

// lacking says what a hypervisor cannot do, and who needs it.
func lacking(st *estate.HypervisorStatus, wants []want) []string {
	var out []string
	seen := map[want]bool{} // the first who needs it is enough
	for _, w := range wants {
		can := st.Can(w.name)
		text := ""
		switch {
		case !can.Has && can.Reason != "":
			text = fmt.Sprintf("it cannot do %s (%s), %s needs it", w.name, strings.TrimRight(can.Reason, "."), w.who)
		case !can.Has:
			text = fmt.Sprintf("it cannot do %s, %s needs it", w.name, w.who)
		case w.value != "" && can.Value != w.value:
			text = fmt.Sprintf("its %s speaks %s, %s needs %s", w.name, orNothing(can.Value), w.who, w.value)
		}
		if key := (want{name: w.name, value: w.value}); text != "" && !seen[key] {
			seen[key] = true
			out = append(out, text)
		}
	}
	return out
}

// amount is for people: whole mebibytes when it is not a round number.
func amount(b estate.Bytes) string {
	if b > estate.GiB && b%estate.GiB != 0 {
		return fmt.Sprintf("%.1fGi", float64(b)/float64(estate.GiB))
	}
	if b > estate.MiB {
		return (b / estate.MiB * estate.MiB).String()
	}
	return b.String()
}

func orNothing(s string) string {
	if s == "" {
		return "nothing known"
	}
	return s
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

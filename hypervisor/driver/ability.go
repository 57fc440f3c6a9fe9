package driver

import (
	"cmp"
	"slices"

	"consort.dev/consort/estate"
)

// Equal reports whether two definitions make equal machines.
func (d Definition) Equal(o Definition) bool {
	return d.ID == o.ID && d.Name == o.Name && d.CPUs == o.CPUs && d.Memory == o.Memory &&
		cmp.Or(d.Firmware, estate.BIOS) == cmp.Or(o.Firmware, estate.BIOS) && d.Screen == o.Screen &&
		slices.EqualFunc(d.Disks, o.Disks, Disk.Equal) && slices.Equal(d.NICs, o.NICs)
}

// Equal reports whether two disks are the same to a guest.
func (d Disk) Equal(o Disk) bool {
	return d.Name == o.Name && d.Size == o.Size && d.ReadOnly == o.ReadOnly &&
		same(d.Base, o.Base) && same(d.File, o.File)
}

func same(a, b *Content) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// Can returns what the host says of a capability; one it does not speak of is absent.
func (d Description) Can(name estate.Capability) estate.CapabilityReport {
	i := slices.IndexFunc(d.Capabilities, func(c estate.CapabilityReport) bool { return c.Name == name })
	if i < 0 {
		return estate.CapabilityReport{Name: name, Reason: "not declared"}
	}
	return d.Capabilities[i]
}

// Limit returns h with those of its abilities that can allows. Wrappers whose
// type has every method use it to have the abilities of the driver inside.
func Limit(h Host, can func(estate.Capability) bool) Host {
	out := Host(plain{h})
	if a, ok := As[Displayer](h); ok && can(estate.CanDisplay) {
		out = displays{out, a}
	}
	if a, ok := As[Hotplugger](h); ok && can(estate.CanHotplug) {
		out = hotplugs{out, a}
	}
	if a, ok := As[Guest](h); ok && can(estate.CanGuest) {
		out = guests{out, a}
	}
	if a, ok := As[Transferer](h); ok && can(estate.CanTransfer) {
		out = transfers{out, a}
	}
	return out
}

// plain has the basic verbs and, having no Unwrap, hides all else.
type plain struct{ Host }

type displays struct {
	Host
	Displayer
}

type hotplugs struct {
	Host
	Hotplugger
}

type guests struct {
	Host
	Guest
}

type transfers struct {
	Host
	Transferer
}

// Unwrap leads As to the other abilities.
func (w displays) Unwrap() Host { return w.Host }

// Unwrap leads As to the other abilities.
func (w hotplugs) Unwrap() Host { return w.Host }

// Unwrap leads As to the other abilities.
func (w guests) Unwrap() Host { return w.Host }

// Unwrap leads As to the other abilities.
func (w transfers) Unwrap() Host { return w.Host }

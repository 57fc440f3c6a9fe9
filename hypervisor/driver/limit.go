package driver

import (
	"reflect"
	"slices"

	"consort.dev/consort/estate"
)

// abilities says which capability declares which interface.
var abilities = map[estate.Capability]reflect.Type{
	estate.CanDisplay:     reflect.TypeFor[Displayer](),
	estate.CanHotplug:     reflect.TypeFor[Hotplugger](),
	estate.CanGuest:       reflect.TypeFor[Guest](),
	estate.CanTransfer:    reflect.TypeFor[Transferer](),
	estate.CanMoveLive:    reflect.TypeFor[Mover](),
	estate.CanSnapshot:    reflect.TypeFor[Snapshotter](),
	estate.CanSave:        reflect.TypeFor[Saver](),
	estate.CanResize:      reflect.TypeFor[Resizer](),
	estate.CanMeasure:     reflect.TypeFor[Meter](),
	estate.CanConsole:     reflect.TypeFor[Consoler](),
	estate.CanWatch:       reflect.TypeFor[Watcher](),
	estate.CanSurvey:      reflect.TypeFor[Surveyor](),
	estate.CanInstant:     reflect.TypeFor[Cloner](),
	estate.CanPause:       reflect.TypeFor[Pauser](),
	estate.CanEncryptDisk: reflect.TypeFor[Sealer](),
}

// Abilities returns the capabilities that come with an interface, sorted.
func Abilities() []estate.Capability {
	var all []estate.Capability
	for c := range abilities {
		all = append(all, c)
	}
	slices.Sort(all)
	return all
}

// Can returns what the host says of a capability for its usual type of guest;
// one it does not speak of is absent.
func (d Description) Can(name estate.Capability) estate.CapabilityReport {
	return d.CanFor("", name)
}

// CanFor returns what the host says of a capability for a type of guest, the
// usual one when empty.
func (d Description) CanFor(guestType string, name estate.Capability) estate.CapabilityReport {
	if guestType == "" && len(d.GuestTypes) > 0 {
		guestType = d.GuestTypes[0]
	}
	return estate.Capable(d.Capabilities, guestType, name)
}

// Has reports whether the host declares the capability for any type of guest,
// and so implements what goes with it.
func (d Description) Has(name estate.Capability) bool {
	return slices.ContainsFunc(d.Capabilities, func(c estate.CapabilityReport) bool { return c.Name == name && c.Has })
}

// As returns h, or the nearest driver inside h, as a T. Wrappers that do not
// implement an ability themselves offer the inner driver through Unwrap.
func As[T any](h Host) (t T, ok bool) {
	for h != nil {
		if l, limits := h.(limited); limits && !l.allows(reflect.TypeFor[T]()) {
			break
		}
		if t, ok = h.(T); ok {
			return t, true
		}
		w, wraps := h.(interface{ Unwrap() Host })
		if !wraps {
			break
		}
		h = w.Unwrap()
	}
	return t, false
}

// Implements reports whether h, or a driver inside it, implements what goes
// with the capability.
func Implements(h Host, c estate.Capability) bool {
	want, known := abilities[c]
	for h != nil && known {
		if l, limits := h.(limited); limits && !l.allows(want) {
			return false
		}
		if reflect.TypeOf(h).Implements(want) {
			return true
		}
		w, wraps := h.(interface{ Unwrap() Host })
		if !wraps {
			return false
		}
		h = w.Unwrap()
	}
	return false
}

// Limit returns h with those of its abilities that can allows, which As finds.
// Wrappers whose type has every method use it to have the abilities of the
// driver inside.
func Limit(h Host, can func(estate.Capability) bool) Host { return limited{h, can} }

// limited embeds the basic verbs only, so that it has no other method.
type limited struct {
	Host
	can func(estate.Capability) bool
}

// Unwrap leads As to the abilities that are allowed.
func (l limited) Unwrap() Host { return l.Host }

func (l limited) allows(t reflect.Type) bool {
	for c, of := range abilities {
		if of == t {
			return l.can(c)
		}
	}
	return true
}

// Package fault gives an error a kind, so that a caller can act on it and the
// wire can carry it. Text is for people; a Kind is for programs.
package fault

import (
	"errors"
	"fmt"
	"net/http"
)

// Kind is the class of a failure. The zero Kind is Internal: an error nobody
// classified is our bug until shown otherwise. Kinds travel by name, so names
// never change and the list only grows.
type Kind uint8

// The kinds. Each has one row in the table below.
const (
	// Internal is a bug of ours.
	Internal Kind = iota
	// Invalid is a request that can never succeed as it stands.
	Invalid
	// Unauthenticated is a caller we do not know.
	Unauthenticated
	// Denied is a caller we know and who may not.
	Denied
	// NotFound is a thing that does not exist, or that the caller may not see.
	NotFound
	// Exists is a thing that exists already, unequal to what was asked.
	Exists
	// Conflict is a thing that changed since it was read, or is in a state
	// that does not allow the request.
	Conflict
	// Unsupported is an ability the provider does not have.
	Unsupported
	// NoCapacity is a lack of room: memory, disk, seats, slots.
	NoCapacity
	// Busy is a thing that is occupied for a moment; try again.
	Busy
	// RateLimited is a caller who asks too often; try again later.
	RateLimited
	// Stale is an effect ordered under a fencing epoch older than one already
	// seen. It must not be tried again under that epoch.
	Stale
	// Stuck is a thing that needs an operator.
	Stuck
	// Unavailable is a part that cannot be reached; nothing was done.
	Unavailable
	// OutcomeUnknown is an effect whose reply was lost: read again before acting.
	OutcomeUnknown
)

// table is the one place that knows names and codes.
var table = [...]struct {
	name   string
	status int
}{
	Internal:        {"internal", http.StatusInternalServerError},
	Invalid:         {"invalid", http.StatusUnprocessableEntity},
	Unauthenticated: {"unauthenticated", http.StatusUnauthorized},
	Denied:          {"denied", http.StatusForbidden},
	NotFound:        {"not-found", http.StatusNotFound},
	Exists:          {"exists", http.StatusConflict},
	Conflict:        {"conflict", http.StatusPreconditionFailed},
	Unsupported:     {"unsupported", http.StatusNotImplemented},
	NoCapacity:      {"no-capacity", http.StatusInsufficientStorage},
	Busy:            {"busy", http.StatusLocked},
	RateLimited:     {"rate-limited", http.StatusTooManyRequests},
	Stale:           {"stale", http.StatusGone},
	Stuck:           {"stuck", http.StatusFailedDependency},
	Unavailable:     {"unavailable", http.StatusServiceUnavailable},
	OutcomeUnknown:  {"outcome-unknown", http.StatusGatewayTimeout},
}

// String returns the kind's name on the wire.
func (k Kind) String() string {
	if int(k) >= len(table) {
		return table[Internal].name
	}
	return table[k].name
}

// HTTPStatus returns the status code the API answers with.
func (k Kind) HTTPStatus() int {
	if int(k) >= len(table) {
		return table[Internal].status
	}
	return table[k].status
}

// Named returns the kind with the wire name, or Internal.
func Named(name string) Kind {
	for k, row := range table {
		if row.name == name {
			return Kind(k)
		}
	}
	return Internal
}

// Error makes a Kind usable as the target of errors.Is.
func (k Kind) Error() string { return k.String() }

// Errorf formats an error of kind k. It accepts %w.
func (k Kind) Errorf(format string, args ...any) error {
	return &kinded{k, fmt.Errorf(format, args...)}
}

// Temporary reports whether the same request may succeed later, unchanged.
func (k Kind) Temporary() bool {
	switch k {
	case Busy, RateLimited, NoCapacity, Unavailable, OutcomeUnknown:
		return true
	}
	return false
}

type kinded struct {
	kind Kind
	err  error
}

func (e *kinded) Error() string   { return e.err.Error() }
func (e *kinded) Unwrap() []error { return []error{e.kind, e.err} }

// KindOf returns the outermost kind in err's chain, or Internal.
func KindOf(err error) Kind {
	var e *kinded
	if errors.As(err, &e) {
		return e.kind
	}
	var k Kind
	if errors.As(err, &k) {
		return k
	}
	return Internal
}

package driver

import (
	"context"

	"consort.dev/consort/estate"
)

// Sealer is implemented by hosts that declare estate.CanEncryptDisk: what a
// machine that is defined as Sealed writes is lost with its key. A sealed machine
// does not outlive us, and is started once: from its end on, and from ours, its
// key is gone, it is off, and Start of it is fault.Conflict.
type Sealer interface {
	// Key tells which key a sealed machine writes with. One that is not sealed is
	// fault.Invalid, an unknown ID fault.NotFound.
	Key(ctx context.Context, id estate.MachineID) (Key, error)
}

// Key is what a host tells of a key. The key itself is nobody's to see.
type Key struct {
	ID   string // names it, and says nothing about it; no two keys have the same
	Held bool   // it is still there
}

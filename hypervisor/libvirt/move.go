package libvirt

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/virtrpc"
)

// movable is a host that other daemons can reach.
type movable struct{ *Host }

// ticket is where a machine is to be sent, and what it will be there.
type ticket struct {
	To   string // the daemon, as others reach it
	XML  string // the machine's definition there
	Live string // the running domain there
}

// Arrive implements driver.Mover. The disks are there, empty, and the daemon
// knows nothing of the machine until it comes.
func (h movable) Arrive(ctx context.Context, def driver.Definition) (string, error) {
	give, err := h.take(ctx, def.ID)
	if err != nil {
		return "", err
	}
	defer give()
	if known, err := h.known(ctx, def); known || err != nil {
		if known {
			err = fault.Exists.Errorf("machine %s is here already", def.ID)
		}
		return "", err
	}
	if _, shelved, err := h.shelf(def.ID); shelved || err != nil {
		if shelved {
			err = fault.Conflict.Errorf("machine %s is on the shelf here, with disks of its own; delete it first", def.ID)
		}
		return "", err
	}
	// What comes is the whole of each disk, its base included.
	flat := def
	flat.Disks = slices.Clone(def.Disks)
	for i, d := range flat.Disks {
		if d.File == nil {
			flat.Disks[i].Base, flat.Disks[i].Size = nil, estate.Bytes(diskSize(d))
		}
	}
	r, err := h.make(ctx, flat)
	if err != nil {
		return "", err
	}
	// Its coming is a power-on that has been counted: see settle.
	r.Def = def
	live, err := h.domain(r)
	if err != nil {
		return "", err
	}
	r.Starts, r.Started = 1, time.Now().UTC()
	text, err := h.domain(r)
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(ticket{To: h.cfg.Peer, XML: text, Live: live})
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// Depart implements driver.Mover. The daemons agree between them which of them
// has the machine, and this one forgets it when it has gone; what is left in its
// folder is a machine on the shelf.
func (h movable) Depart(ctx context.Context, id estate.MachineID, at string) error {
	r, give, err := h.running(ctx, id)
	if err != nil {
		return err
	}
	defer give()
	var to ticket
	b, err := base64.RawURLEncoding.DecodeString(at)
	if err == nil {
		err = json.Unmarshal(b, &to)
	}
	if err != nil || to.To == "" {
		return fault.Invalid.Errorf("machine %s cannot go to %q: no host of this kind said so", id, at)
	}
	if err := h.mayDepart(ctx, r); err != nil {
		return err
	}
	if err := h.writeShelf(r); err != nil {
		return err
	}
	m := virtrpc.Migration{
		To: to.To, Defined: to.XML, XML: to.Live,
		Flags: virtrpc.MigrateLive | virtrpc.MigratePeerToPeer | virtrpc.MigratePersistDest | virtrpc.MigrateUndefineSource,
	}
	for i, d := range r.Def.Disks {
		if d.File == nil && !d.ReadOnly {
			m.Disks = append(m.Disks, target(i))
			m.Flags |= virtrpc.MigrateCopyDisks
		}
	}
	err = h.conn.Migrate(ctx, string(id), m)
	if err == nil {
		return nil
	}
	return h.whereIsIt(ctx, id, err)
}

// mayDepart refuses what a move would lose.
func (h movable) mayDepart(ctx context.Context, r record) error {
	switch {
	case r.Adopted:
		return fault.Unsupported.Errorf("machine %s was adopted: its disks are files that do not go along", r.Def.ID)
	case len(r.Snapshots) > 0:
		return fault.Conflict.Errorf("machine %s has snapshots, which do not go along; drop them first", r.Def.ID)
	}
	plugs, err := h.conn.Plugged(ctx, string(r.Def.ID))
	if err != nil {
		return err
	}
	if len(plugs) > 0 {
		return fault.Conflict.Errorf("machine %s has %d disks attached, which do not go along; detach them first", r.Def.ID, len(plugs))
	}
	return nil
}

// whereIsIt says, of a move that failed, what is known: a machine that runs here
// has not gone, and one that is not here has.
func (h movable) whereIsIt(ctx context.Context, id estate.MachineID, why error) error {
	ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	if errors.Is(why, fault.OutcomeUnknown) {
		h.conn.AbortJob(ask, string(id)) // what came of it is looked at
	}
	state, _, err := h.conn.State(ask, string(id))
	switch {
	case errors.Is(why, fault.OutcomeUnknown) || err != nil && !errors.Is(err, fault.NotFound):
		return fault.OutcomeUnknown.Errorf("move machine %s: %w", id, why)
	case err != nil || state == virtrpc.ShutOff:
		return fault.OutcomeUnknown.Errorf("move machine %s, which does not run here any more: %w", id, why)
	}
	kind := fault.KindOf(why)
	if kind == fault.Internal {
		kind = fault.Unavailable
	}
	return kind.Errorf("move machine %s: %w", id, fmt.Errorf("it runs here still: %w", why))
}

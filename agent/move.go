package agent

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// part is what a host has to do with a machine.
type part int

const (
	notOurs  part = iota
	mine          // it is placed here
	leaving       // it was placed elsewhere by a move that is not over: what is here is kept
	arriving      // it may be placed here by a move
	leftover      // it was here, and nobody wants that back
)

// partOf works out what the host has to do with the machine. A machine that was
// placed elsewhere under the epoch last seen is left alone: no placement does
// that.
func partOf(host string, m *estate.Machine, rec record, known bool) part {
	mv := m.Spec.Moving
	switch {
	case m.Spec.Hypervisor == host:
		return mine
	case mv != nil && mv.From == host && mv.To == m.Spec.Hypervisor:
		return leaving
	case mv != nil && mv.To == host && (!known || rec.Arriving && rec.Epoch == m.Spec.Epoch):
		return arriving
	case known && (m.Spec.Epoch > rec.Epoch || rec.leftover()):
		return leftover
	}
	return notOurs
}

// myTurn waits until nothing else is done to the machine. The caller must call
// done.
func (k *keeper) myTurn(ctx context.Context) (done func(), err error) {
	select {
	case k.turn <- struct{}{}:
		return func() { <-k.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (k *keeper) recordOf(m *estate.Machine) record {
	return record{ID: k.id, Project: m.Metadata.Project, Name: m.Metadata.Name, Epoch: m.Spec.Epoch}
}

// own records that the machine is placed here.
func (k *keeper) own(m *estate.Machine) error {
	return k.agent.records.see(k.recordOf(m), func(r *record) {
		if r.Arriving {
			r.Arriving, r.Volumes = false, nil
		}
	})
}

// shelve takes the machine, which is another host's now, from those that this
// host can run, and keeps its disks until the move is over. That it is shelved
// is recorded first: an agent that dies before its host answers would otherwise
// not know what to bring back.
func (k *keeper) shelve(ctx context.Context, m *estate.Machine) error {
	a := k.agent
	if k.shelved == m.Spec.Epoch {
		return nil
	}
	files, err := k.volumesOf(ctx, m)
	if err != nil {
		return err
	}
	if err := a.records.see(k.recordOf(m), func(r *record) { r.Volumes, r.Shelved, r.Arriving = files, true, false }); err != nil {
		return err
	}
	have, err := a.Host.Get(ctx, k.id)
	switch {
	case err != nil && !errors.Is(err, fault.NotFound):
		return err
	case err == nil && have.Power == estate.PowerUnknown:
		return fault.Unavailable.Errorf("shelve machine %s: its host cannot tell whether it runs", m.Metadata.Name)
	case err == nil && have.Power != estate.Off:
		if err := a.Host.Stop(ctx, k.id, stopGrace); err != nil {
			return err
		}
	}
	if err := a.Host.Shelve(ctx, k.id); err != nil {
		return err
	}
	k.forgetGuest()
	a.machinesChanged()
	a.Log.Info("machine shelved", "machine", m.Metadata.Name, "placed", m.Spec.Hypervisor)
	k.shelved = m.Spec.Epoch
	return nil
}

// unshelve brings back the machine that came back.
func (k *keeper) unshelve(ctx context.Context, m *estate.Machine) (have driver.Machine, err error) {
	a := k.agent
	def, err := k.definition(ctx, m)
	if err != nil {
		return have, err
	}
	if err := a.Host.Define(ctx, def); err != nil {
		return have, err
	}
	if err := a.records.see(k.recordOf(m), func(r *record) { r.Shelved, r.Volumes = false, nil }); err != nil {
		return have, err
	}
	a.machinesChanged()
	return a.Host.Get(ctx, k.id)
}

// vanished destroys what a move left here of a machine that is gone, or that
// the plane no longer shows to this host. It ends with errGone.
func (k *keeper) vanished(ctx context.Context, m *estate.Machine) error {
	rec, known := k.agent.records.get(k.id)
	if !known || !rec.leftover() {
		return errGone
	}
	now, err := api.Get[estate.Machine](ctx, k.agent.Plane, rec.Project, rec.Name)
	switch {
	case errors.Is(err, fault.NotFound), err == nil && now.Metadata.UID != string(k.id):
		return k.destroy(ctx, m)
	case err != nil:
		return err
	}
	k.seeAgain(now)
	return nil
}

// sweep takes care of what moves left here of machines that the plane, which
// has told everything it has, did not mention.
func (a *Agent) sweep(ctx context.Context, wg *sync.WaitGroup) {
	for _, rec := range a.records.left() {
		if _, kept := a.running(rec.ID); kept {
			continue
		}
		m := &estate.Machine{Head: estate.Head{Kind: "Machine", Metadata: estate.Metadata{Name: rec.Name, Project: rec.Project, UID: string(rec.ID)}}}
		a.keep(ctx, wg, m, true)
	}
}

// volumesOf returns the volumes among the machine's disks.
func (k *keeper) volumesOf(ctx context.Context, m *estate.Machine) (all []fileOf, err error) {
	for _, d := range m.Spec.Hardware.Disks {
		if d.Volume == "" {
			continue
		}
		v, err := api.Get[estate.Volume](ctx, k.agent.Plane, m.Metadata.Project, d.Volume)
		if err != nil {
			return nil, err
		}
		all = append(all, fileOf{v.Metadata.Project, v.Metadata.Name, v.Metadata.UID})
	}
	return all, nil
}

// forgetFiles destroys the files of volumes that went with a machine. A volume
// that is this host's keeps its file.
func (k *keeper) forgetFiles(ctx context.Context) error {
	rec, _ := k.agent.records.get(k.id)
	for _, f := range rec.Volumes {
		v, err := api.Get[estate.Volume](ctx, k.agent.Plane, f.Project, f.Name)
		switch {
		case err != nil && !errors.Is(err, fault.NotFound):
			return err
		case err == nil && v.Metadata.UID == f.UID && (v.Status.Hypervisor == k.agent.Hypervisor || v.Status.Hypervisor == ""):
			continue
		}
		if err := k.agent.volumes.discard(f.UID); err != nil {
			return err
		}
	}
	return nil
}

// cameDisk is a disk whose content comes, or came, from another host.
func (k *keeper) cameDisk(ctx context.Context, m *estate.Machine, d estate.Disk, c came) (driver.Disk, error) {
	if d.Volume == "" {
		return driver.Disk{Name: d.Name, Size: c.Size}, nil
	}
	v, err := api.Get[estate.Volume](ctx, k.agent.Plane, m.Metadata.Project, d.Volume)
	if err != nil {
		return driver.Disk{}, err
	}
	file, err := k.agent.volumes.await(v.Metadata.UID, c.Size)
	return driver.Disk{Name: d.Name, File: file}, err
}

// ordered waits for the machine's turn and returns the machine as the plane has
// it then: no longer on that move, or under another epoch, is fault.Stale.
func (a *Agent) ordered(ctx context.Context, c api.Call) (k *keeper, m *estate.Machine, done func(), err error) {
	k, ok := a.running(c.Machine)
	if !ok {
		return nil, nil, nil, fault.Unavailable.Errorf("the agent of %s has not heard of machine %s yet", a.Hypervisor, c.Moving.Name)
	}
	if done, err = k.myTurn(ctx); err != nil {
		return nil, nil, nil, err
	}
	if now, _ := a.running(c.Machine); now != k {
		done()
		return nil, nil, nil, fault.Unavailable.Errorf("the agent of %s has just let go of machine %s", a.Hypervisor, c.Moving.Name)
	}
	m, err = api.Get[estate.Machine](ctx, a.Plane, c.Moving.Project, c.Moving.Name)
	if err == nil {
		mv := m.Spec.Moving
		if m.Metadata.UID != string(c.Machine) || mv == nil || mv.Operation != c.Moving.Operation || m.Spec.Epoch != c.Moving.Epoch {
			err = fault.Stale.Errorf("machine %s is no longer on that move under epoch %d", c.Moving.Name, c.Moving.Epoch)
		}
	}
	if err != nil {
		done()
		return nil, nil, nil, err
	}
	k.see(m, false) // whatever the next step does, it knows this much
	return k, m, done, nil
}

// serveMove answers a call of a move: by the disk for export, by one line else.
func (a *Agent) serveMove(ctx context.Context, c api.Call) error {
	dialing, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	conn, err := a.Plane.OpenCall(dialing, c.ID)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if c.Verb == api.CallExport {
		w := api.NewDiskWriter(conn)
		err := a.export(ctx, c, w)
		if err != nil {
			a.Log.Warn("send a disk", "machine", c.Moving.Name, "disk", c.Moving.Disk, "error", err)
		}
		_ = w.End(err) // whoever receives it sees it break off otherwise
		return nil
	}
	reply, err := a.moved(ctx, c, conn)
	if ctx.Err() != nil {
		return nil // what became of it is for the next agent to say
	}
	if err != nil {
		level := slog.LevelWarn
		if fault.KindOf(err).Temporary() {
			level = slog.LevelDebug // the mover asks again
		}
		a.Log.Log(ctx, level, "act on a move", "verb", c.Verb, "machine", c.Moving.Name, "error", err)
		reply.Error = api.NewProblem(err)
	}
	return json.NewEncoder(conn).Encode(reply)
}

// moved acts on a call of a move.
func (a *Agent) moved(ctx context.Context, c api.Call, conn net.Conn) (reply api.MovedReply, err error) {
	k, m, done, err := a.ordered(ctx, c)
	if err != nil {
		return reply, err
	}
	defer done()
	rec, known := a.records.get(k.id)
	is := partOf(a.Hypervisor, m, rec, known)
	allowed := map[api.Verb][]part{
		api.CallRest: {mine}, api.CallTry: {mine}, api.CallDepart: {mine}, api.CallShelve: {leaving},
		api.CallPrepare: {arriving, leftover}, api.CallArrive: {arriving, leftover}, api.CallImport: {arriving}, api.CallHash: {arriving},
		api.CallWhere: {mine, arriving, leaving},
	}
	if parts, knows := allowed[c.Verb]; !knows {
		return reply, fault.Unsupported.Errorf("this agent does not know the call %q; update it", c.Verb)
	} else if !slices.Contains(parts, is) {
		return reply, fault.Conflict.Errorf("%s machine %s: it is placed on %s", c.Verb, c.Moving.Name, m.Spec.Hypervisor)
	}
	switch c.Verb {
	case api.CallRest:
		reply.Disks, err = k.rest(ctx, m)
	case api.CallPrepare:
		err = k.prepare(ctx, m, c.Moving.Disks, func(def driver.Definition) error { return a.Host.Define(ctx, def) })
	case api.CallImport:
		err = k.importDisk(ctx, m, c.Moving.Disk, conn)
	case api.CallHash:
		reply.Sent, reply.Kept, err = k.hash(ctx, c.Moving.Disk)
	case api.CallShelve:
		err = k.shelve(ctx, m)
	case api.CallTry:
		err = k.try(ctx, m)
	case api.CallWhere:
		reply.Here, reply.Power, err = k.where(ctx)
	case api.CallArrive:
		err = k.prepare(ctx, m, c.Moving.Disks, func(def driver.Definition) (err error) {
			reply.At, err = a.Host.Arrive(ctx, def)
			return err
		})
	case api.CallDepart:
		err = a.Host.Depart(ctx, k.id, c.Moving.At)
	}
	return reply, err
}

// rest returns the disks of a machine that is off. One that was never started
// is made first: then there is only one way to move machines.
func (k *keeper) rest(ctx context.Context, m *estate.Machine) (disks []api.DiskSize, err error) {
	a := k.agent
	have, err := a.Host.Get(ctx, k.id)
	if errors.Is(err, fault.NotFound) {
		var def driver.Definition
		if def, err = k.definition(ctx, m); err == nil {
			err = a.Host.Define(ctx, def)
		}
		if err == nil {
			have, err = a.Host.Get(ctx, k.id)
		}
	}
	switch {
	case err != nil:
		return nil, err
	case m.Spec.Power != estate.Off && !m.Spec.Moving.Live:
		return nil, fault.Conflict.Errorf("machine %s is wanted on", m.Metadata.Name)
	case have.Power != estate.Off && !m.Spec.Moving.Live:
		return nil, fault.Busy.Errorf("machine %s is shutting down", m.Metadata.Name)
	}
	for _, d := range have.Def.Disks {
		disks = append(disks, api.DiskSize{Name: d.Name, Size: sizeOf(d)})
	}
	return disks, nil
}

// sizeOf returns how large a disk is to its guest.
func sizeOf(d driver.Disk) estate.Bytes {
	switch {
	case d.File != nil:
		return d.File.Size
	case d.Base != nil:
		return max(d.Size, d.Base.Size)
	}
	return d.Size
}

// prepare makes the machine with empty disks, or awaits it with them. What an
// earlier move left here goes first.
func (k *keeper) prepare(ctx context.Context, m *estate.Machine, disks []api.DiskSize, place func(driver.Definition) error) error {
	a := k.agent
	if rec, known := a.records.get(k.id); known && !(rec.Arriving && rec.Epoch == m.Spec.Epoch) {
		if err := k.destroy(ctx, m); !errors.Is(err, errGone) {
			return err
		}
	}
	files, err := k.volumesOf(ctx, m)
	if err != nil {
		return err
	}
	err = a.records.see(k.recordOf(m), func(r *record) {
		if r.Arriving {
			return // it knows what has come already
		}
		r.Arriving, r.Volumes, r.Came = true, files, map[string]came{}
		for _, d := range disks {
			r.Came[d.Name] = came{Size: d.Size}
		}
	})
	if err != nil {
		return err
	}
	def, err := k.definition(ctx, m)
	if err != nil {
		return err
	}
	a.machinesChanged()
	return place(def)
}

// export sends a disk of a machine that leaves and is off.
func (a *Agent) export(ctx context.Context, c api.Call, w *api.DiskWriter) error {
	k, m, done, err := a.ordered(ctx, c)
	if err != nil {
		return err
	}
	defer done()
	if m.Spec.Hypervisor != a.Hypervisor || m.Spec.Moving.From != a.Hypervisor || m.Spec.Power != estate.Off {
		return fault.Conflict.Errorf("machine %s does not leave here, or is wanted on", m.Metadata.Name)
	}
	return a.Host.Export(ctx, k.id, c.Moving.Disk, w)
}

// importDisk takes a disk, and remembers what its sender says it holds.
func (k *keeper) importDisk(ctx context.Context, m *estate.Machine, name string, conn net.Conn) error {
	r := api.NewDiskReader(conn)
	err := k.agent.Host.Import(ctx, k.id, name, r)
	if err == nil {
		err = r.Rest() // the driver may not have looked past the last byte
	}
	if err != nil {
		return err
	}
	return k.agent.records.see(k.recordOf(m), func(rec *record) {
		c := rec.Came[name]
		c.Sent = r.Digest()
		rec.Came[name] = c
	})
}

// hash reads a disk back that has come, and returns what was sent and what is
// there.
func (k *keeper) hash(ctx context.Context, name string) (sent, kept estate.Digest, err error) {
	rec, _ := k.agent.records.get(k.id)
	if sent = rec.Came[name].Sent; sent == "" {
		return "", "", fault.Unavailable.Errorf("disk %s has not come yet", name)
	}
	sum := sha256.New()
	if err := k.agent.Host.Export(ctx, k.id, name, sum); err != nil {
		return "", "", err
	}
	return sent, estate.Digest(fmt.Sprintf("sha256:%x", sum.Sum(nil))), nil
}

// try runs a command in the guest that does nothing.
func (k *keeper) try(ctx context.Context, m *estate.Machine) error {
	out, err := k.agent.Host.Run(ctx, k.id, driver.Command{Args: []string{"true"}})
	if err == nil && out.Exit != 0 {
		err = fault.Stuck.Errorf("the command true ended with %d in machine %s: %s", out.Exit, m.Metadata.Name, out.Stderr)
	}
	return err
}

// where says whether the host has the machine, and whether it runs.
func (k *keeper) where(ctx context.Context) (here bool, power estate.Power, err error) {
	have, err := k.agent.Host.Get(ctx, k.id)
	if errors.Is(err, fault.NotFound) {
		return false, estate.Off, nil
	}
	return err == nil, have.Power, err
}

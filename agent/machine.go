package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// keeper keeps one machine as it is wanted: one step at a time, each of which
// may be repeated.
type keeper struct {
	agent *Agent
	id    estate.MachineID
	wake  chan struct{}
	turn  chan struct{} // holds a token while a step, or a call of a move, is at work

	mu      sync.Mutex
	want    *estate.Machine // the newest seen
	deleted bool

	shelved  int64                // the epoch of the placement elsewhere for which it was shelved
	reported estate.MachineStatus // what the plane was told last
	guest    estate.GuestStatus
	layers   []estate.LayerState
	launches []estate.Launch // since this agent began; under mu
	asked    time.Time       // when the guest was last asked
	behind   time.Duration   // its clock was by then
}

const (
	// lookEvery is how often a machine is looked at when nothing changes.
	lookEvery = 5 * time.Second
	// bootLook is how often a booting guest is asked; each question is written
	// to the guest's journal, so not more often.
	bootLook = 400 * time.Millisecond
	// guestLook is how often a running guest is asked.
	guestLook = 30 * time.Second
	// stopGrace is what a guest gets to shut down by itself.
	stopGrace = 45 * time.Second
)

// see takes note of the machine as the plane told it. What was read before it
// was told to be gone may come after that, and is no news.
func (k *keeper) see(m *estate.Machine, deleted bool) {
	k.mu.Lock()
	was := k.want
	if was == nil || m.Metadata.Version > was.Metadata.Version || m.Metadata.Version == was.Metadata.Version && (deleted || !k.deleted) {
		k.want, k.deleted = m, deleted
	}
	k.mu.Unlock()
	k.look()
}

// seeAgain takes note of a machine that is there though it was told to be gone.
func (k *keeper) seeAgain(m *estate.Machine) {
	k.mu.Lock()
	k.deleted = false
	k.mu.Unlock()
	k.see(m, false)
}

// look has the machine looked at soon.
func (k *keeper) look() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *keeper) latest() (m *estate.Machine, deleted bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.want, k.deleted
}

// run takes steps until the machine is no longer this host's business.
func (k *keeper) run(ctx context.Context) {
	var failures int
	for ctx.Err() == nil {
		m, next, err := k.takeStep(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errGone):
			return
		case err != nil:
			k.agent.Log.Warn("keep machine", "machine", m.Metadata.Name, "error", err)
			k.tell(ctx, m, func(s *estate.MachineStatus) { s.Waiting = problem(err) })
			failures++
			next = min(200*time.Millisecond<<min(failures, 6), lookEvery)
		default:
			failures = 0
		}
		select {
		case <-k.wake:
		case <-time.After(next):
		case <-ctx.Done():
		}
	}
}

// takeStep takes one step for the newest there is, when nothing else is done to
// the machine. A keeper leaves in its turn, so that a call of a move that waits
// for its own finds it gone. It ends with errGone once it has left.
func (k *keeper) takeStep(ctx context.Context) (m *estate.Machine, next time.Duration, err error) {
	done, err := k.myTurn(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer done()
	m, deleted := k.latest()
	if deleted {
		next, err = lookEvery, k.vanished(ctx, m)
	} else {
		next, err = k.step(ctx, m)
	}
	if errors.Is(err, errGone) && !k.leave(m) {
		return m, 0, nil
	}
	return m, next, err
}

// leave ends the keeper, unless something newer than m was seen meanwhile: the
// machine may have been placed here again.
func (k *keeper) leave(m *estate.Machine) (left bool) {
	k.agent.remember(func() {
		now, _ := k.latest()
		if left = now == m; left {
			delete(k.agent.machines, k.id)
		}
	})
	return left
}

var errGone = errors.New("the machine is no longer here")

// step brings the machine nearer to what is wanted and says when to look again.
func (k *keeper) step(ctx context.Context, m *estate.Machine) (time.Duration, error) {
	a := k.agent
	rec, known := a.records.get(k.id)
	switch partOf(a.Hypervisor, m, rec, known) {
	case notOurs:
		return 0, errGone
	case leftover: // it was placed elsewhere since
		return 0, k.destroy(ctx, m)
	case leaving:
		return lookEvery, k.shelve(ctx, m)
	case arriving:
		return lookEvery, nil // the calls of the move act
	}
	if err := k.own(m); err != nil {
		return lookEvery, err
	}
	mv := m.Spec.Moving
	if !m.Metadata.Deleting.IsZero() {
		if mv != nil && mv.To == a.Hypervisor {
			return lookEvery, nil // were it gone now, the other host would never hear that what it has is a leftover
		}
		if err := k.destroy(ctx, m); !errors.Is(err, errGone) {
			return 0, err
		}
		if err := a.Plane.LetGo(ctx, m.Ref(), estate.AgentFinalizer); err != nil {
			return 0, err
		}
		return 0, errGone
	}
	switch {
	case mv != nil && mv.Live && mv.From == a.Hypervisor:
		return lookEvery, nil // it may be there already: neither made nor started here
	case mv != nil && mv.To == a.Hypervisor && rec.Shelved:
		return lookEvery, nil // it comes back once the other host has let go of it
	}
	have, err := k.define(ctx, m)
	if err != nil {
		return 0, err
	}
	if lost, err := k.keepKey(ctx, m, have); lost || err != nil {
		return lookEvery, err
	}
	if have, err = k.power(ctx, m, have); err != nil {
		return 0, err
	}
	next := k.lookInside(ctx, m, have)
	if have, err = k.standStill(ctx, m, have); err != nil {
		return 0, err
	}
	return next, k.observe(ctx, m, have)
}

// destroy removes everything of the machine from this host; it ends with errGone.
func (k *keeper) destroy(ctx context.Context, m *estate.Machine) error {
	a := k.agent
	if err := k.noteKey(ctx, m); err != nil {
		return err
	}
	if err := k.remove(ctx, m); err != nil {
		return err
	}
	if err := k.tellLost(ctx, m); err != nil {
		return err
	}
	a.machinesChanged()
	if a.Network != nil {
		if err := a.Network.Leave(ctx, k.id); err != nil {
			return err
		}
		for _, n := range m.Spec.Hardware.NICs {
			if err := a.Network.RemoveUnused(ctx, m.Metadata.Project, n.Network); err != nil {
				return err
			}
		}
	}
	if err := k.forgetFiles(ctx); err != nil {
		return err
	}
	if err := a.records.forget(k.id); err != nil {
		return err
	}
	a.Log.Info("machine is gone", "machine", m.Metadata.Name)
	return errGone
}

// remove takes the machine off the host. An adopted one goes on as it was.
func (k *keeper) remove(ctx context.Context, m *estate.Machine) error {
	if m.Spec.Adopted {
		return k.agent.Host.Release(ctx, k.id)
	}
	return k.agent.Host.Delete(ctx, k.id)
}

// define makes the machine unless it is there.
func (k *keeper) define(ctx context.Context, m *estate.Machine) (driver.Machine, error) {
	a := k.agent
	have, err := a.Host.Get(ctx, k.id)
	if m.Spec.Adopted && errors.Is(err, fault.NotFound) {
		if err := a.Host.Adopt(ctx, k.id); err != nil {
			return have, err
		}
		a.machinesChanged()
		return a.Host.Get(ctx, k.id)
	}
	rec, _ := a.records.get(k.id)
	switch {
	case err != nil && !errors.Is(err, fault.NotFound):
		return have, err
	case rec.Shelved && (err != nil || have.Power == estate.Off):
		return k.unshelve(ctx, m)
	case m.Spec.Power == estate.Off && err != nil:
		return driver.Machine{ID: k.id, Power: estate.Off}, nil // made when it is first wanted on
	case m.Spec.Power == estate.Off || m.Spec.Adopted || err == nil && (have.Power != estate.Off || m.Spec.Sealed):
		return have, nil // what runs is left alone
	}
	gone, err := k.afresh(ctx, have)
	if err != nil {
		return have, err
	}
	def, err := k.definition(ctx, m)
	if err == nil && (gone || len(have.Def.Disks) == 0) {
		def.Template, err = k.beginsAt(ctx, m, def)
	}
	if err != nil {
		return have, err
	}
	if err := a.Host.Define(ctx, def); err != nil {
		return have, err
	}
	a.machinesChanged()
	return a.Host.Get(ctx, k.id)
}

// definition works out what the machine is made of on this host.
func (k *keeper) definition(ctx context.Context, m *estate.Machine) (driver.Definition, error) {
	hw := m.Spec.Hardware
	def := driver.Definition{
		ID: k.id, Name: m.Metadata.Name, GuestType: k.guestType(m), CPUs: hw.CPUs, Memory: hw.Memory, Firmware: hw.Firmware, Screen: hw.Screen,
		Sealed: m.Spec.Sealed,
	}
	rec, _ := k.agent.records.get(k.id)
	def.Template = rec.Template
	for _, d := range hw.Disks {
		disk, err := k.disk(ctx, m, d)
		if err != nil {
			return def, err
		}
		def.Disks = append(def.Disks, disk)
	}
	for i, n := range hw.NICs {
		nic, err := k.port(ctx, m, n, i)
		if err != nil {
			return def, err
		}
		def.NICs = append(def.NICs, nic)
	}
	return def, nil
}

// guestType is the type of guest that the machine is on this host, or will be
// once a move has placed it here.
func (k *keeper) guestType(m *estate.Machine) string {
	if mv := m.Spec.Moving; mv != nil && mv.To == k.agent.Hypervisor {
		return mv.GuestType
	}
	return m.Spec.Hardware.GuestType
}

func (k *keeper) mac(n estate.NIC, i int) string {
	if n.MAC != "" {
		return n.MAC
	}
	return estate.MACFor(k.id, i)
}

func (k *keeper) disk(ctx context.Context, m *estate.Machine, d estate.Disk) (driver.Disk, error) {
	a := k.agent
	rec, _ := a.records.get(k.id)
	if c, ok := rec.Came[d.Name]; ok && (d.Volume == "" || rec.Arriving) {
		return k.cameDisk(ctx, m, d, c)
	}
	if d.Volume == "" {
		e, err := a.Images.Get(d.Image)
		if errors.Is(err, fault.NotFound) {
			a.content.fetcher.look()
			err = fault.Unavailable.Errorf("waiting for image %s, which is made here or comes from another host", d.Image.Short())
		}
		if err != nil {
			return driver.Disk{}, err
		}
		return driver.Disk{
			Name: d.Name, Size: d.Size,
			Base: &driver.Content{Path: e.Path, Format: e.Record.Format, Size: e.Record.Size},
		}, nil
	}
	var vol *estate.Volume
	a.remember(func() { vol = a.volumeOf[m.Metadata.Project+"/"+d.Volume] })
	switch {
	case vol == nil:
		return driver.Disk{}, fault.Unavailable.Errorf("waiting for volume %s", d.Volume)
	case vol.Spec.Holder != k.id:
		return driver.Disk{}, fault.Busy.Errorf("volume %s is not this machine's to use", d.Volume)
	case vol.Status.Hypervisor != "" && vol.Status.Hypervisor != a.Hypervisor:
		return driver.Disk{}, fault.Conflict.Errorf("volume %s lies on %s", d.Volume, vol.Status.Hypervisor)
	}
	c, err := a.volumes.content(ctx, vol)
	if err != nil {
		return driver.Disk{}, err
	}
	if vol.Status.Hypervisor == "" {
		_, err := api.ModifyStatus(ctx, a.Plane, m.Metadata.Project, d.Volume, func(v *estate.Volume) error {
			v.Status.Hypervisor = a.Hypervisor
			return nil
		})
		if err != nil {
			return driver.Disk{}, err
		}
	}
	return driver.Disk{Name: d.Name, File: c}, nil
}

// power turns the machine on or off. An unknown state is left alone.
func (k *keeper) power(ctx context.Context, m *estate.Machine, have driver.Machine) (driver.Machine, error) {
	a := k.agent
	switch {
	case have.Power == estate.PowerUnknown || have.Power == m.Spec.Power:
		return have, nil
	case m.Spec.Power == estate.Paused && have.Power == estate.On:
		return have, nil // once it is ready: see standStill
	case m.Spec.Power != estate.Off:
		if k.asked = (time.Time{}); have.Power == estate.Off {
			k.forgetGuest()
			k.tell(ctx, m, func(s *estate.MachineStatus) { s.Power, s.Waiting = estate.Off, "starting the machine" })
		}
		if err := a.Host.Start(ctx, k.id); err != nil {
			return have, err
		}
		a.Log.Info("machine started", "machine", m.Metadata.Name, "was", have.Power)
	default:
		k.tell(ctx, m, func(s *estate.MachineStatus) { s.Waiting = "waiting for the guest to shut down" })
		if err := a.Host.Stop(ctx, k.id, stopGrace); err != nil {
			return have, err
		}
		k.forgetGuest()
		a.Log.Info("machine stopped", "machine", m.Metadata.Name)
	}
	return a.Host.Get(ctx, k.id)
}

func (k *keeper) forgetGuest() {
	k.guest, k.layers, k.asked = estate.GuestStatus{}, nil, time.Time{}
}

// observe tells the plane how the machine is.
func (k *keeper) observe(ctx context.Context, m *estate.Machine, have driver.Machine) error {
	return k.tell(ctx, m, func(s *estate.MachineStatus) {
		s.Power, s.Starts, s.Started, s.Waiting = have.Power, have.Starts, have.Started, ""
		s.Display = ""
		if can := k.agent.Host.CanFor(m.Spec.Hardware.GuestType, estate.CanDisplay); can.Has && have.Power != estate.Off && have.Power != estate.PowerUnknown {
			s.Display = can.Value
		}
		s.Guest, s.Layers = k.guest, k.layers
		s.Launches = k.launchesAfter(s.Launches)
		k.tellDrift(s, drift(m, have))
		if have.Power == estate.PowerUnknown {
			s.Waiting = "the host cannot tell whether the machine runs; nothing is done until it can"
		}
		for _, l := range k.layers {
			if !l.Attached {
				s.Waiting = fmt.Sprintf("application %s: %s", l.Application, l.Text)
			}
		}
	})
}

// tell writes the machine's status when it is not what the plane knows.
func (k *keeper) tell(ctx context.Context, m *estate.Machine, change func(*estate.MachineStatus)) error {
	if m.Spec.Hypervisor != k.agent.Hypervisor {
		return nil // another agent's to tell
	}
	s := m.Status
	if k.reported.Hypervisor != "" {
		s = k.reported
	}
	s.Progress.Conditions = slices.Clone(s.Progress.Conditions)
	change(&s)
	s.Hypervisor, s.Epoch, s.Observed = k.agent.Hypervisor, m.Spec.Epoch, m.Metadata.Generation
	ready := estate.Condition{Type: estate.Ready, Status: estate.False, Text: s.Waiting, Since: k.agent.Now()}
	if s.Power == m.Spec.Power && s.Waiting == "" {
		ready.Status = estate.True
	}
	s.Set(ready)
	if equalStatus(s, k.reported) {
		return nil
	}
	_, err := api.ModifyStatus(ctx, k.agent.Plane, m.Metadata.Project, m.Metadata.Name, func(now *estate.Machine) error {
		if now.Metadata.UID != string(k.id) || now.Spec.Epoch > s.Epoch {
			return fault.Stale.Errorf("machine %s was placed anew", m.Metadata.Name)
		}
		now.Status = s
		return nil
	})
	if err == nil {
		k.reported = s
	}
	return err
}

func equalStatus(a, b estate.MachineStatus) bool {
	return a.Power == b.Power && a.Epoch == b.Epoch && a.Hypervisor == b.Hypervisor && a.Starts == b.Starts &&
		a.Started.Equal(b.Started) && a.Display == b.Display && a.Waiting == b.Waiting && a.Observed == b.Observed &&
		a.Guest.Agent == b.Guest.Agent && a.Guest.Desktop == b.Guest.Desktop && a.Guest.Own == b.Guest.Own && a.Guest.Hostname == b.Guest.Hostname &&
		slices.Equal(a.Guest.Addresses, b.Guest.Addresses) && slices.Equal(a.Layers, b.Layers) && slices.Equal(a.Launches, b.Launches) &&
		a.Key == b.Key && a.Lost.Equal(b.Lost) && a.Get(drifted).Text == b.Get(drifted).Text
}

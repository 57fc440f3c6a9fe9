package pool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"consort.dev/consort/compose"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/store"
)

// keepEnded is how long a session that never had a seat can be looked at.
const keepEnded = 10 * time.Minute

// endAsked ends the sessions of those who no longer want to wait, and removes
// those that ended without a seat.
func (k *Keeper) endAsked(ctx context.Context, v *view) error {
	for _, s := range v.done {
		var err error
		switch {
		case s.Status.State != estate.SessionEnded:
			err = k.end(ctx, s, "it was closed while it waited for a seat")
		case k.Now().Sub(s.Status.Ended) > keepEnded:
			err = k.Store.Delete(ctx, s.Ref(), 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// takeBack destroys the seats whose persons have left, and ready ones that are
// not made as they would be made now. It returns when to look again.
func (k *Keeper) takeBack(ctx context.Context, v *view) (time.Duration, error) {
	again := lookAgain
	var kept []*estate.Desktop
	for _, d := range v.taken {
		left, gone := v.left(d)
		wait := v.keep(d) - v.now.Sub(left)
		if !gone || wait > 0 {
			if gone {
				again = min(again, wait+time.Millisecond)
			}
			kept = append(kept, d)
			continue
		}
		if err := k.destroy(ctx, v, d, "Returned", fmt.Sprintf("seat %s is destroyed: %s has left it", d.Metadata.Name, d.Spec.Person)); err != nil {
			return 0, err
		}
		v.learn(v.now.Sub(d.Status.Taken))
	}
	v.taken = kept
	for i, d := range v.warm {
		if d.Status.Next == nil {
			continue
		}
		if err := k.destroy(ctx, v, d, "Outdated", "ready seat "+d.Metadata.Name+" is destroyed: another one would be made otherwise now"); err != nil {
			return 0, err
		}
		v.warm = append(v.warm[:i:i], v.warm[i+1:]...)
		break // one at a time, so that some are ready all the while
	}
	v.count()
	return again, nil
}

// left is when a seat's person left it, and whether they have.
func (v *view) left(d *estate.Desktop) (at time.Time, gone bool) {
	at = d.Status.Taken
	for _, s := range v.visits[d.Metadata.Name] {
		if s.Status.State != estate.SessionEnded && s.Metadata.Deleting.IsZero() {
			return at, false
		}
		if s.Status.Ended.After(at) {
			at = s.Status.Ended
		}
	}
	return at, true
}

// keep is for how long a seat waits for its person once they have left it. One
// that lasts as long as a session waits for nobody.
func (v *view) keep(d *estate.Desktop) time.Duration {
	if d.Disposable() {
		return 0
	}
	return time.Duration(v.pool.Spec.Keep)
}

// learn takes a stay into what is known of stays.
func (v *view) learn(stay time.Duration) {
	if v.stay > 0 {
		stay = (4*v.stay + stay) / 5
	}
	v.stay = max(time.Second, stay.Round(time.Second))
}

// destroy asks for the end of a seat as it was seen: one that somebody has come
// back to since is left alone, with fault.Conflict.
func (k *Keeper) destroy(ctx context.Context, v *view, d *estate.Desktop, reason, text string) error {
	if err := k.Store.Delete(ctx, d.Ref(), d.Metadata.Version); err != nil {
		return err
	}
	v.leaving = append(v.leaving, d)
	k.Events.Tell(ctx, control.Happening{On: v.pool.Ref(), Of: d.Metadata.Name, Reason: reason, Text: text})
	return nil
}

// together is how many persons get their seats in one transaction. An etcd
// transaction has at most 128 writes unless told otherwise.
const together = 16

// serve gives seats to those who wait: those there are first, the ready ones
// before the others, and then new ones that are made for them.
func (k *Keeper) serve(ctx context.Context, v *view, d decision) error {
	free := append(append([]*estate.Desktop{}, v.warm...), v.making...)
	var all []gift
	for i, s := range v.queue[:d.give+d.order] {
		g := gift{session: s}
		if i < d.give {
			g.seat = free[i]
		} else {
			var err error
			if g.seat, err = k.newSeat(v); err != nil {
				return err
			}
		}
		all = append(all, g)
	}
	for rest := all; len(rest) > 0; {
		n := min(together, len(rest))
		err := k.give(ctx, v.pool, rest[:n])
		if errors.Is(err, fault.Conflict) && n > 1 {
			// One of them has changed: the others need not wait for another look.
			for _, g := range rest[:n] {
				if alone := k.give(ctx, v.pool, []gift{g}); alone != nil && !errors.Is(alone, fault.Conflict) {
					return alone
				}
			}
		}
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	v.settle(d.give, len(all))
	return nil
}

// settle moves those who got a seat to where they are now.
func (v *view) settle(used, given int) {
	free := append(append([]*estate.Desktop{}, v.warm...), v.making...)
	v.taken = append(v.taken, free[:used]...)
	for range given - used {
		v.taken = append(v.taken, &estate.Desktop{Status: estate.DesktopStatus{Taken: v.now}})
	}
	v.making = v.making[max(0, used-len(v.warm)):]
	v.warm = v.warm[min(used, len(v.warm)):]
	v.queue = v.queue[given:]
	v.room -= given - used
	v.count()
}

// gift is a seat for somebody who waits.
type gift struct {
	session *estate.Session
	seat    *estate.Desktop // not stored yet when it is to be made for them
}

// give writes persons on their seats and the seats into their sessions, in one
// transaction, which both must be unchanged for: so a seat goes to one person
// and a person gets one seat, whoever else gives at the same time, and whenever
// this process dies. New seats are counted in the pool, which must be unchanged
// too.
func (k *Keeper) give(ctx context.Context, p *estate.Pool, all []gift) error {
	var edits []store.Edit
	before := p.Status.Seats
	for _, g := range all {
		d, s := g.seat, g.session
		d.Spec.Person, d.Spec.Power = s.Spec.Person, estate.On
		d.Status.Taken, d.Status.Visits = k.Now().UTC(), 1
		s.Spec.Desktop = d.Metadata.Name
		s.Status.Queue, s.Status.Waiting = nil, "the seat is being brought up"
		if d.Metadata.Version == 0 {
			edits = append(edits, store.Create(d), store.Put(s))
			p.Status.Seats++
		} else {
			edits = append(edits, store.Put(d), store.Put(s))
		}
	}
	if p.Status.Seats > before {
		edits = append(edits, store.Put(p))
	}
	return k.Store.Commit(ctx, edits...)
}

// newSeat returns a seat that is to be made.
func (k *Keeper) newSeat(v *view) (*estate.Desktop, error) {
	name, err := k.newName(v.pool.Metadata.Name)
	if err != nil {
		return nil, err
	}
	owner, p := v.pool.Ref(), v.pool
	d := &estate.Desktop{Spec: estate.DesktopSpec{Title: p.Spec.Title, Blueprint: p.Spec.Blueprint, Pool: p.Metadata.Name, Power: estate.On}}
	d.Head = estate.Head{APIVersion: estate.APIVersion, Kind: "Desktop", Metadata: estate.Metadata{
		Name: name, Project: p.Metadata.Project, Labels: p.Metadata.Labels, Owner: &owner,
	}}
	return d, nil
}

// refill makes seats that nobody has asked for yet, or destroys ready ones that
// are too many.
func (k *Keeper) refill(ctx context.Context, v *view, d decision) error {
	for range d.refill {
		seat, err := k.newSeat(v)
		if err != nil {
			return err
		}
		v.pool.Status.Seats++
		if err := k.Store.Commit(ctx, store.Create(seat), store.Put(v.pool)); err != nil {
			return err
		}
		v.making = append(v.making, seat)
		v.room--
	}
	for range d.drop {
		last := v.warm[len(v.warm)-1]
		if err := k.destroy(ctx, v, last, "Surplus", "ready seat "+last.Metadata.Name+" is destroyed: "+d.why); err != nil {
			return err
		}
		v.warm = v.warm[:len(v.warm)-1]
	}
	v.count()
	return nil
}

// A person who connects keeps refills back: while their desktop comes up, then
// until they see it, and for a moment more, in which their viewer draws. What
// takes longer than it may hangs on something that a refill does not slow.
const (
	patience = 3 * time.Minute // for it to come up
	unseen   = 3 * time.Second // from then until it is seen
	settling = time.Second     // from then on
)

// survey finds out what the hosts have room for, and who is waiting for a start
// on them.
func (k *Keeper) survey(ctx context.Context, v *view, desktops []*estate.Desktop, sessions []*estate.Session) error {
	if v.blueprint == nil {
		return nil
	}
	hosts, _, err := store.List[estate.Hypervisor](ctx, k.Store, "")
	if err != nil {
		return err
	}
	machines, _, err := store.List[estate.Machine](ctx, k.Store, "")
	if err != nil {
		return err
	}
	images, _, err := store.List[estate.Image](ctx, k.Store, "")
	if err != nil {
		return err
	}
	need := estate.Hardware{Memory: v.blueprint.Spec.Size.Memory, Disks: []estate.Disk{{Grow: compose.SeatDisk}}}
	if need.Memory == 0 {
		need.Memory = compose.DefaultMemory
	}
	fit := map[string]bool{"": true} // what is placed nowhere yet may come to one of them
	for _, h := range hosts {
		if !suits(h, &v.blueprint.Spec.Hypervisor) {
			continue
		}
		fit[h.Metadata.Name] = true
		v.cpus += h.Status.Capacity.CPUs
		v.clones = v.clones || h.Status.CanFor("", estate.CanInstant).Has
		v.room += fits(control.Left(h, machines, control.SizesOf(images), ""), h.Status.Capacity, control.Needs(&need, nil))
	}
	on := map[estate.Ref]*estate.Machine{}
	for _, m := range machines {
		if m.Metadata.Owner != nil {
			on[*m.Metadata.Owner] = m
		}
	}
	for _, seats := range [][]*estate.Desktop{v.making, v.taken} {
		for _, d := range seats {
			m := on[d.Ref()]
			if m == nil || m.Spec.Hypervisor == "" {
				v.room-- // it has none of the room yet that it will take
			}
			v.notes(m)
		}
	}
	for _, d := range v.warm {
		v.notes(on[d.Ref()])
	}
	v.room = max(0, v.room)
	v.starts = starts(v.now, desktops, sessions, func(d *estate.Desktop) bool {
		m := on[d.Ref()]
		return m == nil || fit[m.Spec.Hypervisor]
	})
	return nil
}

// notes notes what the newest of the seats' machines goes on from.
func (v *view) notes(m *estate.Machine) {
	if m != nil && m.Spec.Template != "" && !m.Metadata.Created.Before(v.newest) {
		v.template, v.newest = m.Spec.Template, m.Metadata.Created
	}
}

// starts counts the persons who wait for a desktop to come up or to be seen, on
// one of the hosts that count.
func starts(now time.Time, desktops []*estate.Desktop, sessions []*estate.Session, counts func(*estate.Desktop) bool) int {
	waits := map[estate.Ref]bool{}
	for _, s := range sessions {
		if s.Spec.Desktop != "" && !over(s) && connects(&s.Status, now.Sub(s.Metadata.Created), now) {
			waits[estate.Ref{Kind: "Desktop", Project: s.Metadata.Project, Name: s.Spec.Desktop}] = true
		}
	}
	n := 0
	for _, d := range desktops {
		if waits[d.Ref()] && counts(d) {
			n++
		}
	}
	return n
}

// connects reports whether the person of a session of that age still waits for
// their first picture.
func connects(s *estate.SessionStatus, age time.Duration, now time.Time) bool {
	if s.State == estate.SessionWaiting {
		return age < patience
	}
	if len(s.Phases) == 0 {
		return false
	}
	last, limit := s.Phases[len(s.Phases)-1], unseen
	for _, p := range s.Phases {
		if p.Name == estate.FirstFrame {
			last, limit = p, settling
		}
	}
	return now.Sub(last.Ended) < limit
}

// suits reports whether a host takes seats now, as far as the blueprint's
// selector and its own state tell. Compose has the last word.
func suits(h *estate.Hypervisor, want *estate.Selector) bool {
	if h.Status.State != estate.HypervisorReady || h.Spec.Drain || want.Name != "" && want.Name != h.Metadata.Name {
		return false
	}
	for key, value := range want.Labels {
		if h.Metadata.Labels[key] != value {
			return false
		}
	}
	return true
}

// boundless is how many seats fit into a host that does not say what it has.
const boundless = 1000

// fits returns how often a need fits into what is left of a host.
func fits(left, whole, need estate.Capacity) int {
	n := boundless
	if whole.Memory > 0 {
		n = min(n, int(left.Memory/need.Memory))
	}
	if whole.Disk > 0 {
		n = min(n, int(left.Disk/need.Disk))
	}
	return max(0, n)
}

// gone reports that an object went while it was looked at.
func gone(err error) bool { return errors.Is(err, fault.NotFound) }

package place

import (
	"context"
	"sync"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/store"
)

// most is how many placements are stored in one transaction. Each writes two
// keys at most; a cluster of others takes 128 in one, unless told otherwise.
const most = 32

// order is a placement that is chosen and not stored yet.
type order struct {
	machine *estate.Machine
	reading int64 // of the stock it was chosen by
	done    chan error
}

// orders are those that wait while others are stored.
type orders struct {
	mu   sync.Mutex
	wait []*order
	busy bool // somebody stores
}

// commit stores the machine where it is placed now, together with what other
// workers have to store at that time: a transaction costs the same for many.
// Somebody who took room on the same host since the stock was read is
// fault.Conflict. Whatever fails gives the room back.
func (p *Placer) commit(ctx context.Context, m *estate.Machine, reading int64) error {
	o := &order{m, reading, make(chan error, 1)}
	q := &p.orders
	q.mu.Lock()
	if q.wait = append(q.wait, o); q.busy {
		q.mu.Unlock()
		return <-o.done
	}
	q.busy = true
	for len(q.wait) > 0 {
		n := min(len(q.wait), most)
		batch := q.wait[:n]
		q.wait = q.wait[n:]
		q.mu.Unlock()
		p.storeAll(ctx, batch)
		q.mu.Lock()
	}
	q.busy = false
	q.mu.Unlock()
	return <-o.done
}

// storeAll stores the orders together or, where one of them is what fails, each
// for itself.
func (p *Placer) storeAll(ctx context.Context, batch []*order) {
	current, edits := p.edits(batch)
	if len(current) == 0 {
		return
	}
	err := p.Store.Commit(ctx, edits...)
	if err != nil && fault.KindOf(err) != fault.Unavailable && p.behind(ctx, current) {
		p.settle(current, err)
		return
	}
	if err != nil && len(current) > 1 {
		for _, o := range current {
			p.storeAll(ctx, []*order{o})
		}
		return
	}
	p.settle(current, err)
}

// edits returns what stores the orders: every machine, and for every host that
// its room is as it was known when they were chosen. An order that was chosen by
// an older reading of the stock is refused.
func (p *Placer) edits(batch []*order) (current []*order, edits []store.Edit) {
	s := &p.stock
	s.mu.Lock()
	defer s.mu.Unlock()
	var rooms store.Txn
	taken := map[string]bool{}
	for _, o := range batch {
		if o.reading != s.reading || s.cluster == nil {
			o.done <- fault.Conflict.Errorf("place %s: others have placed machines since", o.machine.Ref())
			continue
		}
		current = append(current, o)
		edits = append(edits, store.Put(o.machine))
		if on := o.machine.Spec.Hypervisor; !taken[on] {
			taken[on] = true
			rooms.If = append(rooms.If, store.Compare{Key: control.Rooms + on, Revision: s.rooms[on]})
			rooms.Then = append(rooms.Then, store.Write{Key: control.Rooms + on})
		}
	}
	return current, append(edits, store.Raw(rooms))
}

// behind reports whether others took room on one of the hosts; the stock is read
// anew then. So it is where that cannot be found out.
func (p *Placer) behind(ctx context.Context, batch []*order) bool {
	s := &p.stock
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range batch {
		on := o.machine.Spec.Hypervisor
		e, err := p.Store.KV().Get(ctx, control.Rooms+on)
		if err != nil && fault.KindOf(err) != fault.NotFound || e.Revision != s.rooms[on] {
			s.cluster = nil
			return true
		}
	}
	return false
}

// settle notes what became of the orders, and tells those who wait.
func (p *Placer) settle(batch []*order, err error) {
	for _, o := range batch {
		if err != nil {
			p.release(o.machine, o.reading)
			continue
		}
		p.stock.mu.Lock()
		if o.reading == p.stock.reading {
			version := o.machine.Metadata.Version
			p.stock.rooms[o.machine.Spec.Hypervisor] = version
			p.stock.seen[itemOf(o.machine.Ref())] = version
		}
		p.stock.mu.Unlock()
	}
	for _, o := range batch {
		o.done <- err
	}
}

// release gives back the room that was chosen by a reading of the stock.
func (p *Placer) release(m *estate.Machine, reading int64) {
	s := &p.stock
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster != nil && s.reading == reading {
		s.cluster.Remove(itemOf(m.Ref()))
	}
}

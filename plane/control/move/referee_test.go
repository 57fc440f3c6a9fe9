package move_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/fakehost"
	"consort.dev/consort/plane/calls"
	"consort.dev/consort/plane/control/move"
	"consort.dev/consort/plane/store"
)

// referee sees every act of the hosts and of the mover, and every moment at
// which a machine begins to run.
type referee struct {
	yard *yard

	mu      sync.Mutex
	machine *estate.Machine // nil before the game
	faults  []string
	last    map[string]uint64 // what the guest wrote on a host the last time it started there
	starts  int
	epochs  map[int64]string // which host started it under which epoch
	tick    func()           // what happens at every act
	acting  int

	dialling    func(api.Verb) // told of every call before it is made
	refuseStart string         // the host on which starting fails
}

func (r *referee) begin(m *estate.Machine) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.machine = m
}

// act is one act of somebody: before it and after it anything may happen.
func (r *referee) act(ctx context.Context, do func() error) error {
	r.mu.Lock()
	tick := r.tick
	r.acting++
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.acting--
		r.mu.Unlock()
	}()
	if tick != nil {
		tick()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err := do()
	if tick != nil {
		tick()
	}
	if ctx.Err() != nil {
		return ctx.Err() // who asked is dead
	}
	return err
}

func (r *referee) quiet() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.acting == 0
}

// check fails the test for everything that must not have happened.
func (r *referee) check() {
	r.yard.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.faults {
		r.yard.t.Error(f)
	}
}

// said reports whether a fault that contains the text was seen.
func (r *referee) said(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.faults, func(f string) bool { return strings.Contains(f, text) })
}

func (r *referee) wrong(format string, args ...any) {
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

// starting is the one moment at which a machine begins to run: no other copy
// may run then, and its disks must hold what they held last. Its guest then
// writes to them. Callers hold mu.
func (r *referee) starting(host string, memory *fakehost.Host, id estate.MachineID) {
	if r.machine == nil || string(id) != r.machine.Metadata.UID {
		return
	}
	if have, ok := r.yard.held(host); !ok || have.Power == estate.On {
		return
	}
	other := map[string]string{"a": "b", "b": "a"}[host]
	if there, ok := r.yard.held(other); ok && there.Power == estate.On {
		r.wrong("two copies run: it was started on %s while it ran on %s", host, other)
	}
	if m, err := store.Get[estate.Machine](context.Background(), r.yard.store, "p", "m"); err == nil && m.Spec.Hypervisor == host {
		if was, ok := r.epochs[m.Spec.Epoch]; ok && was != host {
			r.wrong("one epoch for two hosts: started on %s and on %s under epoch %d", was, host, m.Spec.Epoch)
		}
		r.epochs[m.Spec.Epoch] = host
	}
	r.starts++
	for _, disk := range r.yard.disks {
		var content bytes.Buffer
		if err := memory.Export(context.Background(), id, disk, &content); err != nil {
			r.wrong("read disk %s on %s: %v", disk, host, err)
			return
		}
		b := content.Bytes()
		n := binary.BigEndian.Uint64(b)
		if !bytes.Equal(b[8:], r.yard.body) {
			r.wrong("start %d on %s: disk %s does not hold what it held", r.starts, host, disk)
		}
		key := disk + " on "
		if n != r.last[key+host] && n != r.last[key+other] {
			r.wrong("start %d on %s: disk %s is of start %d; want that of start %d there or %d on %s", r.starts, host, disk, n, r.last[key+host], r.last[key+other], other)
		}
		binary.BigEndian.PutUint64(b, uint64(r.starts))
		r.last[key+host] = uint64(r.starts)
		if err := memory.Import(context.Background(), id, disk, bytes.NewReader(b)); err != nil {
			r.wrong("write disk %s on %s: %v", disk, host, err)
		}
	}
}

// defining is a moment at which a host comes to have a machine that it could
// run: nobody runs it then. Callers hold mu.
func (r *referee) defining(host string, id estate.MachineID) {
	if r.machine == nil || string(id) != r.machine.Metadata.UID {
		return
	}
	other := map[string]string{"a": "b", "b": "a"}[host]
	if there, ok := r.yard.held(other); ok && there.Power == estate.On {
		r.wrong("two copies could run: it was defined on %s while it ran on %s", host, other)
	}
}

// Dial implements move.Calls.
func (r *referee) Dial(ctx context.Context, hypervisor string, call api.Call) (conn net.Conn, err error) {
	if r.dialling != nil {
		r.dialling(call.Verb)
	}
	err = r.act(ctx, func() (err error) { conn, err = r.yard.calls.Dial(ctx, hypervisor, call); return err })
	if err != nil && conn != nil {
		conn.Close()
	}
	return conn, err
}

// Relay implements move.Calls.
func (r *referee) Relay(ctx context.Context, from, to calls.Leg, carried func(int64)) error {
	return r.act(ctx, func() error { return r.yard.calls.Relay(ctx, from, to, carried) })
}

var _ move.Calls = (*referee)(nil)

// spied is a host whose acts the referee sees.
type spied struct {
	*fakehost.Host
	name   string
	ref    *referee
	leaves func()
}

func (s *spied) Define(ctx context.Context, def driver.Definition) error {
	return s.ref.act(ctx, func() error {
		s.ref.mu.Lock()
		defer s.ref.mu.Unlock()
		s.ref.defining(s.name, def.ID)
		return s.Host.Define(ctx, def)
	})
}

func (s *spied) Start(ctx context.Context, id estate.MachineID) error {
	return s.ref.act(ctx, func() error {
		s.ref.mu.Lock()
		defer s.ref.mu.Unlock()
		if s.ref.refuseStart == s.name {
			return fault.Unavailable.Errorf("it does not start here")
		}
		s.ref.starting(s.name, s.Host, id)
		return s.Host.Start(ctx, id)
	})
}

func (s *spied) Stop(ctx context.Context, id estate.MachineID, grace time.Duration) error {
	return s.ref.act(ctx, func() error { return s.Host.Stop(ctx, id, grace) })
}

func (s *spied) Delete(ctx context.Context, id estate.MachineID) error {
	return s.ref.act(ctx, func() error { return s.Host.Delete(ctx, id) })
}

func (s *spied) Shelve(ctx context.Context, id estate.MachineID) error {
	return s.ref.act(ctx, func() error { return s.Host.Shelve(ctx, id) })
}

// Export is seen half-way too.
func (s *spied) Export(ctx context.Context, id estate.MachineID, disk string, w io.Writer) error {
	return s.ref.act(ctx, func() error { return s.Host.Export(ctx, id, disk, w) })
}

func (s *spied) Import(ctx context.Context, id estate.MachineID, disk string, r io.Reader) error {
	return s.ref.act(ctx, func() error { return s.Host.Import(ctx, id, disk, r) })
}

func (s *spied) Depart(ctx context.Context, id estate.MachineID, at string) error {
	if s.leaves != nil {
		s.leaves()
	}
	return s.ref.act(ctx, func() error {
		s.ref.mu.Lock()
		defer s.ref.mu.Unlock()
		err := s.Host.Depart(ctx, id, at)
		if err == nil {
			other := map[string]string{"a": "b", "b": "a"}[s.name]
			for _, disk := range []string{"root on ", "home on "} {
				s.ref.last[disk+other] = s.ref.last[disk+s.name]
			}
		}
		return err
	})
}

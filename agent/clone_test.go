package agent_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/fakehost"
)

func clone(m *estate.Machine) {
	m.Spec.Template = estate.TemplateName("p/office", m.Spec.Hardware, nil)
}

// identities returns what guests were told to be, and whether a template was told anything.
func (h *house) identities(m *estate.Machine) (of, others int) {
	for _, r := range h.memory.Ran() {
		if !strings.Contains(string(r.Stdin), "\nhostname \"$hostname\"") {
			continue
		}
		if string(r.Machine) == m.Metadata.UID {
			of++
		} else {
			others++
		}
	}
	return of, others
}

func TestAMachineGoesOnFromATemplateThatIsMadeForIt(t *testing.T) {
	h := newHouse(t)
	h.employ()
	m := h.order(clone)
	h.running()
	have, _ := h.held(m)
	templates, err := h.memory.Templates(t.Context())
	if err != nil || len(templates) != 1 || have.Def.Template != templates[0].Name {
		t.Fatalf("the machine is %+v, templates are %+v, %v; want it to go on from the one", have.Def, templates, err)
	}
	if of, others := h.identities(m); of != 1 || others != 0 || !h.status().Guest.Own {
		t.Errorf("identity given %d times, to others %d times, own %v; want once, to it", of, others, h.status().Guest.Own)
	}
	if all, _ := h.memory.List(t.Context()); len(all) != 1 {
		t.Errorf("the host has %+v; what was to become a template is left", all)
	}
}

// TestACloneThatWasShelvedIsDefinedAsItWas has a machine go to another host and
// come back before anything was carried: its shelf knows what it was made from.
func TestACloneThatWasShelvedIsDefinedAsItWas(t *testing.T) {
	h := newHouse(t)
	h.employ()
	m := h.order(clone)
	h.running()
	was, _ := h.held(m)
	move := &estate.Moving{Operation: "op", From: "here", To: "there"}
	h.want(func(s *estate.MachineSpec) { s.Power, s.Moving = estate.Off, move })
	h.until("it is off", func() bool { return h.status().Power == estate.Off })
	h.want(func(s *estate.MachineSpec) { s.Hypervisor, s.Epoch = "there", 6 })
	h.until("it is shelved", func() bool { _, here := h.held(m); return !here })
	h.want(func(s *estate.MachineSpec) { s.Hypervisor, s.Epoch, s.Power, s.Moving = "here", 7, estate.On, nil })
	h.until("it is back", func() bool { have, here := h.held(m); return here && have.Power == estate.On })
	if now, _ := h.held(m); !now.Def.Equal(was.Def) {
		t.Errorf("it is %+v, was %+v", now.Def, was.Def)
	}
}

// cut is a host whose agent dies once it has shelved a machine, before it hears
// of that.
type cut struct {
	*fakehost.Host
	shelved chan struct{}
}

func (c *cut) Shelve(ctx context.Context, id estate.MachineID) error {
	err := c.Host.Shelve(ctx, id)
	close(c.shelved)
	<-ctx.Done()
	return errors.Join(err, ctx.Err())
}

// TestWhatWasShelvedComesBackThoughNobodyHeard has a machine that is off turn
// round when its host had just let go of it: it is defined again, and as it was.
func TestWhatWasShelvedComesBackThoughNobodyHeard(t *testing.T) {
	h := newHouse(t)
	c := &cut{h.memory, make(chan struct{})}
	h.host = c
	kill := h.employ()
	m := h.order(clone)
	h.running()
	was, _ := h.held(m)
	h.want(func(s *estate.MachineSpec) { s.Power = estate.Off })
	h.until("it is off", func() bool { return h.status().Power == estate.Off })
	h.want(func(s *estate.MachineSpec) {
		s.Hypervisor, s.Epoch, s.Moving = "there", 6, &estate.Moving{Operation: "op", From: "here", To: "there"}
	})
	<-c.shelved
	kill()
	h.host = h.memory
	h.want(func(s *estate.MachineSpec) { s.Hypervisor, s.Epoch, s.Moving = "here", 7, nil })
	h.employ()
	h.until("it is back", func() bool { _, here := h.held(m); return here })
	if now, _ := h.held(m); !now.Def.Equal(was.Def) || now.Power != estate.Off {
		t.Errorf("it is %+v, was %+v and off", now, was.Def)
	}
}

func TestASecretIsNoArgument(t *testing.T) {
	h := newHouse(t)
	h.employ()
	h.order(clone)
	h.running()
	for _, r := range h.memory.Ran() {
		if strings.Contains(strings.Join(r.Args, " "), "seed=") {
			t.Errorf("the seed is among the arguments %q", r.Args)
		}
	}
}

func TestAMachineThatIsToPauseIsMadeReadyFirst(t *testing.T) {
	h := newHouse(t)
	kill := h.employ()
	m := h.order(func(m *estate.Machine) { clone(m); m.Spec.Power = estate.Paused })
	paused := func() bool {
		s := h.status()
		return s.Power == estate.Paused && s.Guest.Own && s.Guest.Desktop && s.Display != "" && s.Is(estate.Ready)
	}
	h.until("it is paused and ready", paused)
	kill()
	h.employ()
	h.want(func(s *estate.MachineSpec) { s.Power = estate.On })
	h.until("it goes on", func() bool { return h.status().Power == estate.On && h.status().Guest.Own })
	if have, _ := h.held(m); have.Starts != 1 || have.Power != estate.On {
		t.Errorf("it is %s after %d starts, want on after one", have.Power, have.Starts)
	}
	if of, _ := h.identities(m); of != 1 {
		t.Errorf("it was given %d identities, want one", of)
	}
}

// TestTheClockIsSetAfterAPause has a guest whose clock stood still while it did.
func TestTheClockIsSetAfterAPause(t *testing.T) {
	h := newHouse(t)
	var late atomic.Bool
	h.memory = fakehost.New(fakehost.Options{Run: func(ctx context.Context, m driver.Machine, cmd driver.Command) (driver.Output, error) {
		line := strings.Join(cmd.Args, " ")
		switch at := time.Now(); {
		case strings.HasPrefix(line, "date -s @"):
			late.Store(false)
			return driver.Output{}, nil
		case strings.HasPrefix(line, "/bin/sh -c hostname;"):
			if late.Load() {
				at = at.Add(-time.Hour)
			}
			return driver.Output{Stdout: fmt.Appendf(nil, "ana-office\n%d\n", at.Unix())}, nil
		}
		return guests(ctx, m, cmd)
	}})
	h.host = h.memory
	h.employ()
	h.order(func(m *estate.Machine) { clone(m); m.Spec.Power = estate.Paused })
	h.until("it is paused", func() bool { return h.status().Power == estate.Paused })
	late.Store(true)
	h.want(func(s *estate.MachineSpec) { s.Power = estate.On })
	h.until("its clock is right", func() bool { return h.status().Power == estate.On && !late.Load() })
}

// TestACloneWithoutIdentityIsNeverBooted has a guest go off before it took its
// identity: from its disk it would boot as its template.
func TestACloneWithoutIdentityIsNeverBooted(t *testing.T) {
	h := newHouse(t)
	var refused atomic.Int32
	h.memory = fakehost.New(fakehost.Options{Run: func(ctx context.Context, m driver.Machine, cmd driver.Command) (driver.Output, error) {
		if len(cmd.Args) == 1 && refused.Add(1) == 1 {
			go h.memory.PowerOff(m.ID)
			return driver.Output{}, fault.Unavailable.Errorf("the guest is going down")
		}
		return guests(ctx, m, cmd)
	}})
	h.host = h.memory
	h.employ()
	m := h.order(clone)
	h.running()
	if have, _ := h.held(m); have.Starts != 1 || have.Def.Template == "" {
		t.Errorf("it is %+v after %d starts; want a new clone, started once", have.Def, have.Starts)
	}
}

func TestAStaleTemplateIsMadeAnew(t *testing.T) {
	h := newHouse(t)
	h.employ()
	m := h.order(clone)
	h.running()
	h.memory.Age()
	h.must(h.store.Delete(t.Context(), m.Ref(), 0))
	h.until("it is gone", func() bool {
		_, err := h.store.Load(t.Context(), m.Ref())
		return errors.Is(err, fault.NotFound)
	})
	m = h.order(clone)
	h.running()
	templates, err := h.memory.Templates(t.Context())
	if have, _ := h.held(m); err != nil || len(templates) != 1 || templates[0].Stale != "" || have.Def.Template == "" {
		t.Errorf("templates are %+v, %v, the machine is %+v; want a new one and a clone of it", templates, err, have.Def)
	}
}

func TestAHostWithoutTemplatesBootsCold(t *testing.T) {
	h := newHouse(t)
	h.host = fakehost.Lacking(h.memory, estate.CanInstant, estate.CanPause)
	h.employ()
	m := h.order(clone)
	h.running()
	if have, _ := h.held(m); have.Def.Template != "" || !h.status().Guest.Own {
		t.Errorf("it is %+v, own %v; want a machine that booted and is its own", have.Def, h.status().Guest.Own)
	}
}

// TestACloneIsShownBeforeItHasItsIdentity has a guest that takes its time.
func TestACloneIsShownBeforeItHasItsIdentity(t *testing.T) {
	h := newHouse(t)
	give := make(chan struct{})
	h.memory = fakehost.New(fakehost.Options{Run: func(ctx context.Context, m driver.Machine, cmd driver.Command) (driver.Output, error) {
		if m.Def.Template != "" && len(cmd.Args) == 1 { // the shell that its identity is told to
			select {
			case <-give:
			case <-ctx.Done():
				return driver.Output{}, ctx.Err()
			}
		}
		return guests(ctx, m, cmd)
	}})
	h.host = h.memory
	h.employ()
	h.order(clone)
	h.until("its screen can be shown", func() bool {
		s := h.status()
		return s.Power == estate.On && s.Display != "" && s.Guest.Desktop
	})
	if s := h.status(); s.Guest.Own || len(s.Guest.Addresses) > 0 {
		t.Errorf("own %v, addresses %v before it was given an identity", s.Guest.Own, s.Guest.Addresses)
	}
	close(give)
	h.running()
}

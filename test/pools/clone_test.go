package pools

import (
	"context"
	"strings"
	"testing"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/fakehost"
)

// guests tell their names and have drawn their desktops at once.
func guests(ctx context.Context, m driver.Machine, cmd driver.Command) (driver.Output, error) {
	if strings.HasPrefix(strings.Join(cmd.Args, " "), "/bin/sh -c hostname;") {
		return driver.Output{Stdout: []byte(m.Def.Name + "\n")}, nil
	}
	return fakehost.Shell(ctx, m, cmd)
}

// TestSeatsAreClonesThatStandStillUntilTheyAreTaken takes a seat through the
// plane, the agent and a host that clones: from its template to its person and
// to its end.
func TestSeatsAreClonesThatStandStillUntilTheyAreTaken(t *testing.T) {
	p := newPlane(t, fakehost.Options{Capacity: estate.Capacity{CPUs: 8, Memory: 64 * estate.GiB, Disk: estate.TiB}, Run: guests},
		estate.GuestFacts{OS: "debian-12", Agent: true, Screen: true})
	person := p.persons(1)[0]
	p.pool("counter", 2, 4)
	p.until("two seats are ready", func() bool { s := p.status("counter"); return s.Warm == 2 && s.Making == 0 })
	still := func() (names []string) {
		all, err := p.memory.List(t.Context())
		p.must(err)
		for _, m := range all {
			if m.Power == estate.Paused && m.Def.Template != "" {
				names = append(names, m.Def.Name)
			}
		}
		return names
	}
	p.until("both are clones and stand still", func() bool { return len(still()) == 2 })
	templates, err := p.memory.Templates(t.Context())
	p.must(err)
	if len(templates) != 1 {
		t.Errorf("there are %d templates, want one for all seats", len(templates))
	}

	s, err := p.connect("counter", person)
	p.must(err)
	p.until("the session is ready", func() bool {
		s, err = api.Get[estate.Session](t.Context(), p.client, "default", s.Metadata.Name)
		p.must(err)
		return s.Status.State == estate.SessionReady
	})
	m, err := api.Get[estate.Machine](t.Context(), p.client, "default", s.Spec.Desktop)
	p.must(err)
	if m.Status.Power != estate.On || !m.Status.Guest.Own || m.Status.Starts != 1 {
		t.Errorf("the seat's machine: %s, its own %v, started %d times; want it to go on, as itself, from its first start", m.Status.Power, m.Status.Guest.Own, m.Status.Starts)
	}
	p.until("another stands in its place", func() bool { return p.status("counter").Warm == 2 && len(still()) == 2 })

	p.end(s.Metadata.Name)
	p.until("the seat is gone from its host", func() bool {
		all, err := p.memory.List(t.Context())
		p.must(err)
		for _, have := range all {
			if string(have.ID) == m.Metadata.UID {
				return false
			}
		}
		return p.status("counter").Taken == 0
	})
}

package pools

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/fakehost"
	"consort.dev/consort/internal/rfb"
)

// TestASeatIsSeenBeforeItsIdentityAndTypedIntoAfter connects to a seat that is
// made for the person, on a host whose agent is another process than the plane
// and its gateway, with a guest that takes its time.
func TestASeatIsSeenBeforeItsIdentityAndTypedIntoAfter(t *testing.T) {
	give := make(chan struct{})
	var told atomic.Int32
	p := newPlane(t, fakehost.Options{
		Capacity: estate.Capacity{CPUs: 8, Memory: 64 * estate.GiB, Disk: estate.TiB},
		Run: func(ctx context.Context, m driver.Machine, cmd driver.Command) (driver.Output, error) {
			if len(cmd.Args) == 1 && cmd.Stdin != nil { // the shell that its identity is told to
				told.Add(1)
				select {
				case <-give:
				case <-ctx.Done():
					return driver.Output{}, ctx.Err()
				}
			}
			return guests(ctx, m, cmd)
		},
	}, estate.GuestFacts{OS: "debian-12", Agent: true, Screen: true})
	person := p.persons(1)[0]
	p.pool("counter", 0, 2)
	s, err := p.connect("counter", person)
	p.must(err)
	session := func() *estate.Session {
		s, err = api.Get[estate.Session](t.Context(), p.client, "default", s.Metadata.Name)
		p.must(err)
		return s
	}
	p.until("the session is ready", func() bool { return session().Status.State == estate.SessionReady })
	ticket, err := p.client.Ticket(t.Context(), "default", s.Metadata.Name, false)
	p.must(err)
	c, err := p.client.Tunnel(t.Context(), ticket.Ticket)
	p.must(err)
	defer c.Close()
	p.must(c.SetDeadline(time.Now().Add(soon)))
	v, err := rfb.NewClient(c, rfb.Proof{})
	p.must(err)
	look := func() uint8 {
		p.must(v.Request(false))
		p.must(v.NextFrame())
		return v.At(1, 1).R
	}
	before := look()
	p.until("its identity is being given", func() bool { return told.Load() > 0 })
	for range 5 { // each key would change the picture's colour
		p.must(v.Type("x"))
		if got := look(); got != before {
			t.Fatalf("the picture turned from %#x to %#x: a key reached a guest that has no identity", before, got)
		}
	}
	ended := func(name string) (yes bool) {
		for _, ph := range session().Status.Phases {
			yes = yes || ph.Name == name && !ph.Ended.IsZero()
		}
		return yes
	}
	p.until("the first frame is noted", func() bool { return ended(estate.FirstFrame) })
	if ended(estate.IdentityReady) {
		t.Error("its identity is noted before it has one")
	}
	close(give)
	p.until("its identity is noted", func() bool { return ended(estate.IdentityReady) })
	p.until("a key reaches it", func() bool {
		p.must(v.Type("x"))
		return look() != before
	})
}

package pools

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/fakehost"
)

// number returns what the environment says, or otherwise.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// owners follows every seat through all lives of the plane: whose it was, by
// uid. A watch that breaks goes on where it was.
type owners struct {
	mu     sync.Mutex
	of     map[string]string
	broken []string
}

func (o *owners) follow(ctx context.Context, client *api.Client) {
	for e := range api.Watch[estate.Desktop](ctx, client, "default") {
		if e.Type != api.Is || e.Object.Spec.Pool == "" {
			continue
		}
		d, id := e.Object, e.Object.Metadata.UID
		o.mu.Lock()
		if was := o.of[id]; was != "" && was != d.Spec.Person {
			o.broken = append(o.broken, fmt.Sprintf("seat %s was %s's and became %q's", d.Metadata.Name, was, d.Spec.Person))
		}
		o.of[id] = d.Spec.Person
		o.mu.Unlock()
	}
}

// given counts the seats that somebody has had.
func (o *owners) given() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, person := range o.of {
		if person != "" {
			n++
		}
	}
	return n
}

// TestASeatGoesToOnePersonWhateverIsKilled has 200 persons rush for 50 seats of a
// real plane, which is killed with SIGKILL while it gives them out:
// CONSORT_REPEATS times. plane/control/pool has the same with kills between any
// two writes, and many more of them.
func TestASeatGoesToOnePersonWhateverIsKilled(t *testing.T) {
	seed := number(t, "CONSORT_SEED", uint64(time.Now().UnixNano()))
	t.Logf("CONSORT_SEED=%d replays the moments", seed)
	const crowd, seats = 200, 50
	p := newPlane(t, fakehost.Options{Capacity: estate.Capacity{CPUs: 8, Memory: 256 * estate.GiB, Disk: estate.TiB}}, estate.GuestFacts{})
	persons := p.persons(crowd)
	o := &owners{of: map[string]string{}}
	ctx, rest := context.WithCancel(t.Context())
	var following sync.WaitGroup
	following.Go(func() { o.follow(ctx, p.client) })
	rnd := rand.New(rand.NewPCG(seed, 1))
	kills := 0
	for i := range int(number(t, "CONSORT_REPEATS", 2)) {
		kills += p.raid(fmt.Sprint("raid-", i), persons, seats, o, rnd)
		if t.Failed() {
			break
		}
	}
	rest()
	following.Wait()
	for _, b := range o.broken {
		t.Error(b)
	}
	t.Logf("seed %d: %d kills, %d seats given", seed, kills, o.given())
}

// raid is one rush for the seats of one pool, which nobody leaves until the end.
func (p *plane) raid(pool string, persons []string, seats int, o *owners, rnd *rand.Rand) (kills int) {
	p.Helper()
	p.pool(pool, rnd.IntN(seats), seats)
	sessions := make([]*estate.Session, len(persons))
	before := o.given()
	var asking sync.WaitGroup
	for i, person := range persons {
		asking.Go(func() {
			var err error
			if sessions[i], err = p.connect(pool, person); err != nil {
				p.Errorf("%s: %v", person, err)
			}
		})
	}
	for range 1 + rnd.IntN(2) {
		least := before + rnd.IntN(seats)
		for end := time.Now().Add(time.Second); o.given() < least && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		p.kill()
		p.start()
		kills++
	}
	asking.Wait()
	if p.Failed() {
		return kills
	}
	p.until("every seat is taken, and the others wait", func() bool {
		s := p.status(pool)
		return s.Taken == seats && s.Queue == len(persons)-seats
	})
	p.consistent(pool, seats)
	for i, person := range persons { // nobody is lost: each has what they had
		s, err := p.connect(pool, person)
		p.must(err)
		if s.Metadata.Name != sessions[i].Metadata.Name {
			p.Errorf("%s had session %s and has %s now", person, sessions[i].Metadata.Name, s.Metadata.Name)
		}
	}
	p.must(p.client.Delete(p.Context(), estate.Ref{Kind: "Pool", Project: "default", Name: pool}, api.Write{}))
	p.until("the pool is gone with all its seats", func() bool {
		all, _, err := api.List[estate.Desktop](p.Context(), p.client, api.Filter{Project: "default"})
		return err == nil && len(all) == 0
	})
	return kills
}

// consistent looks at who is where: one person a seat, one seat a person, and
// the session of each leads to it.
func (p *plane) consistent(pool string, seats int) {
	p.Helper()
	desktops, _, err := api.List[estate.Desktop](p.Context(), p.client, api.Filter{Project: "default"})
	p.must(err)
	sessions, _, err := api.List[estate.Session](p.Context(), p.client, api.Filter{Project: "default"})
	p.must(err)
	seat := map[string]string{} // by person
	for _, d := range desktops {
		if d.Spec.Pool != pool || d.Spec.Person == "" {
			continue
		}
		if other := seat[d.Spec.Person]; other != "" {
			p.Errorf("%s has seats %s and %s", d.Spec.Person, other, d.Metadata.Name)
		}
		seat[d.Spec.Person] = d.Metadata.Name
	}
	if len(seat) != seats {
		p.Errorf("%d persons have seats, want %d", len(seat), seats)
	}
	for _, s := range sessions {
		if s.Spec.Pool == pool && s.Spec.Desktop != "" && seat[s.Spec.Person] != s.Spec.Desktop {
			p.Errorf("the session of %s leads to %s, they have seat %q", s.Spec.Person, s.Spec.Desktop, seat[s.Spec.Person])
		}
	}
}

package pool_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/plane/store"
)

// referee follows everything that is written, whoever writes it, and says what
// must never be.
type referee struct {
	mu      sync.Mutex
	broken  []string
	owner   map[string]string // of every seat there ever was, by uid: its person; "" before it is taken
	names   map[string]string // uid by the name of every seat there ever was
	gone    map[string]bool   // uids of those that went
	has     map[string]map[string]bool
	there   int // seats at this moment
	most    int
	granted map[string]string // uid of a session: the seat it was given
	seats   int               // that were given to somebody
}

func (r *referee) fail(format string, args ...any) {
	r.broken = append(r.broken, fmt.Sprintf(format, args...))
}

// seat takes a change of a seat in.
func (r *referee) seat(d *estate.Desktop, deleted bool) {
	id, name := d.Metadata.UID, d.Metadata.Name
	if was, known := r.names[name]; known && was != id {
		r.fail("the name %s was used again, by %s after %s", name, id, was)
	}
	before, known := r.owner[id]
	switch {
	case deleted:
		r.there--
		r.gone[id] = true
		delete(r.has[d.Spec.Person], id)
		return
	case r.gone[id]:
		r.fail("seat %s came back", name)
	case !known:
		r.there++
		if r.there > r.most {
			r.fail("%d seats, at most %d", r.there, r.most)
		}
	case before != "" && before != d.Spec.Person:
		r.fail("seat %s was %s's and became %q's", name, before, d.Spec.Person)
	}
	r.names[name], r.owner[id] = id, d.Spec.Person
	if d.Spec.Person == "" {
		return
	}
	if before == "" {
		r.seats++
	}
	if r.has[d.Spec.Person] == nil {
		r.has[d.Spec.Person] = map[string]bool{}
	}
	if r.has[d.Spec.Person][id] = d.Metadata.Deleting.IsZero(); !r.has[d.Spec.Person][id] {
		delete(r.has[d.Spec.Person], id)
	}
	if n := len(r.has[d.Spec.Person]); n > 1 {
		r.fail("%s has %d seats", d.Spec.Person, n)
	}
}

// session takes a change of a session in: it leads to one seat for good, which
// is its person's since the same transaction.
func (r *referee) session(s *estate.Session, deleted bool) {
	id := s.Metadata.UID
	was, given := r.granted[id]
	if deleted || s.Spec.Desktop == "" {
		if given && !deleted {
			r.fail("session %s lost its seat %s", s.Metadata.Name, was)
		}
		return
	}
	if given && was != s.Spec.Desktop {
		r.fail("session %s went from seat %s to %s", s.Metadata.Name, was, s.Spec.Desktop)
	}
	r.granted[id] = s.Spec.Desktop
	if owner := r.owner[r.names[s.Spec.Desktop]]; !given && owner != s.Spec.Person {
		r.fail("session %s of %s leads to seat %s, which is %q's", s.Metadata.Name, s.Spec.Person, s.Spec.Desktop, owner)
	}
}

// watch begins to referee.
func (y *yard) referee(ctx context.Context, most int) *referee {
	y.Helper()
	r := &referee{owner: map[string]string{}, names: map[string]string{}, gone: map[string]bool{}, has: map[string]map[string]bool{}, granted: map[string]string{}, most: most}
	_, from, err := store.List[estate.Desktop](ctx, y.store, "")
	y.must(err)
	events, err := y.store.Watch(ctx, from, "Desktop", "Session")
	y.must(err)
	y.done.Go(func() {
		for e := range events {
			r.mu.Lock()
			switch o := e.Object.(type) {
			case *estate.Desktop:
				r.seat(o, e.Deleted)
			case *estate.Session:
				r.session(o, e.Deleted)
			}
			r.mu.Unlock()
		}
	})
	return r
}

func (r *referee) verdict(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.broken {
		t.Error(b)
	}
}

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

// TestASeatGoesToExactlyOnePerson has 200 persons rush for 50 seats, each from
// two windows at once, while the plane is killed again and again, before or
// after any of its writes, and sometimes goes on for a while beside the one that
// was started in its place: CONSORT_REPEATS times.
func TestASeatGoesToExactlyOnePerson(t *testing.T) {
	seed := number(t, "CONSORT_SEED", uint64(time.Now().UnixNano()))
	t.Logf("CONSORT_SEED=%d replays the kills", seed)
	usual := uint64(5)
	if testing.Short() {
		usual = 1
	}
	const persons, seats = 200, 50
	repeats := int(number(t, "CONSORT_REPEATS", usual))
	rnd := rand.New(rand.NewPCG(seed, 1))
	kills, given := 0, 0
	for i := range repeats {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			y := newYard(t, time.Millisecond, 1024*estate.GiB)
			r := y.referee(t.Context(), seats)
			y.pool("desk", func(s *estate.PoolSpec) { s.Warm, s.Maximum = rnd.IntN(seats), seats })
			kills += y.rush(r, rnd, persons, seats)
			r.verdict(t)
			given += r.seats
		})
		if t.Failed() {
			t.FailNow()
		}
	}
	t.Logf("seed %d: %d repeats, %d kills of the plane, %d seats given, each to one person", seed, repeats, kills, given)
}

// rush has everybody ask at once, and the first who get a seat leave so that
// others get one too, with the plane dying meanwhile. It returns how often.
func (y *yard) rush(r *referee, rnd *rand.Rand, persons, seats int) (kills int) {
	names, others := make([]string, persons), make([]string, persons)
	var asking sync.WaitGroup
	for i := range persons {
		for _, window := range [][]string{names, others} {
			asking.Go(func() {
				s, err := y.connect(y.Context(), "desk", fmt.Sprint("person-", i))
				if err != nil {
					y.Errorf("person-%d: %v", i, err)
					return
				}
				window[i] = s.Metadata.Name
			})
		}
	}
	for range 2 + rnd.IntN(4) {
		y.dieSoon(rnd)
		kills++
	}
	asking.Wait()
	for i := range persons {
		if names[i] != others[i] {
			y.Errorf("person-%d has sessions %s and %s in two windows", i, names[i], others[i])
		}
	}
	seated := func() (n int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.seats
	}
	y.until("every seat is taken", func() bool { return seated() >= seats })
	leaving := 0
	for _, name := range names {
		if leaving < seats/2 && y.session(name).Spec.Desktop != "" {
			y.leave(name)
			leaving++
		}
	}
	for range 1 + rnd.IntN(3) {
		y.dieSoon(rnd)
		kills++
	}
	y.until("others got new seats", func() bool { return seated() >= seats+leaving })
	for i, name := range names { // nobody is lost: each has a seat or a place
		s, err := y.connect(y.Context(), "desk", fmt.Sprint("person-", i))
		y.must(err)
		if was := y.sessionOrNil(name); was != nil && !was.Spec.End && s.Metadata.Name != name {
			y.Errorf("person-%d had session %s and got %s", i, name, s.Metadata.Name)
		}
		names[i] = s.Metadata.Name
	}
	for _, name := range names {
		y.leave(name)
	}
	y.until("every seat is returned and destroyed, and nobody waits", func() bool {
		s := y.status("desk")
		return s.Taken == 0 && s.Queue == 0 && len(y.heldSeats()) == 0
	})
	return kills
}

// mostWrites is how many writes there are at most until the plane dies. A rush
// that nobody disturbs has some two thousand.
const mostWrites = 300

// dieSoon kills the plane at one of its next writes and starts another; now and
// then that is started first, and the old one does not know.
func (y *yard) dieSoon(rnd *rand.Rand) {
	old, writes, before, beside := y.alive(), 1+rnd.IntN(mostWrites), rnd.IntN(2) == 0, rnd.IntN(3) == 0
	if beside {
		y.revive()
	}
	old.kv.doom(writes, before)
	select {
	case <-old.kv.struck:
	case <-time.After(300 * time.Millisecond): // it has nothing left to write
	}
	old.kill()
	if !beside {
		y.revive()
	}
}

func (y *yard) sessionOrNil(name string) *estate.Session {
	s, err := store.Get[estate.Session](y.Context(), y.store, "p", name)
	if err != nil {
		return nil
	}
	return s
}

// heldSeats are the seats that somebody has.
func (y *yard) heldSeats() (held []*estate.Desktop) {
	y.Helper()
	for _, d := range y.seats() {
		if d.Spec.Person != "" {
			held = append(held, d)
		}
	}
	return held
}

// TestTheRefereeSees shows that what must never be is seen.
func TestTheRefereeSees(t *testing.T) {
	seat := func(id, name, person string) *estate.Desktop {
		d := &estate.Desktop{Spec: estate.DesktopSpec{Pool: "desk", Person: person}}
		d.Metadata.UID, d.Metadata.Name = id, name
		return d
	}
	to := func(id, desktop, person string) *estate.Session {
		s := &estate.Session{Spec: estate.SessionSpec{Desktop: desktop, Person: person}}
		s.Metadata.UID, s.Metadata.Name = id, id
		return s
	}
	for name, lie := range map[string]func(*referee){
		"two persons on a seat":  func(r *referee) { r.seat(seat("1", "a", "ana"), false); r.seat(seat("1", "a", "ben"), false) },
		"a seat given back":      func(r *referee) { r.seat(seat("1", "a", "ana"), false); r.seat(seat("1", "a", ""), false) },
		"a seat that comes back": func(r *referee) { r.seat(seat("1", "a", ""), true); r.seat(seat("1", "a", ""), false) },
		"a name used again":      func(r *referee) { r.seat(seat("1", "a", ""), false); r.seat(seat("2", "a", ""), false) },
		"two seats for one":      func(r *referee) { r.seat(seat("1", "a", "ana"), false); r.seat(seat("2", "b", "ana"), false) },
		"more seats than there be": func(r *referee) {
			r.seat(seat("1", "a", ""), false)
			r.seat(seat("2", "b", ""), false)
			r.seat(seat("3", "c", ""), false)
		},
		"a session on another's": func(r *referee) { r.seat(seat("1", "a", "ana"), false); r.session(to("s", "a", "ben"), false) },
		"a session that wanders": func(r *referee) {
			r.seat(seat("1", "a", "ana"), false)
			r.session(to("s", "a", "ana"), false)
			r.session(to("s", "b", "ana"), false)
		},
		"a session put back": func(r *referee) {
			r.seat(seat("1", "a", "ana"), false)
			r.session(to("s", "a", "ana"), false)
			r.session(to("s", "", "ana"), false)
		},
	} {
		r := &referee{owner: map[string]string{}, names: map[string]string{}, gone: map[string]bool{}, has: map[string]map[string]bool{}, granted: map[string]string{}, most: 2}
		lie(r)
		if len(r.broken) == 0 {
			t.Errorf("%s: not seen", name)
		}
	}
}

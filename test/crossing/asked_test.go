package crossing

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"consort.dev/consort/estate"
)

// TestTextsCrossOnceThePersonAsks copies texts both ways between a viewer and a
// desktop that are played, where the context has a text wait for its person. None
// arrives that nobody asked for, and asking lets one through; asked for, all arrive
// that are allowed. CONSORT_MATRIX and CONSORT_SEED are those of the other matrix.
func TestTextsCrossOnceThePersonAsks(t *testing.T) {
	t.Parallel() // it waits more than it does
	played(t, func(m *matrix, v *person, extended bool) {
		for _, c := range m.rules(v) {
			c.Gesture = true
			m.askedRow(v, c, extended)
		}
	})
}

// TestATextPastItsTimeIsGone copies texts both ways where the context gives them a
// time to live. Whoever asks after that gets nothing, and from an end that has the
// text it is taken back.
func TestATextPastItsTimeIsGone(t *testing.T) {
	t.Parallel() // it waits more than it does
	played(t, func(m *matrix, v *person, extended bool) {
		for _, c := range m.rules(v) {
			c.TTL = ttl
			m.mortalRow(v, c, extended)
		}
		for _, in := range []bool{true, false} {
			if in && extended || !in && v.extended {
				m.lateRow(v, extended, in)
			}
		}
	})
}

const (
	ttl  = estate.Duration(150 * time.Millisecond) // of texts in the rows
	calm = 200 * time.Millisecond                  // to wait for what must not come, at least: played ends take none to think
)

// played runs rows with ends of both forms; in the short run with those that the
// seed chooses.
func played(t *testing.T, rows func(m *matrix, v *person, extended bool)) {
	seed := uint64(1)
	if s := os.Getenv("CONSORT_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	random := rand.New(rand.NewPCG(seed, 0))
	one := (seed + 3) % 4
	all := os.Getenv("CONSORT_MATRIX") == "all"
	for i := range 4 {
		if !all && uint64(i) != one {
			continue
		}
		viewer, desktop := i&1 == 0, i&2 == 0
		m := &matrix{plane: newPlane(t), random: random, all: all}
		rows(m, &person{plane: m.plane, extended: viewer}, desktop)
		t.Logf("seed %d: viewer extended %v, desktop extended %v: %d texts in %d sessions, %d arrived", seed, viewer, desktop, m.tried, m.rows, m.arrived)
	}
}

// rules are the policies; in the short run those that allow something, without the
// control: here that is what is asked for, and what is asked for in time.
func (m *matrix) rules(v viewer) []estate.Clipboard {
	all := m.policies(v)
	if m.all {
		return all
	}
	return all[2:]
}

// sit begins a session under the policy.
func (m *matrix) sit(v *person, c estate.Clipboard, d *desktop) (what string) {
	m.Helper()
	m.allow(c, d)
	v.open()
	m.until("the desktop knows how the gateway speaks", func() bool { return d.agrees() == (d.extended && (c.In || c.Out)) })
	m.rows++
	return fmt.Sprintf("in %v, out %v, at most %d, gesture %v, ttl %v, desktop extended %v, viewer %v", c.In, c.Out, c.MaxBytes, c.Gesture, time.Duration(c.TTL), d.extended, v.extended)
}

// way is one of the two ways of a session.
type way struct {
	*matrix
	what     string
	c        estate.Clipboard
	allowed  bool
	from, to bool         // speak the extended form
	give     func(string) // one end copies
	came     func() []string
	ask      func()
	may      []string // what may have come by now
}

// ways returns both, the one into the desktop first.
func (m *matrix) ways(what string, c estate.Clipboard, v *person, d *desktop) []*way {
	return []*way{
		{m, what + ", in", c, c.In, v.extended, d.extended, v.give, d.came, func() { v.ask(true) }, nil},
		{m, what + ", out", c, c.Out, d.extended, v.extended, func(text string) { m.must(d.copy(text)) }, v.got, func() { v.ask(false) }, nil},
	}
}

// waits gives texts that must not come, nor must anything else.
func (w *way) waits(how string, texts ...string) {
	w.Helper()
	for _, text := range texts {
		w.try(false)
		w.give(text)
	}
	time.Sleep(max(calm, slower*w.slowest)) // there is nothing to wait for
	w.nothingElse(w.what+how, w.came(), w.may)
}

// arrives waits until the text has come, where it may; asked for again and again,
// since what is asked for before it was told of is what was held then.
func (w *way) arrives(text string, ask func()) {
	w.Helper()
	want, may := crosses(text, w.from, w.to, w.allowed, int(w.c.MaxBytes))
	ask()
	if w.try(may); !may || want == "" {
		return
	}
	w.may = append(w.may, want)
	last := time.Now()
	took := w.until(fmt.Sprintf("%s: %d bytes (%.20q) arrive", w.what, len(want), want), func() bool {
		if time.Since(last) > 100*time.Millisecond {
			ask()
			last = time.Now()
		}
		return slices.Contains(w.came(), want)
	})
	w.slowest = max(w.slowest, took)
}

// askedRow is a session in which texts wait for the person.
func (m *matrix) askedRow(v *person, c estate.Clipboard, extended bool) {
	m.Helper()
	d := &desktop{extended: extended, side: 16}
	what := m.sit(v, c, d)
	for _, w := range m.ways(what, c, v, d) {
		texts := m.texts(int(c.MaxBytes), v, 'a')
		w.waits(", not asked for", texts...)
		w.arrives(texts[len(texts)-1], w.ask)
		again := fmt.Sprintf("again %d", m.random.IntN(1e8))
		w.waits(", asked for once before", again)
		w.may = append(w.may, again) // it waits for whoever asks next
		for _, text := range texts {
			w.give(text)
			w.arrives(text, w.ask)
		}
		w.waits(", asked for")
	}
	v.leave()
}

// mortalRow is a session in which texts live for a while at the end that has them.
func (m *matrix) mortalRow(v *person, c estate.Clipboard, extended bool) {
	m.Helper()
	d := &desktop{extended: extended, side: 16}
	what := m.sit(v, c, d)
	for _, w := range m.ways(what, c, v, d) {
		for _, text := range m.texts(int(c.MaxBytes), v, 'a') {
			given := time.Now()
			w.give(text)
			w.arrives(text, func() {
				if time.Since(given) > 4*time.Duration(ttl) { // whoever was too slow to fetch it
					given = time.Now()
					w.give(text)
				}
			})
			want, may := crosses(text, w.from, w.to, w.allowed, int(c.MaxBytes))
			if !may || want == "" {
				continue
			}
			w.until(w.what+": the text is taken back", func() bool {
				came := w.came()
				return len(came) > 0 && came[len(came)-1] == ""
			})
			if lived := time.Since(given); lived < time.Duration(ttl) {
				w.Errorf("%s: the text lived for %v, want %v", w.what, lived, time.Duration(ttl))
			}
		}
		w.waits("")
	}
	v.leave()
}

// lateRow is two sessions with an end that asks for a text it was told of when it
// needs it: while the text lives, and after.
func (m *matrix) lateRow(v *person, extended, in bool) {
	m.Helper()
	for _, lives := range []time.Duration{time.Hour, time.Duration(ttl)} {
		c := estate.Clipboard{In: true, Out: true, MaxBytes: 64 << 10, TTL: estate.Duration(lives)}
		d := &desktop{extended: extended, side: 16}
		d.late, v.late = in, !in
		what := m.sit(v, c, d)
		w, told, request := m.ways(what, c, v, d)[1], v.told, v.request
		if in {
			w, told, request = m.ways(what, c, v, d)[0], d.told, func() { m.must(d.request()) }
		}
		w.what += ", asked for late"
		text := fmt.Sprintf("late %d", m.random.IntN(1e8))
		w.give(text)
		m.until(w.what+": the end is told of it", func() bool { return told() > 0 })
		if lives > time.Minute {
			request()
			w.arrives(text, func() {})
		} else {
			m.until(w.what+": the end is told that it is gone", func() bool { return slices.Contains(w.came(), "") })
			request()
			w.waits("")
			m.try(false)
		}
		v.leave()
	}
	v.late = false
}

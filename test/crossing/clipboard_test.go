package crossing

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/internal/rfb"
)

// viewer is somebody's viewer of the desktop, with a clipboard on their side.
type viewer interface {
	name() string
	speaks() bool     // the extended form
	most() int        // length of a text that it carries, whoever allows it
	open()            // it shows the desktop, and takes keys
	give(text string) // the person copies on their side, and pastes in the desktop
	got() []string    // whatever came from the desktop since it was opened
	keep(text string) // the person takes what came last to their side, and finds it whole
	leave()
}

// grace is how long to wait for what must not come, at least; and as many times
// as long as the slowest text of the control took.
const (
	grace  = time.Second
	slower = 3
)

// TestTextsCrossAsTheContextSays copies texts both ways through real viewers,
// under every policy. Nothing arrives in a direction that is denied or beyond the
// length; all else arrives whole. The control, where all is allowed, comes first.
// CONSORT_MATRIX=all tries every text under every policy, CONSORT_SEED chooses
// others in the short run.
func TestTextsCrossAsTheContextSays(t *testing.T) {
	t.Parallel() // it waits more than it does
	seed := uint64(1)
	if s := os.Getenv("CONSORT_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	for name, open := range map[string]func(*plane) viewer{
		"Chromium":        func(p *plane) viewer { return newBrowser(p) },
		"xtigervncviewer": func(p *plane) viewer { return tiger(p) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &matrix{plane: newPlane(t), random: rand.New(rand.NewPCG(seed, 0)), all: os.Getenv("CONSORT_MATRIX") == "all"}
			began, v := time.Now(), open(m.plane)
			for _, c := range m.policies(v) {
				for _, extended := range m.forms() {
					m.row(v, c, extended)
				}
			}
			t.Logf("seed %d: %d texts in %d sessions, %d arrived, %d were held, in %s",
				seed, m.tried, m.rows, m.arrived, m.tried-m.arrived, time.Since(began).Round(time.Second))
		})
	}
}

// matrix counts what was tried.
type matrix struct {
	*plane
	random  *rand.Rand
	all     bool
	slowest time.Duration // an allowed text took, with this viewer

	rows, tried, arrived int
}

// policies returns what contexts say, the control first.
func (m *matrix) policies(v viewer) []estate.Clipboard {
	all := []estate.Clipboard{{In: true, Out: true, MaxBytes: 128 << 10}}
	lengths := []estate.Bytes{4096, 64 << 10, 1 << 20}
	lengths = slices.DeleteFunc(lengths, func(n estate.Bytes) bool { return int(n) >= v.most() })
	for _, most := range m.choose(lengths, 1) {
		all = append(all, estate.Clipboard{MaxBytes: most}, estate.Clipboard{In: true, MaxBytes: most}, estate.Clipboard{Out: true, MaxBytes: most}, estate.Clipboard{In: true, Out: true, MaxBytes: most})
	}
	return all
}

// choose returns all of what there is, or n of it by chance.
func (m *matrix) choose(from []estate.Bytes, n int) []estate.Bytes {
	if m.all {
		return from
	}
	m.random.Shuffle(len(from), func(i, j int) { from[i], from[j] = from[j], from[i] })
	return from[:n]
}

// forms returns whether the desktop speaks the extended clipboard.
func (m *matrix) forms() []bool {
	if m.all {
		return []bool{true, false}
	}
	return []bool{m.random.IntN(2) == 0}
}

// alphabets are what texts are made of. Lines are as long as people's are: a page
// that has to show a hundred thousand short ones is busy for many seconds.
var alphabets = map[string]string{"ASCII": "a", "Latin-1": "é", "four bytes": "\U0001F600", "line ends": "as long as are the lines that somebody writes by hand, or so\r\n"}

// texts returns what is copied in a direction under a policy, none twice. The
// last may always cross where its direction is allowed: what came before it has
// come by then.
func (m *matrix) texts(most int, v viewer, first rune) []string {
	var all []string
	names := []string{"ASCII", "Latin-1", "line ends", "four bytes"}
	if !v.speaks() {
		names = names[:3] // it keeps to itself what its form has no letters for
	}
	for _, name := range names {
		for _, length := range []int{1, 4096, most, most + 1, 1 << 20} {
			length = min(length, v.most())
			// The head makes the text one of its own.
			head := fmt.Sprintf("%08d", m.random.IntN(1e8))
			if length < len(head) {
				head = string(first + rune(len(all)))
			}
			letter := alphabets[name]
			body := strings.Repeat(letter, (length-len(head))/len(letter))
			all = append(all, head+body+strings.Repeat("x", length-len(head)-len(body)))
		}
	}
	if !m.all {
		m.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = all[:6]
	}
	all = append(all, "")
	return append(all, fmt.Sprintf("last %d", m.random.IntN(1e8)))
}

// row is one session under a policy.
func (m *matrix) row(v viewer, c estate.Clipboard, extended bool) {
	m.Helper()
	what := fmt.Sprintf("%s, in %v, out %v, at most %d, desktop extended %v", v.name(), c.In, c.Out, c.MaxBytes, extended)
	d := &desktop{extended: extended, side: 256}
	m.allow(c, d)
	v.open()
	d.forget() // what the person's side had before
	m.rows++
	most := int(c.MaxBytes)
	var in, out []string // what may come
	from := m.texts(most, v, 'A')
	for i, text := range m.texts(most, v, 'a') {
		want, may := crosses(text, v.speaks(), extended, c.In, most)
		v.give(text)
		if m.try(may) {
			in = append(in, want)
			m.comes(what+", in", want, d.came)
		}
		want, may = crosses(from[i], extended, v.speaks(), c.Out, most)
		m.must(d.copy(from[i]))
		if m.try(may) {
			out = append(out, want)
			m.comes(what+", out", want, v.got)
			if want != "" {
				v.keep(want)
			}
		}
	}
	time.Sleep(max(grace, slower*m.slowest))
	if c.In {
		in = append(in, out...) // a viewer may send back what it was given
	}
	m.nothingElse(what+", in", d.came(), in)
	m.nothingElse(what+", out", v.got(), out)
	v.leave()
}

// try counts a text.
func (m *matrix) try(crosses bool) bool {
	m.tried++
	if crosses {
		m.arrived++
	}
	return crosses
}

// comes waits until the text is among what came.
func (m *matrix) comes(what, want string, came func() []string) {
	m.Helper()
	if want == "" {
		return
	}
	var last []string
	took := m.until(fmt.Sprintf("%s: %d bytes (%.20q) arrive", what, len(want), want), func() bool {
		last = came()
		return slices.Contains(last, want)
	})
	m.slowest = max(m.slowest, took)
}

// nothingElse wants no text among those that came which may not.
func (m *matrix) nothingElse(what string, came, may []string) {
	m.Helper()
	for _, text := range came {
		if text != "" && !slices.Contains(may, text) {
			m.Errorf("%s: %d bytes arrived that may not: %.40q", what, len(text), text)
		}
	}
}

// crosses says as what a text arrives between ends of those forms, and whether
// it does. The classic form has Latin-1 alone; what that lacks is a question
// mark. The extended one has one kind of line ends, of two bytes on their way.
func crosses(text string, from, to, allowed bool, most int) (string, bool) {
	sent := as(from, text)
	long := len(sent)
	if from {
		long = len(text)
	}
	return as(to, sent), allowed && long <= most
}

func as(extended bool, text string) string {
	if extended {
		return strings.ReplaceAll(text, "\r\n", "\n")
	}
	return rfb.FromLatin1(rfb.Latin1(text))
}

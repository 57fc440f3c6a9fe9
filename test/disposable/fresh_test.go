package disposable

import (
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/bench/picture"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/test/fleet"
	"consort.dev/consort/test/guest"
)

// soon bounds every wait, on a host that does much else.
const soon = 7 * time.Minute

// traces is what somebody leaves who has browsed: where Firefox and Chromium keep
// cookies, history and caches, what was downloaded, and what is beside the home. A
// browser itself is as large as all the rest of the image, and not in it.
const traces = `set -e
cd /home/user
for f in .mozilla/firefox/p.default/cookies.sqlite .mozilla/firefox/p.default/places.sqlite .cache/mozilla/firefox/p.default/cache2/entries/0 \
	.config/chromium/Default/Cookies .config/chromium/Default/History .cache/chromium/Default/Cache/0 Downloads/invoice.pdf; do
	mkdir -p "$(dirname $f)" && echo "$1" >$f
done
chown -R user: .
for f in /tmp/trace /var/tmp/trace /var/log/trace /root/trace /etc/trace /dev/shm/trace; do echo "$1" >$f; done
sync`

// find prints the files that hold the word.
const find = `grep -rlsaF "$1" /home /root /tmp /var /etc /run /dev/shm /srv /opt || true`

// TestAFreshDesktopKnowsNothingOfTheOneBefore throws a real guest's desktop away
// as its person does, and looks at the one that takes its place: it comes, and
// nothing of its predecessor is in it, nor in any file of the host. How long it
// takes is a figure of 'make bench-pool'. Then plane and agent are killed at random
// moments while more of them are thrown away, CONSORT_KILLS times in all, and the
// plane before and after as many of its writes.
func TestAFreshDesktopKnowsNothingOfTheOneBefore(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a guest: not with -short")
	}
	guest.Needs(t)
	plane := mortalPlane(t)
	f := fleet.New(t, "../../examples/small-desktop/image.yaml")
	agent := f.Join("apart", "qemu", "")
	f.Must("apply", "-f", "testdata/fresh.yaml")
	p := &personal{t, f}
	p.ready(10 * time.Minute)
	before := p.sit()
	canaries := NewCanaries(1)
	word := hex.EncodeToString(canaries.Words[0])
	p.in(before, traces, word)
	if got := strings.Fields(p.in(before, find, word)); len(got) != 13 {
		t.Fatalf("the traces are in %d files, want all 13: %v", len(got), got)
	}
	p.ready(soon)

	plane.order(p, before, "")
	began := time.Now()
	f.Must("reset", before.Spec.Desktop, "--yes")
	after := p.sit()
	t.Logf("a fresh desktop is drawn %v after it was asked for", time.Since(began).Round(time.Millisecond))
	if after.Status.Machine == before.Status.Machine {
		t.Fatalf("machine %s was thrown away, and is shown again", before.Status.Machine)
	}
	if got := p.in(after, find, word); got != "" {
		t.Errorf("the fresh desktop holds traces of the one before:\n%s", got)
	}
	plane.learn(p, before)
	p.nothing("thrown away", word, canaries)
	log := f.Must("audit", "--what", "machine.destroy")
	if !strings.Contains(log, before.Status.Machine) {
		t.Errorf("the audit log tells of no destruction of %s:\n%s", before.Status.Machine, log)
	}
	for i := range number("CONSORT_KILLS", 2) {
		if i%2 == 0 {
			p.interrupted("plane", f.Plane())
		} else {
			p.interrupted("agent", agent)
		}
	}
	plane.interrupted(p)
}

// marked sits down on a desktop and leaves a canary on it, as a word too.
func (p *personal) marked() (*estate.Session, *estate.Machine, *Canaries, string) {
	p.Helper()
	p.ready(soon)
	s := p.sit()
	canaries := NewCanaries(1)
	word := hex.EncodeToString(canaries.Words[0])
	p.in(s, traces, word)
	m, err := api.Get[estate.Machine](p.Context(), p.Client, "default", s.Status.Machine)
	if err != nil {
		p.Fatal(err)
	}
	return s, m, canaries, word
}

// interrupted throws a desktop away while somebody kills what does it.
func (p *personal) interrupted(who string, process *fleet.Process) {
	p.Helper()
	s, m, canaries, word := p.marked()
	p.Must("reset", s.Spec.Desktop, "--yes")
	after := time.Duration(rand.Int64N(int64(400 * time.Millisecond)))
	time.Sleep(after) // the moment that is tried; nothing is waited for
	process.Kill()
	p.nothing(who+" killed", word, canaries)
	process.Begin()
	p.until("the one before is gone, though the "+who+" was killed", func() bool {
		_, err := api.Get[estate.Machine](p.Context(), p.Client, "default", s.Status.Machine)
		return errors.Is(err, fault.NotFound)
	})
	if err := Gone(estate.MachineID(m.Metadata.UID), time.Second); err != nil {
		p.Errorf("%s killed after %v: %v", who, after, err)
	}
	p.nothing(who+" back", word, canaries)
	p.Logf("%s killed %v after the desktop was thrown away: nothing is left", who, after.Round(time.Millisecond))
}

// nothing finds the word in no file of the hosts.
func (p *personal) nothing(when, word string, c *Canaries) {
	p.Helper()
	for _, form := range [][]byte{[]byte(word), c.Words[0]} {
		if in, err := Holds(form, p.Dir); err != nil || len(in) > 0 {
			p.Errorf("%s: on the host the traces are in %v: %v", when, in, err)
		}
	}
}

// personal is a person who connects to the pool.
type personal struct {
	*testing.T
	*fleet.Fleet
}

func (p *personal) until(what string, so func() bool) {
	p.Helper()
	for end := time.Now().Add(soon); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.Fatalf("not so after %v: %s", soon, what)
		}
	}
}

// ready waits until a desktop is ready that nobody has.
func (p *personal) ready(limit time.Duration) {
	p.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
		pool, err := api.Get[estate.Pool](p.Context(), p.Client, "default", "personal")
		if err == nil && pool.Status.Warm > 0 {
			return
		}
		if time.Now().After(end) {
			p.Fatalf("no desktop is ready after %v: %+v %v", limit, pool, err)
		}
	}
}

// sit connects and looks at the first frame, and as a viewer does asks again when
// there was none: a seat goes with its agent, and the plane may not know yet.
func (p *personal) sit() (s *estate.Session) {
	p.Helper()
	var why error
	defer func() {
		if p.Failed() {
			p.Logf("the last thing said to who connected: %v", why)
		}
	}()
	p.until("the desktop is seen", func() bool {
		s, why = p.Client.ConnectPool(p.Context(), "default", "personal", api.ConnectRequest{Person: "ana"})
		if why == nil && s.Status.State == estate.SessionReady {
			why = p.see(s)
			return why == nil
		}
		return false
	})
	return s
}

// see looks at a session's first frame.
func (p *personal) see(s *estate.Session) error {
	ticket, err := p.Client.Ticket(p.Context(), "default", s.Metadata.Name, false)
	if err != nil {
		return err
	}
	conn, err := p.Client.Tunnel(p.Context(), ticket.Ticket)
	if err != nil {
		return err
	}
	defer conn.Close()
	return picture.FirstFrame(conn)
}

// in runs a script in the session's guest with the word as its argument. The word
// comes on its input: what the host runs is in nobody's log.
func (p *personal) in(s *estate.Session, script, word string) string {
	p.Helper()
	var reply *api.RunReply
	var err error
	p.until("the desktop runs what it is told", func() bool { // a ready seat is shown before it goes on
		reply, err = p.Client.Run(p.Context(), "default", s.Status.Machine, api.RunRequest{Args: []string{"/bin/sh"}, Stdin: []byte("set -- " + word + "\n" + script + "\n")})
		return !errors.Is(err, fault.Unavailable)
	})
	if err != nil {
		p.Fatal(err)
	}
	if reply.Exit != 0 {
		p.Fatalf("it ended with %d: %s%s", reply.Exit, reply.Stdout, reply.Stderr)
	}
	return string(reply.Stdout)
}

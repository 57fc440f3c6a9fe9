package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/virtrpc/virtrpctest"
)

// number returns a number that the environment gives, or another one.
func number(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(variable)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// victims are what dies.
var victims = []string{"the plane with the agent of local", "the agent of virt", "virt's daemon", "the machine's process", "everything at once"}

// blow is a kill to come: whom it strikes, and when.
type blow struct {
	victim  string
	changes int           // of the journals of moves, since the last blow
	after   time.Duration // the last of them
}

func (b blow) String() string {
	return fmt.Sprintf("%s, %v after the %dth change", b.victim, b.after.Round(time.Millisecond), b.changes)
}

// mostChanges is how many changes of a journal there are at most between two
// blows. A move that nobody disturbs makes about twenty.
const mostChanges = 28

func draw(r *rand.Rand) blow {
	return blow{victims[r.IntN(len(victims))], 1 + r.IntN(mostChanges), time.Duration(r.Int64N(int64(600 * time.Millisecond)))}
}

// campaign is a machine that goes to and fro between two vendors' hypervisors
// while what carries it dies.
type campaign struct {
	*Fleet
	t       *testing.T
	agent   *Process
	daemon  *virtrpctest.Daemon
	referee *referee
	asks    map[string]witness // who runs it, by hypervisor
	events  <-chan api.EventOf[*estate.Operation]
	rand    *rand.Rand
	next    blow
	seen    int // changes since the last blow
	kills   int
	want    int
	id      string
	at      string
	holds   string // what the guest's disk is to hold
}

// TestKillsDuringRealMovesLeaveExactlyOneMachine moves a machine to and fro
// between two vendors' hypervisors. At moments that a seed chooses among the
// changes of the moves' journals, the processes of all that takes part die. The
// vendors' own tools, the process table and the guest say what became of it.
func TestKillsDuringRealMovesLeaveExactlyOneMachine(t *testing.T) {
	f := New(t, "testdata/tiny.yaml")
	c := newCampaign(t, f, number(t, "CONSORT_SEED", uint64(time.Now().UnixNano())))
	c.want = int(number(t, "CONSORT_KILLS", 20))
	done, undone, began := 0, 0, time.Now()
	for c.kills < c.want {
		to := map[string]string{"local": "virt", "virt": "local"}[c.at]
		switch op := c.move(to); op.Status.State {
		case estate.OperationDone:
			done++
			c.at = to
			c.carriedWhole(op)
		case estate.OperationFailed:
			undone++
		default:
			t.Fatalf("%s ended as %q: %s", op.Metadata.Name, op.Status.State, op.Status.Error)
		}
		c.exactlyOne()
		if t.Failed() {
			t.FailNow()
		}
	}
	c.gone()
	_, looks := c.referee.verdict()
	t.Logf("%d kills in %v, %d moves done, %d undone; the referee looked %d times", c.kills, time.Since(began).Round(time.Second), done, undone, looks)
}

// newCampaign has a machine on local, with a file in it, and virt beside it.
func newCampaign(t *testing.T, f *Fleet, seed uint64) *campaign {
	t.Logf("CONSORT_SEED=%d replays it", seed)
	c := &campaign{Fleet: f, t: t, at: "local", rand: rand.New(rand.NewPCG(seed, 1))}
	c.next = draw(c.rand)
	c.daemon = virtrpctest.Start(t)
	c.agent = f.Join("virt", "libvirt", "qemu+unix:///system?socket="+c.daemon.Socket)
	if err := os.Remove(filepath.Join(f.Dir, "virt.token")); err != nil { // it has joined, for good
		t.Fatal(err)
	}
	c.id = f.machine("traveller", "local", "tiny").Metadata.UID
	c.asks = map[string]witness{"local": process(f.Dir + "/up/"), "virt": virsh("-c", "qemu+unix:///system?socket="+c.daemon.Socket)}
	c.referee = &referee{id: c.id, from: c.at,
		defined: map[string]string{
			"local": filepath.Join(f.Dir, "up", "machines", c.id),
			"virt":  filepath.Join(c.daemon.Dir, "cfg", "libvirt", "qemu", "consort-"+c.id+".xml"),
		},
		runsBy: func(line string) string {
			if strings.Contains(line, f.Dir+"/up/") {
				return "local"
			}
			return "virt"
		},
	}
	c.referee.watch(t)
	c.events = api.Watch[estate.Operation](t.Context(), f.Client, "default")
	c.write()
	return c
}

// move has the machine moved, with blows as they fall, and returns the journal
// once it has ended. One move in four is aborted on its way.
func (c *campaign) move(to string) *estate.Operation {
	c.t.Helper()
	c.referee.sets(c.at)
	abort := 0
	if c.rand.IntN(4) == 0 {
		abort = 1 + c.rand.IntN(mostChanges)
	}
	name, began := c.begin(to), time.Now()
	var version int64
	var op *estate.Operation
	late := time.NewTimer(moveLimit)
	defer late.Stop()
	for op == nil || op.Status.Ended.IsZero() {
		select {
		case e := <-c.events:
			if e.Object == nil || e.Object.Metadata.Name != name || e.Object.Metadata.Version <= version {
				continue
			}
			op, version = e.Object, e.Object.Metadata.Version
		case <-late.C:
			c.t.Fatalf("the move to %s has not ended within %v: %+v", to, moveLimit, op)
		}
		if abort--; abort == 0 {
			c.t.Logf("abort it at %s: %v", phase(op), c.Client.Abort(c.t.Context(), "default", name))
		}
		if c.seen++; c.seen >= c.next.changes && c.kills < c.want && op.Status.Ended.IsZero() {
			c.strike(phase(op))
		}
	}
	c.t.Logf("%s to %s: %s after %v %s", name, to, op.Status.State, time.Since(began).Round(100*time.Millisecond), op.Status.Error)
	return op
}

// moveLimit is many times what a move takes with all its blows.
const moveLimit = 10 * time.Minute

// begin begins a move as soon as nothing stands against it.
func (c *campaign) begin(to string) (operation string) {
	c.t.Helper()
	c.until("a move to "+to+" can begin", func() bool {
		reply, err := c.Client.Move(c.t.Context(), estate.Ref{Kind: "Machine", Project: "default", Name: "traveller"}, api.MoveRequest{To: to})
		switch {
		case err == nil:
			operation = reply.Operation
		case !errors.Is(err, fault.Conflict) && !errors.Is(err, fault.Unavailable):
			c.t.Fatal(err)
		}
		return err == nil
	})
	return operation
}

// phase says how far a move is.
func phase(op *estate.Operation) string {
	n := len(op.Status.Steps)
	if n == 0 {
		return "its beginning"
	}
	text := op.Status.Steps[n-1].Name
	for _, d := range op.Status.Disks {
		text += fmt.Sprintf(", %s of %s of disk %s", d.Carried, d.Size, d.Name)
	}
	return text
}

// strike kills the next victim and brings it back. The machine's own process is
// no victim while there is none: then it is its turn at the next change.
func (c *campaign) strike(phase string) {
	c.t.Helper()
	copies := c.referee.copies()
	if c.next.victim == "the machine's process" && len(copies) == 0 {
		return
	}
	<-time.After(c.next.after) // the moment is the test's input
	c.t.Logf("kill %d: %s, in %s", c.kills+1, c.next, phase)
	switch c.next.victim {
	case "the plane with the agent of local":
		c.up.Kill()
		c.up.Begin()
	case "the agent of virt":
		c.agent.Kill()
		c.agent.Begin()
	case "virt's daemon":
		c.daemon.Restart(c.t)
	case "the machine's process":
		for _, p := range c.referee.copies() {
			_ = syscall.Kill(p.pid, syscall.SIGKILL) // it may have ended by itself
		}
	case "everything at once":
		c.powerLoss()
	}
	c.neverTwo()
	c.kills++
	c.next, c.seen = draw(c.rand), 0
}

// powerLoss ends everything that runs, tools that the agents began included,
// empties what lies in memory, and starts the host's services again. What was
// written to disk is not lost, synced or not.
func (c *campaign) powerLoss() {
	c.up.cmd.Process.Kill()
	c.agent.cmd.Process.Kill()
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range lines {
		line, _ := os.ReadFile(name)
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if strings.Contains(string(line), c.id) && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
		}
	}
	c.daemon.Kill()
	c.up.Kill()
	c.agent.Kill()
	if err := os.RemoveAll(filepath.Join(c.daemon.Dir, "run", "libvirt", "qemu")); err != nil {
		c.t.Fatal(err)
	}
	c.daemon.Restart(c.t)
	c.up.Begin()
	c.agent.Begin()
}

// neverTwo asks the vendors now, and the referee for all moments until now.
func (c *campaign) neverTwo() {
	c.t.Helper()
	before := c.referee.copies()
	running, err := c.asks["virt"](c.id)
	for _, p := range before {
		if err == nil && running && p.at == "local" && p.lives(c.id) {
			c.t.Errorf("virsh says that virt runs it, and so does %s", p)
		}
	}
	if wrong, _ := c.referee.verdict(); len(wrong) > 0 {
		c.t.Fatalf("the referee saw: %s", strings.Join(wrong, "; "))
	}
}

// exactlyOne judges the end of a move: the machine runs where the plane says,
// under the epoch that the plane gave last, with what was written into it, and
// nobody else has it defined.
func (c *campaign) exactlyOne() {
	c.t.Helper()
	c.until("it is back as it was, on "+c.at, func() bool {
		m, err := api.Get[estate.Machine](c.t.Context(), c.Client, "default", "traveller")
		return err == nil && m.Metadata.UID == c.id && m.Spec.Hypervisor == c.at && m.Spec.Moving == nil && m.Spec.Power == estate.On &&
			m.Status.Hypervisor == c.at && m.Status.Epoch == m.Spec.Epoch && m.Status.Power == estate.On && m.Status.Observed == m.Metadata.Generation
	})
	if got := c.inside("cat /root/luggage; sha256sum < /root/random"); got != c.holds {
		c.t.Errorf("on %s it holds %q, want %q", c.at, got, c.holds)
	}
	// What an undone move prepared goes when its agent hears of that.
	c.until("only "+c.at+" has it defined", func() bool {
		return c.referee.has(c.at) && !c.referee.has(map[string]string{"local": "virt", "virt": "local"}[c.at])
	})
	listed, err := c.daemon.Shell(c.t.Context(), c.daemon.URI, "list", "--all", "--uuid")
	if err != nil || strings.Contains(listed, c.id) != (c.at == "virt") {
		c.t.Errorf("virsh lists %q, %v, with the machine on %s", listed, err, c.at)
	}
	for name, asks := range c.asks {
		if running, err := asks(c.id); err != nil || running != (name == c.at) {
			c.t.Errorf("%s itself says that it runs it: %v, %v; it should run on %s", name, running, err, c.at)
		}
	}
	if copies := c.referee.copies(); len(copies) != 1 {
		c.t.Errorf("%v run; want one of %s", copies, c.at)
	}
	c.neverTwo()
	c.write()
}

// carriedWhole checks that what was read back at the target was hashed.
func (c *campaign) carriedWhole(op *estate.Operation) {
	c.t.Helper()
	if len(op.Status.Disks) != 1 || op.Status.Disks[0].Digest == "" {
		c.t.Errorf("%s is done with %+v", op.Metadata.Name, op.Status.Disks)
	}
}

// write writes something new, so that an older copy of the disk is told apart.
func (c *campaign) write() {
	c.t.Helper()
	c.holds = c.inside(fmt.Sprintf("echo %d kills > /root/luggage; head -c 300000 /dev/urandom > /root/random; sync; cat /root/luggage; sha256sum < /root/random", c.kills))
}

// inside runs a script in the guest as soon as that answers.
func (c *campaign) inside(script string) (output string) {
	c.t.Helper()
	var last error
	ctx, cancel := context.WithTimeout(c.t.Context(), guestLimit)
	defer cancel()
	for tick := time.NewTicker(200 * time.Millisecond); ; <-tick.C {
		reply, err := c.Client.Run(ctx, "default", "traveller", api.RunRequest{Args: []string{"/bin/sh", "-c", script}})
		switch {
		case err == nil && reply.Error == nil && reply.Exit != 0:
			c.t.Fatalf("%s ended with %d: %s", script, reply.Exit, reply.Stderr)
		case err == nil && reply.Error == nil:
			tick.Stop()
			return string(reply.Stdout)
		case ctx.Err() != nil:
			c.t.Fatalf("its guest does not answer on %s: %v", c.at, last)
		case err != nil:
			last = err
		default:
			last = reply.Error
		}
	}
}

// gone deletes the machine and checks that neither vendor has anything of it.
func (c *campaign) gone() {
	c.t.Helper()
	ref := estate.Ref{Kind: "Machine", Project: "default", Name: "traveller"}
	c.until("the machine is deleted", func() bool {
		c.Client.Delete(c.t.Context(), ref, api.Write{}) // again, until it is gone
		_, err := api.Get[estate.Machine](c.t.Context(), c.Client, "default", "traveller")
		return errors.Is(err, fault.NotFound)
	})
	c.until("nothing of it is left", func() bool {
		left, _ := filepath.Glob(filepath.Join(c.Dir, "*", "machines", "*"+c.id+"*"))
		return len(left) == 0 && !c.referee.has("virt") && len(c.referee.copies()) == 0
	})
}

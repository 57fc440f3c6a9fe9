package move_test

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/flaky"
)

// killer kills one of a yard's parts now and then, at a moment that its seed
// chooses among the acts of all, and revives it.
type killer struct {
	yard  *yard
	mu    sync.Mutex
	rand  *rand.Rand
	left  int // acts until the next kill
	rests bool
	here  int // kills in this move
	kills int
	work  sync.WaitGroup
}

func newKiller(y *yard, seed uint64) *killer {
	return &killer{yard: y, rand: rand.New(rand.NewPCG(seed, 1)), rests: true}
}

// tick is told of every act.
func (k *killer) tick() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.left--; k.rests || k.left != 0 || k.here == mostHere {
		return
	}
	if k.here++; k.here == mostHere {
		k.yard.t.Logf("%d kills in one move: it is left alone from here on", mostHere)
	}
	y := k.yard
	revive := func(a *alive, again func()) {
		a.strike() // at once, in the middle of what it does
		k.work.Go(func() {
			a.kill()
			again()
			k.mu.Lock()
			defer k.mu.Unlock()
			k.kills++
			k.left = 1 + k.rand.IntN(mostActs)
		})
	}
	switch k.rand.IntN(4) {
	case 0:
		revive(&y.loop, y.direct)
	case 1:
		revive(&y.sites["a"].agent, func() { y.employ(y.sites["a"]) })
	case 2:
		revive(&y.sites["b"].agent, func() { y.employ(y.sites["b"]) })
	case 3: // power loss: everything at once
		y.loop.strike()
		y.sites["a"].agent.strike()
		revive(&y.sites["b"].agent, func() {
			y.loop.kill()
			y.sites["a"].agent.kill()
			y.meddle()
			y.direct()
			y.employ(y.sites["a"])
			y.employ(y.sites["b"])
		})
	}
}

// mostActs is how many acts there are at most between a revival and the next
// kill. A move that nobody disturbs has about forty.
const mostActs = 60

// mostHere is how many kills one move suffers at most. Asking where the machine
// is are acts too: an agent can be killed for ever before it has joined.
const mostHere = 25

// rest has the killer kill nothing more, or go on.
func (k *killer) rest(rest bool) {
	k.mu.Lock()
	k.rests, k.left, k.here = rest, 1+k.rand.IntN(mostActs), 0
	k.mu.Unlock()
	k.work.Wait()
}

// kills is how many there shall be; make soak asks for more.
func kills(t *testing.T) int {
	if s := os.Getenv("CONSORT_KILLS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("CONSORT_KILLS: %v", err)
		}
		return n
	}
	return 200
}

// seedOf returns the seed to use: one of its own, or CONSORT_SEED to see a
// failure again.
func seedOf(t *testing.T) uint64 {
	if s := os.Getenv("CONSORT_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("CONSORT_SEED: %v", err)
		}
		return n
	}
	return uint64(time.Now().UnixNano())
}

// TestKillsDuringMovesLeaveExactlyOneMachine moves a machine to and fro while
// the mover and the agents are killed, some moves are aborted, and the hosts
// lose replies.
func TestKillsDuringMovesLeaveExactlyOneMachine(t *testing.T) {
	seed := seedOf(t)
	t.Logf("CONSORT_SEED=%d replays it", seed)
	const yards = 4
	for i := range uint64(yards) {
		t.Run(strconv.Itoa(int(i)), func(t *testing.T) {
			t.Parallel()
			killsIn(t, seed+i, (kills(t)+yards-1)/yards, i == yards-1)
		})
	}
}

// killsIn has so many kills in one yard. Where there may be live moves the
// machine has no volume.
func killsIn(t *testing.T, seed uint64, want int, live bool) {
	y := newYard(t)
	for i, s := range []*site{y.sites["a"], y.sites["b"]} {
		s.lossy = flaky.Options{Seed: seed + uint64(i), Loses: 4, Busy: 3, Fails: 2}
	}
	y.open()
	y.settleWith(!live)
	k := newKiller(y, seed)
	y.ref.mu.Lock()
	y.ref.tick = k.tick
	y.ref.mu.Unlock()
	rnd := rand.New(rand.NewPCG(seed, 2))
	at, power, done, undone := "a", estate.On, 0, 0
	for k.kills < want {
		to := map[string]string{"a": "b", "b": "a"}[at]
		k.rest(false)
		op := y.beginAnyway(to, live && power == estate.On && rnd.IntN(2) == 0)
		if rnd.IntN(4) == 0 {
			y.abort(op, rnd.IntN(30))
		}
		switch got := y.ended(op); got.Status.State {
		case estate.OperationDone:
			done++
			at = to
		case estate.OperationFailed:
			undone++
		default:
			t.Fatalf("seed %d: it ended as %q", seed, got.Status.State)
		}
		k.rest(true)
		y.only(at, power)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
		if power = estate.On; rnd.IntN(3) == 0 {
			power = estate.Off
		}
		y.power(power)
		y.runs(at, power)
	}
	t.Logf("seed %d: %d kills, %d moves done, %d undone, %d starts", seed, k.kills, done, undone, y.ref.starts)
}

// beginAnyway begins a move as soon as nothing stands against it.
func (y *yard) beginAnyway(to string, live bool) (op string) {
	y.until("a move can begin", func() bool {
		reply, err := y.mover.Begin(y.t.Context(), y.machine.Ref(), api.MoveRequest{To: to, Live: live}, "tests")
		if err != nil && fault.KindOf(err) != fault.Conflict {
			y.t.Fatal(err)
		}
		if err == nil {
			op = reply.Operation
		}
		return err == nil
	})
	return op
}

// abort aborts the move once so many acts have happened, or at once when it
// waits for nothing.
func (y *yard) abort(op string, acts int) {
	y.ref.mu.Lock()
	before, seen := y.ref.tick, 0
	var once sync.Once
	y.ref.tick = func() {
		before()
		y.ref.mu.Lock()
		seen++
		due := seen > acts
		y.ref.mu.Unlock()
		if due {
			once.Do(func() { _ = y.mover.Abort(context.Background(), "p", op) })
		}
	}
	y.ref.mu.Unlock()
}

package agent

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"image/color"
	"io"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/rfb"
)

const (
	// trialLimit is how long a workload may take: the plane waits no longer.
	trialLimit = 5 * time.Minute
	// tcpPort is where the guest's program listens; nothing else does.
	tcpPort = 47047
	// trialSnapshot is the snapshot that one trial leaves for the next.
	trialSnapshot = "trial"
)

// serveTrial measures the workload that comes through the tunnel and sends back
// its figures.
func (a *Agent) serveTrial(ctx context.Context, k *keeper, c api.Call) error {
	ctx, cancel := context.WithTimeout(ctx, trialLimit)
	defer cancel()
	conn, err := a.Plane.OpenCall(ctx, c.ID)
	if err != nil {
		return err
	}
	defer conn.Close()
	var req api.TrialRequest
	var reply api.TrialReply
	if err = json.NewDecoder(bufio.NewReader(conn)).Decode(&req); err != nil {
		err = fault.Unavailable.Errorf("the workload did not arrive: %w", err)
	} else {
		reply.Figures, err = a.try(ctx, k, req)
	}
	if err != nil {
		reply = api.TrialReply{Error: api.NewProblem(err)}
	}
	return json.NewEncoder(conn).Encode(reply)
}

func (a *Agent) try(ctx context.Context, k *keeper, req api.TrialRequest) (map[string]float64, error) {
	d := time.Duration(req.Length)
	if d <= 0 {
		d = time.Second
	}
	switch req.Workload {
	case api.TrialTCP:
		return a.tryTCP(ctx, k, req.Program, d)
	case api.TrialDisplay:
		return a.tryDisplay(ctx, k, req.Program, d)
	case api.TrialSnapshot:
		return a.trySnapshot(ctx, k)
	}
	return nil, fault.Unsupported.Errorf("this agent does not know the workload %q; update it", req.Workload)
}

// trySnapshot takes the machine, which is off, back to the snapshot that the
// trial before left, drops that, and takes the one that the next goes back to.
// The first trial has none to go back to.
func (a *Agent) trySnapshot(ctx context.Context, k *keeper) (map[string]float64, error) {
	done, err := k.myTurn(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	out := map[string]float64{}
	timed := func(name string, do func(context.Context) error) error {
		began := time.Now()
		err := do(ctx)
		out[name] = time.Since(began).Seconds()
		return err
	}
	kept, err := a.Host.Snapshots(ctx, k.id)
	if err != nil {
		return nil, err
	}
	if slices.Contains(kept, trialSnapshot) {
		err := timed("revert_s", func(ctx context.Context) error { return a.Host.Revert(ctx, k.id, trialSnapshot) })
		if err == nil {
			err = timed("drop_s", func(ctx context.Context) error { return a.Host.DropSnapshot(ctx, k.id, trialSnapshot) })
		}
		if err != nil {
			return nil, err
		}
	}
	return out, timed("take_s", func(ctx context.Context) error { return a.Host.Snapshot(ctx, k.id, trialSnapshot) })
}

// inGuest runs the guest's part of a workload beside the host's. failed is
// called when it ends with an error; wait returns that error.
func (a *Agent) inGuest(ctx context.Context, k *keeper, failed func(), args ...string) (wait func() error) {
	end := make(chan error, 1)
	go func() {
		out, err := a.Host.Run(ctx, k.id, driver.Command{Args: args})
		if err == nil && out.Exit != 0 {
			err = fault.Unavailable.Errorf("the guest's part ended with %d: %s", out.Exit, out.Stderr)
		}
		if err != nil {
			failed()
		}
		end <- err
	}()
	return func() error { return <-end }
}

// tryTCP measures a TCP connection for each way, between this agent and a
// program of the guest, over whatever the network is made of.
func (a *Agent) tryTCP(ctx context.Context, k *keeper, program string, d time.Duration) (map[string]float64, error) {
	if err := a.networked(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wait := a.inGuest(ctx, k, cancel, program, "tcp", d.String(), strconv.Itoa(tcpPort))
	out := map[string]float64{}
	err := func() error {
		for _, way := range []struct {
			name string
			run  func(io.ReadWriteCloser, time.Duration) (int64, error)
		}{{"to_guest_mb_per_s", give}, {"from_guest_mb_per_s", take}} {
			conn, err := a.dial(ctx, k, tcpPort)
			if err != nil {
				return err
			}
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			began := time.Now()
			n, err := way.run(conn, d)
			stop()
			conn.Close()
			if err != nil {
				return fault.Unavailable.Errorf("the connection broke: %w", err)
			}
			out[way.name] = float64(n) / 1e6 / time.Since(began).Seconds()
		}
		return nil
	}()
	if err != nil {
		cancel()
	}
	// What the guest says tells more than the connection that it did not answer.
	if ended := wait(); ended != nil && !errors.Is(ended, context.Canceled) {
		return nil, ended
	}
	return out, err
}

// give sends for the time given and returns how much the guest got.
func give(conn io.ReadWriteCloser, d time.Duration) (n int64, err error) {
	b := make([]byte, 64<<10)
	b[0] = 't'
	if _, err := conn.Write(b[:1]); err != nil {
		return 0, err
	}
	for began := time.Now(); time.Since(began) < d; {
		if _, err := conn.Write(b); err != nil {
			return 0, err
		}
	}
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return 0, errors.New("this connection closes in both directions only")
	}
	if err := half.CloseWrite(); err != nil {
		return 0, err
	}
	return n, binary.Read(conn, binary.BigEndian, &n)
}

// take returns how much the guest sent until it was done.
func take(conn io.ReadWriteCloser, _ time.Duration) (int64, error) {
	if _, err := conn.Write([]byte{'g'}); err != nil {
		return 0, err
	}
	return io.Copy(io.Discard, conn)
}

// The keys that the guest's program knows.
const (
	keyAnswer = "a"
	keyEnd    = "q"
)

// tryDisplay looks at the machine's screen while a program of the guest fills
// it with colours: how many updates and whole changes come in a second, and then,
// with the screen at rest, how long it takes from a key to the change that the
// guest draws for it.
func (a *Agent) tryDisplay(ctx context.Context, k *keeper, program string, d time.Duration) (map[string]float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := a.Host.Display(ctx, k.id)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	v, err := rfb.NewClient(conn, rfb.Proof{})
	if err != nil {
		return nil, fault.Unsupported.Errorf("its display cannot be read by this agent: %w", err)
	}
	s := &watcher{Client: v}
	if err := errors.Join(v.Request(false), v.NextFrame()); err != nil {
		return nil, err
	}
	var broke atomic.Bool
	wait := a.inGuest(ctx, k, func() { broke.Store(true); cancel() }, program, "display", d.String())
	out, err := s.measure(d)
	if err != nil && !broke.Load() {
		cancel()
	}
	if ended := wait(); broke.Load() && !errors.Is(ended, context.Canceled) {
		return nil, ended
	}
	return out, err
}

// watcher sees when the middle of a screen changes its colour.
type watcher struct {
	*rfb.Client
	colour color.RGBA
}

// look waits for the next update and reports whether the middle changed.
func (s *watcher) look() (changed bool, err error) {
	if err := errors.Join(s.Request(true), s.NextFrame()); err != nil {
		return false, err
	}
	is := s.At(s.Size().X/2, s.Size().Y/2)
	changed = is != s.colour
	s.colour = is
	return changed, nil
}

// change waits until the middle has changed so often.
func (s *watcher) change(times int) error {
	for times > 0 {
		changed, err := s.look()
		if err != nil {
			return err
		}
		if changed {
			times--
		}
	}
	return nil
}

func (s *watcher) measure(d time.Duration) (map[string]float64, error) {
	// A desktop may draw, too; what changes again and again is the program.
	if err := s.change(4); err != nil {
		return nil, err
	}
	changes, had, began := 0, s.Frames, time.Now()
	for time.Since(began) < d || changes == 0 {
		changed, err := s.look()
		if err != nil {
			return nil, err
		}
		if changed {
			changes++
		}
	}
	took := time.Since(began).Seconds()
	out := map[string]float64{"updates_per_s": float64(s.Frames-had) / took, "changes_per_s": float64(changes) / took}
	if err := s.Type(keyAnswer); err != nil {
		return nil, err
	}
	for s.colour != (color.RGBA{A: 255}) { // black is the screen at rest
		if _, err := s.look(); err != nil {
			return nil, err
		}
	}
	var trips []time.Duration
	for began := time.Now(); time.Since(began) < d || len(trips) < 3; {
		sent := time.Now()
		if err := errors.Join(s.Type(keyAnswer), s.change(1)); err != nil {
			return nil, err
		}
		trips = append(trips, time.Since(sent))
	}
	slices.Sort(trips)
	out["key_to_update_p50_ms"] = float64(trips[len(trips)/2].Microseconds()) / 1e3
	out["key_to_update_p95_ms"] = float64(trips[min(len(trips)-1, len(trips)*95/100)].Microseconds()) / 1e3
	return out, s.Type(keyEnd)
}

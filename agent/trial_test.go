package agent_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/fakehost"
	"consort.dev/consort/internal/rfb"
)

// trial asks the plane for a workload on the machine.
func (h *house) trial(workload string) (map[string]float64, error) {
	h.t.Helper()
	h.until("the agent listens", func() bool { return h.calls.Listening("here") })
	client, err := api.NewClient(api.Options{Server: h.plane.URL})
	h.must(err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(h.t.Context(), soon)
	defer cancel()
	reply, err := client.Trial(ctx, "p", "ana-office", api.TrialRequest{
		Workload: workload, Program: "/bench", Length: estate.Duration(300 * time.Millisecond),
	})
	if err != nil {
		return nil, err
	}
	return reply.Figures, nil
}

func TestATrialOfSnapshotsGoesBackToTheOneBefore(t *testing.T) {
	h := newHouse(t)
	h.employ()
	m := h.order(nil)
	h.running()
	if _, err := h.trial(api.TrialSnapshot); !errors.Is(err, fault.Conflict) {
		t.Errorf("a machine that runs: %v, want a conflict", err)
	}
	h.want(func(s *estate.MachineSpec) { s.Power = estate.Off })
	h.until("it is off", func() bool { return h.status().Power == estate.Off })
	first, err := h.trial(api.TrialSnapshot)
	if _, took := first["take_s"]; err != nil || !took || len(first) != 1 {
		t.Fatalf("the first measured %v, %v; want take_s alone", first, err)
	}
	second, err := h.trial(api.TrialSnapshot)
	for _, want := range []string{"revert_s", "drop_s", "take_s"} {
		if _, is := second[want]; err != nil || !is {
			t.Errorf("the second measured %v, %v; want %s", second, err, want)
		}
	}
	if left, err := h.memory.Snapshots(t.Context(), estate.MachineID(m.Metadata.UID)); err != nil || len(left) != 1 {
		t.Errorf("snapshots %v, %v are left, want one for the next trial", left, err)
	}
}

func TestAHostWithoutTheAbilitySaysSoAndMeasuresNothing(t *testing.T) {
	h := newHouse(t)
	h.host = fakehost.Lacking(h.memory, estate.CanSnapshot, estate.CanDisplay)
	h.employ()
	h.order(nil)
	h.running()
	// These hosts make no networks, so there is nowhere to stream to either.
	for _, w := range []string{api.TrialSnapshot, api.TrialDisplay, api.TrialTCP, "nothing"} {
		if f, err := h.trial(w); !errors.Is(err, fault.Unsupported) || f != nil {
			t.Errorf("%s measured %v, %v; want unsupported", w, f, err)
		}
	}
}

// artist is a host whose guests draw: one colour after another, each for 10 ms,
// until a key comes, and then another 20 ms after each key.
type artist struct {
	*fakehost.Host
	screen *screen
}

type screen struct {
	dry     bool
	keys    chan rune
	mu      sync.Mutex
	colour  byte
	changed chan struct{} // closed at the next change
}

func (s *screen) paint(colour byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.colour = colour
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *screen) now() (colour byte, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.colour, s.changed
}

// run is the guest's part.
func (s *screen) run(ctx context.Context, m driver.Machine, cmd driver.Command) (driver.Output, error) {
	if cmd.Args[0] != "/bench" {
		return guests(ctx, m, cmd)
	}
	if s.dry {
		return driver.Output{Exit: 1, Stderr: []byte("out of paint")}, nil
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := byte(1); ; i = i%200 + 1 {
		select {
		case <-s.keys:
			s.paint(0)
			return s.answer(ctx)
		case <-tick.C:
			s.paint(i)
		case <-ctx.Done():
			return driver.Output{}, ctx.Err()
		}
	}
}

func (s *screen) answer(ctx context.Context) (driver.Output, error) {
	for colour := byte(0); ; {
		select {
		case k := <-s.keys:
			if k == 'q' {
				return driver.Output{}, nil
			}
			<-time.After(20 * time.Millisecond)
			colour ^= 0xff
			s.paint(colour)
		case <-ctx.Done():
			return driver.Output{}, ctx.Err()
		}
	}
}

// Display implements driver.Displayer.
func (a artist) Display(context.Context, estate.MachineID) (io.ReadWriteCloser, error) {
	ours, theirs := net.Pipe()
	go func() {
		defer ours.Close()
		r := bufio.NewReader(ours)
		if _, err := rfb.Accept(r, ours, rfb.Guard{}); err != nil {
			return
		}
		if rfb.Write(ours, rfb.ServerInit{Width: 2, Height: 2, Format: rfb.XRGB(), Name: "a"}) != nil {
			return
		}
		v, shown := rfb.ViewerReader{R: r, TextLimit: 10}, -1
		for {
			m, err := v.Read()
			if err != nil {
				return
			}
			switch m := m.(type) {
			case rfb.Key:
				if m.Down {
					a.screen.keys <- rune(m.Sym)
				}
			case rfb.UpdateRequest:
				colour, changed := a.screen.now()
				for m.Incremental && int(colour) == shown {
					<-changed
					colour, changed = a.screen.now()
				}
				shown = int(colour)
				whole := rfb.Rect{Area: rfb.Area{Width: 2, Height: 2}, Encoding: rfb.Raw}
				if rfb.Write(ours, rfb.Update{Rects: 1}, whole) != nil {
					return
				}
				if _, err := ours.Write([]byte(strings.Repeat(string([]byte{colour, colour, colour, 0}), 4))); err != nil {
					return
				}
			}
		}
	}()
	return theirs, nil
}

func TestATrialOfTheDisplayCountsChangesAndTimesAnswers(t *testing.T) {
	h := newHouse(t)
	s := &screen{keys: make(chan rune, 10), changed: make(chan struct{})}
	h.memory = fakehost.New(fakehost.Options{Run: s.run})
	h.host = artist{h.memory, s}
	h.employ()
	h.order(nil)
	h.running()
	f, err := h.trial(api.TrialDisplay)
	if err != nil {
		t.Fatal(err)
	}
	// A loaded machine is slower, never faster than what is drawn.
	if n := f["changes_per_s"]; n < 1 || n > 120 || f["updates_per_s"] < n {
		t.Errorf("%v changes in %v updates a second of a screen that changes 100 times", n, f["updates_per_s"])
	}
	if p := f["key_to_update_p50_ms"]; p < 20 || p > 2000 || f["key_to_update_p95_ms"] < p {
		t.Errorf("a key takes %v ms, 95 %% %v ms, where the guest takes 20", p, f["key_to_update_p95_ms"])
	}
}

func TestATrialOfTheDisplayTellsWhatTheGuestSays(t *testing.T) {
	h := newHouse(t)
	s := &screen{dry: true, keys: make(chan rune, 10), changed: make(chan struct{})}
	h.memory = fakehost.New(fakehost.Options{Run: s.run})
	h.host = artist{h.memory, s}
	h.employ()
	h.order(nil)
	h.running()
	if f, err := h.trial(api.TrialDisplay); err == nil || !strings.Contains(err.Error(), "out of paint") {
		t.Errorf("measured %v, %v; want what the guest says", f, err)
	}
	s.paint(9) // lets go of the viewer's last request
}

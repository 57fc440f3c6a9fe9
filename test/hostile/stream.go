package hostile

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"consort.dev/consort/agent/network"
)

// Stream is two machines of the other context, of which one sends to the other
// as much as arrives.
type Stream struct {
	from, to int // taps
	frame    []byte
}

// window is how many frames are on their way at most: fewer than a tap queues,
// so that none is lost by its own sender.
const window = 32

// OpenStream has two more machines join the other context.
func (s *Stage) OpenStream(ctx context.Context) (*Stream, error) {
	var ports [2]network.Port
	var ends [2]Neighbour
	t := &Stream{from: -1, to: -1}
	for i := range ports {
		p, mac, err := s.join(ctx, "corporate", 4+i)
		if err != nil {
			return nil, err
		}
		ports[i], ends[i] = p, Neighbour{mac, p.Addr}
	}
	for i, fd := range []*int{&t.from, &t.to} {
		f, err := openTap(ports[i].Netns, ports[i].Tap)
		if err != nil {
			return nil, errors.Join(err, t.Close())
		}
		*fd = f
	}
	p := packet{from: ends[0].Addr, to: ends[1].Addr, proto: protoUDP}
	t.frame = append(make([]byte, header), ether(ends[1].MAC, ends[0].MAC, typeIPv4, p.with(udp(4000, 9, make([]byte, 1400))))...)
	// The bridge learns where each is.
	back := packet{from: ends[1].Addr, to: ends[0].Addr, proto: protoUDP}
	if _, err := unix.Write(t.to, append(make([]byte, header), ether(ends[0].MAC, ends[1].MAC, typeIPv4, back.with(udp(9, 4000, nil)))...)); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// Measure sends for so long, on that core where it is not negative, and returns
// the bits a second that arrived.
func (t *Stream) Measure(d time.Duration, core int) (float64, error) {
	type result struct {
		rate float64
		err  error
	}
	done := make(chan result, 1)
	go func() {
		if err := stay(core); err != nil {
			done <- result{err: err}
			return
		}
		began := time.Now()
		bits, err := t.send(began.Add(d))
		done <- result{bits / time.Since(began).Seconds(), err}
	}()
	r := <-done
	if r.err == nil && r.rate == 0 {
		r.err = errors.New("nothing arrived in the other context of what its own machine sent")
	}
	return r.rate, r.err
}

func (t *Stream) send(end time.Time) (bits float64, err error) {
	b := make([]byte, 4096)
	for time.Now().Before(end) {
		for range window {
			if _, err := unix.Write(t.from, t.frame); err != nil {
				return bits, fmt.Errorf("send in the other context: %w", err)
			}
		}
		for got, patience := 0, time.Now().Add(20*time.Millisecond); got < window && time.Now().Before(patience); {
			n, err := unix.Read(t.to, b)
			switch {
			case errors.Is(err, unix.EAGAIN):
				poll := []unix.PollFd{{Fd: int32(t.to), Events: unix.POLLIN}}
				if _, err := unix.Poll(poll, 20); err != nil && !errors.Is(err, unix.EINTR) {
					return bits, err
				}
			case err != nil:
				return bits, fmt.Errorf("receive in the other context: %w", err)
			case n == len(t.frame):
				bits += float64(8 * (n - header))
				got++
			}
		}
	}
	return bits, nil
}

// Close leaves the ports, which go with the stage.
func (t *Stream) Close() (err error) {
	for _, fd := range []int{t.from, t.to} {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
	}
	return err
}

// Flood fires frames of all classes in turn, as fast as it can, on that core
// where it is not negative, until ctx ends. It returns how many it fired.
func (s *Stage) Flood(ctx context.Context, core int) (int64, error) {
	var frames [][]byte
	for _, c := range Classes(s.Scene) {
		for i := range 16 {
			frames = append(frames, append(make([]byte, header), c.Frame(i)...))
		}
	}
	type result struct {
		n   int64
		err error
	}
	done := make(chan result, 1)
	go func() {
		r := result{err: stay(core)}
		for i := 0; r.err == nil && ctx.Err() == nil; i++ {
			// The kernel may refuse what is no frame at all; it was tried.
			_, _ = s.Me.file.Write(frames[i%len(frames)])
			r.n++
		}
		done <- r
	}()
	r := <-done
	return r.n, r.err
}

// Busy computes on that core until ctx ends, and sends nothing: what the core
// beside costs where there is no network between.
func Busy(ctx context.Context, core int) error {
	done := make(chan error, 1)
	go func() {
		err := stay(core)
		for sum := uint64(1); err == nil && ctx.Err() == nil; {
			for range 1 << 12 {
				sum = sum*6364136223846793005 + 1442695040888963407
			}
		}
		done <- err
	}()
	return <-done
}

// stay keeps the goroutine on a core. Its thread ends with it.
func stay(core int) error {
	if core < 0 {
		return nil
	}
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(core)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("stay on core %d: %w", core, err)
	}
	return nil
}

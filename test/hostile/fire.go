package hostile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// header is the virtio-net header in front of every frame of a tap, empty here.
const header = 10

// Tap is the machine's end of a port: what is written to it comes out of the
// machine, and what is read from it reaches the machine.
type Tap struct {
	file  *os.File
	seen  atomic.Int64 // frames with the magic
	ended chan struct{}
	marks chan string
}

// mark is in the last frame of a run, which always arrives.
const mark = "consort-the-end:"

// Open takes the place of a machine at a tap in the namespace.
func Open(netns, tap string) (*Tap, error) {
	fd, err := openTap(netns, tap)
	if err != nil {
		return nil, err
	}
	t := &Tap{file: os.NewFile(uintptr(fd), tap), ended: make(chan struct{}), marks: make(chan string, 64)}
	go t.read()
	return t, nil
}

// openTap opens a tap in the namespace, so that reading never waits.
func openTap(netns, tap string) (fd int, err error) {
	err = inside(netns, func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return err
		}
		req, err := unix.NewIfreq(tap)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	})
	if err != nil {
		return -1, fmt.Errorf("open tap %s: %w", tap, err)
	}
	return fd, nil
}

func (t *Tap) read() {
	defer close(t.ended)
	b := make([]byte, 65536)
	for {
		n, err := t.file.Read(b)
		switch {
		case err != nil:
			return
		case bytes.Contains(b[:n], []byte(Magic)):
			t.seen.Add(1)
		case bytes.Contains(b[:n], []byte(mark)):
			select {
			case t.marks <- string(b[header:n]):
			default:
			}
		}
	}
}

// Send sends one frame.
func (t *Tap) Send(frame []byte) error {
	_, err := t.file.Write(append(make([]byte, header), frame...))
	return err
}

// Arrived returns how many hostile frames reached the machine.
func (t *Tap) Arrived() int64 { return t.seen.Load() }

// Close leaves the port, which stays.
func (t *Tap) Close() error {
	err := t.file.Close()
	<-t.ended
	return err
}

// Settle waits until everything that me sent has arrived where it goes: a frame
// that may pass has reached the sibling after it.
func Settle(s Scene, me, sibling *Tap) error {
	end := ether(s.Sibling.MAC, s.Me.MAC, typeIPv4, packet{from: s.Me.Addr, to: s.Sibling.Addr, proto: protoUDP}.with(udp(4000, 9, []byte(mark))))
	// Where nothing is filtered, the bridge may believe that the sibling is me.
	here := ether(s.Me.MAC, s.Sibling.MAC, typeIPv4, packet{from: s.Sibling.Addr, to: s.Me.Addr, proto: protoUDP}.with(udp(4000, 9, nil)))
	for range 50 {
		if err := errors.Join(sibling.Send(here), me.Send(end)); err != nil {
			return err
		}
		select {
		case <-sibling.marks:
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
	return errors.New("what may pass did not arrive within 5 s: the port lets nothing through")
}

// Watch counts the hostile frames that come to any link of a namespace, the
// host's own where netns is empty.
type Watch struct {
	file *os.File
	seen atomic.Int64
	done chan struct{}
}

// Begin begins to watch.
func Begin(netns string) (*Watch, error) {
	var fd int
	open := func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(htons(unix.ETH_P_ALL)))
		return err
	}
	// Not by /proc/self/ns/net: that is the first thread's, which may be one that
	// inside left in another namespace.
	where := open
	if netns != "" {
		where = func() error { return inside(netns, open) }
	}
	if err := where(); err != nil {
		return nil, fmt.Errorf("watch the links of %q: %w", netns, err)
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
	w := &Watch{file: os.NewFile(uintptr(fd), "watch"), done: make(chan struct{})}
	go w.read()
	return w, nil
}

func (w *Watch) read() {
	defer close(w.done)
	raw, err := w.file.SyscallConn()
	if err != nil {
		return
	}
	b := make([]byte, 65536)
	for {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			var e error
			n, _, e = unix.Recvfrom(int(fd), b, 0)
			return !errors.Is(e, unix.EAGAIN)
		})
		if err != nil {
			return
		}
		if n > 0 && bytes.Contains(b[:n], []byte(Magic)) {
			w.seen.Add(1)
		}
	}
}

// Arrived returns how many hostile frames were seen.
func (w *Watch) Arrived() int64 { return w.seen.Load() }

// Close ends watching.
func (w *Watch) Close() error {
	err := w.file.Close()
	<-w.done
	return err
}

// inside runs do in the network namespace, on a thread that ends with it.
func inside(netns string, do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		f, err := os.Open(netns)
		if err == nil {
			defer f.Close()
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

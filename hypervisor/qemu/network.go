package qemu

import (
	"context"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// openNIC opens the host's end of a network card, as a descriptor that the
// machine's process needs no right to open.
func openNIC(ctx context.Context, n driver.NIC) (*os.File, error) {
	if n.Socket != "" {
		return openSocket(ctx, n.Socket)
	}
	type opened struct {
		f   *os.File
		err error
	}
	done := make(chan opened, 1)
	go func() {
		// Never unlocked: the thread that changed its namespace ends with
		// this goroutine.
		runtime.LockOSThread()
		f, err := openTap(n)
		done <- opened{f, err}
	}()
	o := <-done
	if o.err != nil {
		return nil, fault.Unavailable.Errorf("join tap device %s: %w", n.Tap, o.err)
	}
	return o.f, nil
}

func openSocket(ctx context.Context, path string) (*os.File, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fault.Unavailable.Errorf("join network socket: %w", err)
	}
	defer conn.Close()
	return conn.(*net.UnixConn).File()
}

// openTap runs on a thread of its own, which it moves to the card's namespace.
func openTap(n driver.NIC) (*os.File, error) {
	if err := enter(n.Netns); err != nil {
		return nil, err
	}
	// TUNSETIFF would make a device that is not there, joined to nothing.
	if _, err := net.InterfaceByName(n.Tap); err != nil {
		return nil, err
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
	}
	req, err := unix.NewIfreq(n.Tap)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("TUNSETIFF", err)
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}

// enter moves the calling thread, which ends with its goroutine, to a network
// namespace; an empty path is where it is.
func enter(netns string) error {
	if netns == "" {
		return nil
	}
	ns, err := unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: netns, Err: err}
	}
	defer unix.Close(ns)
	return os.NewSyscallError("setns", unix.Setns(ns, unix.CLONE_NEWNET))
}

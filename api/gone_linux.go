package api

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// giveUp has the kernel end a connection whose other end acknowledges nothing
// for goneAfter. Left alone it tries for a quarter of an hour.
func giveUp(network, _ string, c syscall.RawConn) error {
	if network == "unix" {
		return nil
	}
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(goneAfter.Milliseconds()))
	})
	return errors.Join(err, failed)
}

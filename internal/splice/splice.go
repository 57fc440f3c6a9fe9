// Package splice carries bytes between two connections.
package splice

import (
	"context"
	"io"
	"net"
	"sync"
)

// Join carries bytes both ways until either side ends or ctx does, and returns
// with both sides closed and everything written that came before the end. What
// comes is passed on at once, and a join on which nothing moves holds little
// memory.
func Join(ctx context.Context, a, b io.ReadWriteCloser) {
	shut := sync.OnceFunc(func() {
		_ = a.Close()
		_ = b.Close()
	})
	stop := context.AfterFunc(ctx, shut)
	defer stop()
	var ways sync.WaitGroup
	carry := func(to io.Writer, from io.Reader) {
		pass(to, from) // however it ends, it is the end of both
		shut()
	}
	ways.Go(func() { carry(a, b) })
	ways.Go(func() { carry(b, a) })
	ways.Wait()
}

// Sizes of buffers: one to wait with, and one while much comes.
const (
	waiting = 1 << 10
	moving  = 32 << 10
)

// pass copies until either fails. Between sockets the kernel does it; else a
// read that fills the small buffer brings a large one, which is dropped when
// reads fall short of it.
func pass(to io.Writer, from io.Reader) {
	if kernelCopies(to, from) {
		_, _ = io.Copy(to, from)
		return
	}
	var small [waiting]byte
	buf := small[:]
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, failed := to.Write(buf[:n]); failed != nil {
				return
			}
		}
		if err != nil {
			return
		}
		switch {
		case n <= waiting && len(buf) > waiting:
			buf = small[:]
		case n == len(buf) && n == waiting:
			buf = make([]byte, moving)
		}
	}
}

// kernelCopies reports whether io.Copy hands this to splice(2): one of the two
// is TCP, the other is TCP or a unix socket.
func kernelCopies(to io.Writer, from io.Reader) bool {
	_, a := to.(*net.TCPConn)
	_, b := from.(*net.TCPConn)
	_, c := to.(*net.UnixConn)
	_, d := from.(*net.UnixConn)
	return a && b || a && d || b && c
}

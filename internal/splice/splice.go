// Package splice carries bytes between two connections.
package splice

import (
	"context"
	"io"
	"sync"
)

// Join carries bytes both ways until either side ends or ctx does, and returns
// with both sides closed and everything written that came before the end.
func Join(ctx context.Context, a, b io.ReadWriteCloser) {
	shut := sync.OnceFunc(func() {
		_ = a.Close()
		_ = b.Close()
	})
	stop := context.AfterFunc(ctx, shut)
	defer stop()
	var ways sync.WaitGroup
	carry := func(to io.Writer, from io.Reader) {
		_, _ = io.Copy(to, from) // however it ends, it is the end of both
		shut()
	}
	ways.Go(func() { carry(a, b) })
	ways.Go(func() { carry(b, a) })
	ways.Wait()
}

package main

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// distance makes a server look far away: what passes, in either direction, comes
// half a round trip later, in order and with nothing else slowed down. This
// kernel has no netem.
type distance struct {
	listener net.Listener
	to       string
	half     atomic.Int64 // nanoseconds of half a round trip
	links    sync.WaitGroup
	ctx      context.Context
	end      context.CancelFunc
}

// farFrom listens at a port of its own for the server at the address.
func farFrom(to string, rtt time.Duration) (*distance, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &distance{listener: l, to: to}
	d.set(rtt)
	d.ctx, d.end = context.WithCancel(context.Background())
	d.links.Go(d.accept)
	return d, nil
}

// set changes the distance for what passes from now on.
func (d *distance) set(rtt time.Duration) { d.half.Store(int64(rtt / 2)) }

func (d *distance) address() string { return d.listener.Addr().String() }

// close ends every connection and waits until they are gone.
func (d *distance) close() {
	d.end()
	d.listener.Close()
	d.links.Wait()
}

func (d *distance) accept() {
	for {
		near, err := d.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", d.to)
		if err != nil {
			near.Close()
			continue
		}
		shut := sync.OnceFunc(func() { near.Close(); far.Close() })
		stop := context.AfterFunc(d.ctx, shut)
		d.links.Go(func() {
			defer stop()
			var ways sync.WaitGroup
			ways.Go(func() { d.carry(far, near); shut() })
			ways.Go(func() { d.carry(near, far); shut() })
			ways.Wait()
		})
	}
}

// parcel is what came at once, and when it is there.
type parcel struct {
	bytes []byte
	there time.Time
}

// parcels bounds what is on the way; at 32 KiB each it is more than a viewer is
// ever sent.
const parcels = 4096

func (d *distance) carry(to io.Writer, from io.Reader) {
	way := make(chan parcel, parcels)
	var arrive sync.WaitGroup
	arrive.Go(func() {
		failed := false
		for p := range way {
			if failed {
				continue
			}
			time.Sleep(time.Until(p.there))
			_, err := to.Write(p.bytes)
			failed = err != nil
		}
	})
	for {
		b := make([]byte, 32<<10)
		n, err := from.Read(b)
		if n > 0 {
			way <- parcel{b[:n], time.Now().Add(time.Duration(d.half.Load()))}
		}
		if err != nil {
			break
		}
	}
	close(way)
	arrive.Wait()
}

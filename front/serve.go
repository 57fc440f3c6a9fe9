package front

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// Certificate picks the certificate for a client, as tls.Config's GetCertificate.
type Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// parting is how long requests may go on when Serve or Carry is told to end.
const parting = 30 * time.Second

// connection stands for the method of what has none: one TCP connection.
const connection = "TCP"

// Serve answers HTTP/1.1, HTTP/2 and WebSocket on the listener until ctx ends;
// then it takes no more, and returns when what is in flight has ended or half a
// minute is over. With a certificate it speaks TLS.
func (f *Front) Serve(ctx context.Context, l net.Listener, cert Certificate) error {
	speak := new(http.Protocols)
	speak.SetHTTP1(true)
	speak.SetHTTP2(true)
	speak.SetUnencryptedHTTP2(cert == nil)
	limits := f.o.Limits
	s := &http.Server{
		Handler: f, Protocols: speak, ErrorLog: log.New(quietly{f}, "", 0),
		ReadHeaderTimeout: limits.Head, IdleTimeout: limits.Idle, MaxHeaderBytes: 64 << 10,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 250, SendPingTimeout: limits.Idle, WriteByteTimeout: limits.Stall},
	}
	ended := make(chan error, 1)
	go func() {
		if cert != nil {
			s.TLSConfig = &tls.Config{GetCertificate: cert, MinVersion: tls.VersionTLS12}
			ended <- s.ServeTLS(l, "", "")
			return
		}
		ended <- s.Serve(l)
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), parting)
	defer cancel()
	err := s.Shutdown(last)
	if err != nil {
		_ = s.Close()
	}
	<-ended
	return err
}

// Carry brings TCP connections to replicas until ctx ends; then it takes no
// more, and returns when those in flight have ended or half a minute is over.
// A connection counts as a request that ends when its replica is reached.
func (f *Front) Carry(ctx context.Context, l net.Listener) error {
	var carried sync.WaitGroup
	last, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for pause := time.Duration(0); ; {
		conn, err := l.Accept()
		if err == nil {
			pause = 0
			carried.Go(func() { f.carry(last, conn) })
			continue
		}
		if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
			// As a lack of file descriptors: it passes when connections end.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			time.Sleep(pause)
			continue
		}
		timer := time.AfterFunc(parting, cut)
		carried.Wait()
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
}

// carry joins a client with a replica.
func (f *Front) carry(ctx context.Context, client net.Conn) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer client.Close()
	began := time.Now()
	f.meter.begin()
	l, replica, err := f.reach(ctx, cancel)
	e := event{method: connection, took: time.Since(began)}
	if err != nil {
		e.broken = true
		f.meter.end(e)
		return
	}
	defer func() { l.done(time.Now()) }()
	e.replica = l.replica.label()
	f.meter.end(e)
	join(ctx, client, replica)
}

// reach dials a replica, and another one when it cannot be reached.
func (f *Front) reach(ctx context.Context, cancel context.CancelCauseFunc) (*lease, net.Conn, error) {
	want := wish{cancel: cancel}
	for try := 1; ; try++ {
		l, err := f.pool.acquire(ctx, want)
		if err != nil {
			return nil, nil, err
		}
		conn, err := f.dial(ctx, l.replica.Name, l.replica.Port)
		now := time.Now()
		if err == nil {
			l.answer(http.StatusOK, now)
			return l, conn.(*link).Conn, nil // as it is, so that the kernel may carry the bytes
		}
		l.fail("it cannot be reached", mostRefusals, now)
		l.done(now)
		if try == mostTries || ctx.Err() != nil || !f.pool.mayRetry(now) {
			return nil, nil, err
		}
		want.tried = append(want.tried, l.replica)
	}
}

// join carries bytes both ways until both have ended: the end of one way is
// told to the other side, which may have more to say. A side that breaks, or
// the end of ctx, ends both. It returns with both closed.
func join(ctx context.Context, a, b net.Conn) {
	shut := func() {
		_ = a.Close()
		_ = b.Close()
	}
	stop := context.AfterFunc(ctx, shut)
	defer stop()
	defer shut()
	var ways sync.WaitGroup
	carry := func(to, from net.Conn) {
		if _, err := io.Copy(to, from); err != nil || closeWrite(to) != nil {
			shut()
		}
	}
	ways.Go(func() { carry(a, b) })
	ways.Go(func() { carry(b, a) })
	ways.Wait()
}

// closeWrite tells the other side that nothing more comes.
func closeWrite(c net.Conn) error {
	half, ok := c.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}

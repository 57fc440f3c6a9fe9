package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/authority"
)

// listenPublic opens the address people reach and returns its URL. On any
// address but loopback TLS is on.
func listenPublic(o upOptions, ca *authority.Authority) (net.Listener, string, error) {
	host, port, err := net.SplitHostPort(o.listen)
	if err != nil {
		return nil, "", fault.Invalid.Errorf("--listen %q: %w; write 127.0.0.1:8440", o.listen, err)
	}
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return nil, "", fault.Unavailable.Errorf("listen on %s: %w; choose another address with --listen", o.listen, err)
	}
	if port == "0" {
		_, port, _ = net.SplitHostPort(l.Addr().String())
	}
	if loopback(host) && o.tlsCert == "" && o.tlsKey == "" {
		// Browsers give localhost the rights of a secure origin, and passkeys
		// need a name.
		return l, "http://" + net.JoinHostPort("localhost", port), nil
	}
	show, err := serving(o, ca, host)
	if err != nil {
		l.Close()
		return nil, "", err
	}
	conf := &tls.Config{GetCertificate: show, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	return tls.NewListener(l, conf), "https://" + net.JoinHostPort(reachable(host), port), nil
}

// reachable returns what others call a host that is listened on: its name when
// that is every address.
func reachable(host string) string {
	ip := net.ParseIP(host)
	if host != "" && (ip == nil || !ip.IsUnspecified()) {
		return host
	}
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}

// goneAfter is how long the other end of an agent's connection may be silent
// about what it was sent: a link that is cut for less goes on where it was.
const goneAfter = 30 * time.Second

// listenAgents opens the address where agents come in, and returns its URL.
func listenAgents(ctx context.Context, at string) (net.Listener, string, error) {
	host, _, err := net.SplitHostPort(at)
	if err != nil {
		return nil, "", fault.Invalid.Errorf("--agents %q: %w; write 0.0.0.0:8441", at, err)
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(goneAfter.Milliseconds()))
		})
		return errors.Join(err, failed)
	}}
	l, err := lc.Listen(ctx, "tcp", at)
	if err != nil {
		return nil, "", fault.Unavailable.Errorf("listen for agents on %s: %w; choose another address with --agents", at, err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return l, "https://" + net.JoinHostPort(reachable(host), port), nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// The state is locked, so a socket that is there belongs to nobody.
	os.Remove(path)
	old := syscall.Umask(0o177)
	defer syscall.Umask(old)
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fault.Unavailable.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// serveOn serves a listener until ctx ends. connected may mark its connections.
func serveOn(l net.Listener, h http.Handler, connected func(context.Context, net.Conn) context.Context) func(context.Context) error {
	return func(ctx context.Context) error {
		s := &http.Server{
			Handler: h, ConnContext: connected,
			// Requests that last, as watches and tunnels, end with the process.
			BaseContext:       func(net.Listener) context.Context { return ctx },
			ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
			ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		}
		stop := context.AfterFunc(ctx, func() { s.Close() })
		defer stop()
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
}

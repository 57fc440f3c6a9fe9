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

	"consort.dev/consort/fault"
)

// listenPublic opens the address people reach and returns its URL. On any
// address but loopback TLS is on.
func listenPublic(o upOptions) (net.Listener, string, error) {
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
	cert, err := certificate(o, host)
	if err != nil {
		l.Close()
		return nil, "", err
	}
	name := host
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		if name, err = os.Hostname(); err != nil {
			name = "localhost"
		}
	}
	conf := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	return tls.NewListener(l, conf), "https://" + net.JoinHostPort(name, port), nil
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

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/splice"
	"consort.dev/consort/presentation"
)

// forwarder lets viewers of this machine reach a session through a port on
// loopback: one connection for each ticket.
type forwarder struct {
	*cli
	client  *api.Client
	session *estate.Session
	offer   estate.PresentationOffer
	links   sync.WaitGroup
}

// serve listens on the port until the context ends, and prints the password of
// the next connection whenever there is a new one.
func (f *forwarder) serve(ctx context.Context, port string) error {
	l, err := listenHere(port)
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Fprintf(f.out, "listening on %s for %s viewers\n", l.Addr(), f.offer.Name)
	defer f.links.Wait()
	for {
		err := f.next(ctx, l, func(t *api.Ticket) error {
			f.password(t)
			return nil
		})
		if err != nil {
			return ended(ctx, err)
		}
	}
}

// ended is nil when the person ended it.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (f *forwarder) password(t *api.Ticket) {
	if t.User != "" {
		fmt.Fprintf(f.out, "user %s\n", t.User)
	}
	if t.Secret != "" {
		fmt.Fprintf(f.out, "password %s\n", t.Secret)
	}
}

// file writes the viewer's file, waits for one viewer and serves it.
func (f *forwarder) file(ctx context.Context, path string) error {
	l, err := listenHere("0")
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Fprintf(f.out, "open %s with a viewer; waiting for it on %s\n", path, l.Addr())
	err = f.next(ctx, l, func(t *api.Ticket) error { return f.write(ctx, path, l, t) })
	os.Remove(path)
	f.links.Wait()
	return ended(ctx, err)
}

// view opens the viewer on a file of its own and stays until it is closed.
func (f *forwarder) view(ctx context.Context, viewer string) error {
	l, err := listenHere("0")
	if err != nil {
		return err
	}
	defer l.Close()
	dir, err := os.MkdirTemp(f.env("XDG_RUNTIME_DIR", os.TempDir()), "consort-")
	if err != nil {
		return fault.Unavailable.Errorf("make a place for the viewer's file: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, f.session.Spec.Desktop+"."+f.offer.File)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gone := make(chan error, 1)
	var start sync.Once
	err = f.next(ctx, l, func(t *api.Ticket) error {
		if err := f.write(ctx, path, l, t); err != nil {
			return err
		}
		if !f.inFile(t) {
			f.password(t)
		}
		start.Do(func() {
			cmd := exec.CommandContext(ctx, viewer, path)
			cmd.Stdout, cmd.Stderr = f.err, f.err
			go func() { gone <- cmd.Run(); cancel() }()
		})
		return nil
	})
	if err != nil && ctx.Err() == nil {
		return err
	}
	select {
	case err = <-gone:
	case <-ctx.Done():
		err = <-gone
	}
	f.links.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil // the viewer has said what was wrong
	}
	return err
}

// inFile reports whether the viewer finds the password in its file.
func (f *forwarder) inFile(t *api.Ticket) bool { return t.User == "" }

// write hands the session to a native viewer.
func (f *forwarder) write(ctx context.Context, path string, l net.Listener, t *api.Ticket) error {
	all, err := openPresentations(ctx)
	if err != nil {
		return err
	}
	p, ok := all[f.offer.Name]
	if !ok {
		return fault.Unsupported.Errorf("this consort knows no viewers for %s; use --forward", f.offer.Name)
	}
	at := l.Addr().(*net.TCPAddr)
	content, err := p.File(ctx, presentation.Handoff{
		Host: at.IP.String(), Port: at.Port, Title: f.session.Spec.Desktop, Secret: t.Secret, User: t.User,
	})
	if err != nil {
		return err
	}
	return secretFile(path, content.Content)
}

// secretFile writes a file that only its owner reads, whatever was there.
func secretFile(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".consort-") // 0600
	if err != nil {
		return fault.Unavailable.Errorf("write %s: %w", path, err)
	}
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
		return fault.Unavailable.Errorf("write %s: %w", path, err)
	}
	return nil
}

// next takes a ticket, tells it, and gives it to the first viewer that comes;
// a ticket that nobody used in time is replaced, and the new one told.
func (f *forwarder) next(ctx context.Context, l net.Listener, tell func(*api.Ticket) error) error {
	for {
		t, err := f.client.Ticket(ctx, f.session.Metadata.Project, f.session.Metadata.Name, true)
		if err != nil {
			return err
		}
		if err := tell(t); err != nil {
			return err
		}
		conn, err := acceptUntil(ctx, l, t.Expires.Add(-2*time.Second))
		if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return err
		}
		tunnel, err := f.client.Tunnel(ctx, t.Ticket)
		if err != nil {
			conn.Close()
			return err
		}
		if t.User != "" {
			// The next ticket changes the account's password, which the guest
			// may not have asked for yet.
			splice.Join(ctx, conn, tunnel)
			return nil
		}
		f.links.Go(func() { splice.Join(ctx, conn, tunnel) })
		return nil
	}
}

// acceptUntil accepts one connection before the time.
func acceptUntil(ctx context.Context, l net.Listener, until time.Time) (net.Conn, error) {
	tcp := l.(*net.TCPListener)
	if err := tcp.SetDeadline(until); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = tcp.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := tcp.Accept()
	if ctx.Err() != nil {
		if err == nil {
			conn.Close()
		}
		return nil, ctx.Err()
	}
	return conn, err
}

func listenHere(port string) (net.Listener, error) {
	n, err := strconv.Atoi(port)
	if err != nil || n < 0 || n > 65535 {
		return nil, usage{fmt.Errorf("%q is not a port; use 1 to 65535, or none for any", port)}
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return nil, fault.Unavailable.Errorf("listen for viewers: %w; choose another port", err)
	}
	return l, nil
}

// viewersOf are the programs that open a viewer's file, best first.
func viewersOf(extension string) []string {
	return map[string][]string{
		"vv":  {"remote-viewer"},
		"rdp": {"xfreerdp3", "xfreerdp", "remmina"},
	}[extension]
}

// viewerFor returns the program to open the file with, or "" where there is no
// screen or no program.
func (c *cli) viewerFor(extension string) string {
	if c.getenv("DISPLAY") == "" && c.getenv("WAYLAND_DISPLAY") == "" {
		return ""
	}
	for _, v := range viewersOf(extension) {
		if path, err := exec.LookPath(v); err == nil {
			return path
		}
	}
	return ""
}

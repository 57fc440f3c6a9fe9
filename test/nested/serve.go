package nested

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/remote"
	"consort.dev/consort/internal/splice"
)

// Forward makes a socket on this machine, until the test ends, whose connections
// go on to an address inside the host.
func (h *Host) Forward(t testing.TB, network, address string) (path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "fwd") // a test's own folder has too long a path
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		l.Close()
		os.RemoveAll(dir)
	})
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer near.Close()
				far, err := h.Dial(ctx, network, address)
				if err != nil {
					return // whoever dialled sees the end
				}
				defer far.Close()
				splice.Join(ctx, near, far)
			}()
		}
	}()
	return path
}

// Driver is a provider that runs inside the host.
type Driver struct {
	driver.Host
	host     *Host
	provider string
	socket   string
	more     string // arguments of the provider's own
	client   *remote.Client
}

// Unwrap leads to the provider's abilities.
func (d *Driver) Unwrap() driver.Host { return d.Host }

// Provider opens a provider of ours inside the host and returns it as seen from
// here. What it keeps lies in /srv/NAME. See the program serve for its own
// arguments.
func (h *Host) Provider(t testing.TB, name string, args ...string) *Driver {
	t.Helper()
	program := filepath.Join(t.TempDir(), "serve")
	if err := Program(t.Context(), "consort.dev/consort/test/nested/serve", program); err != nil {
		t.Fatal(err)
	}
	if err := h.Put(t.Context(), program, "/usr/local/bin/serve", 0o755); err != nil {
		t.Fatal(err)
	}
	d := &Driver{host: h, provider: name, socket: h.Forward(t, "unix", "/run/"+name+".sock"), more: strings.Join(args, " ")}
	if err := d.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.client.Close() })
	return d
}

// begin starts the provider's process and connects to it.
func (d *Driver) begin(ctx context.Context) error {
	line := fmt.Sprintf("setsid serve %[1]s /srv/%[1]s /run/%[1]s.sock %[2]s > /run/%[1]s.log 2>&1 < /dev/null & echo $! > /run/%[1]s.pid", d.provider, d.more)
	if _, err := d.host.Run(ctx, nil, "sh", "-c", line); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		client, err := remote.Dial(ctx, d.socket)
		if err == nil {
			d.client, d.Host = client, client.Host()
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			log, _ := d.host.Run(context.WithoutCancel(ctx), nil, "cat", "/run/"+d.provider+".log")
			return fmt.Errorf("the provider does not answer: %w\n%s", err, log.Stdout)
		}
	}
}

// Kill ends the provider's process as a crash does, and starts another one.
func (d *Driver) Kill(ctx context.Context) error {
	d.client.Close()
	line := fmt.Sprintf("p=$(cat /run/%s.pid); kill -9 $p; while [ -d /proc/$p ]; do sleep 0.05; done", d.provider)
	if _, err := d.host.Run(ctx, nil, "sh", "-c", line); err != nil {
		return err
	}
	return d.begin(ctx)
}

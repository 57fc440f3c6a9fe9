package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"consort.dev/consort/fault"
	"consort.dev/consort/internal/flock"
	"consort.dev/consort/plane/auth"
)

// upOptions are the flags of up.
type upOptions struct {
	state      string
	run        string
	listen     string
	agents     string
	agentLife  time.Duration
	noAgent    bool
	tlsCert    string
	tlsKey     string
	store      []string
	hypervisor string
	provider   string
	images     string
	apply      []string
	signIn     string
	metrics    string
	prometheus string
	services   string
	otlp       string
	verbose    bool

	auditOptional bool
	auditKeep     time.Duration
}

func upCommand() *cobra.Command {
	o := upOptions{}
	c := &cobra.Command{
		Use:   "up",
		Short: "Run everything in one process: plane, gateway, portal and this host's agent",
		Long: `Run everything in one process: the plane with its store, the gateway, the portal
and the agent of this host. State lies under one directory; start it again and
it goes on where it was. Machines outlive it.`,
		Example: `  consort up --apply examples/first-desktop
  consort up --state /srv/consort --listen 0.0.0.0:8443 --store https://etcd-1:2379
  consort up --no-agent --agents 0.0.0.0:8441   # machines run on hosts that join`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return up(c.Context(), o, c.OutOrStdout()) },
	}
	f := c.Flags()
	f.StringVar(&o.state, "state", "/var/lib/consort", "directory of everything that must last")
	f.StringVar(&o.run, "run", "", "directory of sockets; the path must be short (default /run/consort, or STATE/run)")
	f.StringVar(&o.listen, "listen", "127.0.0.1:8440", "address of API and portal; TLS is on for any but loopback")
	f.StringVar(&o.agents, "agents", "", "address where other hosts' agents come in, always with TLS, as 0.0.0.0:8441; nowhere when empty")
	f.DurationVar(&o.agentLife, "agent-life", auth.DefaultAgentLife, "how long their certificates are good; renewed after two thirds")
	f.BoolVar(&o.noAgent, "no-agent", false, "only the plane: no machines run on this host")
	f.StringVar(&o.tlsCert, "tls-cert", "", "certificate file; made by our own authority when empty")
	f.StringVar(&o.tlsKey, "tls-key", "", "key file of --tls-cert")
	f.StringSliceVar(&o.store, "store", nil, "etcd endpoints; an etcd inside this process when empty")
	f.StringVar(&o.hypervisor, "hypervisor", "local", "name of this host's hypervisor")
	f.StringVar(&o.provider, "provider", "qemu", "what drives it")
	f.StringVar(&o.images, "images", "", "directory of images and layers (default STATE/images)")
	f.StringSliceVar(&o.apply, "apply", nil, "manifests to apply once it is up; waits until their images are made")
	f.StringVar(&o.signIn, "sign-in", "", "print a sign-in link for this person (default: the first person applied, else admin)")
	f.StringVar(&o.metrics, "metrics", "", "address where Prometheus reads measurements and programs push theirs by OTLP, without a lock: loopback, or a network you trust; nowhere when empty")
	f.StringVar(&o.prometheus, "prometheus", "", "URL of a server that speaks Prometheus's API and is asked for measurements, as http://127.0.0.1:9090; they are kept under STATE/metrics when empty")
	f.StringVar(&o.services, "services", "127.0.0.1", "address where the fronts of services take requests, each on its own port")
	f.StringVar(&o.otlp, "otlp", os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT"), "URL of a collector for traces of every Connect, as http://127.0.0.1:4318 (default $OTEL_EXPORTER_OTLP_ENDPOINT)")
	f.BoolVar(&o.auditOptional, "audit-optional", false, "go on when the audit log cannot be written, as on a full disk; it says later how much is missing")
	f.DurationVar(&o.auditKeep, "audit-keep", 0, "how long the audit log is kept, as 8760h for a year; for ever when 0")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log every request and step")
	return c
}

// up runs everything until ctx ends.
func up(ctx context.Context, o upOptions, out io.Writer) error {
	o.defaults()
	log := newLog(o.verbose)
	release, err := lockState(ctx, o.state)
	if err != nil {
		return err
	}
	defer release()
	p, err := openPlane(ctx, o, log)
	if err != nil {
		return err
	}
	defer p.close()
	ctx, stop := context.WithCancelCause(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer stop(nil)
	start := func(name string, run func(context.Context) error) {
		parts.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				stop(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	if err := p.serve(o, start); err != nil {
		return err
	}
	stopMeasuring, err := p.measure(ctx, o, start)
	if err != nil {
		return err
	}
	defer stopMeasuring()
	if !o.noAgent {
		if err := p.startAgent(ctx, o, start); err != nil {
			return err
		}
	}
	if err := p.welcome(ctx, o, out); err != nil && ctx.Err() == nil {
		return err
	}
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func (o *upOptions) defaults() {
	h := o.host()
	h.defaults()
	o.run, o.images = h.run, h.images
}

// host is what this host's own agent looks after.
func (o *upOptions) host() hostOptions {
	return hostOptions{state: o.state, run: o.run, images: o.images, hypervisor: o.hypervisor, provider: o.provider}
}

func newLog(verbose bool) *slog.Logger {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// lockState makes sure that one process at a time works on the state.
func lockState(ctx context.Context, dir string) (release func(), err error) {
	// Machines have users of their own, which must be able to reach their disks.
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	f, err := flock.Take(ctx, filepath.Join(dir, "lock"))
	if errors.Is(err, flock.ErrHeld) {
		return nil, fault.Conflict.Errorf("another consort works on %s; stop it, or choose another --state", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	return func() { f.Close() }, nil
}

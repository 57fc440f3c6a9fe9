package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"consort.dev/consort/agent"
	"consort.dev/consort/agent/badge"
	"consort.dev/consort/agent/network"
	"consort.dev/consort/api"
	"consort.dev/consort/application"
	"consort.dev/consort/fault"
	"consort.dev/consort/image"
)

// hostOptions say what an agent looks after, and where it keeps its own.
type hostOptions struct {
	state       string
	run         string
	images      string
	hypervisor  string
	provider    string
	endpoint    string
	credentials string
	labels      map[string]string
}

// agentOptions are the flags of agent.
type agentOptions struct {
	hostOptions
	join      string
	tokenFile string
	verbose   bool
}

func agentCommand() *cobra.Command {
	o := agentOptions{}
	c := &cobra.Command{
		Use:   "agent",
		Short: "Join this host to a plane elsewhere, and look after its machines",
		Long: `Join this host to a plane elsewhere, and look after its machines.

The first start trades a join token for a certificate: 'consort hypervisor token'
on the plane makes one and prints the whole command to run here. The key is made
here and never leaves. Later starts need no token; the certificate is renewed by
itself. The agent dials the plane and is never dialled: let it out to that one
address, and nothing in.`,
		Example: `  consort agent --join https://plane.example.org:8441 --token-file join-token
  consort agent --state /srv/consort`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runAgent(c.Context(), o, c.OutOrStdout()) },
	}
	f := c.Flags()
	f.StringVar(&o.join, "join", "", "URL where the plane listens for agents; known after the first start")
	f.StringVar(&o.tokenFile, "token-file", "", "file that holds the join token; used up by the first start")
	f.StringVar(&o.state, "state", "/var/lib/consort", "directory of everything that must last")
	f.StringVar(&o.run, "run", "", "directory of sockets; the path must be short (default /run/consort, or STATE/run)")
	f.StringVar(&o.images, "images", "", "directory of images and layers (default STATE/images)")
	f.StringVar(&o.hypervisor, "hypervisor", "", "name of the hypervisor; the token's, which it must equal")
	f.StringVar(&o.provider, "provider", "qemu", "what drives it")
	f.StringVar(&o.endpoint, "endpoint", "", "where its API is reached; empty for that of this host")
	f.StringVar(&o.credentials, "credentials-file", "", "file with a user and a password for the endpoint, a line each")
	f.StringToStringVar(&o.labels, "labels", nil, "labels of the hypervisor when it first joins, as site=east,rack=4")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log every step")
	return c
}

func (o *hostOptions) defaults() {
	if o.run == "" {
		o.run = filepath.Join(o.state, "run")
		if o.state == "/var/lib/consort" {
			o.run = "/run/consort"
		}
	}
	if o.images == "" {
		o.images = filepath.Join(o.state, "images")
	}
}

// runAgent runs a host's agent until ctx ends.
func runAgent(ctx context.Context, o agentOptions, out io.Writer) error {
	o.defaults()
	log := newLog(o.verbose)
	release, err := lockState(ctx, o.state)
	if err != nil {
		return err
	}
	defer release()
	b, err := o.badge(ctx)
	if err != nil {
		return err
	}
	if o.hypervisor != "" && o.hypervisor != b.Hypervisor() {
		return fault.Invalid.Errorf("this host joined as hypervisor %s, not as %s: leave --hypervisor out, or join with a token for %s", b.Hypervisor(), o.hypervisor, o.hypervisor)
	}
	o.hypervisor = b.Hypervisor()
	client, err := api.NewClient(api.Options{Server: b.Plane(), TLS: b.TLS(), Agent: "consort-agent"})
	if err != nil {
		return err
	}
	defer client.Close()
	apps, err := openApplications(ctx, o.state)
	if err != nil {
		return err
	}
	a, err := newAgent(ctx, o.hostOptions, client, apps, log)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "This host is hypervisor %s of %s; its certificate is good until %s and renews itself.\nStop with Ctrl-C; machines go on.\n",
		b.Hypervisor(), b.Plane(), b.Expires().Format(time.RFC3339))
	var parts sync.WaitGroup
	parts.Go(func() { _ = b.Run(ctx, client, log) }) // ends with ctx
	err = a.Run(ctx)
	parts.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// badge returns this host's badge: the one it has, or one for the token.
func (o *agentOptions) badge(ctx context.Context) (*badge.Badge, error) {
	if o.tokenFile == "" {
		b, err := badge.Open(o.state, time.Now)
		if err == nil && o.join != "" && o.join != b.Plane() {
			return nil, fault.Invalid.Errorf("this host joined %s: leave --join out, or give a token of %s with --token-file", b.Plane(), o.join)
		}
		return b, err
	}
	token, err := os.ReadFile(o.tokenFile)
	if errors.Is(err, os.ErrNotExist) {
		// Whoever removed the used token did well.
		if b, old := badge.Open(o.state, time.Now); old == nil {
			return b, nil
		}
	}
	if err != nil {
		return nil, fault.Invalid.Errorf("read the join token: %w", err)
	}
	if !strings.HasPrefix(o.join, "https://") {
		return nil, fault.Invalid.Errorf("--join %q: give the URL where the plane listens for agents, as https://plane.example.org:8441", o.join)
	}
	return badge.Join(ctx, o.state, o.join, string(token), time.Now)
}

// newAgent builds the agent of this host out of its parts.
func newAgent(ctx context.Context, o hostOptions, plane *api.Client, apps map[string]*application.Provider, log *slog.Logger) (*agent.Agent, error) {
	images, err := image.Open(o.images)
	if err != nil {
		return nil, err
	}
	host, err := openHypervisor(ctx, o.provider, o.hypervisor, site{dir: o.state, run: o.run, endpoint: o.endpoint, credentials: o.credentials})
	if err != nil {
		return nil, err
	}
	opts := agent.Options{
		Hypervisor: o.hypervisor, Provider: o.provider, Endpoint: o.endpoint, Labels: o.labels, Dir: filepath.Join(o.state, "agent"),
		Plane: plane, Host: host, Applications: apps, Images: images, Now: time.Now, Log: log,
	}
	if err := network.Probe(ctx); err != nil {
		opts.NoNetwork = err.Error()
	} else if opts.Network, err = network.Open(filepath.Join(o.state, "network")); err != nil {
		return nil, err
	}
	return agent.New(opts)
}

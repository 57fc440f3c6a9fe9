package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/manifest"
)

// Where the plane of this machine is found.
const defaultServer = "/run/consort/api.sock"

// cli is what the verbs share: where the plane is, and whom to talk to.
type cli struct {
	terminal
	server    string
	tokenFile string
	caFile    string
	project   string
	client    *api.Client // made at first use
}

// usage is an error of how the command was written.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

func newRoot(c *cli) *cobra.Command {
	root := &cobra.Command{
		Use:   "consort",
		Short: "Desktops and applications out of independent layers, on any hypervisor",
		Long: `Consort composes desktops out of a presentation layer, an application layer and
a hypervisor, each from whom you like, and manages them from one place.

  consort up                        start everything on this machine
  consort apply -f FOLDER           make the estate as the manifests say
  consort get desktops              what there is
  consort connect ana-office        work on a desktop`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f := root.PersistentFlags()
	f.StringVar(&c.server, "server", c.env("CONSORT_SERVER", defaultServer), "URL of the plane, or path of its unix socket ($CONSORT_SERVER)")
	f.StringVar(&c.tokenFile, "token-file", c.env("CONSORT_TOKEN_FILE", ""), "file that holds the API token ($CONSORT_TOKEN_FILE)")
	f.StringVar(&c.caFile, "ca-file", c.env("CONSORT_CA_FILE", ""), "certificates that https servers are checked against ($CONSORT_CA_FILE)")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage{fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath())}
	})
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run it:"}, &cobra.Group{ID: "use", Title: "Use it:"})
	for _, cmd := range hostCommands() {
		cmd.GroupID = "run"
		root.AddCommand(cmd)
	}
	for _, cmd := range c.verbs() {
		cmd.GroupID = "use"
		root.AddCommand(cmd)
	}
	return root
}

// hostCommands are the commands that run Consort's own parts.
func hostCommands() []*cobra.Command { return []*cobra.Command{upCommand(), agentCommand(), probe()} }

// verbs are the commands that speak to a plane.
func (c *cli) verbs() []*cobra.Command {
	return []*cobra.Command{
		newApply(c), newDiff(c), newGet(c), newDescribe(c), newWatch(c), newDelete(c),
		newConnect(c), newStart(c), newReset(c), newImage(c), newHypervisor(c), newAdopt(c), newRelease(c), newMove(c), newDrain(c), newUndrain(c), newOperation(c), newWhy(c), newDecisions(c), newRollout(c), newExec(c), newCp(c), newMatrix(c), newSchema(c), newSignIn(c), newQuery(c), newAudit(c), newVersion(c),
	}
}

// projectFlag adds -p to a command.
func (c *cli) projectFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&c.project, "project", "p", c.env("CONSORT_PROJECT", "default"), "project of the objects ($CONSORT_PROJECT)")
}

func (t terminal) env(name, otherwise string) string {
	if v := t.getenv(name); v != "" {
		return v
	}
	return otherwise
}

// plane returns the client.
func (c *cli) plane() (*api.Client, error) {
	if c.client != nil {
		return c.client, nil
	}
	opts := api.Options{Server: c.server}
	if c.tokenFile != "" {
		text, err := os.ReadFile(c.tokenFile)
		if err != nil {
			return nil, fault.Invalid.Errorf("read the API token: %w", err)
		}
		opts.Token = strings.TrimSpace(string(text))
	}
	if c.caFile != "" {
		pem, err := os.ReadFile(c.caFile)
		if err != nil {
			return nil, fault.Invalid.Errorf("read the certificates: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fault.Invalid.Errorf("%s: no certificates in it", c.caFile)
		}
		opts.TLS = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	client, err := api.NewClient(opts)
	if err != nil {
		return nil, err
	}
	c.client = client
	return client, nil
}

// tell writes the error for whoever called and returns the exit status.
func (c *cli) tell(ctx context.Context, err error) int {
	if c.client != nil {
		c.client.Close()
	}
	if err == nil {
		return 0
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return 130
	}
	if es, ok := manifest.ErrorsIn(err); ok {
		fmt.Fprintln(c.err, err)
		fmt.Fprintf(c.err, "consort: %s; nothing was changed\n", count(len(es), "mistake"))
		return 1
	}
	var p *api.Problem
	if errors.As(err, &p) && len(p.Problems) > 0 {
		for _, q := range p.Problems {
			fmt.Fprintln(c.err, q)
		}
		fmt.Fprintf(c.err, "consort: %s\n", p.Detail)
		return 1
	}
	fmt.Fprintf(c.err, "consort: %s\n", err)
	switch fault.KindOf(err) {
	case fault.Unavailable:
		if filepath.IsAbs(c.server) {
			fmt.Fprintf(c.err, "Does 'consort up' run here? Name another plane with --server or $CONSORT_SERVER.\n")
		}
	case fault.Unauthenticated:
		fmt.Fprintf(c.err, "Give a token with --token-file, or use the unix socket of the plane as root.\n")
	}
	var u usage
	if errors.As(err, &u) || strings.HasPrefix(err.Error(), "unknown command") {
		return 2
	}
	return 1
}

// kind reads a kind from the command line.
func kind(name string) (estate.KindInfo, error) {
	k, ok := estate.KindNamed(name)
	if !ok {
		var all []string
		for _, k := range estate.Kinds() {
			all = append(all, k.Plural)
		}
		return k, usage{fmt.Errorf("there is no kind %q; kinds: %s", name, strings.Join(all, ", "))}
	}
	return k, nil
}

// refs reads objects from the command line: KIND NAME..., or KIND/NAME....
func (c *cli) refs(args []string) ([]estate.Ref, error) {
	var out []estate.Ref
	if len(args) > 0 && !strings.Contains(args[0], "/") {
		k, err := kind(args[0])
		if err != nil {
			return nil, err
		}
		for _, name := range args[1:] {
			out = append(out, c.ref(k, name))
		}
		return out, nil
	}
	for _, a := range args {
		word, name, ok := strings.Cut(a, "/")
		k, err := kind(word)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, usage{fmt.Errorf("%q names no object; write %s/NAME", a, word)}
		}
		project, inside, ok := strings.Cut(name, "/")
		if ok {
			out = append(out, estate.Ref{Kind: k.Kind, Project: project, Name: inside})
			continue
		}
		out = append(out, c.ref(k, name))
	}
	return out, nil
}

func (c *cli) ref(k estate.KindInfo, name string) estate.Ref {
	if k.Global {
		return estate.Ref{Kind: k.Kind, Name: name}
	}
	return estate.Ref{Kind: k.Kind, Project: c.project, Name: name}
}

// completeKinds offers kinds, then names of the kind.
func (c *cli) completeKinds(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		var all []string
		for _, k := range estate.Kinds() {
			all = append(all, k.Plural+"\t"+k.Doc)
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completeNames(cmd, args[0]), cobra.ShellCompDirectiveNoFileComp
}

func (c *cli) completeNames(cmd *cobra.Command, kindName string) []string {
	k, ok := estate.KindNamed(kindName)
	client, err := c.plane()
	if !ok || err != nil {
		return nil
	}
	rs, _, err := client.ListKind(cmd.Context(), k.Kind, api.Filter{Project: c.project})
	if err != nil {
		return nil
	}
	var names []string
	for _, r := range rs {
		names = append(names, r.Header().Metadata.Name)
	}
	return names
}

// completeDesktops offers the names of desktops.
func (c *cli) completeDesktops(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completeNames(cmd, "desktops"), cobra.ShellCompDirectiveNoFileComp
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// count writes "1 thing" or "n things".
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// note says how far long work is, to people only.
func (c *cli) note(format string, args ...any) {
	if c.people {
		fmt.Fprintf(c.err, format+"\n", args...)
	}
}

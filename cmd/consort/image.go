package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

func newImage(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "image",
		Short:   "List, build, import and remove images",
		Example: "  consort image list\n  consort image build -f examples/first-desktop/image.yaml",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newImageList(c), newImageBuild(c), newImageImport(c), newImageRemove(c))
	return cmd
}

func newImageList(c *cli) *cobra.Command {
	l := listing{}
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "Show the images",
		Example: "  consort image list -A",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l.kind = estate.KindOf[estate.Image]()
			return c.get(cmd.Context(), l)
		},
	}
	c.projectFlag(cmd)
	listFlags(cmd, &l)
	return cmd
}

func newImageBuild(c *cli) *cobra.Command {
	var files []string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:     "build -f FILE",
		Short:   "Build an image from its recipe and show how far it is",
		Long:    "Applies the images of the manifests and waits until they are built. Interrupting\nit stops the waiting, not the building.",
		Example: "  consort image build -f examples/first-desktop/image.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, result, err := c.apply(cmd.Context(), files, false)
			if err != nil {
				return err
			}
			c.changes(result, false)
			for _, r := range set.Resources() {
				if m, ok := r.(*estate.Image); ok {
					if err := c.built(cmd.Context(), m.Ref(), timeout); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
	c.projectFlag(cmd)
	c.fileFlag(cmd, &files)
	cmd.Flags().DurationVar(&timeout, "timeout", time.Hour, "how long to wait")
	return cmd
}

func newImageImport(c *cli) *cobra.Command {
	var im estate.Import
	var title, format, digest string
	var serves map[string]int
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "import NAME PATH --format raw|qcow2|vmdk",
		Short: "Import a disk file that lies on an agent's host",
		Long: `Imports a disk file that lies on the host of an agent. The format is checked
against the file and never guessed. Say what the guest offers: compose relies on it.`,
		Example: "  consort image import windows-11 /srv/disks/w11.vmdk --format vmdk --os windows-11 --serves rdp=3389",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			im.Path, im.Format, im.Digest = args[1], estate.DiskFormat(format), estate.Digest(digest)
			if !filepath.IsAbs(im.Path) {
				return usage{fmt.Errorf("%s: write the absolute path on the agent's host", im.Path)}
			}
			for _, p := range sortedKeys(serves) {
				im.Guest.Serves = append(im.Guest.Serves, estate.Endpoint{Protocol: p, Port: serves[p]})
			}
			m := &estate.Image{}
			m.Head = estate.Head{APIVersion: estate.APIVersion, Kind: "Image", Metadata: estate.Metadata{Name: args[0], Project: c.project}}
			m.Spec = estate.ImageSpec{Title: title, Import: &im}
			return c.importImage(cmd.Context(), m, timeout)
		},
	}
	c.projectFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&format, "format", "", "what the file is: raw, qcow2 or vmdk")
	f.StringVar(&digest, "digest", "", "what the file must hash to, as sha256:...")
	f.StringVar(&title, "title", "", "what people call it")
	f.StringVar(&im.Guest.OS, "os", "", "the guest's system, as debian-12")
	f.BoolVar(&im.Guest.Agent, "agent", false, "a guest agent answers in it")
	f.BoolVar(&im.Guest.Screen, "screen", false, "it draws a desktop on the machine's display")
	f.StringToIntVar(&serves, "serves", nil, "protocols it serves with their ports, as rdp=3389")
	f.StringVar(&im.Guest.User, "user", "", "account the desktop runs under")
	f.StringVar(&im.Guest.Home, "home", "", "where a volume with the person's files is mounted")
	f.DurationVar(&timeout, "timeout", time.Hour, "how long to wait")
	_ = cmd.MarkFlagRequired("format")
	return cmd
}

func (c *cli) importImage(ctx context.Context, m *estate.Image, timeout time.Duration) error {
	var wrong []error
	for _, p := range estate.Check(m) {
		wrong = append(wrong, errors.New(p.String()))
	}
	if len(wrong) > 0 {
		return errors.Join(wrong...)
	}
	client, err := c.plane()
	if err != nil {
		return err
	}
	result, err := client.Apply(ctx, []estate.Resource{m}, false)
	if err != nil {
		return err
	}
	c.changes(result, false)
	return c.built(ctx, m.Ref(), timeout)
}

// built waits until an image has the content its spec asks for.
func (c *cli) built(ctx context.Context, ref estate.Ref, timeout time.Duration) error {
	client, err := c.plane()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	bar := newBar(c.err)
	defer bar.end()
	for e := range api.Watch[estate.Image](ctx, client, ref.Project) {
		if e.Type == api.Ended {
			return e.Err
		}
		if e.Object == nil || e.Object.Metadata.Name != ref.Name {
			continue
		}
		m := e.Object
		ready := m.Status.Get(estate.Ready)
		switch {
		case e.Type == api.Gone:
			return fault.NotFound.Errorf("%s was deleted", ref)
		case m.Status.Digest != "" && m.Status.Built == m.Metadata.Generation:
			bar.end()
			fmt.Fprintf(c.out, "%s is ready: %s, %s on disk\n", ref, amount(m.Status.Size), amount(m.Status.Stored))
			return nil
		case m.Status.Work == nil && ready.Reason == "Failed":
			return fault.Stuck.Errorf("%s: %s", ref, ready.Text)
		}
		bar.show(making{what: "image " + ref.Name, work: m.Status.Work})
	}
	return fault.Unavailable.Errorf("%s was not ready after %s; the work goes on: see 'consort image list'", ref, timeout)
}

func newImageRemove(c *cli) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:     "rm NAME...",
		Short:   "Remove images",
		Example: "  consort image rm debian-12-old --yes",
		Args:    cobra.MinimumNArgs(1),
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return c.completeNames(cmd, "images"), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			refs, err := c.refs(append([]string{"images"}, args...))
			if err != nil {
				return err
			}
			if !yes {
				if err := c.ask(refs); err != nil {
					return err
				}
			}
			return c.delete(cmd.Context(), refs, false)
		},
	}
	c.projectFlag(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

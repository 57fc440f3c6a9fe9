package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
)

func newRollout(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "Show how an update of a service goes, what it was made from, and go back",
		Example: `  consort rollout status shop
  consort rollout history shop
  consort rollout undo shop --to 3`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	to := 0
	undo := c.onService("undo", "Have a service be made as it was before, gated like any update", func(ctx context.Context, client *api.Client, s *estate.Service) error {
		if _, err := client.UndoRollout(ctx, s.Metadata.Project, s.Metadata.Name, to); err != nil {
			return err
		}
		fmt.Fprintf(c.out, "%s goes back; watch it with: consort rollout status %s\n", s.Ref(), s.Metadata.Name)
		return nil
	})
	undo.Flags().IntVar(&to, "to", 0, "number of the revision, as history shows it (default: the one before the newest)")
	cmd.AddCommand(
		c.onService("status", "Tell how the last update goes", func(_ context.Context, _ *api.Client, s *estate.Service) error {
			return c.rolloutStatus(s)
		}),
		c.onService("history", "List what a service was made from, and what came of it", func(_ context.Context, _ *api.Client, s *estate.Service) error {
			return c.rolloutHistory(s)
		}),
		undo,
	)
	return cmd
}

// onService returns a command that is given the service it names.
func (c *cli) onService(use, short string, do func(context.Context, *api.Client, *estate.Service) error) *cobra.Command {
	cmd := &cobra.Command{Use: use + " SERVICE", Short: short, Example: "  consort rollout " + use + " shop", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.plane()
			if err != nil {
				return err
			}
			ref := estate.Ref{Kind: "Service", Project: c.project, Name: args[0]}
			r, err := client.Load(cmd.Context(), ref)
			if err != nil {
				return c.absent(cmd.Context(), client, ref, err)
			}
			return do(cmd.Context(), client, r.(*estate.Service))
		}}
	c.projectFlag(cmd)
	return cmd
}

func (c *cli) rolloutStatus(s *estate.Service) error {
	o := s.Status.Rollout
	if o == nil {
		fmt.Fprintf(c.out, "%s was never updated; it runs revision %d\n", s.Ref(), s.Status.Serving())
		return nil
	}
	fmt.Fprintf(c.out, "%s\n", rolloutText(o))
	return c.service(s)
}

func (c *cli) rolloutHistory(s *estate.Service) error {
	rows := [][]string{{"REVISION", "MADE", "IMAGE", "APPLICATIONS", "SIZE", "VERDICT"}}
	for _, r := range s.Status.Revisions {
		var apps []string
		for _, l := range r.Plan.Layers {
			apps = append(apps, l.Application+" "+l.Version)
		}
		size := fmt.Sprintf("%d CPUs, %s", r.Plan.Hardware.CPUs, r.Plan.Hardware.Memory)
		verdict := r.Verdict
		switch {
		case r.Number == s.Status.Serving():
			verdict = strings.TrimSuffix("serves; "+verdict, "; ")
		case r.Refused:
			verdict = strings.TrimSuffix("refused; "+verdict, "; ")
		}
		rows = append(rows, []string{strconv.Itoa(r.Number), clock(r.Made), r.Recipe.Image + " " + r.Plan.Image.Short(), strings.Join(apps, ", "), size, verdict})
	}
	return writeRows(c.out, rows)
}

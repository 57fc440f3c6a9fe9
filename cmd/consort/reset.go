package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

func newReset(c *cli) *cobra.Command {
	yes := false
	cmd := &cobra.Command{
		Use:   "reset DESKTOP",
		Short: "Throw away what was written on a desktop, and begin afresh",
		Long: `Has a desktop begin afresh. One that is kept gets a fresh system disk, and its
home stays. One in a disposable context is thrown away: its key is destroyed and
everything on it is gone, and another takes its place. The next seat of its pool
is yours with the next 'consort connect pool/NAME'.`,
		Example: `  consort reset ana-office
  consort reset personal-0c9e3c5411 --yes`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeDesktops,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.reset(cmd.Context(), args[0], yes)
		},
	}
	c.projectFlag(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (c *cli) reset(ctx context.Context, name string, yes bool) error {
	client, err := c.plane()
	if err != nil {
		return err
	}
	d, err := api.Get[estate.Desktop](ctx, client, c.project, name)
	if err != nil {
		return c.absent(ctx, client, estate.Ref{Kind: "Desktop", Project: c.project, Name: name}, err)
	}
	question, done := "Reset %s to a fresh system disk?", "%s begins afresh\n"
	if d.Disposable() {
		question, done = "Throw away %s with everything on it?", "%s is thrown away, and a fresh one takes its place\n"
	}
	if !yes {
		if err := c.sure(fmt.Sprintf(question, d.Ref()), "this", "nothing was thrown away"); err != nil {
			return err
		}
	}
	if d.Disposable() && d.Spec.Pool != "" {
		if err := endSessions(ctx, client, d); err != nil {
			return err
		}
		fmt.Fprintf(c.out, "%s is thrown away; for a fresh one: consort connect pool/%s\n", d.Ref(), d.Spec.Pool)
		return nil
	}
	_, err = api.Modify(ctx, client, d.Metadata.Project, name, func(now *estate.Desktop) error {
		if now.Metadata.UID != d.Metadata.UID {
			return fault.Conflict.Errorf("reset %s: it was made anew meanwhile; look at it again", d.Ref())
		}
		now.Spec.Resets = d.Spec.Resets + 1
		return nil
	})
	if err == nil {
		fmt.Fprintf(c.out, done, d.Ref())
	}
	return err
}

// endSessions ends every session on a seat, and with them the seat.
func endSessions(ctx context.Context, client *api.Client, seat *estate.Desktop) error {
	all, _, err := api.List[estate.Session](ctx, client, api.Filter{Project: seat.Metadata.Project})
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Spec.Desktop != seat.Metadata.Name || s.Status.State == estate.SessionEnded {
			continue
		}
		_, err := api.Modify(ctx, client, s.Metadata.Project, s.Metadata.Name, func(s *estate.Session) error { s.Spec.End = true; return nil })
		if err != nil && fault.KindOf(err) != fault.NotFound {
			return err
		}
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

func newWhy(c *cli) *cobra.Command {
	return c.ofOne(&cobra.Command{
		Use:   "why KIND NAME",
		Short: "Tell why a service or a machine is as it is: the last decision about it",
		Example: `  consort why service shop
  consort why machine/shop-3`,
	}, "consort why service shop", c.why)
}

// why tells the last decision about an object: of a machine, the last one that
// named it, or else the last one about the service it belongs to.
func (c *cli) why(ctx context.Context, ref estate.Ref) error {
	client, err := c.plane()
	if err != nil {
		return err
	}
	r, err := client.Load(ctx, ref)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	all, _, listed := api.List[estate.Decision](ctx, client, api.Filter{Project: ref.Project})
	if listed != nil {
		return listed
	}
	slices.SortFunc(all, func(a, b *estate.Decision) int { return b.Spec.At.Compare(a.Spec.At) })
	on := ref
	if err == nil && r.Header().Metadata.Owner != nil {
		on = *r.Header().Metadata.Owner
	}
	about := func(d *estate.Decision) bool { return d.Spec.On == on }
	named := func(d *estate.Decision) bool { return ref.Kind == "Machine" && slices.Contains(d.Spec.Gone, ref.Name) }
	for _, fits := range []func(*estate.Decision) bool{named, about} {
		if i := slices.IndexFunc(all, fits); i >= 0 {
			d := all[i]
			fmt.Fprintf(c.out, "%s, decided at %s (%s, %s)\n", d.Spec.Say, clock(d.Spec.At), d.Metadata.Name, d.Status.State)
			return c.decision(d)
		}
	}
	if err != nil {
		return c.absent(ctx, client, ref, err)
	}
	if s, ok := r.(*estate.Service); ok && s.Status.Because != "" {
		fmt.Fprintf(c.out, "%s\n", s.Status.Because)
		return nil
	}
	fmt.Fprintf(c.out, "nothing was decided about %s yet\n", ref)
	return nil
}

func newDecisions(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "decisions",
		Short: "Show what was decided about services, agree to it, and take it back",
		Example: `  consort decisions
  consort decisions approve shop-20260301t101535
  consort decisions undo shop-20260301t101535`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.decisions(cmd.Context()) },
	}
	c.projectFlag(cmd)
	for _, v := range []struct {
		use, short, said string
		do               func(*api.Client, context.Context, string, string) (*estate.Decision, error)
	}{
		{"approve", "Agree to a decision that was proposed", "will be carried out", (*api.Client).Approve},
		{"undo", "Take a decision back that was carried out", "is being taken back", (*api.Client).Undo},
	} {
		sub := &cobra.Command{Use: v.use + " NAME", Short: v.short, Example: "  consort decisions " + v.use + " shop-20260301t101535", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				client, err := c.plane()
				if err != nil {
					return err
				}
				ref := estate.Ref{Kind: "Decision", Project: c.project, Name: args[0]}
				d, err := v.do(client, cmd.Context(), ref.Project, ref.Name)
				if err != nil {
					return c.absent(cmd.Context(), client, ref, err)
				}
				fmt.Fprintf(c.out, "%s %s: %s\n", ref, v.said, d.Spec.Say)
				return nil
			}}
		c.projectFlag(sub)
		cmd.AddCommand(sub)
	}
	return cmd
}

// decisions lists all decisions of the project, the newest first.
func (c *cli) decisions(ctx context.Context) error {
	client, err := c.plane()
	if err != nil {
		return err
	}
	all, _, err := api.List[estate.Decision](ctx, client, api.Filter{Project: c.project})
	if err != nil {
		return err
	}
	if len(all) == 0 {
		fmt.Fprintln(c.out, "nothing was decided yet")
		return nil
	}
	slices.SortFunc(all, func(a, b *estate.Decision) int { return b.Spec.At.Compare(a.Spec.At) })
	rows := [][]string{{"NAME", "AT", "ON", "ACT", "STATE", "MET", "SAY"}}
	for _, d := range all {
		rows = append(rows, append([]string{d.Metadata.Name}, decisionCells(d)...))
	}
	return writeRows(c.out, rows)
}

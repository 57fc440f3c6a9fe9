package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"consort.dev/consort/estate"
)

func newOperation(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "operation",
		Short:   "Show acts of many steps, and abort them",
		Example: "  consort get operations\n  consort operation abort move-ana-office-1f0c3a2b",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	abort := &cobra.Command{
		Use: "abort NAME", Short: "Have an operation undone", Args: cobra.ExactArgs(1),
		Long: `Has an operation undone: a machine on its way goes back to where it was. Once its
guest was seen alive at the other end the move is done, and is not undone.`,
		Example: "  consort operation abort move-ana-office-1f0c3a2b",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.plane()
			if err != nil {
				return err
			}
			ref := estate.Ref{Kind: "Operation", Project: c.project, Name: args[0]}
			if err := client.Abort(cmd.Context(), ref.Project, ref.Name); err != nil {
				return c.absent(cmd.Context(), client, ref, err)
			}
			fmt.Fprintf(c.out, "%s is being undone; watch it with: consort describe operation %s\n", ref, ref.Name)
			return nil
		},
	}
	c.projectFlag(abort)
	cmd.AddCommand(abort)
	return cmd
}

// operation tells the steps and the disks of an operation.
func (c *cli) operation(op *estate.Operation) error {
	if m := op.Spec.Move; m != nil {
		fmt.Fprintf(c.out, "  from %s to %s, %s\n", m.From, m.To, orElse(string(op.Status.State), "about to begin"))
	}
	if n := op.Status.Note; n != "" {
		fmt.Fprintf(c.out, "  %s\n", n)
	}
	rows := [][]string{{"STEP", "EFFECT", "BEGAN", "TOOK"}}
	for _, s := range op.Status.Steps {
		took := "going on"
		if !s.Ended.IsZero() {
			took = s.Ended.Sub(s.Began).Round(1e6).String()
		}
		rows = append(rows, []string{s.Name, s.Effect, clock(s.Began), took})
	}
	if len(rows) > 1 {
		fmt.Fprintln(c.out, "\nSteps")
		if err := c.rows(rows); err != nil {
			return err
		}
	}
	rows = [][]string{{"DISK", "SIZE", "CARRIED", "TOOK", "DIGEST"}}
	for _, d := range op.Status.Disks {
		took := ""
		if !d.Ended.IsZero() {
			took = d.Ended.Sub(d.Began).Round(1e6).String()
		}
		rows = append(rows, []string{d.Name, amount(d.Size), amount(d.Carried), took, d.Digest.Short()})
	}
	if len(rows) > 1 {
		fmt.Fprintln(c.out, "\nDisks")
		return c.rows(rows)
	}
	return nil
}

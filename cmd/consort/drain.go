package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

func newDrain(c *cli) *cobra.Command {
	var req api.MoveRequest
	noWait := false
	cmd := &cobra.Command{
		Use:   "drain hypervisor NAME",
		Short: "Move everything that can move away from a hypervisor",
		Long: `Keeps new machines off a hypervisor and moves away those that can be: each to the
one with most room of those that can take it, or to --to. What cannot move is
listed with the reason. 'consort undrain' lets it take machines again; what has
moved stays where it is.`,
		Example: `  consort drain hypervisor rack-2 --dry-run
  consort drain hypervisor rack-2`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: c.completeKinds,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := c.oneHypervisor(args, "drain")
			if err != nil {
				return err
			}
			return c.drain(cmd.Context(), name, req, !noWait)
		},
	}
	moveFlags(cmd, &req, &noWait)
	cmd.Flags().StringVar(&req.To, "to", "", "the hypervisor that gets everything (default: each goes where there is most room)")
	return cmd
}

func newUndrain(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:               "undrain hypervisor NAME",
		Short:             "Let a hypervisor that was drained take machines again",
		Example:           "  consort undrain hypervisor rack-2",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: c.completeKinds,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := c.oneHypervisor(args, "undrain")
			if err != nil {
				return err
			}
			client, err := c.plane()
			if err == nil {
				err = client.Undrain(cmd.Context(), name)
			}
			if err == nil {
				fmt.Fprintf(c.out, "hypervisor/%s takes machines again\n", name)
			}
			return err
		},
	}
}

// oneHypervisor reads "hypervisor NAME" or "hypervisor/NAME".
func (c *cli) oneHypervisor(args []string, verb string) (string, error) {
	refs, err := c.refs(args)
	if err != nil {
		return "", err
	}
	if len(refs) != 1 || refs[0].Kind != "Hypervisor" {
		return "", usage{fmt.Errorf("name one hypervisor, as: consort %s hypervisor rack-2", verb)}
	}
	return refs[0].Name, nil
}

func (c *cli) drain(ctx context.Context, name string, req api.MoveRequest, wait bool) error {
	client, err := c.plane()
	if err != nil {
		return err
	}
	reply, err := client.Drain(ctx, name, req)
	if err != nil {
		return c.absent(ctx, client, estate.Ref{Kind: "Hypervisor", Name: name}, err)
	}
	rows := [][]string{{"PROJECT", "MACHINE", "TO", "OPERATION", "STAYS BECAUSE"}}
	byProject, stays := map[string][]estate.Ref{}, 0
	for _, m := range reply.Moves {
		rows = append(rows, []string{m.Machine.Project, m.Machine.Name, m.To, m.Operation, strings.Join(m.Obstacles, "; ")})
		switch {
		case len(m.Obstacles) > 0:
			stays++
		case m.Operation != "":
			p := m.Machine.Project
			byProject[p] = append(byProject[p], estate.Ref{Kind: "Operation", Project: p, Name: m.Operation})
		}
	}
	if len(reply.Moves) == 0 {
		fmt.Fprintf(c.out, "no machine is on %s\n", name)
		return nil
	}
	if err := c.rows(rows); err != nil {
		return err
	}
	for _, ops := range byProject {
		if !wait {
			break
		}
		if err := c.watchMoves(ctx, client, ops); err != nil {
			return err
		}
	}
	if stays > 0 {
		return fault.Conflict.Errorf("%s of hypervisor %s cannot move; the table says why", count(stays, "machine"), name)
	}
	return nil
}

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"consort.dev/consort/estate"
)

func newHypervisor(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "hypervisor",
		Short:   "Show hypervisors, what they can do and what can drive them",
		Example: "  consort hypervisor list\n  consort hypervisor describe local",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	l := listing{}
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "Show the hypervisors", Args: cobra.NoArgs,
		Example: "  consort hypervisor list --watch",
		RunE: func(cmd *cobra.Command, _ []string) error {
			l.kind = estate.KindOf[estate.Hypervisor]()
			return c.get(cmd.Context(), l)
		},
	}
	listFlags(list, &l)
	describe := &cobra.Command{
		Use: "describe NAME", Short: "Tell how a hypervisor is and what it can do", Args: cobra.ExactArgs(1),
		Example: "  consort hypervisor describe local",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.describe(cmd.Context(), estate.Ref{Kind: "Hypervisor", Name: args[0]})
		},
	}
	providers := &cobra.Command{
		Use: "providers", Short: "Show which hypervisors, presentations and deliveries this plane knows", Args: cobra.NoArgs,
		Example: "  consort hypervisor providers",
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.providers(cmd.Context()) },
	}
	cmd.AddCommand(list, describe, providers, newHypervisorToken(c), newHypervisorRevoke(c), newHypervisorVerify(c))
	return cmd
}

func (c *cli) providers(ctx context.Context) error {
	client, err := c.plane()
	if err != nil {
		return err
	}
	all, err := client.Offers(ctx)
	if err != nil {
		return err
	}
	rows := [][]string{{"LAYER", "PROVIDER", "VERSION", "NEEDS"}}
	for _, o := range all.Hypervisors {
		rows = append(rows, []string{"hypervisor", o.Name, o.Version, ""})
	}
	for _, o := range all.Presentations {
		needs := "a display of " + o.Protocol
		if o.Guest {
			needs = "a guest that serves " + o.Protocol
		}
		rows = append(rows, []string{"presentation", o.Name, o.Version, needs})
	}
	for _, o := range all.Deliveries {
		var needs []string
		for _, n := range o.Needs {
			needs = append(needs, string(n))
		}
		if o.Agent {
			needs = append(needs, "a guest agent")
		}
		rows = append(rows, []string{"application", o.Name, o.Version, strings.Join(needs, ", ")})
	}
	return writeRows(c.out, rows)
}

// capabilities shows what a hypervisor can do, each type of guest on its own
// where they differ.
func (c *cli) capabilities(s *estate.HypervisorStatus) error {
	if len(s.Capabilities) == 0 {
		return nil
	}
	fmt.Fprintln(c.out, "\nWhat it can do")
	rows := [][]string{{"CAPABILITY", "GUESTS", "HAS", "EVIDENCE", "DETAIL"}}
	for _, r := range s.Capabilities {
		detail := orElse(r.Value, r.Reason)
		if r.Value != "" && r.Reason != "" {
			detail = r.Value + ": " + r.Reason
		}
		rows = append(rows, []string{string(r.Name), orElse(r.GuestType, "all"), orElse(yes(r.Has), "no"), string(r.Evidence), detail})
	}
	return c.rows(rows)
}

// found shows the machines on a hypervisor that are not ours.
func (c *cli) found(s *estate.HypervisorStatus) error {
	if len(s.Found) == 0 {
		return nil
	}
	fmt.Fprintln(c.out, "\nMachines on it that are not ours (consort adopt)")
	rows := [][]string{{"NAME", "UUID", "POWER", "CPUS", "MEMORY", "DISKS", "CANNOT BE ADOPTED BECAUSE"}}
	for _, f := range s.Found {
		rows = append(rows, []string{f.Name, string(f.ID), string(f.Power), number(f.CPUs), amount(f.Memory), number(len(f.Disks)), f.Obstacle})
	}
	return c.rows(rows)
}

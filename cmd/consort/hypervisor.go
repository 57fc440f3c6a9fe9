package main

import (
	"context"
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
	cmd.AddCommand(list, describe, providers)
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

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func newHypervisorToken(c *cli) *cobra.Command {
	var life time.Duration
	cmd := &cobra.Command{
		Use: "token NAME", Short: "Make a token that lets one host join as the hypervisor", Args: cobra.ExactArgs(1),
		Long: `Make a token that lets one host join as the hypervisor, once. The token alone
goes to standard output; how to use it is told beside it.`,
		Example: `  consort hypervisor token east > join-token
  consort hypervisor token east --ttl 10m`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.joinToken(cmd.Context(), args[0], life)
		},
	}
	cmd.Flags().DurationVar(&life, "ttl", time.Hour, "how long it is good")
	return cmd
}

func (c *cli) joinToken(ctx context.Context, hypervisor string, life time.Duration) error {
	client, err := c.plane()
	if err != nil {
		return err
	}
	t, err := client.JoinToken(ctx, hypervisor, life)
	if err != nil {
		return err
	}
	fmt.Fprintln(c.out, t.Token)
	server := t.Server
	if server == "" {
		server = "https://PLANE:8441"
		fmt.Fprintln(c.err, "This plane listens for no agents yet: start it with --agents 0.0.0.0:8441.")
	}
	fmt.Fprintf(c.err, `Good once, until %s. Put the line into a file on that host and run there, as root:

  consort agent --join %s --token-file join-token
`, t.Expires.Local().Format("15:04:05 on 2 January"), server)
	return nil
}

func newHypervisorRevoke(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "revoke NAME", Short: "Shut a hypervisor's agent out, at once", Args: cobra.ExactArgs(1),
		Long: `Shut a hypervisor's agent out, at once: its certificates and tokens end, and so
does what it has open. Its machines run on. It joins again with a new token.`,
		Example: "  consort hypervisor revoke east",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.plane()
			if err != nil {
				return err
			}
			r, err := client.Revoke(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if r.Ended == 0 {
				fmt.Fprintf(c.out, "hypervisor/%s: there was nothing to revoke\n", args[0])
				return nil
			}
			fmt.Fprintf(c.out, "hypervisor/%s revoked: %s ended; its machines run on\n", args[0], count(r.Ended, "credential"))
			return nil
		},
	}
}

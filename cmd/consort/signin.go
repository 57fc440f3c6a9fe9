package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"consort.dev/consort/api"
)

func newSignIn(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "sign-in",
		Short:   "Let people sign in",
		Example: "  consort sign-in code ana",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	code := &cobra.Command{
		Use:   "code PERSON",
		Short: "Make a code with which a person signs in once, within ten minutes",
		Long: `Makes a code with which a person signs in once, within ten minutes. Only
administrators may. Hand it over yourself; it goes behind the portal's address:

  https://portal.example/#code=CODE`,
		Example: "  consort sign-in code ana",
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return c.completeNames(cmd, "persons"), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.plane()
			if err != nil {
				return err
			}
			var made struct {
				Code    string    `json:"code"`
				Expires time.Time `json:"expires"`
			}
			ask := struct {
				Person string `json:"person"`
			}{args[0]}
			if err := client.Post(cmd.Context(), api.SignInPath+"codes", ask, &made); err != nil {
				return err
			}
			fmt.Fprintf(c.out, "#code=%s\n", made.Code)
			fmt.Fprintf(c.err, "Put it behind the portal's address. It works once, until %s.\n", clock(made.Expires))
			return nil
		},
	}
	cmd.AddCommand(code)
	return cmd
}

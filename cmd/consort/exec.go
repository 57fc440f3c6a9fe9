package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"consort.dev/consort/api"
)

func newExec(c *cli) *cobra.Command {
	var stdin bool
	cmd := &cobra.Command{
		Use:   "exec MACHINE -- COMMAND [ARGUMENT...]",
		Short: "Run a command in a machine's guest, as its administrator",
		Long: `Runs a command in the guest of a machine through its guest agent and waits for it.
There is no shell in between. Secrets belong on its input, not among its arguments.`,
		Example: `  consort exec ana-office -- uptime
  consort exec ana-office --stdin -- sh -c 'cat > /etc/motd' < motd`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := api.RunRequest{Args: args[1:]}
			if stdin {
				var err error
				if req.Stdin, err = io.ReadAll(c.in); err != nil {
					return err
				}
			}
			return c.exec(cmd.Context(), args[0], req)
		},
	}
	c.projectFlag(cmd)
	cmd.Flags().BoolVarP(&stdin, "stdin", "i", false, "pass our input on")
	return cmd
}

func (c *cli) exec(ctx context.Context, machine string, req api.RunRequest) error {
	client, err := c.plane()
	if err != nil {
		return err
	}
	out, err := client.Run(ctx, c.project, machine, req)
	if err != nil {
		return err
	}
	_, err = c.out.Write(out.Stdout)
	_, e := c.err.Write(out.Stderr)
	if out.Exit != 0 {
		err = errors.Join(err, fmt.Errorf("%s ended with %d", req.Args[0], out.Exit))
	}
	return errors.Join(err, e)
}

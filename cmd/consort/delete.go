package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

func newDelete(c *cli) *cobra.Command {
	var files []string
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use:   "delete KIND NAME... | -f FILE|FOLDER|-",
		Short: "Delete objects",
		Long: `Deletes objects after asking. What others refer to is not deleted: delete those
first. A person's home is a volume of its own and outlives their desktops.`,
		Example: `  consort delete desktop ana-office
  consort delete -f examples/first-desktop --yes
  consort delete image old --dry-run`,
		ValidArgsFunction: c.completeKinds,
		RunE: func(cmd *cobra.Command, args []string) error {
			refs, err := c.condemned(cmd.Context(), args, files)
			if err != nil {
				return err
			}
			if !yes && !dryRun {
				if err := c.ask(refs); err != nil {
					return err
				}
			}
			return c.delete(cmd.Context(), refs, dryRun)
		},
	}
	c.projectFlag(cmd)
	f := cmd.Flags()
	f.StringArrayVarP(&files, "filename", "f", nil, "manifests of the objects")
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	f.BoolVar(&dryRun, "dry-run", false, "say what would be deleted")
	return cmd
}

// condemned returns what is to be deleted, what refers before what is referred to.
func (c *cli) condemned(ctx context.Context, args, files []string) ([]estate.Ref, error) {
	refs, err := c.refs(args)
	if err != nil {
		return nil, err
	}
	if len(files) > 0 {
		set, err := c.load(ctx, files)
		if err != nil {
			return nil, err
		}
		for _, r := range set.Resources() {
			refs = append(refs, r.Header().Ref())
		}
		slices.Reverse(refs)
	}
	if len(refs) == 0 {
		return nil, usage{errors.New("name what to delete, as: consort delete desktop ana-office")}
	}
	return refs, nil
}

func (c *cli) ask(refs []estate.Ref) error {
	var names []string
	for _, r := range refs {
		names = append(names, r.String())
	}
	return c.sure(fmt.Sprintf("Delete %s?", strings.Join(names, ", ")), "deleting", "nothing was deleted")
}

// sure asks before an act that cannot be taken back, and returns an error that
// says that it was not done unless the answer is yes.
func (c *cli) sure(question, act, undone string) error {
	if !c.people {
		return usage{fmt.Errorf("%s needs a yes; add --yes", act)}
	}
	fmt.Fprint(c.err, question, " [y/N] ")
	answer, err := bufio.NewReader(c.in).ReadString('\n')
	if err != nil && answer == "" {
		return fmt.Errorf("no answer; %s", undone)
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New(undone)
	}
	return nil
}

func (c *cli) delete(ctx context.Context, refs []estate.Ref, dryRun bool) error {
	client, err := c.plane()
	if err != nil {
		return err
	}
	var failed []error
	for _, ref := range refs {
		switch err := client.Delete(ctx, ref, api.Write{DryRun: dryRun}); {
		case errors.Is(err, fault.NotFound):
			failed = append(failed, c.absent(ctx, client, ref, err))
		case err != nil:
			failed = append(failed, err)
		case dryRun:
			fmt.Fprintf(c.out, "%s would be deleted\n", ref)
		default:
			fmt.Fprintf(c.out, "%s deleted\n", ref)
		}
	}
	return errors.Join(failed...)
}

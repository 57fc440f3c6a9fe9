package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

func newAdopt(c *cli) *cobra.Command {
	var name string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "adopt HYPERVISOR MACHINE",
		Short: "Make a machine that was there before us one of ours",
		Long: `Makes a machine that a hypervisor already runs one of ours, without touching it:
its guest notices nothing. MACHINE is its UUID or its name there, as shown by
'consort describe hypervisor'. 'consort release' gives it back as it is.`,
		Example: `  consort describe hypervisor rack-2
  consort adopt rack-2 payroll --dry-run
  consort adopt rack-2 6f1c3b44-8d0e-4c57-9a55-0c1d2e3f4a5b --name payroll`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.adopt(cmd.Context(), args[0], args[1], api.AdoptRequest{Project: c.project, Name: name, DryRun: dryRun})
		},
	}
	c.projectFlag(cmd)
	cmd.Flags().StringVar(&name, "name", "", "what it is called here (default: its name there)")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be adopted")
	return cmd
}

func (c *cli) adopt(ctx context.Context, hypervisor, machine string, req api.AdoptRequest) error {
	client, err := c.plane()
	if err != nil {
		return err
	}
	h, err := api.Get[estate.Hypervisor](ctx, client, "", hypervisor)
	if err != nil {
		return c.absent(ctx, client, estate.Ref{Kind: "Hypervisor", Name: hypervisor}, err)
	}
	f, err := foundMachine(h, machine)
	if err != nil {
		return err
	}
	if req.ID = f.ID; req.Name == "" {
		req.Name = f.Name
	}
	if text := estate.NameProblem(req.Name); text != "" {
		return fault.Invalid.Errorf("adopt %s: %s; choose a name for it here with --name", f.Name, text)
	}
	m, err := client.Adopt(ctx, hypervisor, req)
	if err != nil {
		return err
	}
	verb := "adopted"
	if req.DryRun {
		verb = "would be adopted"
	}
	fmt.Fprintf(c.out, "%s %s: %d CPUs, %s of memory, %d disks, power %s; give it back with: consort release %s\n",
		m.Ref(), verb, m.Spec.Hardware.CPUs, m.Spec.Hardware.Memory, len(m.Spec.Hardware.Disks), m.Spec.Power, m.Metadata.Name)
	return nil
}

// foundMachine returns the machine of others with the UUID or, when only one
// has it, the name.
func foundMachine(h *estate.Hypervisor, machine string) (estate.Found, error) {
	var named []estate.Found
	for _, f := range h.Status.Found {
		if string(f.ID) == machine {
			return f, nil
		}
		if f.Name == machine {
			named = append(named, f)
		}
	}
	switch len(named) {
	case 1:
		return named[0], nil
	case 0:
		return estate.Found{}, fault.NotFound.Errorf("%s has no machine %s that is not ours; see: consort describe hypervisor %s", h.Ref(), machine, h.Metadata.Name)
	}
	return estate.Found{}, fault.Conflict.Errorf("%s has %d machines named %s; give the UUID of one: consort describe hypervisor %s", h.Ref(), len(named), machine, h.Metadata.Name)
}

func newRelease(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "release MACHINE...",
		Short:             "Give an adopted machine back to its hypervisor, as it is",
		Example:           "  consort release payroll",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: c.completeKinds,
		RunE:              func(cmd *cobra.Command, args []string) error { return c.release(cmd.Context(), args) },
	}
	c.projectFlag(cmd)
	return cmd
}

func (c *cli) release(ctx context.Context, names []string) error {
	client, err := c.plane()
	if err != nil {
		return err
	}
	var refs []estate.Ref
	for _, name := range names {
		ref := estate.Ref{Kind: "Machine", Project: c.project, Name: name}
		m, err := api.Get[estate.Machine](ctx, client, ref.Project, ref.Name)
		if err != nil {
			return c.absent(ctx, client, ref, err)
		}
		if !m.Spec.Adopted {
			return fault.Conflict.Errorf("%s is ours from the beginning; delete it, or its desktop, instead", ref)
		}
		refs = append(refs, ref)
	}
	var failed []error
	for _, ref := range refs {
		if err := client.Delete(ctx, ref, api.Write{}); err != nil {
			failed = append(failed, err)
			continue
		}
		fmt.Fprintf(c.out, "%s is released and goes on as it is\n", ref)
	}
	return errors.Join(failed...)
}
